//! What can be wrong with a SQLite file: each has its clear error, and none is taken for an empty store.

use std::fs;
use std::path::Path;

use sluicegate::activation::WorkerState;
use sluicegate::store::sqlite::SqliteStore;
use sluicegate::store::{ErrorKind, Store as _, StoreError};
use tempfile::TempDir;

use super::harness::{Hand, job, tier};

async fn refused(path: &Path) -> StoreError {
    SqliteStore::open(path).await.expect_err("refused")
}

fn folder() -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("jobs.db");
    (dir, path)
}

#[tokio::test]
async fn h25_a_newer_schema_is_refused_and_named() {
    let (_dir, path) = folder();
    drop(SqliteStore::open(&path).await.expect("a store"));
    let conn = rusqlite::Connection::open(&path).expect("the file");
    conn.pragma_update(None, "user_version", 9_003).expect("written");
    drop(conn);
    let error = refused(&path).await;
    assert_eq!(error.kind, ErrorKind::Newer);
    assert!(error.to_string().contains("version 9.3"), "{error}");
}

#[tokio::test]
async fn another_applications_database_is_refused_and_left_alone() {
    let (_dir, path) = folder();
    rusqlite::Connection::open(&path)
        .expect("a file")
        .execute_batch("CREATE TABLE theirs(x)")
        .expect("a table");
    let error = refused(&path).await;
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.to_string().contains("not a sluicegate store"), "{error}");
    let tables: i64 = rusqlite::Connection::open(&path)
        .expect("the file")
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .expect("a number");
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (_dir, path) = folder();
    fs::write(&path, "not a database, but something of value".repeat(100)).expect("written");
    let error = refused(&path).await;
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    assert!(error.hint.is_some());
    assert!(fs::read_to_string(&path).expect("the file").starts_with("not a database"));
}

#[tokio::test]
async fn t31_a_damaged_page_is_an_error_and_never_an_empty_store() {
    let (_dir, path) = folder();
    let hand = Hand::of(std::sync::Arc::new(SqliteStore::open(&path).await.expect("a store")), "w");
    for _ in 0..200 {
        hand.insert_new(job()).await;
    }
    drop(hand);
    let conn = rusqlite::Connection::open(&path).expect("the file");
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    drop(conn);
    let mut bytes = fs::read(&path).expect("the file");
    for byte in &mut bytes[4_096..] {
        *byte ^= 0x55;
    }
    fs::write(&path, bytes).expect("written");
    let told = match SqliteStore::open(&path).await {
        Err(error) => error,
        Ok(store) => store.census(&tier()).await.expect_err("damage is seen"),
    };
    assert_eq!(told.kind, ErrorKind::Corrupt, "{told}");
}

#[tokio::test]
async fn t31_a_file_that_is_replaced_or_deleted_while_open_is_noticed() {
    for replaced in [true, false] {
        let (dir, path) = folder();
        let store = SqliteStore::open(&path).await.expect("a store");
        let hand = Hand::of(std::sync::Arc::new(store), "w");
        fs::rename(&path, dir.path().join("moved.db")).expect("moved");
        if replaced {
            fs::write(&path, "").expect("written");
        }
        let error =
            hand.store.beat(&tier(), &hand.presence(WorkerState::Starting)).await.expect_err("noticed");
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert!(error.to_string().contains(if replaced { "replaced" } else { "gone" }), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_another_process_holds_is_unavailable_and_comes_back() {
    let (_dir, path) = folder();
    let hand = Hand::of(std::sync::Arc::new(SqliteStore::open(&path).await.expect("a store")), "w");
    let other = rusqlite::Connection::open(&path).expect("the file");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let error = hand.store.insert(&tier(), vec![job()]).await.expect_err("locked");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(
        error.is_transient() && error.hint.as_ref().is_some_and(|hint| hint.contains("another process")),
        "{error:?}"
    );
    other.execute_batch("COMMIT").expect("unlocked");
    hand.insert_new(job()).await;
}

#[tokio::test]
async fn a_stopped_process_that_has_the_turn_stops_nobody() {
    let (dir, path) = folder();
    let hand = Hand::of(std::sync::Arc::new(SqliteStore::open(&path).await.expect("a store")), "w");
    let signal =
        fs::File::options().write(true).open(dir.path().join("jobs.db-signal")).expect("the signal file");
    rustix::fs::flock(&signal, rustix::fs::FlockOperation::LockExclusive).expect("the turn");
    for _ in 0..40 {
        hand.insert_new(job()).await;
    }
    drop(signal);
    for _ in 0..40 {
        hand.insert_new(job()).await;
    }
}
