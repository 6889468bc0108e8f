//! Reading, beside the writer: one job, a page of jobs, the census. Every read is short, so that no snapshot keeps the
//! WAL from being checkpointed.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::catalog::actor_of;
use super::completed;
use super::control::from_json;
use super::insert::{hot, state_from};
use super::schema::{explain, open_reader};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::{Args, JobRecord, Parked, State};
use crate::names::{Kind, Queue, Release, Tier, WorkerName};
use crate::store::look::{add, empty, wanted};
use crate::store::{Census, ErrorKind, MAX_BATCH, Page, PageAsk, QueueCensus, StoreError};

/// Most rows that one page looks at; a page that found less goes on with its token.
const MAX_SCAN: usize = 5_000;

/// Connections for reading, as many as are used at once.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Vec<Connection>>);

impl Readers {
    /// Reads on the current thread, which must be one that may block.
    pub(super) fn read<T>(
        &self,
        op: &'static str,
        path: &Path,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let pooled = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = match pooled {
            Some(conn) => conn,
            None => open_reader(path)?,
        };
        let answer = read(&conn).map_err(|error| explain(op, path, &error));
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < 2 && answer.is_ok() {
            pool.push(conn);
        }
        answer
    }
}

pub(super) fn tier_id(conn: &Connection, tier: &Tier) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT tid FROM tier WHERE name = ?1")?
        .query_row([tier.as_str()], |row| row.get(0))
        .optional()
}

const JOB: &str = "SELECT j.seq, j.id, s.kind, q.name, j.state, j.args, j.version, p.priority, j.failures, j.crashes, j.enq_at, j.run_at,
  j.exp_at, j.claimed_at, j.fin_at, j.ran_us, a.worker, a.release, j.park, j.history, j.extras,
  EXISTS(SELECT 1 FROM ready r WHERE r.pid = j.pid AND r.ord = j.ord), s.qid
  FROM job j JOIN stream s ON s.sid = j.sid JOIN queue q ON q.qid = s.qid JOIN part p ON p.pid = j.pid LEFT JOIN actor a ON a.aid = j.aid";

fn parse<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    text: &str,
) -> rusqlite::Result<T> {
    text.parse().map_err(|error: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn record_from(row: &Row<'_>, tier: &Tier) -> rusqlite::Result<JobRecord> {
    let time = |index: usize| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp::from_ms))
    };
    let damaged = || rusqlite::Error::InvalidColumnType(1, "id or state".into(), rusqlite::types::Type::Blob);
    let state = state_from(row.get(4)?, row.get(21)?).ok_or_else(damaged)?;
    let worker: Option<String> = row.get(16)?;
    let release: Option<String> = row.get(17)?;
    let park: Option<String> = row.get(18)?;
    let history: Option<String> = row.get(19)?;
    let extras: Option<String> = row.get(20)?;
    Ok(JobRecord {
        id: JobId::from_slice(&row.get::<_, Vec<u8>>(1)?).ok_or_else(damaged)?,
        tier: tier.clone(),
        kind: parse::<Kind>(&row.get::<_, String>(2)?)?,
        queue: Queue::stored(&row.get::<_, String>(3)?).map_err(super::catalog::bad_name)?,
        state,
        args: Args::from_store(row.get(5)?),
        version: row.get(6)?,
        priority: row.get(7)?,
        failures: row.get(8)?,
        crashes: row.get(9)?,
        enqueued_at: Timestamp::from_ms(row.get(10)?),
        run_at: time(11)?.filter(|_| matches!(state, State::Scheduled | State::Retryable)),
        expires_at: time(12)?,
        claimed_at: time(13)?,
        finished_at: time(14)?.filter(|_| state.is_final()),
        ran: row
            .get::<_, Option<i64>>(15)?
            .map(|us| Duration::from_micros(us.unsigned_abs()))
            .filter(|ran| !ran.is_zero()),
        worker: worker.as_deref().map(parse::<WorkerName>).transpose()?,
        release: release.as_deref().map(parse::<Release>).transpose()?,
        parked: park.and_then(|park| serde_json::from_value::<Parked>(park.into()).ok()),
        history: history.as_deref().map(from_json).transpose()?.unwrap_or_default(),
        extras: extras.as_deref().map(from_json).transpose()?.unwrap_or_default(),
    })
}

pub(super) fn get(conn: &Connection, tier: &Tier, id: JobId) -> rusqlite::Result<Option<JobRecord>> {
    let Some(tid) = tier_id(conn, tier)? else { return Ok(None) };
    let tx = conn.unchecked_transaction()?; // one snapshot for the row and what else knows of it
    let mut elsewhere = Elsewhere::new(conn, tid);
    let found = conn
        .prepare_cached(&format!("{JOB} WHERE j.tid = ?1 AND j.id = ?2"))?
        .query_row(params![tid, id.as_bytes()], |row| elsewhere.record_from(row, tier))
        .optional()?;
    tx.finish()?;
    Ok(found)
}

