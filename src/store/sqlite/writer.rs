//! The one writer of a process: a thread that commits a group of callers in one `BEGIN IMMEDIATE`, and answers them
//! after the commit. A deferred transaction that turns into a writer fails with "busy" as soon as another process writes
//! (measured: 462,252 errors against 2,676 commits), so there is none.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::schema::explain;
use super::session::{Session, Step, StepError};
use super::turn::Turn;
use super::wake::Signal;
use crate::clock::{Clock, instant};
use crate::store::{ErrorKind, StoreError};

/// Most callers of one commit.
const MAX_GROUP: usize = 256;
/// A group stops growing when it has run this long, so that a commit stays short.
const GROUP_TIME: Duration = Duration::from_millis(5);
/// A caller waits this long for its answer; then nobody knows what became of it.
const ANSWER: Duration = Duration::from_secs(10);

/// How a step wants to be treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// The operation, for errors.
    pub(super) name: &'static str,
    /// It must be on disk before it is answered; a group without such a step commits without waiting for the disk.
    pub(super) durable: bool,
    /// Renewals and presence go first.
    pub(super) urgent: bool,
}

/// One caller, as the thread sees it.
trait Call: Send {
    fn how(&self) -> How;
    /// The caller gave up waiting.
    fn abandoned(&self) -> bool;
    /// Tries to answer without a transaction.
    fn peek(&mut self, session: &mut Session) -> bool;
    /// Does the work; keeps the answer.
    fn run(&mut self, session: &mut Session) -> Result<(), StepError>;
    /// Answers: with what was kept, or with why the transaction failed.
    fn finish(self: Box<Self>, failed: Option<&StoreError>);
}

struct Caller<T, P, F> {
    how: How,
    path: Arc<PathBuf>,
    answer: oneshot::Sender<Result<T, StoreError>>,
    peek: Option<P>,
    step: Option<F>,
    result: Option<Result<T, StoreError>>,
}

impl<T, P, F> Call for Caller<T, P, F>
where
    T: Send,
    P: FnOnce(&mut Session) -> Option<T> + Send,
    F: FnOnce(&mut Session) -> Step<T> + Send,
{
    fn how(&self) -> How {
        self.how
    }

    fn abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn peek(&mut self, session: &mut Session) -> bool {
        let seen = self.peek.take().and_then(|peek| peek(session));
        self.result = seen.map(Ok);
        self.result.is_some()
    }

    fn run(&mut self, session: &mut Session) -> Result<(), StepError> {
        let Some(step) = self.step.take() else { return Ok(()) };
        let (outcome, result) = match step(session) {
            Ok(value) => (Ok(()), Ok(value)),
            Err(StepError::Store(error)) => (Err(StepError::Store(error.clone())), Err(error)),
            Err(StepError::Sql(error)) => {
                let explained = explain(self.how.name, &self.path, &error);
                (Err(StepError::Sql(error)), Err(explained))
            }
        };
        self.result = Some(result);
        outcome
    }

    fn finish(self: Box<Self>, failed: Option<&StoreError>) {
        let result = match (failed, self.result) {
            (Some(error), _) => Err(StoreError { op: self.how.name, ..error.clone() }),
            (None, Some(result)) => result,
            (None, None) => return,
        };
        if self.answer.send(result).is_err() {
            tracing::debug!(op = self.how.name, "nobody waits for the answer any more");
        }
    }
}

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Writer {
    calls: Sender<Box<dyn Call>>,
    path: Arc<PathBuf>,
}

impl Writer {
    pub(super) fn start(
        conn: Connection,
        path: PathBuf,
        clock: Arc<dyn Clock>,
        signal: Arc<Signal>,
    ) -> std::io::Result<Self> {
        let (calls, queue) = channel();
        let path = Arc::new(path);
        let turn = Turn::new(signal.file())?;
        let mut thread = Thread {
            session: Session::new(conn, clock),
            turn,
            signal,
            path: Arc::clone(&path),
            full_sync: true,
        };
        std::thread::Builder::new().name("sqlite-writer".into()).spawn(move || thread.serve(&queue))?;
        Ok(Self { calls, path })
    }

    /// Runs a step in the next transaction and answers after its commit.
    pub(super) async fn run<T, F>(&self, how: How, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session) -> Step<T> + Send + 'static,
    {
        self.run_or_peek(how, |_| None, step).await
    }

    /// The same, but looks first, outside of any transaction: an idle worker's claims take nothing from anybody.
    pub(super) async fn run_or_peek<T, P, F>(&self, how: How, peek: P, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        P: FnOnce(&mut Session) -> Option<T> + Send + 'static,
        F: FnOnce(&mut Session) -> Step<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let caller = Caller {
            how,
            path: Arc::clone(&self.path),
            answer,
            peek: Some(peek),
            step: Some(step),
            result: None,
        };
        let gone =
            || StoreError::new(how.name, self.path.display(), ErrorKind::Unavailable, "the store was closed");
        self.calls.send(Box::new(caller)).map_err(|_| gone())?;
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(StoreError::new(
                how.name,
                self.path.display(),
                ErrorKind::Timeout,
                format!("no answer within {} s", ANSWER.as_secs()),
            )
            .hint("the disk is slow, or another process holds the file locked")),
        }
    }
}

