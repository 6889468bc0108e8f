//! The control plane: the activation, versioned records, the ledger, and workers' presence.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::catalog::bad_name;
use super::insert::to_json;
use super::lease::Lease;
use super::session::{Session, Step, tid};
use super::{pause, sweep};
use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::Timestamp;
use crate::names::Tier;
use crate::store::{
    Actor, Beat, Flip, Flipped, Guard, LedgerEntry, Presence, Put, Record, Seen, Space, Swept,
};

/// The tiers that are known. A row in `tier` is not enough: whoever asks about one makes it. Queues are never removed, so
/// that a tier which ever had a job has one.
pub(super) fn tiers(conn: &Connection) -> rusqlite::Result<Vec<Tier>> {
    let mut statement = conn.prepare_cached(
        "SELECT t.name FROM tier t WHERE EXISTS(SELECT 1 FROM activation a WHERE a.tid = t.tid)
         OR EXISTS(SELECT 1 FROM presence p WHERE p.tid = t.tid) OR EXISTS(SELECT 1 FROM queue q WHERE q.tid = t.tid)
         ORDER BY t.name",
    )?;
    let rows = statement.query_map([], |row| Tier::new(&row.get::<_, String>(0)?).map_err(bad_name))?;
    rows.collect()
}

/// The activation of a tier. A body that cannot be read is damage, not "none".
pub(super) fn activation(session: &Session, tid: i64) -> Step<Option<Activation>> {
    Ok(read_activation(&session.conn, tid)?)
}