/// An attempt, as a lease or a batch of completions tells it.
#[derive(Debug, Clone, Copy)]
struct Told {
    claimed_at: i64,
    aid: i64,
    /// When it completed, and how many microseconds it ran.
    ended: Option<(i64, i64)>,
}

/// What the rows of jobs do not say: who runs a job, and whether it has completed. The leases and the batches of
/// completions do; there are few of those, and none is read twice.
struct Elsewhere<'c> {
    conn: &'c Connection,
    tid: i64,
    leases_read: bool,
    told: HashMap<i64, Told>,
}

impl<'c> Elsewhere<'c> {
    fn new(conn: &'c Connection, tid: i64) -> Self {
        Self { conn, tid, leases_read: false, told: HashMap::new() }
    }

    /// A job, from its row of [`JOB`] and from what else is known of it.
    fn record_from(&mut self, row: &Row<'_>, tier: &Tier) -> rusqlite::Result<JobRecord> {
        let mut record = record_from(row, tier)?;
        if record.state == State::Running
            && let Some(told) = self.of(row.get(0)?, row.get(22)?)?
        {
            let by = actor_of(self.conn, told.aid)?;
            (record.worker, record.release) = by.unzip();
            record.claimed_at = Some(Timestamp::from_ms(told.claimed_at));
            record.ran = None;
            if let Some((at, us)) = told.ended {
                record.state = State::Completed;
                record.finished_at = Some(Timestamp::from_ms(at));
                record.ran = Some(Duration::from_micros(us.unsigned_abs())).filter(|ran| !ran.is_zero());
            }
        }
        Ok(record)
    }

    fn of(&mut self, seq: i64, qid: i64) -> rusqlite::Result<Option<Told>> {
        if !self.leases_read {
            self.read_leases()?;
        }
        if !self.told.contains_key(&seq)
            && let Some(batch) = completed::batch_of(self.conn, qid, seq)?
        {
            self.told.extend(batch.jobs.into_iter().map(|(seq, us)| {
                (seq, Told { claimed_at: batch.claimed_at, aid: batch.aid, ended: Some((batch.at, us)) })
            }));
        }
        Ok(self.told.get(&seq).copied())
    }

    fn read_leases(&mut self) -> rusqlite::Result<()> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT lid, tid, aid, claimed_at, suspect, held FROM lease WHERE tid = ?1")?;
        let mut rows = statement.query([self.tid])?;
        while let Some(row) = rows.next()? {
            let lease = super::lease::Lease::read(row)?;
            let told = Told { claimed_at: lease.claimed_at, aid: lease.aid, ended: None };
            self.told.extend(lease.held.iter().map(|held| (held.seq, told)));
        }
        self.leases_read = true;
        Ok(())
    }
}

pub(super) fn page(
    conn: &Connection,
    tier: &Tier,
    ask: &PageAsk,
    now: Timestamp,
) -> Result<rusqlite::Result<Page>, StoreError> {
    let before = match &ask.token {
        None => i64::MAX,
        Some(token) => token.parse::<i64>().map_err(|_| {
            StoreError::new(
                "list jobs",
                "sqlite",
                ErrorKind::Refused,
                format!("`{}` is not a page token", crate::names::shown(token)),
            )
            .hint("start again without one")
        })?,
    };
    Ok(page_before(conn, tier, ask, now, before))
}

/// A page. The plus keeps the index of ids out: by it a page would sort all jobs of the tier, a second for a million.
fn page_sql() -> String {
    format!(
        "{JOB} WHERE +j.tid = ?1 AND j.seq < ?2 AND j.seq >= ?7 AND (?3 IS NULL OR j.state IN (?3, ?8)) AND (?4 IS NULL OR q.name = ?4) AND (?5 IS NULL OR s.kind = ?5)
         ORDER BY j.seq DESC LIMIT ?6"
    )
}

/// What else the row of a job in a state may say: that of most completed jobs is as it was when they were claimed.
const fn written(state: State) -> u8 {
    hot(if matches!(state, State::Completed) { State::Running } else { state })
}

