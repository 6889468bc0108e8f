//! Settling: what became of claimed jobs. Only what the lease still holds is changed.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::catalog::actor_of;
use super::completed::{self, Ran};
use super::insert::to_json;
use super::lease::{Held, Lease};
use super::session::{Session, Step, tid};
use super::trim;
use crate::clock::Timestamp;
use crate::ids::Nonce;
use crate::job::record::{Attempt, remember};
use crate::job::{Parked, State};
use crate::names::{Tier, WorkerName};
use crate::store::digest::FAILED;
use crate::store::meaning::Consequence;
use crate::store::{KEEP_COMPLETED_PER_QUEUE, Presence, Settle, Settled, Verdict};

pub(super) fn settle(session: &mut Session, tier: &Tier, items: &[Settle]) -> Step<Vec<Settled>> {
    let tid = tid(session, tier)?;
    let cancels = session
        .conn
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM cancel WHERE tid = ?1)")?
        .query_row([tid], |row| row.get(0))?;
    let mut answers = Vec::with_capacity(items.len());
    for batch in items.chunk_by(|a, b| a.nonce == b.nonce) {
        one_lease(session, tid, batch, cancels, &mut answers)?;
    }
    Ok(answers)
}

fn one_lease(
    session: &mut Session,
    tid: i64,
    items: &[Settle],
    cancels: bool,
    answers: &mut Vec<Settled>,
) -> Step<()> {
    let Some(first) = items.first() else { return Ok(()) };
    let Some(mut lease) = Lease::by_nonce(session, tid, first.nonce.as_bytes())? else {
        for item in items {
            answers.push(late(session, item)?);
        }
        return Ok(());
    };
    let mut left = VecDeque::from(lease.held.clone());
    let mut completed: Vec<Ran> = Vec::with_capacity(items.len());
    for item in items {
        let seq = i64::try_from(item.slot).unwrap_or(-1);
        // Outcomes come mostly in the order in which the jobs were claimed: then it is the first.
        let found = left.iter().position(|held| held.seq == seq);
        let Some(held) = found.and_then(|index| left.remove(index)) else {
            let just_now = lease.held.iter().any(|held| held.seq == seq);
            answers.push(if just_now { Settled::Already } else { late(session, item)? });
            continue;
        };
        if item.verdict == Verdict::Completed {
            completed.push((held, micros(item.ran)));
        } else {
            let cancelled = cancels && cancel_wanted(session, tid, seq)?;
            let verdict = if cancelled { &Verdict::Cancelled } else { &item.verdict };
            other(session, &lease, held, item.nonce, item.ran, verdict)?;
        }
        if cancels {
            session
                .conn
                .prepare_cached("DELETE FROM cancel WHERE tid = ?1 AND seq = ?2")?
                .execute([tid, seq])?;
        }
        answers.push(Settled::Ok);
    }
    for (qid, jobs) in by_queue(session, &completed)? {
        keep_completed(session, &lease, first.nonce, qid, jobs)?;
    }
    lease.held = left.into();
    lease.store(session)
}

fn cancel_wanted(session: &Session, tid: i64, seq: i64) -> Step<bool> {
    Ok(session
        .conn
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM cancel WHERE tid = ?1 AND seq = ?2)")?
        .query_row([tid, seq], |row| row.get(0))?)
}

