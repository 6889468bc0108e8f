//! Claiming: the activation is compared in the same transaction that takes the jobs.

use std::cmp::Reverse;
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};

use super::catalog::Part;
use super::lease::{Held, pack};
use super::session::{Session, Step, streams, tid};
use super::{canary, control, pause};
use crate::activation::{Activation, Decision, decide};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::new::Extras;
use crate::job::{Args, State};
use crate::store::{Actor, Batch, Claim, ClaimAsk, Claimed, Lane, MAX_BATCH};

/// Of every ten jobs claimed, one place is kept for each lower priority that has work, so that none starves.
const LOWER_SHARE: usize = 10;

/// Answers without a transaction when there is nothing to take and nothing to change.
pub(super) fn peek(session: &mut Session, ask: &ClaimAsk) -> Option<Claim> {
    let tid = session.names.known_tier(&ask.tier)?;
    if superseded(session, tid, ask).ok()? {
        return Some(Claim::Superseded);
    }
    let current = control::activation(session, tid).ok()?;
    let canaries = canary::waiting(session, tid, &ask.worker).ok()?.is_some();
    let nothing =
        |waiting: bool| (ask.max == 0 || !waiting).then(|| Taken { more: waiting, ..Taken::default() });
    if ask.lane == Lane::Canaries {
        let generation = current.map_or(0, |current| current.generation);
        return nothing(canaries)
            .map(|taken| Claim::Canaries(batch(session, ask, generation, taken, canaries)));
    }
    match current.as_ref().map(|current| decide(current, &ask.release, ask.generation, session.now)) {
        None | Some(Decision::NotActive) => Some(Claim::NotActive { current, now: session.now, canaries }),
        Some(Decision::Revert { .. }) => None,
        Some(Decision::Serve { generation }) => {
            let paused = pause::queues(session, tid).ok()?;
            let waiting = !parts(session, tid, ask, &paused).ok()?.is_empty();
            nothing(waiting).map(|taken| Claim::Active(batch(session, ask, generation, taken, canaries)))
        }
    }
}

pub(super) fn claim(session: &mut Session, ask: &ClaimAsk) -> Step<Claim> {
    let tid = tid(session, &ask.tier)?;
    if superseded(session, tid, ask)? {
        return Ok(Claim::Superseded);
    }
    let current = control::activation(session, tid)?;
    let lane = canary::waiting(session, tid, &ask.worker)?;
    if ask.lane == Lane::Canaries {
        let generation = current.map_or(0, |current| current.generation);
        let taken = take_canaries(session, lane, ask)?;
        hold(session, tid, ask, &taken)?;
        let more = taken.more;
        return Ok(Claim::Canaries(batch(session, ask, generation, taken, more)));
    }
    let canaries = lane.is_some();
    let decision = current.as_ref().map(|now| decide(now, &ask.release, ask.generation, session.now));
    let generation = match (decision, &current) {
        (Some(Decision::Serve { generation }), _) => generation,
        (Some(Decision::Revert { to }), Some(from)) => revert(session, tid, ask, from, to)?,
        _ => return Ok(Claim::NotActive { current, now: session.now, canaries }),
    };
    let taken = take(session, tid, ask)?;
    hold(session, tid, ask, &taken)?;
    Ok(Claim::Active(batch(session, ask, generation, taken, canaries)))
}

/// What a claim took.
#[derive(Default)]
struct Taken {
    jobs: Vec<Claimed>,
    held: Vec<Held>,
    suspect: bool,
    more: bool,
}

/// Puts what was taken under a lease.
fn hold(session: &mut Session, tid: i64, ask: &ClaimAsk, taken: &Taken) -> Step<()> {
    if taken.held.is_empty() {
        return Ok(());
    }
    for (run, n) in streams(&taken.held, |job| job.sid) {
        session.moved_by(run.sid, State::Available, -n);
        session.moved_by(run.sid, State::Running, n);
    }
    let Session { conn, names, .. } = session;
    let aid = names.actor(conn, &ask.worker, &ask.release)?;
    session
        .conn
        .prepare_cached("INSERT INTO lease(tid, nonce, aid, incarnation, claimed_at, until, suspect, held) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            tid,
            ask.nonce.as_bytes(),
            aid,
            ask.incarnation.as_bytes(),
            session.now.ms(),
            session.now.plus(ask.lease).ms(),
            taken.suspect,
            pack(taken.held.iter())
        ])?;
    Ok(())
}

fn batch(session: &Session, ask: &ClaimAsk, generation: u64, taken: Taken, canaries: bool) -> Batch {
    Batch {
        generation,
        nonce: ask.nonce,
        now: session.now,
        until: session.now.plus(ask.lease),
        jobs: taken.jobs,
        suspect: taken.suspect,
        more: taken.more,
        canaries,
    }
}

