//! The file: its tables, its settings, how it is opened, and what SQLite's errors mean.
//!
//! A job's row is written at insert and at the end, not in between: an available job is one with an entry in `ready`, a
//! running one is held by a `lease`. Both are moved a batch at a time. Of most jobs not even the completion is written into
//! the row, see `completed`. `job.ord` is the place in its ready list; what is
//! handed back or rescued keeps it and so returns to the head, what is promoted gets a new one at the tail.
//!
//! The schema only grows: a warm older release shares the file. `user_version` is major × 1,000 + minor; a file of a
//! newer major is refused, a newer minor is not. Version 1 was never released: its files are taken over, and a program of
//! that version is shut out.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::clock::instant;
use crate::store::{ErrorKind, StoreError};

const MAJOR: i64 = 2;
const MINOR: i64 = 0;
/// "SLUI", so that a file that is somebody else's is recognised.
const APPLICATION_ID: i64 = 0x534c_5549;
/// Before this, two processes that checkpoint and write can corrupt a WAL database (fixed in 3.51.3).
const LEAST_SQLITE: i32 = 3_051_003;

const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES('next', 1);

-- names, once each
CREATE TABLE tier(tid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
  swept_at INTEGER NOT NULL DEFAULT 0, rescue_from INTEGER NOT NULL DEFAULT 0);
CREATE TABLE queue(qid INTEGER PRIMARY KEY, tid INTEGER NOT NULL, name TEXT NOT NULL,
  kept INTEGER NOT NULL DEFAULT 0, UNIQUE(tid, name));
CREATE TABLE stream(sid INTEGER PRIMARY KEY, qid INTEGER NOT NULL, kind TEXT NOT NULL, UNIQUE(qid, kind));
CREATE TABLE part(pid INTEGER PRIMARY KEY, qid INTEGER NOT NULL, priority INTEGER NOT NULL,
  suspect INTEGER NOT NULL, fair TEXT NOT NULL DEFAULT '', UNIQUE(qid, priority, suspect, fair));
CREATE TABLE actor(aid INTEGER PRIMARY KEY, worker TEXT NOT NULL, release TEXT NOT NULL, UNIQUE(worker, release));

-- jobs
CREATE TABLE job(
  seq INTEGER PRIMARY KEY, tid INTEGER NOT NULL, id BLOB NOT NULL, sid INTEGER NOT NULL, pid INTEGER NOT NULL,
  ord INTEGER NOT NULL, state INTEGER NOT NULL, version INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0, enq_at INTEGER NOT NULL, run_at INTEGER, exp_at INTEGER,
  args TEXT NOT NULL, extras TEXT,
  claimed_at INTEGER, fin_at INTEGER, ran_us INTEGER, aid INTEGER, nonce BLOB,
  park TEXT, park_by TEXT, crash_mark INTEGER, history TEXT);
CREATE UNIQUE INDEX job_id ON job(tid, id);
CREATE INDEX job_due ON job(tid, run_at) WHERE state BETWEEN 2 AND 3;
CREATE INDEX job_expiry ON job(tid, exp_at) WHERE exp_at IS NOT NULL AND state <= 4 AND state <> 1;
CREATE INDEX job_ended ON job(tid, fin_at) WHERE state >= 6;
CREATE TABLE ready(pid INTEGER NOT NULL, ord INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(pid, ord)) WITHOUT ROWID;
CREATE TABLE lease(lid INTEGER PRIMARY KEY, tid INTEGER NOT NULL, nonce BLOB NOT NULL UNIQUE, aid INTEGER NOT NULL,
  incarnation BLOB NOT NULL, claimed_at INTEGER NOT NULL, until INTEGER NOT NULL, suspect INTEGER NOT NULL, held BLOB NOT NULL);
CREATE INDEX lease_until ON lease(tid, until);
CREATE TABLE tally(sid INTEGER NOT NULL, code INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(sid, code)) WITHOUT ROWID;
CREATE TABLE uniq(tid INTEGER NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(tid, key)) WITHOUT ROWID;
-- idempotency keys whose completed job is gone
CREATE TABLE remembered(tid INTEGER NOT NULL, id BLOB NOT NULL, digest BLOB NOT NULL, until INTEGER NOT NULL, PRIMARY KEY(tid, id)) WITHOUT ROWID;
CREATE INDEX remembered_until ON remembered(until);
CREATE TABLE cancel(tid INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(tid, seq)) WITHOUT ROWID;

