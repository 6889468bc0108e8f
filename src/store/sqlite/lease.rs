//! What a lease holds, as bytes in one row: twelve for each job, so that a batch is claimed and settled with one write.
//! Eight are the job's number; of the other four the highest bit says that it is plain, the rest is its stream.

use rusqlite::{OptionalExtension as _, Row, params};

use super::session::{Session, Step};

/// One held job: its row and its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) seq: i64,
    pub(super) sid: i64,
    /// It has no keys, no tags and no expiry: nothing but its batch has to know that it completed.
    pub(super) plain: bool,
}

const PLAIN: u32 = 1 << 31;

/// A lease row.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) lid: i64,
    pub(super) tid: i64,
    pub(super) aid: i64,
    pub(super) claimed_at: i64,
    pub(super) suspect: bool,
    pub(super) held: Vec<Held>,
}

impl Lease {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let held: Vec<u8> = row.get(5)?;
        Ok(Self {
            lid: row.get(0)?,
            tid: row.get(1)?,
            aid: row.get(2)?,
            claimed_at: row.get(3)?,
            suspect: row.get(4)?,
            held: unpack(&held),
        })
    }

    pub(super) fn by_nonce(session: &Session, tid: i64, nonce: &[u8; 16]) -> Step<Option<Self>> {
        Ok(session
            .conn
            .prepare_cached(
                "SELECT lid, tid, aid, claimed_at, suspect, held FROM lease WHERE nonce = ?1 AND tid = ?2",
            )?
            .query_row(params![nonce, tid], Self::read)
            .optional()?)
    }

    /// Writes what is still held; a lease that holds nothing is gone.
    pub(super) fn store(&self, session: &Session) -> Step<()> {
        if self.held.is_empty() {
            session.conn.prepare_cached("DELETE FROM lease WHERE lid = ?1")?.execute([self.lid])?;
        } else {
            session
                .conn
                .prepare_cached("UPDATE lease SET held = ?2 WHERE lid = ?1")?
                .execute(params![self.lid, pack(self.held.iter())])?;
        }
        Ok(())
    }
}

pub(super) fn pack<'a>(held: impl ExactSizeIterator<Item = &'a Held>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(held.len() * 12);
    for one in held {
        let sid = u32::try_from(one.sid).unwrap_or(u32::MAX) & !PLAIN;
        bytes.extend_from_slice(&one.seq.to_le_bytes());
        bytes.extend_from_slice(&(if one.plain { sid | PLAIN } else { sid }).to_le_bytes());
    }
    bytes
}

pub(super) fn unpack(bytes: &[u8]) -> Vec<Held> {
    bytes
        .chunks_exact(12)
        .filter_map(|chunk| {
            let (seq, sid) = chunk.split_at(8);
            let sid = u32::from_le_bytes(sid.try_into().ok()?);
            Some(Held {
                seq: i64::from_le_bytes(seq.try_into().ok()?),
                sid: i64::from(sid & !PLAIN),
                plain: sid & PLAIN != 0,
            })
        })
        .collect()
}