/// Whether another process registered under this worker's name.
fn superseded(session: &Session, tid: i64, ask: &ClaimAsk) -> Step<bool> {
    let known: Option<Vec<u8>> = session
        .conn
        .prepare_cached("SELECT incarnation FROM presence WHERE tid = ?1 AND worker = ?2")?
        .query_row(params![tid, ask.worker.as_str()], |row| row.get(0))
        .optional()?;
    Ok(known.is_some_and(|known| known != ask.incarnation.as_bytes()))
}

/// The dead-man: this poll proves that the fallback lives.
fn revert(session: &mut Session, tid: i64, ask: &ClaimAsk, from: &Activation, to: Activation) -> Step<u64> {
    let by = Actor {
        who: format!("worker/{}", ask.worker),
        reason: Some(format!("generation {} ({}) was not confirmed in time", from.generation, from.release)),
    };
    let generation = to.generation;
    control::install(session, tid, Some(from), &to, &by, "activation.reverted")?;
    Ok(generation)
}

/// Takes canaries of the worker that asks, from the head of its lane.
fn take_canaries(session: &mut Session, lane: Option<i64>, ask: &ClaimAsk) -> Step<Taken> {
    let mut taken = Taken { more: lane.is_some(), ..Taken::default() };
    let max = ask.max.min(MAX_BATCH);
    if let Some(pid) = lane
        && max > 0
    {
        let Session { conn, names, .. } = session;
        let part = names.part_of(conn, pid)?;
        from_part(session, pid, &part, max, &mut taken.jobs, &mut taken.held)?;
        taken.more = canary::waiting(session, part.tid, &ask.worker)?.is_some();
    }
    Ok(taken)
}

/// Takes jobs: one suspect alone if there is one and it may be taken, else a batch by priority.
fn take(session: &mut Session, tid: i64, ask: &ClaimAsk) -> Step<Taken> {
    let mut taken = Taken::default();
    let Taken { jobs, held, .. } = &mut taken;
    let max = ask.max.min(MAX_BATCH);
    let paused = pause::queues(session, tid)?;
    let parts = parts(session, tid, ask, &paused)?;
    if max == 0 {
        return Ok(Taken { more: !parts.is_empty(), ..taken });
    }
    for (pid, part) in parts.iter().filter(|(_, part)| part.suspect) {
        from_part(session, *pid, part, 1, jobs, held)?;
        if !held.is_empty() {
            let more = !self::parts(session, tid, ask, &paused)?.is_empty();
            return Ok(Taken { suspect: true, more, ..taken });
        }
    }
    let ordinary: Vec<_> = parts.into_iter().filter(|(_, part)| !part.suspect).collect();
    // Two rounds: first every part its share, then whoever has more, strictly by priority.
    for (pid, part, share) in shares(&ordinary, max) {
        let room = share.min(max - held.len());
        from_part(session, pid, part, room, jobs, held)?;
    }
    for (pid, part) in &ordinary {
        let room = max - held.len();
        if room == 0 {
            break;
        }
        from_part(session, *pid, part, room, jobs, held)?;
    }
    // Also with room left: the claim may have stopped in the middle of a backlog that is too late.
    let more = !self::parts(session, tid, ask, &paused)?.is_empty();
    Ok(Taken { more, ..taken })
}

/// Parts with work that this worker serves and nobody paused: suspects first, then by priority, queues of one priority in
/// random order.
fn parts(session: &mut Session, tid: i64, ask: &ClaimAsk, paused: &[String]) -> Step<Vec<(i64, Part)>> {
    let mut found = Vec::new();
    let mut after = -1; // the lanes of canaries are from there down
    loop {
        // A seek per part that has work; parts without are never visited.
        let next: Option<i64> = session
            .conn
            .prepare_cached("SELECT pid FROM ready WHERE pid > ?1 ORDER BY pid LIMIT 1")?
            .query_row([after], |row| row.get(0))
            .optional()?;
        let Some(pid) = next else { break };
        after = pid;
        let Session { conn, names, .. } = session;
        let part = names.part_of(conn, pid)?;
        let served = ask.queues.as_ref().is_none_or(|queues| queues.contains(&part.queue));
        let paused = !paused.is_empty() && paused.iter().any(|queue| queue == part.queue.as_str());
        if part.tid == tid && served && !paused && (ask.suspects || !part.suspect) {
            found.push((pid, part));
        }
    }
    fastrand::shuffle(&mut found);
    found.sort_by_key(|(_, part)| (!part.suspect, Reverse(part.priority)));
    Ok(found)
}

