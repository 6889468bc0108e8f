//! Which queues are paused, and the revision of what operators set.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::catalog::bad_name;
use super::control::append;
use super::session::{Session, Step, StepError, tid};
use crate::clock::Timestamp;
use crate::names::{Queue, Tier};
use crate::store::meaning::pause_detail;
use crate::store::{Actor, ErrorKind, MAX_PAUSES, Pause, Paused, Space, StoreError};

fn read(row: &Row<'_>) -> rusqlite::Result<Paused> {
    Ok(Paused {
        queue: Queue::stored(&row.get::<_, String>(0)?).map_err(bad_name)?,
        by: Actor { who: row.get(1)?, reason: row.get(2)? },
        at: Timestamp::from_ms(row.get(3)?),
        until: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_ms),
    })
}

/// The pauses that stand now, by queue.
pub(super) fn standing(conn: &Connection, tid: i64, now: Timestamp) -> rusqlite::Result<Vec<Paused>> {
    conn.prepare_cached(
        "SELECT queue, who, reason, at, until FROM pause WHERE tid = ?1 AND (until IS NULL OR until > ?2) ORDER BY queue",
    )?
    .query_map(params![tid, now.ms()], read)?
    .collect()
}

/// The names of the queues that are paused now: what a claim passes over.
pub(super) fn queues(session: &Session, tid: i64) -> Step<Vec<String>> {
    let mut statement = session
        .conn
        .prepare_cached("SELECT queue FROM pause WHERE tid = ?1 AND (until IS NULL OR until > ?2)")?;
    let rows = statement.query_map(params![tid, session.now.ms()], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn pause(
    session: &mut Session,
    tier: &Tier,
    queue: &Queue,
    pause: Option<Pause>,
    by: &Actor,
) -> Step<Option<Paused>> {
    let tid = tid(session, tier)?;
    let stood = standing(&session.conn, tid, session.now)?;
    let others = stood.iter().filter(|paused| paused.queue != *queue).count();
    let before = stood.into_iter().find(|paused| paused.queue == *queue);
    match pause {
        None if before.is_none() => return Ok(None),
        None => {
            session
                .conn
                .prepare_cached("DELETE FROM pause WHERE tid = ?1 AND queue = ?2")?
                .execute(params![tid, queue.as_str()])?;
        }
        Some(_) if others >= MAX_PAUSES => {
            let detail = format!("{MAX_PAUSES} queues are paused already");
            let refused = StoreError::new("pause a queue", "sqlite", ErrorKind::Refused, detail);
            return Err(StepError::Store(refused.hint("resume some of them first")));
        }
        Some(Pause { for_ }) => {
            let until = for_.map(|span| session.now.plus(span).ms());
            session
                .conn
                .prepare_cached("INSERT OR REPLACE INTO pause(tid, queue, who, reason, at, until) VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![tid, queue.as_str(), by.who, by.reason, session.now.ms(), until])?;
        }
    }
    let (event, detail) = pause_detail(queue, pause);
    append(session, tid, event, by, &detail)?;
    changed(session, tid)?;
    Ok(before)
}

/// What time does to what operators set: pauses lapse, and records that were kept for a time vanish. Whoever waits is
/// woken: there may be jobs to take.
pub(super) fn lapse(session: &mut Session, tid: i64) -> Step<()> {
    let lapsed = session
        .conn
        .prepare_cached("DELETE FROM pause WHERE tid = ?1 AND until <= ?2")?
        .execute(params![tid, session.now.ms()])?;
    if lapsed > 0 {
        session.wake();
    }
    let vanished = session
        .conn
        .prepare_cached("DELETE FROM record WHERE tid = ?1 AND space = ?2 AND until <= ?3")?
        .execute(params![tid, Space::Control.as_str(), session.now.ms()])?;
    if vanished > 0 {
        changed(session, tid)?;
    }
    Ok(())
}

/// When the next pause lapses.
pub(super) fn next_lapse(session: &Session, tid: i64) -> Step<Option<i64>> {
    Ok(session
        .conn
        .prepare_cached("SELECT min(until) FROM pause WHERE tid = ?1")?
        .query_row([tid], |row| row.get(0))?)
}

/// The revision of what operators set.
pub(super) fn revision(session: &Session, tid: i64) -> Step<u64> {
    let revision: Option<i64> = session
        .conn
        .prepare_cached("SELECT revision FROM controls WHERE tid = ?1")?
        .query_row([tid], |row| row.get(0))
        .optional()?;
    Ok(revision.unwrap_or_default().unsigned_abs())
}

/// Operators set something: it rises, and workers read it again.
pub(super) fn changed(session: &mut Session, tid: i64) -> Step<()> {
    session
        .conn
        .prepare_cached("INSERT INTO controls(tid, revision) VALUES(?1, 1) ON CONFLICT(tid) DO UPDATE SET revision = revision + 1")?
        .execute([tid])?;
    session.wake();
    Ok(())
}
