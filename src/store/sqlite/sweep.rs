//! Sweeping: what time does to jobs. Promotes what is due, rescues what lost its worker, expires, un-parks and trims;
//! every pass is bounded.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::catalog::actor_of;
use super::lease::{Held, Lease};
use super::session::{Session, Step, tid};
use super::settle::{end_waiting, history_with, to_ready};
use super::{canary, pause, trim};
use crate::clock::Timestamp;
use crate::job::State;
use crate::job::record::Attempt;
use crate::names::Queue;
use crate::store::digest::COMPLETED;
use crate::store::meaning::{charged, lost, quarantined};
use crate::store::{MAX_BATCH, MAX_CRASHES, SweepAsk, Swept};

/// Most leases whose jobs one sweep gives back.
const MAX_LEASES: usize = 64;

pub(super) fn sweep(session: &mut Session, ask: &SweepAsk) -> Step<Swept> {
    let tid = tid(session, &ask.tier)?;
    let mut swept = Swept::default();
    promote(session, tid, &mut swept)?;
    if may_rescue(session, tid, ask.lease)? {
        rescue_overdue(session, tid, &mut swept)?;
    }
    expire(session, tid, &mut swept)?;
    unpark(session, tid, ask, &mut swept)?;
    pause::lapse(session, tid)?;
    swept.trimmed = trim::by_age(session, tid)? + canary::trim(session, tid)?;
    let full = MAX_BATCH as u64;
    swept.more |= [swept.promoted, swept.rescued, swept.expired, swept.unparked].iter().any(|n| *n >= full)
        || swept.trimmed >= 200;
    swept.next_due = next_due(session, tid)?;
    Ok(swept)
}