struct Thread {
    session: Session,
    turn: Turn,
    signal: Arc<Signal>,
    path: Arc<PathBuf>,
    /// Whether `synchronous` is FULL at present.
    full_sync: bool,
}

impl Thread {
    fn serve(&mut self, queue: &Receiver<Box<dyn Call>>) {
        while let Ok(first) = queue.recv() {
            let mut group = vec![first];
            while group.len() < MAX_GROUP
                && let Ok(call) = queue.try_recv()
            {
                group.push(call);
            }
            group.sort_by_key(|call| !call.how().urgent); // stable: everyone else stays in order
            let mut group = VecDeque::from(group);
            if group.len() == 1 {
                self.peek(&mut group);
            }
            while !group.is_empty() {
                self.commit(&mut group);
            }
        }
    }

    /// Answers a lone caller without a transaction, if that can be done.
    fn peek(&mut self, group: &mut VecDeque<Box<dyn Call>>) {
        self.session.next_step();
        if let Some(mut call) = group.pop_front() {
            if call.peek(&mut self.session) {
                call.finish(None);
            } else {
                group.push_front(call);
            }
        }
    }

    /// One transaction for as many callers as fit.
    fn commit(&mut self, group: &mut VecDeque<Box<dyn Call>>) {
        if let Err(error) = self.begin(group.iter().any(|call| call.how().durable)) {
            return group.drain(..).for_each(|call| call.finish(Some(&error)));
        }
        let mut done = Vec::with_capacity(group.len());
        let ended = self.steps(group, &mut done).and_then(|()| self.end());
        match &ended {
            Ok(()) => {
                if self.session.take_wake() {
                    self.signal.raise();
                }
            }
            Err(_) => self.roll_back(),
        }
        let failed = ended.err();
        for call in done {
            call.finish(failed.as_ref());
        }
    }

    fn steps(
        &mut self,
        group: &mut VecDeque<Box<dyn Call>>,
        done: &mut Vec<Box<dyn Call>>,
    ) -> Result<(), StoreError> {
        let started = instant();
        while let Some(mut call) = group.pop_front() {
            if call.abandoned() {
                continue; // the caller was told that nobody knows; better that nothing happened
            }
            let stepped = self.step(&mut *call);
            done.push(call);
            stepped?;
            if started.elapsed() > GROUP_TIME {
                break;
            }
        }
        Ok(())
    }

    /// One caller, in a savepoint of its own, so that its failure is not the others'.
    fn step(&mut self, call: &mut dyn Call) -> Result<(), StoreError> {
        let session = &mut self.session;
        let counted = session.next_step();
        let run = |session: &Session, sql: &str| {
            session.conn.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map(|_| ())
        };
        let ended = run(session, "SAVEPOINT step").and_then(|()| match call.run(session) {
            Ok(()) => run(session, "RELEASE step"),
            Err(StepError::Sql(error)) if ruins_all(&error) => Err(error),
            Err(_) => {
                session.restore(counted);
                run(session, "ROLLBACK TO step").and_then(|()| run(session, "RELEASE step"))
            }
        });
        ended.map_err(|error| explain("write", &self.path, &error))
    }

    fn begin(&mut self, durable: bool) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| explain("begin", &self.path, &error);
        if durable != self.full_sync {
            let level = if durable { "FULL" } else { "NORMAL" };
            self.session.conn.pragma_update(None, "synchronous", level).map_err(failed)?;
            self.full_sync = durable;
        }
        self.turn.take();
        let began = self.session.conn.execute_batch("BEGIN IMMEDIATE");
        self.turn.pass();
        began.map_err(failed)
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let flushed = self.session.flush();
        flushed
            .and_then(|()| self.session.conn.execute_batch("COMMIT"))
            .map_err(|error| explain("commit", &self.path, &error))
    }

    fn roll_back(&mut self) {
        self.session.forget();
        if !self.session.conn.is_autocommit()
            && let Err(error) = self.session.conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "cannot roll back");
        }
    }
}

/// Errors after which nothing more can be written in this transaction.
fn ruins_all(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::ReadOnly
        )
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::sqlite::schema::open_writer;

    #[test]
    fn what_is_acknowledged_as_on_disk_waits_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        let conn = open_writer(&path, 1_000).unwrap();
        let signal = Arc::new(Signal::open(&path).unwrap());
        let turn = Turn::new(signal.file()).unwrap();
        let session = Session::new(conn, Arc::new(SystemClock));
        let mut thread = Thread { session, turn, signal, path: Arc::new(path), full_sync: true };
        // 2 is FULL, 1 is NORMAL: a killed process loses nothing either way, so only this tells them apart.
        for (durable, level) in [(true, 2), (false, 1), (true, 2)] {
            thread.begin(durable).unwrap();
            let conn = &thread.session.conn;
            let set: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
            assert_eq!(set, level, "durable: {durable}");
            thread.roll_back();
        }
    }
}
