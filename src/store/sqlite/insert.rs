//! Inserting jobs: idempotent by id, unique by key.

use std::sync::LazyLock;

use rusqlite::{OptionalExtension as _, params};

use super::completed;
use super::session::{Session, Step, StepError, streams, tid};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::new::Extras;
use crate::job::{Args, NewJob, State, Unique, When};
use crate::names::Tier;
use crate::store::digest::{INSERTED, content_digest};
use crate::store::{Durability, ErrorKind, Insert, StoreError};

/// Rows of one INSERT: opening the table and its five indexes costs as much as three rows.
const ROWS: usize = 25;
/// Parameters of a row, after the two that all rows share.
const COLUMNS: usize = 10;

pub(super) fn insert(
    session: &mut Session,
    tier: &Tier,
    jobs: &[NewJob],
    durability: Durability,
) -> Step<Vec<Insert>> {
    let tid = tid(session, tier)?;
    let mut answers = Vec::with_capacity(jobs.len());
    let mut drafts = Vec::with_capacity(jobs.len().min(ROWS));
    for job in jobs {
        // What answers for a job with a key may be one of those that are still to be written.
        let keyed = job.extras.unique.is_some() || job.extras.idempotency_key.is_some();
        if keyed || drafts.len() == ROWS {
            write(session, tid, &mut drafts, durability, &mut answers)?;
        }
        if keyed && let Some(answer) = known(session, tid, job)? {
            answers.push(answer);
            continue;
        }
        drafts.push(draft(session, tid, job, drafts.last())?);
    }
    write(session, tid, &mut drafts, durability, &mut answers)?;
    Ok(answers)
}

/// The answer of what has the idempotency key or the unique key of a job already.
fn known(session: &mut Session, tid: i64, job: &NewJob) -> Step<Option<Insert>> {
    if job.extras.idempotency_key.is_some()
        && let Some(answer) = remembered(session, tid, job)?
    {
        return Ok(Some(answer));
    }
    let Some(unique) = &job.extras.unique else { return Ok(None) };
    // A job that was stored before answers for itself, whoever holds its key by now.
    match existing(session, tid, job)? {
        Some(answer) => Ok(Some(answer)),
        None => held(session, tid, unique),
    }
}

/// A row that is still to be written.
struct Draft<'a> {
    job: &'a NewJob,
    seq: i64,
    sid: i64,
    pid: i64,
    state: State,
    run_at: Option<Timestamp>,
    exp_at: Option<Timestamp>,
    extras: Option<String>,
}

fn draft<'a>(
    session: &mut Session,
    tid: i64,
    job: &'a NewJob,
    before: Option<&Draft<'_>>,
) -> Step<Draft<'a>> {
    let now = session.now;
    let run_at = match job.when {
        When::Now => None,
        When::After(delay) => Some(now.plus(delay)),
        When::At(time) => Some(time),
    };
    let run_at = run_at.filter(|time| *time > now);
    let exp_at = job.expiry.map(|expiry| expiry.at(now));
    let (sid, pid) = match before {
        Some(before) if same_place(job, before.job) => (before.sid, before.pid),
        _ => session.names.place(&session.conn, tid, job)?,
    };
    Ok(Draft {
        job,
        seq: session.next()?,
        sid,
        pid,
        state: if run_at.is_some() { State::Scheduled } else { State::Available },
        run_at,
        exp_at,
        extras: if job.extras.is_empty() { None } else { Some(to_json(&job.extras)?) },
    })
}

fn same_place(a: &NewJob, b: &NewJob) -> bool {
    a.priority == b.priority && a.kind == b.kind && a.queue == b.queue && a.extras.canary == b.extras.canary
}

/// Writes the drafts, a full set of them with one statement, and answers for each.
fn write(
    session: &mut Session,
    tid: i64,
    drafts: &mut Vec<Draft<'_>>,
    durability: Durability,
    answers: &mut Vec<Insert>,
) -> Step<()> {
    let at_a_time = if drafts.len() == ROWS { ROWS } else { 1 };
    for rows in drafts.chunks(at_a_time) {
        let mut stored: Vec<&Draft<'_>> = rows.iter().collect();
        if write_rows(session, tid, rows)? < rows.len() {
            stored.clear();
            for draft in rows {
                if is_stored(session, draft.seq)? {
                    stored.push(draft);
                }
            }
        }
        follow(session, tid, &stored)?;
        let mut stored = stored.into_iter().peekable();
        for draft in rows {
            answers.push(match stored.next_if(|stored| stored.seq == draft.seq) {
                Some(draft) => Insert::Stored { id: draft.job.id, state: draft.state, durability },
                None => existing(session, tid, draft.job)?
                    .ok_or(StepError::Sql(rusqlite::Error::QueryReturnedNoRows))?,
            });
        }
    }
    drafts.clear();
    Ok(())
}

