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

/// The terms of the index `job_canary`, word for word: without them it is not used.
const ENDED: &str = "SELECT seq, state FROM job WHERE tid = ?1 AND pid < 0 AND state >= 5";

fn too_old() -> String {
    format!("{ENDED} AND fin_at < ?2 ORDER BY fin_at LIMIT {TRIM}")
}

/// All but the newest.
fn too_many() -> String {
    format!("{ENDED} ORDER BY fin_at DESC LIMIT {TRIM} OFFSET ?2")
}

/// Deletes ended canaries that are too old, or else too many; says how many.
pub(super) fn trim(session: &mut Session, tid: i64) -> Step<u64> {
    let find = |sql: &str, bound: i64| -> rusqlite::Result<Vec<(i64, i64)>> {
        let mut statement = session.conn.prepare_cached(sql)?;
        statement.query_map(params![tid, bound], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let mut found = find(&too_old(), session.now.minus(KEEP_CANARIES).ms())?;
    if found.is_empty() {
        found = find(&too_many(), i64::try_from(KEEP_CANARIES_PER_TIER).unwrap_or(i64::MAX))?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rule_08_trimming_canaries_looks_at_nothing_else_and_sorts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let conn = crate::store::sqlite::schema::open_writer(&folder.path().join("jobs.db"), 1_000).unwrap();
        for sql in [too_old(), too_many()] {
            let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let lines = plan.query_map(params![1, 1], |row| row.get::<_, String>(3)).unwrap();
            let lines: Vec<String> = lines.map(Result::unwrap).collect();
            assert!(lines.len() == 1 && lines.iter().all(|line| line.contains("job_canary")), "{lines:#?}");
        }
    }
}