pub(super) fn read_activation(conn: &Connection, tid: i64) -> rusqlite::Result<Option<Activation>> {
    let body: Option<String> = conn
        .prepare_cached("SELECT body FROM activation WHERE tid = ?1")?
        .query_row([tid], |row| row.get(0))
        .optional()?;
    body.map(|body| from_json(&body)).transpose()
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(body: &str) -> rusqlite::Result<T> {
    serde_json::from_str(body).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn write(session: &Session, tid: i64, to: &Activation) -> Step<()> {
    session
        .conn
        .prepare_cached("INSERT INTO activation(tid, body) VALUES(?1, ?2) ON CONFLICT(tid) DO UPDATE SET body = excluded.body")?
        .execute(params![tid, to_json(to)?])?;
    Ok(())
}

/// Installs an activation and records it.
pub(super) fn install(
    session: &mut Session,
    tid: i64,
    from: Option<&Activation>,
    to: &Activation,
    by: &Actor,
    event: &str,
) -> Step<()> {
    write(session, tid, to)?;
    let detail = serde_json::json!({ "from": from, "to": to }).to_string();
    append(session, tid, event, by, &detail)?;
    session.wake();
    Ok(())
}

pub(super) fn flip(
    session: &mut Session,
    tier: &Tier,
    expect: Option<u64>,
    next: &Flip,
    by: &Actor,
) -> Step<Flipped> {
    let tid = tid(session, tier)?;
    if is_fenced(session, tid, next.guard.as_ref())? {
        return Ok(Flipped::Fenced);
    }
    let current = activation(session, tid)?;
    if current.as_ref().map(|current| current.generation) != expect {
        return Ok(Flipped::Raced(current));
    }
    let provisional = next.mode == Mode::Provisional;
    let to = Activation {
        generation: next.generation(expect),
        release: next.release.clone(),
        mode: next.mode,
        confirm_by: next.confirm_within.filter(|_| provisional).map(|within| session.now.plus(within)),
        fallback: next.fallback.clone().filter(|_| provisional),
        deploy: next.deploy.clone(),
        since: session.now,
    };
    install(session, tid, current.as_ref(), &to, by, "activation.flipped")?;
    Ok(Flipped::Now(to))
}

/// Whether the guard is another version than its holder read, or gone.
fn is_fenced(session: &Session, tid: i64, guard: Option<&Guard>) -> Step<bool> {
    let Some(guard) = guard else { return Ok(false) };
    let there = record(&session.conn, tid, guard.space, &guard.key, session.now)?;
    Ok(there.is_none_or(|record| record.version != guard.version))
}

/// Lets a provisional activation stand.
pub(super) fn commit(
    session: &mut Session,
    tier: &Tier,
    generation: u64,
    guard: Option<&Guard>,
    by: &Actor,
) -> Step<Flipped> {
    let tid = tid(session, tier)?;
    if is_fenced(session, tid, guard)? {
        return Ok(Flipped::Fenced);
    }
    let current = activation(session, tid)?;
    match current {
        Some(current) if current.generation == generation => {
            if current.mode == Mode::Provisional {
                let to = current.committed();
                install(session, tid, Some(&current), &to, by, "activation.committed")?;
                return Ok(Flipped::Now(to));
            }
            Ok(Flipped::Now(current))
        }
        other => Ok(Flipped::Raced(other)),
    }
}

/// Moves the deadline of the provisional activation that was seen.
pub(super) fn extend(
    session: &mut Session,
    tier: &Tier,
    seen: &Activation,
    within: Duration,
    guard: Option<&Guard>,
) -> Step<Flipped> {
    let tid = tid(session, tier)?;
    if is_fenced(session, tid, guard)? {
        return Ok(Flipped::Fenced);
    }
    match activation(session, tid)? {
        Some(current) if current == *seen && current.mode == Mode::Provisional => {
            let to = Activation { confirm_by: Some(session.now.plus(within)), ..current };
            write(session, tid, &to)?;
            Ok(Flipped::Now(to))
        }
        other => Ok(Flipped::Raced(other)),
    }
}

pub(super) fn append(session: &mut Session, tid: i64, event: &str, by: &Actor, detail: &str) -> Step<u64> {
    let seq = ledger_end(&session.conn, tid)? + 1;
    session
        .conn
        .prepare_cached(
            "INSERT INTO ledger(tid, seq, at, event, who, reason, detail) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![tid, seq.cast_signed(), session.now.ms(), event, by.who, by.reason, detail])?;
    Ok(seq)
}

/// The sequence number of the last entry.
pub(super) fn ledger_end(conn: &Connection, tid: i64) -> rusqlite::Result<u64> {
    let last: i64 = conn
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM ledger WHERE tid = ?1")?
        .query_row([tid], |row| row.get(0))?;
    Ok(last.unsigned_abs())
}

pub(super) fn ledger(
    conn: &Connection,
    tid: i64,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<LedgerEntry>> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, at, event, who, reason, detail FROM ledger WHERE tid = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let rows = statement.query_map(
        params![tid, i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX)],
        |row| {
            Ok(LedgerEntry {
                seq: row.get::<_, i64>(0)?.unsigned_abs(),
                at: Timestamp::from_ms(row.get(1)?),
                event: row.get(2)?,
                by: Actor { who: row.get(3)?, reason: row.get(4)? },
                detail: row.get(5)?,
            })
        },
    )?;
    rows.collect()
}

fn record_from(row: &rusqlite::Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        key: row.get(0)?,
        version: row.get::<_, i64>(1)?.unsigned_abs(),
        value: row.get(2)?,
        at: Timestamp::from_ms(row.get(3)?),
    })
}

