//! What a person does to jobs.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::completed;
use super::control;
use super::insert;
use super::lease::Held;
use super::session::{Session, Step, tid};
use super::settle::{end_waiting, history_with, micros, trim_over};
use super::sweep::make_available;
use crate::ids::JobId;
use crate::job::State;
use crate::job::record::Attempt;
use crate::job::state::{Event, next};
use crate::names::Tier;
use crate::store::digest::COMPLETED;
use crate::store::{Acted, Action, Actor};

pub(super) fn bulk(
    session: &mut Session,
    tier: &Tier,
    ids: &[JobId],
    action: Action,
    by: &Actor,
) -> Step<Vec<Acted>> {
    let tid = tid(session, tier)?;
    let mut answers = Vec::with_capacity(ids.len());
    for id in ids {
        answers.push(one(session, tid, *id, action, by)?);
    }
    let done = answers.iter().filter(|answer| matches!(answer, Acted::Done(_) | Acted::Asked)).count();
    if done > 0
        && let Some(name) = action.entry()
    {
        let detail = serde_json::json!({ "jobs": done, "first": ids.first() }).to_string();
        control::append(session, tid, name, by, &detail)?;
    }
    Ok(answers)
}

fn one(session: &mut Session, tid: i64, id: JobId, action: Action, by: &Actor) -> Step<Acted> {
    type Found = (i64, i64, i64, i64);
    let found: Option<Found> = session
        .conn
        .prepare_cached("SELECT seq, sid, pid, ord FROM job WHERE tid = ?1 AND id = ?2")?
        .query_row(params![tid, id.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((seq, sid, pid, ord)) = found else { return Ok(Acted::NotFound) };
    let Some(state) = insert::state_of(session, seq)? else { return Ok(Acted::NotFound) };
    match action {
        // A canary that ended has proved what it could: whoever wants another sends one.
        Action::Retry if pid < 0 && state.is_final() => Ok(Acted::Refused(state)),
        Action::Retry => retry(session, tid, seq, sid, state),
        Action::Cancel if state == State::Running => {
            session
                .conn
                .prepare_cached("INSERT INTO cancel(tid, seq) VALUES(?1, ?2) ON CONFLICT DO NOTHING")?
                .execute([tid, seq])?;
            Ok(Acted::Asked)
        }
        Action::Cancel if state == State::Cancelled => Ok(Acted::Unchanged(state)),
        Action::Cancel => match next(state, Event::Cancel) {
            Err(_) => Ok(Acted::Refused(state)),
            Ok(to) => {
                not_ready(session, pid, ord)?;
                end_waiting(session, seq, sid, state, to)?;
                Ok(Acted::Done(to))
            }
        },
        Action::RanInline { .. } if state == State::Completed => Ok(Acted::Unchanged(state)),
        // Nobody but its worker can run a canary.
        Action::RanInline { .. } if pid < 0 => Ok(Acted::Refused(state)),
        Action::RanInline { ran } => match next(state, Event::RanInline) {
            Err(_) => Ok(Acted::Refused(state)),
            Ok(to) => {
                not_ready(session, pid, ord)?;
                ran_inline(session, Held { seq, sid, plain: false }, state, ran)?;
                Ok(Acted::Done(to))
            }
        },
        Action::HandOver { .. } if state != State::Scheduled => Ok(Acted::Unchanged(state)),
        Action::HandOver { after } => hand_over(session, Held { seq, sid, plain: false }, after, by),
    }
}

fn not_ready(session: &Session, pid: i64, ord: i64) -> Step<()> {
    session.conn.prepare_cached("DELETE FROM ready WHERE pid = ?1 AND ord = ?2")?.execute([pid, ord])?;
    Ok(())
}

/// Completed as by a worker: counted, kept and trimmed in the same way.
fn ran_inline(session: &mut Session, job: Held, from: State, ran: Duration) -> Step<()> {
    let (now, begun) = (session.now, session.now.minus(ran));
    let history =
        history_with(session, job.seq, Attempt { ran: Some(ran), ..Attempt::outside(now, "inline", None) })?;
    session
        .conn
        .prepare_cached(
            "UPDATE job SET state = 5, claimed_at = ?2, fin_at = ?3, ran_us = ?4, aid = NULL, history = ?5, park = NULL,
             park_by = NULL WHERE seq = ?1",
        )?
        .execute(params![job.seq, begun.ms(), now.ms(), micros(ran), history])?;
    session.moved(job.sid, Some(from), Some(State::Completed));
    session.count(job.sid, COMPLETED, 1);
    let Session { conn, names, .. } = session;
    let qid = names.stream(conn, job.sid)?.qid;
    session.keep(qid, 1);
    completed::in_order(session, qid, [job].iter())?;
    trim_over(session, qid, 1)
}

fn hand_over(session: &mut Session, job: Held, after: Duration, by: &Actor) -> Step<Acted> {
    let due = session.now.plus(after);
    let history = history_with(session, job.seq, Attempt::outside(session.now, "inline", by.reason.clone()))?;
    session
        .conn
        .prepare_cached("UPDATE job SET run_at = ?2, history = ?3 WHERE seq = ?1")?
        .execute(params![job.seq, due.ms(), history])?;
    if after.is_zero() {
        make_available(session, job.seq, job.sid, State::Scheduled)?;
        return Ok(Acted::Done(State::Available));
    }
    session.wake(); // sweepers may have to get up earlier
    Ok(Acted::Done(State::Scheduled))
}

fn retry(session: &mut Session, tid: i64, seq: i64, sid: i64, state: State) -> Step<Acted> {
    if matches!(state, State::Available | State::Running) {
        return Ok(Acted::Unchanged(state));
    }
    if next(state, Event::RunNow).is_err() {
        return Ok(Acted::Refused(state));
    }
    if state.is_final() {
        if !insert::hold_again(session, tid, seq)? {
            return Ok(Acted::Refused(state));
        }
        // A fresh set of attempts; and whoever wants it now does not want it expired again.
        session
            .conn
            .prepare_cached(
                "UPDATE job SET failures = 0, crashes = 0, crash_mark = NULL, exp_at = NULL WHERE seq = ?1",
            )?
            .execute([seq])?;
        let pid: i64 = session
            .conn
            .prepare_cached("SELECT pid FROM job WHERE seq = ?1")?
            .query_row([seq], |row| row.get(0))?;
        let Session { conn, names, .. } = session;
        let pid = names.moved(conn, pid, false)?;
        session.conn.prepare_cached("UPDATE job SET pid = ?2 WHERE seq = ?1")?.execute([seq, pid])?;
    }
    session
        .conn
        .prepare_cached("UPDATE job SET run_at = ?2 WHERE seq = ?1")?
        .execute(params![seq, session.now.ms()])?;
    make_available(session, seq, sid, state)?;
    Ok(Acted::Done(State::Available))
}
