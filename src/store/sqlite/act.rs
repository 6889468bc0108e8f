//! What a person does to jobs.

use rusqlite::{OptionalExtension as _, params};

use super::control;
use super::insert;
use super::session::{Session, Step, tid};
use super::settle::end_waiting;
use super::sweep::make_available;
use crate::ids::JobId;
use crate::job::State;
use crate::job::state::{Event, next};
use crate::names::Tier;
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
        answers.push(one(session, tid, *id, action)?);
    }
    let done = answers.iter().filter(|answer| matches!(answer, Acted::Done(_) | Acted::Asked)).count();
    if done > 0 {
        let (name, first) = match action {
            Action::Retry => ("jobs.retried", ids.first()),
            Action::Cancel => ("jobs.cancelled", ids.first()),
        };
        let detail = serde_json::json!({ "jobs": done, "first": first }).to_string();
        control::append(session, tid, name, by, &detail)?;
    }
    Ok(answers)
}

fn one(session: &mut Session, tid: i64, id: JobId, action: Action) -> Step<Acted> {
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
                session
                    .conn
                    .prepare_cached("DELETE FROM ready WHERE pid = ?1 AND ord = ?2")?
                    .execute([pid, ord])?;
                end_waiting(session, seq, sid, state, to)?;
                Ok(Acted::Done(to))
            }
        },
    }
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