/// Rule 10. When nobody swept for most of a lease, or ever, the store was away (or every worker was): from now on, one lease
/// length has to pass before anything is rescued, so that every living worker can renew first.
fn may_rescue(session: &Session, tid: i64, lease: Duration) -> Step<bool> {
    let (swept_at, rescue_from): (i64, i64) = session
        .conn
        .prepare_cached("SELECT swept_at, rescue_from FROM tier WHERE tid = ?1")?
        .query_row([tid], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let away = session.now.since(Timestamp::from_ms(swept_at)) > lease * 3 / 4;
    let rescue_from = if away { session.now.plus(lease).ms() } else { rescue_from };
    session
        .conn
        .prepare_cached("UPDATE tier SET swept_at = ?2, rescue_from = ?3 WHERE tid = ?1")?
        .execute(params![tid, session.now.ms(), rescue_from])?;
    Ok(session.now.ms() >= rescue_from)
}

fn promote(session: &mut Session, tid: i64, swept: &mut Swept) -> Step<()> {
    let due: Vec<(i64, i64, i64, Option<i64>)> = {
        let mut statement = session.conn.prepare_cached(
            "SELECT seq, sid, state, exp_at FROM job WHERE tid = ?1 AND state BETWEEN 2 AND 3 AND run_at <= ?2 ORDER BY run_at LIMIT ?3",
        )?;
        let rows = statement.query_map(params![tid, session.now.ms(), MAX_BATCH as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    for (seq, sid, code, exp_at) in due {
        let Some(from) = State::from_code(code) else { continue };
        if exp_at.is_some_and(|at| at <= session.now.ms()) {
            end_waiting(session, seq, sid, from, State::Expired)?;
            swept.expired += 1;
        } else {
            make_available(session, seq, sid, from)?;
            swept.promoted += 1;
        }
    }
    Ok(())
}

/// To the tail of its list. What was parked could not run before now, whenever it was enqueued.
pub(super) fn make_available(session: &mut Session, seq: i64, sid: i64, from: State) -> Step<()> {
    let ord = session.next()?;
    session
        .conn
        .prepare_cached(
            "UPDATE job SET state = 0, ord = ?2, run_at = coalesce(?3, run_at), fin_at = NULL, park = NULL, park_by = NULL WHERE seq = ?1",
        )?
        .execute(params![seq, ord, (from == State::Parked).then_some(session.now.ms())])?;
    session
        .conn
        .prepare_cached("INSERT INTO ready(pid, ord, seq) SELECT pid, ord, seq FROM job WHERE seq = ?1")?
        .execute([seq])?;
    session.moved(sid, Some(from), Some(State::Available));
    session.wake();
    Ok(())
}

fn rescue_overdue(session: &mut Session, tid: i64, swept: &mut Swept) -> Step<()> {
    let mut leases = 0;
    while swept.rescued < MAX_BATCH as u64 && !swept.more {
        leases += 1;
        swept.more = leases == MAX_LEASES; // canaries end with theirs, and are not counted as rescued
        let lease: Option<Lease> = session
            .conn
            .prepare_cached("SELECT lid, tid, aid, claimed_at, suspect, held FROM lease WHERE tid = ?1 AND until < ?2 ORDER BY until LIMIT 1")?
            .query_row(params![tid, session.now.ms()], Lease::read)
            .optional()?;
        let Some(lease) = lease else { break };
        if swept.rescued > 0 && swept.rescued + lease.held.len() as u64 > MAX_BATCH as u64 {
            swept.more = true; // a lease is rescued whole
            break;
        }
        rescue(session, &lease, swept)?;
    }
    Ok(())
}

/// Gives back what a lost worker held. Which of its jobs killed it is not known, so all become suspects, and none is
/// charged: a suspect is handed out alone, and is charged if it dies again. A canary ends with its worker, whom alone it was to
/// prove.
pub(super) fn rescue(session: &mut Session, lease: &Lease, swept: &mut Swept) -> Step<()> {
    let (worker, release) = actor_of(&session.conn, lease.aid)?.unzip();
    let lost = worker.as_ref().map(lost);
    for held in &lease.held {
        let attempt = Attempt {
            worker: worker.clone(),
            release: release.clone(),
            ..Attempt::outside(session.now, "crashed", lost.clone())
        };
        let history = history_with(session, held.seq, attempt)?;
        session
            .conn
            .prepare_cached("UPDATE job SET history = ?2 WHERE seq = ?1")?
            .execute(params![held.seq, history])?;
        if cancel_wanted(session, lease.tid, held.seq)? {
            end_waiting(session, held.seq, held.sid, State::Running, State::Cancelled)?;
            continue;
        }
        let Session { conn, names, .. } = session;
        if names.stream(conn, held.sid)?.queue.is_canaries() {
            end_waiting(session, held.seq, held.sid, State::Running, State::Expired)?;
            swept.expired += 1;
            continue;
        }
        if lease.suspect && charge(session, lease.tid, *held)? {
            quarantine(session, *held)?;
            swept.quarantined += 1;
            continue;
        }
        suspect(session, *held, lease.suspect)?;
        swept.rescued += 1;
    }
    session.conn.prepare_cached("DELETE FROM lease WHERE lid = ?1")?.execute([lease.lid])?;
    Ok(())
}

/// A cancellation that was asked for while the job ran, and its mark is removed.
fn cancel_wanted(session: &Session, tid: i64, seq: i64) -> Step<bool> {
    Ok(session.conn.prepare_cached("DELETE FROM cancel WHERE tid = ?1 AND seq = ?2")?.execute([tid, seq])?
        > 0)
}

/// Charges a suspect that was lost alone; says whether that was once too often.
fn charge(session: &Session, tid: i64, held: Held) -> Step<bool> {
    let total: i64 = session
        .conn
        .prepare_cached("SELECT coalesce(sum(t.n), 0) FROM tally t JOIN stream s ON s.sid = t.sid JOIN queue q ON q.qid = s.qid WHERE q.tid = ?1 AND t.code = ?2 AND q.name <> ?3")?
        .query_row(params![tid, COMPLETED, Queue::canaries().as_str()], |row| row.get(0))?;
    let (crashes, mark): (u32, Option<i64>) = session
        .conn
        .prepare_cached("SELECT crashes, crash_mark FROM job WHERE seq = ?1")?
        .query_row([held.seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let others: bool = session
        .conn
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM ready r JOIN part p ON p.pid = r.pid JOIN queue q ON q.qid = p.qid WHERE q.tid = ?1 AND r.pid >= 0)")?
        .query_row([tid], |row| row.get(0))?;
    let Some(crashes) = charged(crashes, mark, total, others) else { return Ok(false) };
    session
        .conn
        .prepare_cached("UPDATE job SET crashes = ?2, crash_mark = ?3 WHERE seq = ?1")?
        .execute(params![held.seq, crashes, total])?;
    Ok(crashes >= MAX_CRASHES)
}

fn quarantine(session: &mut Session, held: Held) -> Step<()> {
    let attempt = Attempt::outside(session.now, "quarantined", Some(quarantined()));
    let history = history_with(session, held.seq, attempt)?;
    session
        .conn
        .prepare_cached("UPDATE job SET state = 6, fin_at = ?2, history = ?3 WHERE seq = ?1")?
        .execute(params![held.seq, session.now.ms(), history])?;
    session.moved(held.sid, Some(State::Running), Some(State::Dead));
    Ok(())
}

/// Puts a job among the suspects of its queue: at its place when it is new there, at the tail after a charge, so that the
/// same one is not charged every time a whole fleet dies.
fn suspect(session: &mut Session, held: Held, charged: bool) -> Step<()> {
    let pid: i64 = session
        .conn
        .prepare_cached("SELECT pid FROM job WHERE seq = ?1")?
        .query_row([held.seq], |row| row.get(0))?;
    let Session { conn, names, .. } = session;
    let pid = names.moved(conn, pid, true)?;
    session.conn.prepare_cached("UPDATE job SET pid = ?2 WHERE seq = ?1")?.execute([held.seq, pid])?;
    if charged {
        let ord = session.next()?;
        session.conn.prepare_cached("UPDATE job SET ord = ?2 WHERE seq = ?1")?.execute([held.seq, ord])?;
    }
    to_ready(session, held)
}

fn expire(session: &mut Session, tid: i64, swept: &mut Swept) -> Step<()> {
    let due: Vec<(i64, i64, i64, i64, i64)> = {
        let mut statement = session.conn.prepare_cached(
            "SELECT seq, sid, state, pid, ord FROM job WHERE tid = ?1 AND exp_at IS NOT NULL AND state <= 4 AND state <> 1 AND exp_at <= ?2
             ORDER BY exp_at LIMIT 2000",
        )?;
        let rows = statement.query_map(params![tid, session.now.ms()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    for (seq, sid, code, pid, ord) in due {
        if swept.expired >= MAX_BATCH as u64 {
            break;
        }
        let Some(from) = State::from_code(code) else { continue };
        if from == State::Available
            && session
                .conn
                .prepare_cached("DELETE FROM ready WHERE pid = ?1 AND ord = ?2")?
                .execute([pid, ord])?
                == 0
        {
            continue; // it runs; its worker ends it
        }
        end_waiting(session, seq, sid, from, State::Expired)?;
        swept.expired += 1;
    }
    Ok(())
}

/// Parked jobs that this worker can run: of a kind nobody knew, or that another release or build could not read.
fn unpark(session: &mut Session, tid: i64, ask: &SweepAsk, swept: &mut Swept) -> Step<()> {
    let parked: Vec<(i64, i64)> = {
        let mut statement = session.conn.prepare_cached(
            "WITH mine AS (SELECT s.sid FROM stream s JOIN queue q ON q.qid = s.qid
               WHERE q.tid = ?1 AND s.kind IN (SELECT value FROM json_each(?2)))
             SELECT seq, sid FROM job WHERE state = 4 AND sid IN mine AND park = 'unknown_kind'
             UNION ALL SELECT seq, sid FROM job WHERE state = 4 AND sid IN mine AND park = 'undecodable' AND park_by IS NULL
             UNION ALL SELECT seq, sid FROM job WHERE state = 4 AND sid IN mine AND park = 'undecodable' AND park_by < ?3
             UNION ALL SELECT seq, sid FROM job WHERE state = 4 AND sid IN mine AND park = 'undecodable' AND park_by > ?3
             LIMIT ?4",
        )?;
        let kinds = super::insert::to_json(&ask.kinds)?;
        let rows = statement.query_map(params![tid, kinds, ask.capability, MAX_BATCH as i64], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    for (seq, sid) in parked {
        make_available(session, seq, sid, State::Parked)?;
        swept.unparked += 1;
    }
    Ok(())
}

fn next_due(session: &Session, tid: i64) -> Step<Option<Duration>> {
    let at: Option<i64> = session
        .conn
        .prepare_cached("SELECT min(run_at) FROM job WHERE tid = ?1 AND state BETWEEN 2 AND 3")?
        .query_row([tid], |row| row.get(0))?;
    let lapse = pause::next_lapse(session, tid)?;
    Ok(at.into_iter().chain(lapse).min().map(|at| Timestamp::from_ms(at).since(session.now)))
}