/// A settle whose lease does not hold the job: done before under the same nonce, or lost.
fn late(session: &mut Session, item: &Settle) -> Step<Settled> {
    let seq = i64::try_from(item.slot).unwrap_or(-1);
    let last: Option<(Option<Vec<u8>>, i64)> = session
        .conn
        .prepare_cached("SELECT nonce, sid FROM job WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((nonce, sid)) = last else { return Ok(Settled::Lost) };
    let nonce = completed::batch(session, sid, seq)?.map(|batch| batch.nonce).or(nonce);
    let same = nonce.is_some_and(|nonce| nonce == item.nonce.as_bytes());
    Ok(if same { Settled::Already } else { Settled::Lost })
}

pub(super) fn micros(ran: Duration) -> i64 {
    i64::try_from(ran.as_micros()).unwrap_or(i64::MAX)
}

fn by_queue(session: &mut Session, jobs: &[Ran]) -> Step<HashMap<i64, Vec<Ran>>> {
    let Session { conn, names, .. } = session;
    let mut queues: HashMap<i64, Vec<Ran>> = HashMap::new();
    for run in jobs.chunk_by(|(a, _), (b, _)| a.sid == b.sid) {
        if let Some((first, _)) = run.first() {
            queues.entry(names.stream(conn, first.sid)?.qid).or_default().extend(run);
        }
    }
    Ok(queues)
}

/// Records what completed, and trims at once what is over the bound, so that a fast drain stays bounded.
fn keep_completed(session: &mut Session, lease: &Lease, nonce: Nonce, qid: i64, jobs: Vec<Ran>) -> Step<()> {
    let n = jobs.len();
    completed::complete(session, lease, nonce.as_bytes(), qid, jobs)?;
    trim_over(session, qid, n)
}

/// Trims what is over the bound after so many were added.
pub(super) fn trim_over(session: &mut Session, qid: i64, added: usize) -> Step<()> {
    let kept = usize::try_from(session.kept(qid)?).unwrap_or_default();
    let over = kept.saturating_sub(KEEP_COMPLETED_PER_QUEUE as usize);
    trim::oldest_completed(session, qid, over, 2 * added.max(16))?;
    Ok(())
}

/// Every verdict but "done".
fn other(
    session: &mut Session,
    lease: &Lease,
    held: Held,
    nonce: Nonce,
    ran: Duration,
    verdict: &Verdict,
) -> Step<()> {
    let now = session.now;
    if *verdict == Verdict::Return {
        return give_back(session, held, nonce);
    }
    let Some(Consequence { state, outcome, error, run_at, costs }) = verdict.consequence(now) else {
        return Ok(());
    };
    let (worker, release) = actor_of(&session.conn, lease.aid)?.unzip();
    let park_by = match (verdict, &worker) {
        (Verdict::Park { .. }, Some(worker)) => capability_of(session, lease.tid, worker)?,
        _ => None,
    };
    let attempt = Attempt {
        at: now,
        outcome: outcome.into(),
        error,
        ran: (!ran.is_zero()).then_some(ran),
        worker,
        release,
    };
    let history = history_with(session, held.seq, attempt)?;
    let park = match verdict {
        Verdict::Park { why, .. } => Some(*why),
        _ => None,
    };
    let pid = place(session, held.seq)?;
    session
        .conn
        .prepare_cached(
            "UPDATE job SET state = ?2, run_at = ?3, fin_at = ?4, claimed_at = ?5, ran_us = ?6, aid = ?7, nonce = ?8, history = ?9,
             failures = failures + ?10, park = ?11, park_by = ?12, pid = ?13 WHERE seq = ?1",
        )?
        .execute(params![
            held.seq,
            state.code(),
            run_at.map(Timestamp::ms),
            state.is_final().then_some(now.ms()),
            lease.claimed_at,
            micros(ran),
            lease.aid,
            nonce.as_bytes(),
            history,
            i64::from(costs),
            park.map(Parked::as_str),
            park_by,
            pid
        ])?;
    session.moved(held.sid, Some(State::Running), Some(state));
    if costs {
        session.count(held.sid, FAILED, 1);
    }
    if run_at.is_some() {
        session.wake(); // sweepers may have to get up earlier
    }
    Ok(())
}

/// The release and build of the worker that parks a job.
fn capability_of(session: &Session, tid: i64, worker: &WorkerName) -> Step<Option<String>> {
    let body: Option<String> = session
        .conn
        .prepare_cached("SELECT body FROM presence WHERE tid = ?1 AND worker = ?2")?
        .query_row(params![tid, worker.as_str()], |row| row.get(0))
        .optional()?;
    Ok(body.and_then(|body| serde_json::from_str::<Presence>(&body).ok()).map(|presence| presence.capability))
}

/// The ordinary place of a job: one that was settled is no suspect any more.
fn place(session: &mut Session, seq: i64) -> Step<i64> {
    let pid: i64 = session
        .conn
        .prepare_cached("SELECT pid FROM job WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))?;
    let Session { conn, names, .. } = session;
    Ok(names.moved(conn, pid, false)?)
}

fn give_back(session: &mut Session, held: Held, nonce: Nonce) -> Step<()> {
    session
        .conn
        .prepare_cached("UPDATE job SET nonce = ?2 WHERE seq = ?1")?
        .execute(params![held.seq, nonce.as_bytes()])?;
    to_ready(session, held)
}

/// Back to its place, which is the head of its list.
pub(super) fn to_ready(session: &mut Session, held: Held) -> Step<()> {
    session
        .conn
        .prepare_cached("INSERT INTO ready(pid, ord, seq) SELECT pid, ord, seq FROM job WHERE seq = ?1")?
        .execute([held.seq])?;
    session.moved(held.sid, Some(State::Running), Some(State::Available));
    session.wake();
    Ok(())
}

/// Ends a job that nobody holds.
pub(super) fn end_waiting(session: &mut Session, seq: i64, sid: i64, from: State, to: State) -> Step<()> {
    let history = history_with(session, seq, Attempt::outside(session.now, to.as_str(), None))?;
    session
        .conn
        .prepare_cached("UPDATE job SET state = ?2, fin_at = ?3, history = ?4, park = NULL, park_by = NULL WHERE seq = ?1")?
        .execute(params![seq, to.code(), session.now.ms(), history])?;
    session.moved(sid, Some(from), Some(to));
    Ok(())
}

/// A job's history with one more attempt, as JSON text.
pub(super) fn history_with(session: &Session, seq: i64, attempt: Attempt) -> Step<String> {
    let text: Option<String> = session
        .conn
        .prepare_cached("SELECT history FROM job WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))
        .optional()?
        .flatten();
    let mut history: Vec<Attempt> =
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    remember(&mut history, attempt);
    to_json(&history)
}