-- control
CREATE TABLE activation(tid INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE record(tid INTEGER NOT NULL, space TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
  value TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER, PRIMARY KEY(tid, space, key)) WITHOUT ROWID;
CREATE INDEX record_until ON record(until) WHERE until IS NOT NULL;
CREATE TABLE ledger(tid INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, event TEXT NOT NULL,
  who TEXT NOT NULL, reason TEXT, detail TEXT NOT NULL, PRIMARY KEY(tid, seq)) WITHOUT ROWID;
CREATE TABLE presence(tid INTEGER NOT NULL, worker TEXT NOT NULL, incarnation BLOB NOT NULL, at INTEGER NOT NULL,
  since INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY(tid, worker)) WITHOUT ROWID;
";

/// What came after version 1.0. The schema only grows, since an older release may have the file open: nothing here
/// changes what version 2 has, and all of it may run again.
const GROWN: &str = "
-- unique keys that outlive the record of the ended job that holds them (1.1)
CREATE TABLE IF NOT EXISTS uniq_kept(tid INTEGER NOT NULL, key TEXT NOT NULL, id BLOB NOT NULL, state INTEGER NOT NULL,
  until INTEGER NOT NULL, PRIMARY KEY(tid, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uniq_kept_until ON uniq_kept(until);
-- parked jobs by why and by whom: a sweep seeks those it can help, however many it cannot (1.1)
CREATE INDEX IF NOT EXISTS job_park ON job(sid, park, park_by) WHERE state = 4;
-- completed jobs in the order of their completion, a batch a row: what trimming walks, and all that says that the jobs
-- of a large batch completed (2.0). Version 1 knew the order alone, as `done`, and wrote every job's row
CREATE TABLE IF NOT EXISTS completed(qid INTEGER NOT NULL, did INTEGER NOT NULL, at INTEGER NOT NULL,
  first INTEGER, last INTEGER, claimed_at INTEGER, aid INTEGER, nonce BLOB, held BLOB NOT NULL, ran BLOB,
  PRIMARY KEY(qid, did)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS completed_whole ON completed(qid, last, first) WHERE first IS NOT NULL;
CREATE TABLE IF NOT EXISTS done(qid, did, at, held);
INSERT INTO completed(qid, did, at, held) SELECT qid, did, at, held FROM done;
DROP TABLE done;
-- which queues are paused, and the revision of what operators set (1.2)
CREATE TABLE IF NOT EXISTS pause(tid INTEGER NOT NULL, queue TEXT NOT NULL, who TEXT NOT NULL, reason TEXT,
  at INTEGER NOT NULL, until INTEGER, PRIMARY KEY(tid, queue)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS controls(tid INTEGER PRIMARY KEY, revision INTEGER NOT NULL);
-- canary jobs that have ended: their parts have negative numbers, and their retention is short (1.2)
CREATE INDEX IF NOT EXISTS job_canary ON job(tid, fin_at) WHERE pid < 0 AND state >= 5;
";

/// How long SQLite itself waits for a lock, before it is an error. Two such waits (and the turns before them) must end
/// before a caller gives up: who came while the first one waited is then still told "locked", not "nobody knows".
pub(super) const BUSY: Duration = Duration::from_secs(3);

/// Opens (and if need be creates) the file for writing.
pub(super) fn open_writer(path: &Path, cache_kib: i64) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < LEAST_SQLITE {
        return Err(StoreError::new(
            "open",
            path.display(),
            ErrorKind::Unsupported,
            format!(
                "SQLite {} can corrupt a file that several processes write; 3.51.3 or later is needed",
                rusqlite::version()
            ),
        )
        .hint("build with the bundled SQLite"));
    }
    create_private(path)?;
    let result = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE, cache_kib);
    let mut connection = result.map_err(|error| explain("open", path, &error))?;
    prepare_file(&mut connection, path)?;
    Ok(connection)
}

/// Creates the folder and the file for this user alone: payloads are nobody else's business. SQLite gives the `-wal` and
/// `-shm` the mode of the file. A file that exists is not opened here: closing it would drop the locks of this process.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let failed = |what: &str, error: &std::io::Error| {
        StoreError::new("open", path.display(), io_kind(error), format!("cannot create the {what}: {error}"))
            .hint("name another file with `--store sqlite:PATH`")
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed("folder", &error))?;
    }
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("file", &error)),
    }
}

/// Opens another connection for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE; // a WAL reader must be able to write the -shm file
    let connection = connect(path, flags, 2_000).map_err(|error| explain("open", path, &error))?;
    connection.pragma_update(None, "query_only", true).map_err(|error| explain("open", path, &error))?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags, cache_kib: i64) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn prepare_file(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let sql = |error: rusqlite::Error| explain("open", path, &error);
    let empty = recognise(connection, path)?; // first: even the journal mode is written into the file
    let mode = write_ahead(connection).map_err(sql)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::new(
            "open",
            path.display(),
            ErrorKind::Unsupported,
            format!("journal mode is `{mode}`, WAL is needed"),
        )
        .hint("put the file on a local disk: network file systems cannot share memory between processes"));
    }
    // FULL: a commit is on disk before it is acknowledged. NORMAL lost 1,685 of 319,791 acknowledged jobs in 12 power cuts.
    connection.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
    // Small checkpoints keep the longest commit short: 500 pages are about 5 ms.
    connection.pragma_update(None, "wal_autocheckpoint", 500).map_err(sql)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024).map_err(sql)?;

    if empty {
        create(connection, path)?;
        recognise(connection, path)?;
    }
    grow(connection, path)
}

