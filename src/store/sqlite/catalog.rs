//! Names, once each: tiers, queues, streams (queue and kind), parts (queue, priority, suspect) and actors (worker and
//! release) are small integers in the rows, and these caches know what they stand for. A cache is dropped whenever a
//! step fails, since the rows it made may be gone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, OptionalExtension as _, Result, params};

use crate::job::NewJob;
use crate::names::{Kind, Queue, Release, Tier, WorkerName};

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) qid: i64,
    pub(super) queue: Queue,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) tid: i64,
    pub(super) qid: i64,
    pub(super) queue: Queue,
    pub(super) priority: i8,
    pub(super) suspect: bool,
}

#[derive(Debug, Default)]
pub(super) struct Catalog {
    tiers: HashMap<Tier, i64>,
    queues: HashMap<(i64, Queue), i64>,
    streams: HashMap<(i64, Kind), i64>,
    by_sid: HashMap<i64, Stream>,
    parts: HashMap<(i64, i8, bool), i64>,
    lanes: HashMap<(i64, WorkerName), i64>,
    by_pid: HashMap<i64, Part>,
    actors: HashMap<(WorkerName, Release), i64>,
}

/// A name in the file that this version would not have written.
pub(super) fn bad_name(error: crate::names::BadName) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

impl Catalog {
    pub(super) fn tier(&mut self, conn: &Connection, tier: &Tier) -> Result<i64> {
        if let Some(tid) = self.tiers.get(tier) {
            return Ok(*tid);
        }
        conn.prepare_cached("INSERT INTO tier(name) VALUES(?1) ON CONFLICT DO NOTHING")?
            .execute([tier.as_str()])?;
        let tid = conn
            .prepare_cached("SELECT tid FROM tier WHERE name = ?1")?
            .query_row([tier.as_str()], |row| row.get(0))?;
        self.tiers.insert(tier.clone(), tid);
        Ok(tid)
    }

    /// Without creating it.
    pub(super) fn known_tier(&self, tier: &Tier) -> Option<i64> {
        self.tiers.get(tier).copied()
    }

