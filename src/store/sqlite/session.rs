//! What a step of the writer works with: the connection inside a transaction, the names, and the counters that are
//! written once per transaction however many jobs it moves.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Result as SqlResult, params};

use super::catalog::Catalog;
use crate::clock::{Clock, Timestamp};
use crate::job::State;
use crate::names::Tier;
use crate::store::StoreError;

/// Changes of `tally` and of `queue.kept`.
type Counted = (HashMap<(i64, u8), i64>, HashMap<i64, i64>);

/// What a step sees: the connection, inside a transaction, and what must be kept with it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: Connection,
    pub(super) names: Catalog,
    /// The store's time, read once per step.
    pub(super) now: Timestamp,
    clock: Arc<dyn Clock>,
    next: Option<i64>,
    tally: HashMap<(i64, u8), i64>,
    kept: HashMap<i64, i64>,
    wake: bool,
}

/// Why a step failed.
#[derive(Debug)]
pub(super) enum StepError {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for StepError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

pub(super) type Step<T> = Result<T, StepError>;

impl Session {
    pub(super) fn new(conn: Connection, clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self {
            conn,
            names: Catalog::default(),
            now,
            clock,
            next: None,
            tally: HashMap::new(),
            kept: HashMap::new(),
            wake: false,
        }
    }

    /// Reads the clock for the next step, and says what has been counted so far.
    pub(super) fn next_step(&mut self) -> Counted {
        self.now = self.clock.now();
        (self.tally.clone(), self.kept.clone())
    }

    /// Whether subscribers are to be told; asked once, after the commit.
    pub(super) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }

    /// The next number: for new jobs and for places at the tail of a ready list. Never used twice, even by an emptied
    /// table.
    pub(super) fn next(&mut self) -> SqlResult<i64> {
        let next = match self.next {
            Some(next) => next,
            None => self
                .conn
                .prepare_cached("SELECT value FROM meta WHERE key = 'next'")?
                .query_row([], |row| row.get(0))?,
        };
        self.next = Some(next + 1);
        Ok(next)
    }

    /// Counts jobs of a stream out of one state and into another.
    pub(super) fn moved(&mut self, sid: i64, from: Option<State>, to: Option<State>) {
        if let Some(from) = from {
            *self.tally.entry((sid, from.code())).or_default() -= 1;
        }
        if let Some(to) = to {
            *self.tally.entry((sid, to.code())).or_default() += 1;
        }
    }

    /// Counts several jobs of a stream into a state, or out of it.
    pub(super) fn moved_by(&mut self, sid: i64, state: State, by: i64) {
        *self.tally.entry((sid, state.code())).or_default() += by;
    }

    /// Adds to a total.
    pub(super) fn count(&mut self, sid: i64, total: u8, by: i64) {
        *self.tally.entry((sid, total)).or_default() += by;
    }

    /// Completed jobs kept in a queue.
    pub(super) fn keep(&mut self, qid: i64, by: i64) {
        *self.kept.entry(qid).or_default() += by;
    }

    /// Completed jobs kept in a queue, this transaction included.
    pub(super) fn kept(&self, qid: i64) -> SqlResult<i64> {
        let stored: i64 = self
            .conn
            .prepare_cached("SELECT kept FROM queue WHERE qid = ?1")?
            .query_row([qid], |row| row.get(0))
            .optional()?
            .unwrap_or(0);
        Ok(stored + self.kept.get(&qid).copied().unwrap_or(0))
    }

    /// Wakes subscribers after the commit.
    pub(super) fn wake(&mut self) {
        self.wake = true;
    }

    pub(super) fn flush(&mut self) -> SqlResult<()> {
        if let Some(next) = self.next.take() {
            self.conn.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'next'")?.execute([next])?;
        }
        let mut add = self
            .conn
            .prepare_cached("INSERT INTO tally(sid, code, n) VALUES(?1, ?2, ?3) ON CONFLICT(sid, code) DO UPDATE SET n = n + excluded.n")?;
        for ((sid, code), by) in self.tally.drain().filter(|(_, by)| *by != 0) {
            add.execute(params![sid, code, by])?;
        }
        drop(add);
        let mut keep = self.conn.prepare_cached("UPDATE queue SET kept = kept + ?2 WHERE qid = ?1")?;
        for (qid, by) in self.kept.drain().filter(|(_, by)| *by != 0) {
            keep.execute(params![qid, by])?;
        }
        Ok(())
    }

    /// What a failed step counted is forgotten with what it wrote.
    pub(super) fn restore(&mut self, counted: Counted) {
        (self.tally, self.kept) = counted;
        self.names = Catalog::default();
    }

    pub(super) fn forget(&mut self) {
        self.next = None;
        self.wake = false;
        self.restore(Counted::default());
    }
}

/// Runs of neighbours of one stream, as the first of each and how many they are: counters are changed a run at a time.
pub(super) fn streams<T>(jobs: &[T], sid: impl Fn(&T) -> i64) -> impl Iterator<Item = (&T, i64)> {
    jobs.chunk_by(move |a, b| sid(a) == sid(b))
        .filter_map(|run| Some((run.first()?, i64::try_from(run.len()).unwrap_or_default())))
}

/// A tier's row, known or created.
pub(super) fn tid(session: &mut Session, tier: &Tier) -> SqlResult<i64> {
    let Session { conn, names, .. } = session;
    names.tier(conn, tier)
}