/// How many of `max` each part may take at first: lower priorities a tenth each, the highest the rest, and parts of one
/// priority equal shares.
fn shares(parts: &[(i64, Part)], max: usize) -> Vec<(i64, &Part, usize)> {
    let mut levels: Vec<Vec<&(i64, Part)>> = Vec::new();
    for entry in parts {
        match levels.last_mut() {
            Some(level) if level.first().is_some_and(|first| first.1.priority == entry.1.priority) => {
                level.push(entry)
            }
            _ => levels.push(vec![entry]),
        }
    }
    // A small claim cannot be divided: now and then it goes to a lower priority as a whole.
    if levels.len() > 1 && max < LOWER_SHARE && fastrand::usize(..LOWER_SHARE) == 0 {
        let lower = fastrand::usize(1..levels.len());
        levels.swap(0, lower);
    }
    let lower = max / LOWER_SHARE;
    let highest = max.saturating_sub(lower * levels.len().saturating_sub(1)).max(max / 2);
    let mut shares = Vec::with_capacity(parts.len());
    for (depth, level) in levels.into_iter().enumerate() {
        let quota = if depth == 0 { highest } else { lower };
        let each = quota.div_ceil(level.len().max(1));
        shares.extend(level.into_iter().map(|(pid, part)| (*pid, part, each)));
    }
    shares
}

/// Takes up to `room` jobs from the head of one part; what is too late expires on the way.
fn from_part(
    session: &mut Session,
    pid: i64,
    part: &Part,
    room: usize,
    jobs: &mut Vec<Claimed>,
    held: &mut Vec<Held>,
) -> Step<()> {
    let mut room = room;
    // A claim must stay short even when a whole backlog is too late: what is left over expires in the next one.
    let mut looks = 3;
    while room > 0 && looks > 0 {
        looks -= 1;
        let (rows, last) = head(session, pid, room)?;
        let Some(last) = last else { return Ok(()) };
        session
            .conn
            .prepare_cached("DELETE FROM ready WHERE pid = ?1 AND ord <= ?2")?
            .execute([pid, last])?;
        let short = rows.len() < room;
        for row in rows {
            if row.exp_at.is_some_and(|at| at <= session.now) {
                super::settle::end_waiting(session, row.seq, row.sid, State::Available, State::Expired)?;
                continue;
            }
            let Session { conn, names, .. } = session;
            let kind = names.stream(conn, row.sid)?.kind.clone();
            held.push(Held {
                seq: row.seq,
                sid: row.sid,
                plain: row.exp_at.is_none() && row.extras.is_none(),
            });
            jobs.push(row.claimed(part, kind));
            room -= 1;
        }
        if short {
            return Ok(());
        }
    }
    Ok(())
}

struct Row {
    seq: i64,
    sid: i64,
    id: JobId,
    version: u32,
    failures: u32,
    crashes: u32,
    enq_at: Timestamp,
    run_at: Option<Timestamp>,
    exp_at: Option<Timestamp>,
    args: String,
    extras: Option<String>,
}

impl Row {
    fn claimed(self, part: &Part, kind: crate::names::Kind) -> Claimed {
        Claimed {
            id: self.id,
            slot: u64::try_from(self.seq).unwrap_or_default(),
            kind,
            queue: part.queue.clone(),
            args: Args::from_store(self.args),
            version: self.version,
            failures: self.failures,
            crashes: self.crashes,
            enqueued_at: self.enq_at,
            due_at: self.run_at.unwrap_or(self.enq_at),
            expires_at: self.exp_at,
            extras: self.extras.and_then(|text| serde_json::from_str::<Extras>(&text).ok()).map(Arc::new),
        }
    }
}

/// The first rows of a part, and the place of the last of them.
fn head(session: &Session, pid: i64, room: usize) -> Step<(Vec<Row>, Option<i64>)> {
    let mut statement = session.conn.prepare_cached(
        "SELECT r.ord, j.seq, j.sid, j.id, j.version, j.failures, j.crashes, j.enq_at, j.exp_at, j.args, j.extras, j.run_at
         FROM ready r JOIN job j ON j.seq = r.seq WHERE r.pid = ?1 ORDER BY r.ord LIMIT ?2",
    )?;
    let mut rows = statement.query(params![pid, i64::try_from(room).unwrap_or(i64::MAX)])?;
    let (mut found, mut last) = (Vec::with_capacity(room), None);
    while let Some(row) = rows.next()? {
        last = Some(row.get(0)?);
        found.push(Row {
            seq: row.get(1)?,
            sid: row.get(2)?,
            id: JobId::from_bytes(row.get(3)?),
            version: row.get(4)?,
            failures: row.get(5)?,
            crashes: row.get(6)?,
            enq_at: Timestamp::from_ms(row.get(7)?),
            exp_at: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_ms),
            args: row.get(9)?,
            extras: row.get(10)?,
            run_at: row.get::<_, Option<i64>>(11)?.map(Timestamp::from_ms),
        });
    }
    Ok((found, last))
}