pub(super) fn record(
    conn: &Connection,
    tid: i64,
    space: Space,
    key: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Record>> {
    conn.prepare_cached(
        "SELECT key, version, value, at FROM record WHERE tid = ?1 AND space = ?2 AND key = ?3 AND (until IS NULL OR until > ?4)",
    )?
    .query_row(params![tid, space.as_str(), key, now.ms()], record_from)
    .optional()
}

pub(super) fn records(
    conn: &Connection,
    tid: i64,
    space: Space,
    after: Option<&str>,
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<Vec<Record>> {
    let mut statement = conn.prepare_cached(
        "SELECT key, version, value, at FROM record WHERE tid = ?1 AND space = ?2 AND key > ?3 AND (until IS NULL OR until > ?4) ORDER BY key LIMIT ?5",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![tid, space.as_str(), after.unwrap_or(""), now.ms(), limit], record_from)?;
    rows.collect()
}

pub(super) fn put(
    session: &mut Session,
    tier: &Tier,
    space: Space,
    key: &str,
    expect: u64,
    value: &str,
    keep: Option<Duration>,
) -> Step<Put> {
    let tid = tid(session, tier)?;
    let current = record(&session.conn, tid, space, key, session.now)?;
    if current.as_ref().map_or(0, |record| record.version) != expect {
        return Ok(Put::Raced(current));
    }
    if value.is_empty() {
        session
            .conn
            .prepare_cached("DELETE FROM record WHERE tid = ?1 AND space = ?2 AND key = ?3")?
            .execute(params![tid, space.as_str(), key])?;
        if space == Space::Control && current.is_some() {
            pause::changed(session, tid)?;
        }
        return Ok(Put::Done(0));
    }
    let version = session.next()?; // from one sequence, so that a recreated record never repeats a version
    let until = keep.map(|keep| session.now.plus(keep).ms());
    session
        .conn
        .prepare_cached("INSERT OR REPLACE INTO record(tid, space, key, version, value, at, until) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![tid, space.as_str(), key, version, value, session.now.ms(), until])?;
    if space == Space::Control {
        pause::changed(session, tid)?;
    }
    Ok(Put::Done(version.unsigned_abs()))
}

pub(super) fn beat(session: &mut Session, tier: &Tier, presence: &Presence) -> Step<Beat> {
    let tid = tid(session, tier)?;
    let known: Option<(Vec<u8>, Option<String>)> = session
        .conn
        .prepare_cached("SELECT incarnation, body FROM presence WHERE tid = ?1 AND worker = ?2")?
        .query_row(params![tid, presence.worker.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let ours = presence.incarnation.as_bytes();
    let same = known.as_ref().is_some_and(|(incarnation, _)| incarnation == ours);
    if !same && known.is_some() && !presence.joining {
        return Ok(Beat::Superseded); // only the first word of a process takes a name over
    }
    if presence.state == WorkerState::Stopped {
        session
            .conn
            .prepare_cached("DELETE FROM presence WHERE tid = ?1 AND worker = ?2")?
            .execute(params![tid, presence.worker.as_str()])?;
        return Ok(Beat::Ok { now: session.now, control: pause::revision(session, tid)? });
    }
    if !same {
        take_over(session, tid, presence)?;
    }
    session
        .conn
        .prepare_cached(
            "INSERT INTO presence(tid, worker, incarnation, at, since, body) VALUES(?1, ?2, ?3, ?4, ?4, ?5)
             ON CONFLICT(tid, worker) DO UPDATE SET at = excluded.at, body = excluded.body,
             since = CASE WHEN incarnation = excluded.incarnation THEN since ELSE excluded.since END, incarnation = excluded.incarnation",
        )?
        .execute(params![tid, presence.worker.as_str(), ours, session.now.ms(), to_json(presence)?])?;
    Ok(Beat::Ok { now: session.now, control: pause::revision(session, tid)? })
}

/// The process that had this name is gone: what it held is rescued now, not when its leases run out.
fn take_over(session: &mut Session, tid: i64, presence: &Presence) -> Step<()> {
    let orphans: Vec<Lease> = {
        let mut statement = session.conn.prepare_cached(
            "SELECT l.lid, l.tid, l.aid, l.claimed_at, l.suspect, l.held FROM lease l JOIN actor a ON a.aid = l.aid
             WHERE l.tid = ?1 AND a.worker = ?2 AND l.incarnation <> ?3",
        )?;
        let rows = statement.query_map(
            params![tid, presence.worker.as_str(), presence.incarnation.as_bytes()],
            Lease::read,
        )?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    let mut swept = Swept::default();
    for lease in orphans {
        sweep::rescue(session, &lease, &mut swept)?;
    }
    Ok(())
}

pub(super) fn workers(conn: &Connection, tid: i64, now: Timestamp) -> rusqlite::Result<Vec<Seen>> {
    let mut statement =
        conn.prepare_cached("SELECT body, at, since FROM presence WHERE tid = ?1 ORDER BY worker")?;
    let rows = statement.query_map([tid], |row| {
        let at = Timestamp::from_ms(row.get(1)?);
        Ok(Seen {
            presence: from_json(&row.get::<_, String>(0)?)?,
            at,
            age: now.since(at),
            since: Timestamp::from_ms(row.get(2)?),
        })
    })?;
    rows.collect()
}