    fn queue(&mut self, conn: &Connection, tid: i64, queue: &Queue) -> Result<i64> {
        let key = (tid, queue.clone());
        if let Some(qid) = self.queues.get(&key) {
            return Ok(*qid);
        }
        conn.prepare_cached("INSERT INTO queue(tid, name) VALUES(?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![tid, queue.as_str()])?;
        let qid = conn
            .prepare_cached("SELECT qid FROM queue WHERE tid = ?1 AND name = ?2")?
            .query_row(params![tid, queue.as_str()], |row| row.get(0))?;
        self.queues.insert(key, qid);
        Ok(qid)
    }

    /// The stream and the part of a job.
    pub(super) fn place(&mut self, conn: &Connection, tid: i64, job: &NewJob) -> Result<(i64, i64)> {
        let kind = &job.kind;
        let qid = self.queue(conn, tid, &job.queue)?;
        let key = (qid, kind.clone());
        let sid = match self.streams.get(&key) {
            Some(sid) => *sid,
            None => {
                conn.prepare_cached("INSERT INTO stream(qid, kind) VALUES(?1, ?2) ON CONFLICT DO NOTHING")?
                    .execute(params![qid, kind.as_str()])?;
                let sid = conn
                    .prepare_cached("SELECT sid FROM stream WHERE qid = ?1 AND kind = ?2")?
                    .query_row(params![qid, kind.as_str()], |row| row.get(0))?;
                self.streams.insert(key, sid);
                sid
            }
        };
        let pid = match &job.extras.canary {
            None => self.part(conn, qid, job.priority, false)?,
            Some(worker) => match self.lane(conn, tid, worker)? {
                Some(pid) => pid,
                None => self.open_lane(conn, tid, qid, worker)?,
            },
        };
        Ok((sid, pid))
    }

    /// The part of a worker's canaries, if there ever was one.
    pub(super) fn lane(&mut self, conn: &Connection, tid: i64, worker: &WorkerName) -> Result<Option<i64>> {
        let key = (tid, worker.clone());
        if let Some(pid) = self.lanes.get(&key) {
            return Ok(Some(*pid));
        }
        let pid: Option<i64> = conn
            .prepare_cached(
                "SELECT p.pid FROM queue q JOIN part p ON p.qid = q.qid AND p.priority = 0 AND p.suspect = 0 AND p.fair = ?3
                 WHERE q.tid = ?1 AND q.name = ?2",
            )?
            .query_row(params![tid, Queue::canaries().as_str(), worker.as_str()], |row| row.get(0))
            .optional()?;
        if let Some(pid) = pid {
            self.lanes.insert(key, pid);
        }
        Ok(pid)
    }

    /// Its number is negative: claims of the tier's jobs begin behind it. (In a file where the first part is a lane, SQLite
    /// gives the next part the number 0.)
    fn open_lane(&mut self, conn: &Connection, tid: i64, qid: i64, worker: &WorkerName) -> Result<i64> {
        let pid: i64 = conn
            .prepare_cached(
                "INSERT INTO part(pid, qid, priority, suspect, fair) VALUES((SELECT min(0, coalesce(min(pid), 0)) - 1 FROM part), ?1, 0, 0, ?2) RETURNING pid",
            )?
            .query_row(params![qid, worker.as_str()], |row| row.get(0))?;
        self.lanes.insert((tid, worker.clone()), pid);
        Ok(pid)
    }

    pub(super) fn part(&mut self, conn: &Connection, qid: i64, priority: i8, suspect: bool) -> Result<i64> {
        let key = (qid, priority, suspect);
        if let Some(pid) = self.parts.get(&key) {
            return Ok(*pid);
        }
        conn.prepare_cached(
            "INSERT INTO part(qid, priority, suspect) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![qid, priority, suspect])?;
        let pid = conn
            .prepare_cached(
                "SELECT pid FROM part WHERE qid = ?1 AND priority = ?2 AND suspect = ?3 AND fair = ''",
            )?
            .query_row(params![qid, priority, suspect], |row| row.get(0))?;
        self.parts.insert(key, pid);
        Ok(pid)
    }

    pub(super) fn stream(&mut self, conn: &Connection, sid: i64) -> Result<&Stream> {
        let vacant = match self.by_sid.entry(sid) {
            Entry::Occupied(known) => return Ok(known.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let (qid, queue, kind): (i64, String, String) = conn
            .prepare_cached(
                "SELECT s.qid, q.name, s.kind FROM stream s JOIN queue q ON q.qid = s.qid WHERE s.sid = ?1",
            )?
            .query_row([sid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(vacant.insert(Stream {
            qid,
            queue: Queue::stored(&queue).map_err(bad_name)?,
            kind: Kind::new(&kind).map_err(bad_name)?,
        }))
    }

    pub(super) fn part_of(&mut self, conn: &Connection, pid: i64) -> Result<Part> {
        if let Some(part) = self.by_pid.get(&pid) {
            return Ok(part.clone());
        }
        let (tid, qid, queue, priority, suspect): (i64, i64, String, i8, bool) = conn
            .prepare_cached("SELECT q.tid, p.qid, q.name, p.priority, p.suspect FROM part p JOIN queue q ON q.qid = p.qid WHERE p.pid = ?1")?
            .query_row([pid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
        let part = Part { tid, qid, queue: Queue::stored(&queue).map_err(bad_name)?, priority, suspect };
        self.by_pid.insert(pid, part.clone());
        Ok(part)
    }

    /// The same place for a suspect, or back.
    pub(super) fn moved(&mut self, conn: &Connection, pid: i64, suspect: bool) -> Result<i64> {
        let part = self.part_of(conn, pid)?;
        if part.suspect == suspect { Ok(pid) } else { self.part(conn, part.qid, part.priority, suspect) }
    }

    pub(super) fn actor(&mut self, conn: &Connection, worker: &WorkerName, release: &Release) -> Result<i64> {
        let key = (worker.clone(), release.clone());
        if let Some(aid) = self.actors.get(&key) {
            return Ok(*aid);
        }
        conn.prepare_cached("INSERT INTO actor(worker, release) VALUES(?1, ?2) ON CONFLICT DO NOTHING")?
            .execute([worker.as_str(), release.as_str()])?;
        let aid = conn
            .prepare_cached("SELECT aid FROM actor WHERE worker = ?1 AND release = ?2")?
            .query_row([worker.as_str(), release.as_str()], |row| row.get(0))?;
        self.actors.insert(key, aid);
        Ok(aid)
    }
}

/// Who an actor is.
pub(super) fn actor_of(conn: &Connection, aid: i64) -> Result<Option<(WorkerName, Release)>> {
    let found: Option<(String, String)> = conn
        .prepare_cached("SELECT worker, release FROM actor WHERE aid = ?1")?
        .query_row([aid], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match found {
        Some((worker, release)) => {
            Some((WorkerName::new(&worker).map_err(bad_name)?, Release::new(&release).map_err(bad_name)?))
        }
        None => None,
    })
}
