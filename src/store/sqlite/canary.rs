//! Canary jobs. Their parts, one for each worker, have negative numbers: no claim of the tier's jobs ever visits them,
//! however many wait, and an index of their own finds those that have ended.

use rusqlite::params;

use super::session::{Session, Step};
use super::trim::delete;
use crate::job::State;
use crate::names::WorkerName;
use crate::store::{KEEP_CANARIES, KEEP_CANARIES_PER_TIER};

/// Most that one sweep trims.
const TRIM: i64 = 200;

/// The part of a worker's canaries, if any of them waits.
pub(super) fn waiting(session: &mut Session, tid: i64, worker: &WorkerName) -> Step<Option<i64>> {
    let Session { conn, names, .. } = session;
    let Some(pid) = names.lane(conn, tid, worker)? else { return Ok(None) };
    let waits: bool = conn
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM ready WHERE pid = ?1)")?
        .query_row([pid], |row| row.get(0))?;
    Ok(waits.then_some(pid))
}

/// Deletes ended canaries that are too old or too many, oldest first; says how many.
pub(super) fn trim(session: &mut Session, tid: i64) -> Step<u64> {
    // The terms of the index, word for word: without them it is not used.
    const ENDED: &str = "SELECT seq, state FROM job WHERE tid = ?1 AND pid < 0 AND state >= 5";
    let keep = i64::try_from(KEEP_CANARIES_PER_TIER).unwrap_or(i64::MAX);
    let old = session.now.minus(KEEP_CANARIES).ms();
    let mut found: Vec<(i64, i64)> = Vec::new();
    {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let mut aged =
            session.conn.prepare_cached(&format!("{ENDED} AND fin_at < ?2 ORDER BY fin_at LIMIT ?3"))?;
        for row in aged.query_map(params![tid, old, TRIM], read)? {
            found.push(row?);
        }
        if found.is_empty() {
            let mut over =
                session.conn.prepare_cached(&format!("{ENDED} ORDER BY fin_at DESC LIMIT ?2 OFFSET ?3"))?;
            for row in over.query_map(params![tid, TRIM, keep], read)? {
                found.push(row?);
            }
        }
    }
    let mut trimmed = 0;
    for (seq, code) in found {
        if let Some(state) = State::from_code(code) {
            delete(session, seq, state)?;
            trimmed += 1;
        }
    }
    Ok(trimmed)
}
