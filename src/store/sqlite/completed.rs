//! Completions: a batch a row, in the order in which they came, which is the order in which they are trimmed.
//!
//! Of a large batch of plain jobs this row is all that is written: the jobs' own rows stay as they were when they were
//! claimed, until trimming deletes them. Such a job has no entry in `ready` and is in no lease, and its batch is found by
//! the numbers it spans. Batches that are so written are large, so a queue keeps few of them and looking is bounded.
//! A completed job stays completed, so nothing ever has to be taken out of the middle of a batch.

use rusqlite::{Connection, params};

use super::lease::{Held, Lease, pack, unpack};
use super::session::{Session, Step, streams};
use crate::job::State;
use crate::store::digest::COMPLETED;

/// Jobs of a batch that is kept in one row; of a smaller one each job's row is written. 10,000 kept jobs are then at most
/// 200 such batches.
pub(super) const LEAST: usize = 50;

/// One completed job and how long it ran, in microseconds.
pub(super) type Ran = (Held, i64);

/// What is known of the jobs of one batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) at: i64,
    pub(super) claimed_at: i64,
    pub(super) aid: i64,
    pub(super) nonce: Vec<u8>,
    /// The jobs by number, and how long they ran.
    pub(super) jobs: Vec<(i64, i64)>,
}

/// Records what completed under a lease, all of one queue.
pub(super) fn complete(
    session: &mut Session,
    lease: &Lease,
    nonce: &[u8; 16],
    qid: i64,
    jobs: Vec<Ran>,
) -> Step<()> {
    for ((run, _), n) in streams(&jobs, |(job, _)| job.sid) {
        session.moved_by(run.sid, State::Running, -n);
        session.moved_by(run.sid, State::Completed, n);
        session.count(run.sid, COMPLETED, n);
    }
    session.keep(qid, i64::try_from(jobs.len()).unwrap_or_default());
    let (plain, mut single): (Vec<Ran>, Vec<Ran>) = jobs.into_iter().partition(|(job, _)| job.plain);
    if plain.len() < LEAST {
        single.extend(plain);
    } else {
        whole(session, lease, nonce, qid, &plain)?;
    }
    if !single.is_empty() {
        singly(session, lease, nonce, qid, &single)?;
    }
    Ok(())
}

/// A batch whose row says it all.
fn whole(session: &mut Session, lease: &Lease, nonce: &[u8; 16], qid: i64, jobs: &[Ran]) -> Step<()> {
    let did = session.next()?;
    let seqs = || jobs.iter().map(|(job, _)| job.seq);
    session
        .conn
        .prepare_cached(
            "INSERT INTO completed(qid, did, at, held, first, last, claimed_at, aid, nonce, ran)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            qid,
            did,
            session.now.ms(),
            pack(jobs.iter().map(|(job, _)| job)),
            seqs().min(),
            seqs().max(),
            lease.claimed_at,
            lease.aid,
            nonce,
            jobs.iter().flat_map(|(_, us)| us.to_le_bytes()).collect::<Vec<u8>>()
        ])?;
    Ok(())
}

/// A batch that is only the order; its jobs' rows say the rest.
fn singly(session: &mut Session, lease: &Lease, nonce: &[u8; 16], qid: i64, jobs: &[Ran]) -> Step<()> {
    let mut update = session.conn.prepare_cached(
        "UPDATE job SET state = 5, claimed_at = ?2, fin_at = ?3, ran_us = ?4, aid = ?5, nonce = ?6 WHERE seq = ?1",
    )?;
    for (job, us) in jobs {
        update.execute(params![job.seq, lease.claimed_at, session.now.ms(), us, lease.aid, nonce])?;
    }
    drop(update);
    in_order(session, qid, jobs.iter().map(|(job, _)| job))
}

/// Remembers the order of completion of jobs whose own rows say the rest.
pub(super) fn in_order<'h>(
    session: &mut Session,
    qid: i64,
    jobs: impl ExactSizeIterator<Item = &'h Held>,
) -> Step<()> {
    let did = session.next()?;
    session
        .conn
        .prepare_cached("INSERT INTO completed(qid, did, at, held) VALUES(?1, ?2, ?3, ?4)")?
        .execute(params![qid, did, session.now.ms(), pack(jobs)])?;
    Ok(())
}

/// The batch that a job completed with, unless its own row says that it completed.
pub(super) fn batch_of(conn: &Connection, qid: i64, seq: i64) -> rusqlite::Result<Option<Batch>> {
    let mut statement = conn.prepare_cached(
        "SELECT at, claimed_at, aid, nonce, held, ran FROM completed INDEXED BY completed_whole
         WHERE qid = ?1 AND last >= ?2 AND first <= ?2 ORDER BY last",
    )?;
    let mut rows = statement.query([qid, seq])?;
    while let Some(row) = rows.next()? {
        let (held, ran): (Vec<u8>, Vec<u8>) = (row.get(4)?, row.get(5)?);
        let ran = ran.as_chunks().0.iter().map(|us| i64::from_le_bytes(*us));
        let jobs: Vec<(i64, i64)> = unpack(&held).iter().map(|job| job.seq).zip(ran).collect();
        if jobs.iter().any(|(one, _)| *one == seq) {
            return Ok(Some(Batch {
                at: row.get(0)?,
                claimed_at: row.get(1)?,
                aid: row.get(2)?,
                nonce: row.get(3)?,
                jobs,
            }));
        }
    }
    Ok(None)
}

/// The batch that a job of a stream completed with, as [`batch_of`].
pub(super) fn batch(session: &mut Session, sid: i64, seq: i64) -> Step<Option<Batch>> {
    let Session { conn, names, .. } = session;
    Ok(batch_of(conn, names.stream(conn, sid)?.qid, seq)?)
}