fn page_before(
    conn: &Connection,
    tier: &Tier,
    ask: &PageAsk,
    now: Timestamp,
    mut before: i64,
) -> rusqlite::Result<Page> {
    let Some(tid) = tier_id(conn, tier)? else { return Ok(Page { jobs: Vec::new(), next: None }) };
    let tx = conn.unchecked_transaction()?; // one snapshot for the rows and what else knows of them
    let limit = ask.limit.clamp(1, MAX_BATCH);
    // Looks at so many rows, whatever the filters find among them.
    let floor: Option<i64> = conn
        .prepare_cached("SELECT seq FROM job WHERE seq < ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2")?
        .query_row(params![before, i64::try_from(MAX_SCAN - 1).unwrap_or(i64::MAX)], |row| row.get(0))
        .optional()?;
    let mut statement = conn.prepare_cached(&page_sql())?;
    let mut rows = statement.query(params![
        tid,
        before,
        ask.state.map(hot),
        ask.queue.as_ref().map(Queue::as_str),
        ask.kind.as_ref().map(Kind::as_str),
        i64::try_from(MAX_SCAN).unwrap_or(i64::MAX),
        floor.unwrap_or(i64::MIN),
        ask.state.map(written)
    ])?;
    let mut elsewhere = Elsewhere::new(conn, tid);
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        before = row.get(0)?;
        let record = elsewhere.record_from(row, tier)?;
        if wanted(&record, ask, now) {
            found.push(record);
        }
    }
    drop(rows);
    let more = found.len() == limit || floor.is_some();
    if found.len() < limit {
        before = floor.unwrap_or(before);
    }
    tx.finish()?;
    Ok(Page { jobs: found, next: more.then(|| before.to_string()) })
}

pub(super) fn census(conn: &Connection, tier: &Tier, now: Timestamp) -> rusqlite::Result<Census> {
    let Some(tid) = tier_id(conn, tier)? else { return Ok(Census { now, ..Census::default() }) };
    let mut queues: BTreeMap<Queue, QueueCensus> = BTreeMap::new();
    let mut statement = conn.prepare_cached(
        "SELECT q.name, s.kind, t.code, t.n FROM tally t JOIN stream s ON s.sid = t.sid JOIN queue q ON q.qid = s.qid WHERE q.tid = ?1 AND q.name <> ?2",
    )?;
    let mut rows = statement.query(params![tid, Queue::canaries().as_str()])?;
    while let Some(row) = rows.next()? {
        let queue: Queue = parse(&row.get::<_, String>(0)?)?;
        let kind: Kind = parse(&row.get::<_, String>(1)?)?;
        let (code, n): (i64, i64) = (row.get(2)?, row.get(3)?);
        let entry = queues.entry(queue.clone()).or_insert_with(|| empty(queue));
        add(entry, kind, code, n.unsigned_abs());
    }
    drop(rows);
    for entry in queues.values_mut() {
        entry.oldest_wait = oldest(conn, tid, &entry.queue)?.map(|at| now.since(at));
    }
    let (overdue, next_due) = due(conn, tid, now)?;
    Ok(Census { queues: queues.into_values().collect(), overdue, next_due, now })
}

/// How many jobs are due, up to a batch, and when the first one is or was: the head of an index, and a page of it.
fn due(conn: &Connection, tid: i64, now: Timestamp) -> rusqlite::Result<(u64, Option<Timestamp>)> {
    let next: Option<i64> = conn
        .prepare_cached("SELECT min(run_at) FROM job WHERE tid = ?1 AND state BETWEEN 2 AND 3")?
        .query_row(params![tid], |row| row.get(0))?;
    let due: i64 = conn
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM job WHERE tid = ?1 AND state BETWEEN 2 AND 3 AND run_at <= ?2 LIMIT ?3)",
        )?
        .query_row(
            params![tid, now.ms(), i64::try_from(MAX_BATCH).unwrap_or(i64::MAX)],
            |row| row.get(0),
        )?;
    Ok((due.unsigned_abs(), next.map(Timestamp::from_ms)))
}

/// Since when the head of a queue's longest-waiting list waits.
fn oldest(conn: &Connection, tid: i64, queue: &Queue) -> rusqlite::Result<Option<Timestamp>> {
    let at: Option<i64> = conn
        .prepare_cached(
            "SELECT min((SELECT coalesce(j.run_at, j.enq_at) FROM ready r JOIN job j ON j.seq = r.seq WHERE r.pid = p.pid ORDER BY r.ord LIMIT 1))
             FROM part p JOIN queue q ON q.qid = p.qid WHERE q.tid = ?1 AND q.name = ?2",
        )?
        .query_row(params![tid, queue.as_str()], |row| row.get(0))?;
    Ok(at.map(Timestamp::from_ms))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rule_08_a_page_walks_from_its_token_and_sorts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let conn = crate::store::sqlite::schema::open_writer(&folder.path().join("jobs.db"), 1_000).unwrap();
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", page_sql())).unwrap();
        let none: Option<i64> = None;
        let lines = plan
            .query_map(params![1, 9, none, none, none, 50, 1, none], |row| row.get::<_, String>(3))
            .unwrap();
        let lines: Vec<String> = lines.map(Result::unwrap).collect();
        assert!(!lines.iter().any(|line| line.contains("TEMP B-TREE")), "{lines:#?}");
        assert!(
            lines.iter().any(|line| line.contains("INTEGER PRIMARY KEY (rowid>? AND rowid<?)")),
            "{lines:#?}"
        );
    }
}
