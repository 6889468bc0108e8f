//! Retention: ended jobs go when their time is over. Bounded steps, oldest first.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::lease::{Held, unpack};
use super::session::{Session, Step};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::new::Extras;
use crate::job::{Args, State};
use crate::store::digest::content_digest;
use crate::store::{KEEP_COMPLETED, KEEP_DEAD, KEEP_KEYS, MAX_BATCH};

/// Deletes `want` of the completed jobs of a queue, oldest first and in whole batches, until more than `most` are gone.
pub(super) fn oldest_completed(session: &mut Session, qid: i64, want: usize, most: usize) -> Step<u64> {
    let mut trimmed = 0;
    while trimmed < want.min(most) {
        let oldest: Option<(i64, Vec<u8>)> = session
            .conn
            .prepare_cached("SELECT did, held FROM completed WHERE qid = ?1 ORDER BY did LIMIT 1")?
            .query_row([qid], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((did, bytes)) = oldest else { break };
        let jobs = unpack(&bytes);
        session
            .conn
            .prepare_cached("DELETE FROM completed WHERE qid = ?1 AND did = ?2")?
            .execute([qid, did])?;
        session.keep(qid, -i64::try_from(jobs.len()).unwrap_or_default());
        trimmed += jobs.len();
        delete_completed(session, jobs)?;
    }
    Ok(trimmed as u64)
}

/// The hot part of trimming: plain deletes, neighbours of one stream with one statement. `RETURNING` would build a table of
/// its own for every row. Rows are not asked whether they completed: most do not know, and a completed job stays so.
fn delete_completed(session: &mut Session, mut jobs: Vec<Held>) -> Step<()> {
    jobs.sort_unstable_by_key(|job| job.seq);
    for run in jobs.chunk_by(|a, b| a.seq + 1 == b.seq && a.sid == b.sid) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let plain = session
            .conn
            .prepare_cached("DELETE FROM job WHERE seq BETWEEN ?1 AND ?2 AND extras IS NULL")?
            .execute([first.seq, last.seq])?;
        session.moved_by(first.sid, State::Completed, -i64::try_from(plain).unwrap_or_default());
        if plain < run.len() {
            run.iter().try_for_each(|job| delete(session, job.seq, State::Completed))?;
        }
    }
    Ok(())
}

/// Everything whose time is over, a bounded number of each.
pub(super) fn by_age(session: &mut Session, tid: i64) -> Step<u64> {
    let before = |keep: Duration| session.now.minus(keep).ms();
    let (completed, ended, now) = (before(KEEP_COMPLETED), before(KEEP_DEAD), session.now.ms());
    let mut trimmed = 0;
    let old: Vec<(i64, i64)> = collect(
        session,
        "SELECT c.qid, length(c.held) / 12 FROM queue q CROSS JOIN completed c ON c.qid = q.qid
         AND c.did = (SELECT min(did) FROM completed x WHERE x.qid = q.qid) WHERE q.tid = ?1 AND c.at < ?2",
        params![tid, completed],
    )?;
    for (qid, jobs) in old {
        trimmed += oldest_completed(session, qid, usize::try_from(jobs).unwrap_or_default(), MAX_BATCH)?;
    }
    let dead: Vec<(i64, i64)> = collect(
        session,
        "SELECT seq, state FROM job WHERE tid = ?1 AND state >= 6 AND fin_at < ?2 ORDER BY fin_at LIMIT 200",
        params![tid, ended],
    )?;
    for (seq, code) in dead {
        if let Some(state) = State::from_code(code) {
            delete(session, seq, state)?;
            trimmed += 1;
        }
    }
    for sql in [
        "DELETE FROM remembered WHERE (tid, id) IN (SELECT tid, id FROM remembered WHERE until < ?1 LIMIT 500)",
        "DELETE FROM uniq_kept WHERE (tid, key) IN (SELECT tid, key FROM uniq_kept WHERE until < ?1 LIMIT 500)",
        "DELETE FROM record WHERE (tid, space, key) IN (SELECT tid, space, key FROM record WHERE until IS NOT NULL AND until < ?1 LIMIT 500)",
    ] {
        session.conn.prepare_cached(sql)?.execute([now])?;
    }
    session
        .conn
        .prepare_cached("DELETE FROM presence WHERE tid = ?1 AND at < ?2")?
        .execute(params![tid, session.now.minus(Duration::from_secs(24 * 3600)).ms()])?;
    Ok(trimmed)
}

fn collect(session: &Session, sql: &str, params: impl rusqlite::Params) -> Step<Vec<(i64, i64)>> {
    let mut statement = session.conn.prepare_cached(sql)?;
    let rows = statement.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Deletes one ended job, and remembers its unique and its idempotency key for as long as was promised.
pub(super) fn delete(session: &mut Session, seq: i64, state: State) -> Step<()> {
    type Full = (i64, i64, Vec<u8>, String, Option<String>, Option<i64>, i64);
    let row: Option<Full> = session
        .conn
        .prepare_cached(
            "DELETE FROM job WHERE seq = ?1 AND state = ?2 RETURNING sid, tid, id, args, extras, fin_at, enq_at",
        )?
        .query_row(params![seq, state.code()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
        })
        .optional()?;
    let Some((sid, tid, id, args, extras, finished, inserted)) = row else { return Ok(()) };
    let extras: Extras = extras.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    session.moved(sid, Some(state), None);
    if let Some(unique) = &extras.unique {
        let held = session
            .conn
            .prepare_cached("DELETE FROM uniq WHERE tid = ?1 AND key = ?2 AND seq = ?3")?
            .execute(params![tid, unique.key, seq])?
            > 0;
        let inserted = Timestamp::from_ms(inserted);
        if held
            && unique.held_by(state, inserted, session.now)
            && let Some(window) = unique.window
        {
            session
                .conn
                .prepare_cached(
                    "INSERT OR REPLACE INTO uniq_kept(tid, key, id, state, until) VALUES(?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![tid, unique.key, id, state.code(), inserted.plus(window).ms()])?;
        }
    }
    let until = Timestamp::from_ms(finished.unwrap_or_default()).plus(KEEP_KEYS);
    if extras.idempotency_key.is_some()
        && state == State::Completed
        && until > session.now
        && JobId::from_slice(&id).is_some()
    {
        let Session { conn, names, .. } = session;
        let stream = names.stream(conn, sid)?;
        let digest = content_digest(&stream.kind, &stream.queue, &Args::from_store(args));
        conn.prepare_cached(
            "INSERT OR REPLACE INTO remembered(tid, id, digest, until) VALUES(?1, ?2, ?3, ?4)",
        )?
        .execute(params![tid, id, digest, until.ms()])?;
    }
    Ok(())
}