/// Writes rows of `job`; says how many of them were new.
fn write_rows(session: &Session, tid: i64, rows: &[Draft<'_>]) -> Step<usize> {
    static MANY: LazyLock<String> = LazyLock::new(|| insert_sql(ROWS));
    static ONE: LazyLock<String> = LazyLock::new(|| insert_sql(1));
    let mut statement = session.conn.prepare_cached(if rows.len() == ROWS { &MANY } else { &ONE })?;
    statement.raw_bind_parameter(1, tid)?;
    statement.raw_bind_parameter(2, session.now.ms())?;
    for (row, at) in rows.iter().zip((3..).step_by(COLUMNS)) {
        statement.raw_bind_parameter(at, row.seq)?;
        statement.raw_bind_parameter(at + 1, row.job.id.as_bytes())?;
        statement.raw_bind_parameter(at + 2, row.sid)?;
        statement.raw_bind_parameter(at + 3, row.pid)?;
        statement.raw_bind_parameter(at + 4, hot(row.state))?;
        statement.raw_bind_parameter(at + 5, row.job.version)?;
        statement.raw_bind_parameter(at + 6, row.run_at.map(Timestamp::ms))?;
        statement.raw_bind_parameter(at + 7, row.exp_at.map(Timestamp::ms))?;
        statement.raw_bind_parameter(at + 8, row.job.args.as_str())?;
        statement.raw_bind_parameter(at + 9, row.extras.as_deref())?;
    }
    Ok(statement.raw_execute()?)
}

fn insert_sql(rows: usize) -> String {
    let row = |n: usize| {
        let [seq, id, sid, pid, state, version, run_at, exp_at, args, extras]: [usize; COLUMNS] =
            std::array::from_fn(|column| 3 + n * COLUMNS + column);
        format!(
            "(?{seq}, ?1, ?{id}, ?{sid}, ?{pid}, ?{seq}, ?{state}, ?{version}, ?2, ?{run_at}, ?{exp_at}, ?{args}, ?{extras})"
        )
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO job(seq, tid, id, sid, pid, ord, state, version, enq_at, run_at, exp_at, args, extras)
         VALUES {} ON CONFLICT(tid, id) DO NOTHING",
        rows.join(", ")
    )
}

fn is_stored(session: &Session, seq: i64) -> Step<bool> {
    Ok(session.conn.prepare_cached("SELECT 1 FROM job WHERE seq = ?1")?.exists([seq])?)
}

/// What follows from new rows: their places in the ready lists, their unique keys, and the counters.
fn follow(session: &mut Session, tid: i64, stored: &[&Draft<'_>]) -> Step<()> {
    let ready: Vec<_> = stored.iter().filter(|draft| draft.state == State::Available).collect();
    for rows in ready.chunks(if ready.len() == ROWS { ROWS } else { 1 }) {
        line_up(session, rows)?;
    }
    for draft in stored {
        if let Some(unique) = &draft.job.extras.unique {
            hold(session, tid, &unique.key, draft.seq)?;
        }
    }
    for (run, n) in streams(stored, |draft| draft.sid) {
        session.count(run.sid, INSERTED, n);
    }
    for (run, n) in streams(&ready, |draft| draft.sid) {
        session.moved_by(run.sid, State::Available, n);
    }
    for draft in stored.iter().filter(|draft| draft.state != State::Available) {
        session.moved(draft.sid, None, Some(draft.state));
    }
    // A worker's own canary wakes nobody: a fleet of workers sends one every few seconds each.
    if stored.iter().any(|draft| !draft.job.silent) {
        session.wake();
    }
    Ok(())
}

/// Writes rows of `ready`.
fn line_up(session: &Session, rows: &[&&Draft<'_>]) -> Step<()> {
    static MANY: LazyLock<String> = LazyLock::new(|| ready_sql(ROWS));
    static ONE: LazyLock<String> = LazyLock::new(|| ready_sql(1));
    let mut statement = session.conn.prepare_cached(if rows.len() == ROWS { &MANY } else { &ONE })?;
    for (row, at) in rows.iter().zip((1..).step_by(2)) {
        statement.raw_bind_parameter(at, row.pid)?;
        statement.raw_bind_parameter(at + 1, row.seq)?;
    }
    statement.raw_execute()?;
    Ok(())
}

fn ready_sql(rows: usize) -> String {
    let row = |n: usize| format!("(?{pid}, ?{seq}, ?{seq})", pid = 2 * n + 1, seq = 2 * n + 2);
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT INTO ready(pid, ord, seq) VALUES {}", rows.join(", "))
}

/// Running is not written into a job's row: it is held by a lease and has no entry in `ready`.
pub(super) const fn hot(state: State) -> u8 {
    match state {
        State::Running => State::Available.code(),
        other => other.code(),
    }
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Step<String> {
    serde_json::to_string(value).map_err(|error| {
        StepError::Store(StoreError::new("write", "sqlite", ErrorKind::Refused, format!("not JSON: {error}")))
    })
}

/// The answer of the job that has the id already, if there is one.
fn existing(session: &mut Session, tid: i64, job: &NewJob) -> Step<Option<Insert>> {
    let found: Option<(i64, i64, String)> = session
        .conn
        .prepare_cached("SELECT seq, sid, args FROM job WHERE tid = ?1 AND id = ?2")?
        .query_row(params![tid, job.id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((seq, sid, args)) = found else { return Ok(None) };
    let Session { conn, names, .. } = session;
    let stream = names.stream(conn, sid)?;
    if !job.same_content(&stream.kind, &stream.queue, &Args::from_store(args)) {
        return Ok(Some(Insert::Conflict { id: job.id }));
    }
    let state = state_of(session, seq)?.unwrap_or(State::Available);
    Ok(Some(Insert::Existing { id: job.id, state }))
}

/// Where a job is: its row says, except that available and running differ by an entry in `ready`, and that of most
/// completed jobs only their batch says so.
pub(super) fn state_of(session: &mut Session, seq: i64) -> Step<Option<State>> {
    let found: Option<(i64, bool, i64)> = session
        .conn
        .prepare_cached("SELECT state, EXISTS(SELECT 1 FROM ready r WHERE r.pid = job.pid AND r.ord = job.ord), sid FROM job WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((code, ready, sid)) = found else { return Ok(None) };
    Ok(match state_from(code, ready) {
        Some(State::Running) if completed::batch(session, sid, seq)?.is_some() => Some(State::Completed),
        other => other,
    })
}

/// What a job's row says, without its batch: a job that it calls running may have completed.
pub(super) fn state_from(code: i64, ready: bool) -> Option<State> {
    match State::from_code(code) {
        Some(State::Available) if !ready => Some(State::Running),
        other => other,
    }
}

/// Whether another job holds the unique key: the entry is checked against the job it names, so it cannot leak.
fn held(session: &mut Session, tid: i64, unique: &Unique) -> Step<Option<Insert>> {
    let found: Option<(i64, Vec<u8>, i64, Option<String>)> = session
        .conn
        .prepare_cached("SELECT j.seq, j.id, j.enq_at, j.extras FROM uniq u JOIN job j ON j.seq = u.seq WHERE u.tid = ?1 AND u.key = ?2")?
        .query_row(params![tid, unique.key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((seq, holder, inserted, extras)) = found else { return kept(session, tid, unique) };
    let (Some(holder), Some(state)) = (JobId::from_slice(&holder), state_of(session, seq)?) else {
        return Ok(None);
    };
    let asked =
        extras.and_then(|text| serde_json::from_str::<Extras>(&text).ok()).and_then(|extras| extras.unique);
    let holds = asked.is_some_and(|asked| {
        asked.key == unique.key && asked.held_by(state, Timestamp::from_ms(inserted), session.now)
    });
    Ok(holds.then_some(Insert::Held { holder, state }))
}

fn hold(session: &Session, tid: i64, key: &str, seq: i64) -> Step<()> {
    session
        .conn
        .prepare_cached("INSERT INTO uniq(tid, key, seq) VALUES(?1, ?2, ?3) ON CONFLICT(tid, key) DO UPDATE SET seq = excluded.seq")?
        .execute(params![tid, key, seq])?;
    Ok(())
}

/// Gives a job that comes back its unique key again; `false` when another holds it by now.
pub(super) fn hold_again(session: &mut Session, tid: i64, seq: i64) -> Step<bool> {
    let (id, extras): (Vec<u8>, Option<String>) = session
        .conn
        .prepare_cached("SELECT id, extras FROM job WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let extras = extras.and_then(|text| serde_json::from_str::<Extras>(&text).ok());
    let Some(unique) = extras.and_then(|extras| extras.unique) else { return Ok(true) };
    match held(session, tid, &unique)? {
        Some(Insert::Held { holder, .. }) if holder.as_bytes()[..] != id[..] => Ok(false),
        _ => hold(session, tid, &unique.key, seq).map(|()| true),
    }
}

/// A unique key whose job has ended and is gone, but not the window that was asked for.
fn kept(session: &Session, tid: i64, unique: &Unique) -> Step<Option<Insert>> {
    let found: Option<(Vec<u8>, i64)> = session
        .conn
        .prepare_cached("SELECT id, state FROM uniq_kept WHERE tid = ?1 AND key = ?2 AND until > ?3")?
        .query_row(params![tid, unique.key, session.now.ms()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.and_then(|(id, code)| {
        Some(Insert::Held { holder: JobId::from_slice(&id)?, state: State::from_code(code)? })
    }))
}

/// An idempotency key whose job completed and is gone.
fn remembered(session: &Session, tid: i64, job: &NewJob) -> Step<Option<Insert>> {
    let digest: Option<Vec<u8>> = session
        .conn
        .prepare_cached("SELECT digest FROM remembered WHERE tid = ?1 AND id = ?2 AND until > ?3")?
        .query_row(params![tid, job.id.as_bytes(), session.now.ms()], |row| row.get(0))
        .optional()?;
    Ok(digest.map(|digest| {
        if digest == content_digest(&job.kind, &job.queue, &job.args) {
            Insert::Existing { id: job.id, state: State::Completed }
        } else {
            Insert::Conflict { id: job.id }
        }
    }))
}