/// Brings a file of an earlier version up to this one.
fn grow(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let sql = |error: rusqlite::Error| explain("upgrade", path, &error);
    let version =
        |conn: &Connection| conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    if version(connection).map_err(sql)? >= MAJOR * 1_000 + MINOR {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql)?;
    // Another process may have been first, and a newer one at that.
    if version(&tx).map_err(sql)? < MAJOR * 1_000 + MINOR {
        tx.execute_batch(GROWN).map_err(sql)?;
        tx.pragma_update(None, "user_version", MAJOR * 1_000 + MINOR).map_err(sql)?;
    }
    tx.commit().map_err(sql)
}

/// Turns the write-ahead log on. While another process opens the same new file this is "busy" at once, without the wait
/// that every other statement has, so it waits here.
fn write_ahead(connection: &Connection) -> rusqlite::Result<String> {
    let began = instant();
    loop {
        let answer = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
        let busy =
            matches!(&answer, Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy));
        if !busy || began.elapsed() > BUSY {
            return answer;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whether the file is still empty; an error when it is somebody else's, or newer than this program. Writes nothing.
fn recognise(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let sql = |error: rusqlite::Error| explain("open", path, &error);
    let read =
        |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql);
    // In this order: another process may be creating the tables, and commits all three together.
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    let version = read("user_version")?;
    let application = read("application_id")?;
    if (tables, version, application) == (0, 0, 0) {
        return Ok(true);
    }
    if application != APPLICATION_ID {
        return Err(StoreError::new(
            "open",
            path.display(),
            ErrorKind::Corrupt,
            "this is a SQLite database, but not a sluicegate store",
        )
        .hint("name another file with `--store sqlite:PATH`; this one was not changed"));
    }
    if version / 1_000 > MAJOR {
        return Err(StoreError::new(
            "open",
            path.display(),
            ErrorKind::Newer,
            format!(
                "its schema is version {}.{}, this program knows up to {MAJOR}",
                version / 1_000,
                version % 1_000
            ),
        )
        .hint("use the newer program for this store; nothing was changed"));
    }
    Ok(false)
}

fn create(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let sql = |error: rusqlite::Error| explain("create", path, &error);
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql)?;
    // Another process may have been first, and the file may be somebody else's.
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    let tables: i64 =
        tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    if version == 0 && tables == 0 {
        tx.execute_batch(TABLES).and_then(|()| tx.execute_batch(GROWN)).map_err(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql)?;
        tx.pragma_update(None, "user_version", MAJOR * 1_000 + MINOR).map_err(sql)?;
    }
    tx.commit().map_err(sql)
}

fn io_kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    }
}

/// What an error of the file system means for a caller.
pub(super) fn explain_io(path: &Path, error: &std::io::Error) -> StoreError {
    let kind = io_kind(error);
    let answer = StoreError::new("open", path.display(), kind, error);
    if kind == ErrorKind::ReadOnly { answer.hint(WRITABLE) } else { answer }
}

const WRITABLE: &str = "the file, its `-wal` and `-shm`, and their folder must be writable by this user";

/// What an error of SQLite means for a caller, with the way out.
pub(super) fn explain(op: &'static str, path: &Path, error: &rusqlite::Error) -> StoreError {
    let (kind, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Unavailable,
            "another process holds the file locked; `fuser` or `lsof` on it names the process. A stopped (SIGSTOP) or debugged worker is a common cause",
        ),
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::Full, "free space on its disk; running jobs go on, and everything resumes by itself")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (ErrorKind::ReadOnly, WRITABLE),
        Some(ErrorCode::CannotOpen) => {
            (ErrorKind::Unavailable, "check that the folder exists and that this user may read and write it")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            "keep the file and its `-wal` as they are, and restore a copy or recover with `sqlite3 FILE .recover`; do not start on an empty one unless its jobs may be lost",
        ),
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::Unavailable, "the disk reported an error; see the kernel's log")
        }
        _ => (ErrorKind::Corrupt, ""),
    };
    let answer = StoreError::new(op, path.display(), kind, error);
    if hint.is_empty() { answer } else { answer.hint(hint) }
}
