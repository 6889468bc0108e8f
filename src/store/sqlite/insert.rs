//! Inserting jobs: idempotent by id, unique by key.

use rusqlite::{OptionalExtension as _, params};

use super::session::{Session, Step, StepError, tid};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::new::{Expiry, Extras};
use crate::job::{Args, NewJob, State, Unique, When};
use crate::names::Tier;
use crate::store::digest::{INSERTED, content_digest};
use crate::store::{Durability, ErrorKind, Insert, StoreError};

pub(super) fn insert(
    session: &mut Session,
    tier: &Tier,
    jobs: &[NewJob],
    durability: Durability,
) -> Step<Vec<Insert>> {
    let tid = tid(session, tier)?;
    jobs.iter().map(|job| one(session, tid, job, durability)).collect()
}

fn one(session: &mut Session, tid: i64, job: &NewJob, durability: Durability) -> Step<Insert> {
    if job.extras.idempotency_key.is_some()
        && let Some(answer) = remembered(session, tid, job)?
    {
        return Ok(answer);
    }
    if let Some(unique) = &job.extras.unique {
        // A job that was stored before answers for itself, whoever holds its key by now.
        if let Some(answer) = existing(session, tid, job)? {
            return Ok(answer);
        }
        if let Some(answer) = held(session, tid, unique)? {
            return Ok(answer);
        }
    }
    let now = session.now;
    let run_at = match job.when {
        When::Now => None,
        When::After(delay) => Some(now.plus(delay)),
        When::At(time) => Some(time),
    };
    let run_at = run_at.filter(|time| *time > now);
    let state = if run_at.is_some() { State::Scheduled } else { State::Available };
    let expires = job.expiry.map(|expiry| match expiry {
        Expiry::After(span) => now.plus(span),
        Expiry::At(time) => time,
    });
    let extras = if job.extras.is_empty() { None } else { Some(to_json(&job.extras)?) };
    let Session { conn, names, .. } = session;
    let (sid, pid) = names.place(conn, tid, job)?;
    let seq = session.next()?;
    let stored = session
        .conn
        .prepare_cached(
            "INSERT INTO job(seq, tid, id, sid, pid, ord, state, version, enq_at, run_at, exp_at, args, extras)
             VALUES(?1, ?2, ?3, ?4, ?5, ?1, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT(tid, id) DO NOTHING",
        )?
        .execute(params![
            seq,
            tid,
            job.id.as_bytes(),
            sid,
            pid,
            hot(state),
            job.version,
            now.ms(),
            run_at.map(Timestamp::ms),
            expires.map(Timestamp::ms),
            job.args.as_str(),
            extras
        ])?;
    if stored == 0 {
        return existing(session, tid, job)?.ok_or(StepError::Sql(rusqlite::Error::QueryReturnedNoRows));
    }
    if state == State::Available {
        session
            .conn
            .prepare_cached("INSERT INTO ready(pid, ord, seq) VALUES(?1, ?2, ?2)")?
            .execute([pid, seq])?;
    }
    if let Some(unique) = &job.extras.unique {
        hold(session, tid, &unique.key, seq)?;
    }
    session.moved(sid, None, Some(state));
    session.count(sid, INSERTED);
    if job.extras.canary.is_none() {
        session.wake(); // a canary wakes nobody: a fleet of workers sends one every few seconds each
    }
    Ok(Insert::Stored { id: job.id, state, durability })
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

/// Where a job is: its row says, except that available and running differ by an entry in `ready`.
pub(super) fn state_of(session: &Session, seq: i64) -> Step<Option<State>> {
    let found: Option<(i64, bool)> = session
        .conn
        .prepare_cached("SELECT state, EXISTS(SELECT 1 FROM ready r WHERE r.pid = job.pid AND r.ord = job.ord) FROM job WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.and_then(|(code, ready)| state_from(code, ready)))
}

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
