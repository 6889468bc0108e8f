//! What can be wrong with a SQLite file. Each must be told for what it is, and nothing may be changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use sluicegate::activation::WorkerState;
use sluicegate::location::StoreUrl;
use sluicegate::names::Tier;
use sluicegate::store::sqlite::SqliteStore;
use sluicegate::store::*;

use super::bench::*;

struct Place {
    folder: tempfile::TempDir,
    file: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jobs.db");
    Place { folder, file }
}

/// Opens what cannot be opened, and checks that its bytes are what they were.
async fn refused(file: &Path) -> StoreError {
    let before = std::fs::read(file).expect("a file");
    let error = SqliteStore::open(file).await.expect_err("it is no store");
    assert!(std::fs::read(file).expect("a file") == before, "it was changed: {error}");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    assert!(error.hint.is_some(), "{error}");
    error
}

async fn healthy(file: &Path) -> SqliteStore {
    let store = SqliteStore::open(file).await.expect("a store");
    store.insert(&Tier::default(), vec![job(1)]).await.expect("an insert");
    store
}

/// Runs SQL beside the store.
fn sql(file: &Path, text: &str) -> Connection {
    let conn = Connection::open(file).expect("a connection");
    conn.execute_batch(text).expect("it runs");
    conn
}

#[tokio::test]
async fn a_file_that_is_not_a_database() {
    let place = place();
    std::fs::write(&place.file, "this is not a database, however long it is ".repeat(100)).unwrap();
    assert_eq!(refused(&place.file).await.kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn an_older_schema_grows_and_keeps_what_it_holds() {
    let place = place();
    drop(healthy(&place.file).await);
    let older = "DROP TABLE uniq_kept; DROP TABLE completed; DROP TABLE pause; DROP TABLE controls; DROP INDEX job_canary; PRAGMA user_version = 1000;
        CREATE TABLE done(qid INTEGER NOT NULL, did INTEGER NOT NULL, at INTEGER NOT NULL, held BLOB NOT NULL, PRIMARY KEY(qid, did)) WITHOUT ROWID;
        INSERT INTO done VALUES(1, 9, 1000, x'010000000000000001000000')";
    drop(sql(&place.file, older)); // as version 1.0 left it
    let store = healthy(&place.file).await;
    assert_eq!(store.census(&Tier::default()).await.unwrap().queues[0].inserted_total, 2);
    let kept = "SELECT qid, did, at FROM completed WHERE first IS NULL AND length(held) = 12";
    let kept = sql(&place.file, "").query_row(kept, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    assert_eq!(kept.unwrap(), (1, 9, 1000), "retention goes on where it was");
    let unique = sluicegate::job::Unique { key: "k".into(), window: None, states: None };
    store.insert(&Tier::default(), vec![job(2).unique(unique)]).await.expect("an insert");
    assert_eq!(store.pauses(&Tier::default()).await.expect("a list"), []);
}

#[tokio::test]
async fn a_database_of_another_application() {
    let place = place();
    drop(sql(&place.file, "CREATE TABLE photos(id INTEGER PRIMARY KEY); INSERT INTO photos VALUES(1)"));
    let error = refused(&place.file).await;
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.detail.contains("not a sluicegate store"), "{error}");
    let other = ["-wal", "-shm", "-signal"].iter().any(|end| {
        let mut name = place.file.clone().into_os_string();
        name.push(end);
        Path::new(&name).exists()
    });
    assert!(!other, "nothing is left beside it");
}

#[tokio::test]
async fn a_database_of_another_application_that_has_a_version() {
    let place = place();
    drop(sql(&place.file, "CREATE TABLE photos(id INTEGER); PRAGMA user_version = 1000"));
    assert_eq!(refused(&place.file).await.kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_a_newer_minor_is_not() {
    let place = place();
    drop(healthy(&place.file).await);
    drop(sql(&place.file, "PRAGMA user_version = 2999"));
    drop(SqliteStore::open(&place.file).await.expect("an older program shares it"));
    // Rewritten as a whole, since the last store may still be closing.
    let copy = place.folder.path().join("copy.db");
    drop(sql(&place.file, &format!("VACUUM INTO '{}'", copy.display())));
    drop(sql(&copy, "PRAGMA journal_mode = WAL; PRAGMA user_version = 3000"));
    let error = refused(&copy).await;
    assert_eq!(error.kind, ErrorKind::Newer, "{error}");
    assert!(error.detail.contains("3.0") && error.detail.contains('2'), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made() {
    let place = place();
    std::fs::write(&place.file, "a file").unwrap();
    let error = SqliteStore::open(&place.file.join("deeper/jobs.db")).await.expect_err("a file is no folder");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.hint.is_some() && error.is_transient());
}

#[tokio::test]
async fn a_folder_in_place_of_the_file() {
    let place = place();
    let error = SqliteStore::open(place.folder.path()).await.expect_err("a folder is no store");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_file_that_is_deleted_while_it_is_open() {
    let place = place();
    let store = healthy(&place.file).await;
    std::fs::remove_file(&place.file).unwrap();
    gone(&store, "gone").await;
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_open() {
    let place = place();
    let store = healthy(&place.file).await;
    let other = place.folder.path().join("other.db");
    drop(healthy(&other).await);
    std::fs::rename(&other, &place.file).unwrap();
    gone(&store, "replaced").await;
}

async fn gone(store: &SqliteStore, word: &str) {
    let hand = Hand::new("w-1", "r1");
    let answers = [
        store.probe(&Tier::default()).await.err(),
        store.beat(&Tier::default(), &hand.presence(WorkerState::Starting, "c")).await.err(),
    ];
    for error in answers {
        let error = error.expect("an error");
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
        assert!(error.detail.contains(word) && error.hint.is_some(), "{error}");
        assert!(!error.is_transient(), "it does not heal by itself");
    }
    // Nobody is told "on disk" of it.
    let job = super::bench::job(1);
    let error = store.insert(&Tier::default(), vec![job]).await.expect_err("no file, no job");
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_file_that_another_connection_holds_locked() {
    let place = place();
    let store = healthy(&place.file).await;
    let lock = sql(&place.file, "BEGIN IMMEDIATE");
    // SQLite itself waits for its lock: the first one, and then whoever came meanwhile.
    let tier = Tier::default();
    let insert = store.insert(&tier, vec![job(2)]);
    let (insert, probe) = tokio::join!(insert, store.probe(&tier));
    for error in [insert.err(), probe.err()] {
        let error = error.expect("an error");
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert!(error.is_transient() && error.hint.is_some_and(|hint| hint.contains("locked")));
    }
    // Reading goes on meanwhile, and so does writing when the lock is gone; what failed did not happen.
    assert_eq!(store.census(&tier).await.unwrap().queues[0].inserted_total, 1);
    lock.execute_batch("COMMIT").unwrap();
    store.insert(&tier, vec![job(3)]).await.expect("an insert");
    assert_eq!(store.census(&tier).await.unwrap().queues[0].inserted_total, 2);
}

#[tokio::test]
async fn a_file_that_several_open_for_the_first_time_at_once() {
    for _ in 0..12 {
        let place = place();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let file = place.file.clone();
            tasks.spawn(async move { SqliteStore::open(&file).await });
        }
        for store in tasks.join_all().await {
            store.expect("a store").probe(&Tier::default()).await.expect("it works");
        }
    }
}

#[tokio::test]
async fn a_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place();
    let file = place.folder.path().join("new/jobs.db");
    let store = healthy(&file).await;
    for entry in std::fs::read_dir(file.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} {mode:o}", entry.path());
    }
    drop(store);
}

#[tokio::test]
async fn a_store_survives_its_closing() {
    let place = place();
    let url: StoreUrl = format!("sqlite:{}", place.file.display()).parse().unwrap();
    let tier = Tier::default();
    let new = job(7);
    let store = open(&url).await.unwrap();
    store.insert(&tier, vec![new.clone()]).await.unwrap();
    store.flip(&tier, None, committed("r1"), &actor()).await.unwrap();
    drop(store);
    let store: Arc<dyn Store> = open(&url).await.unwrap();
    let found = store.get(&tier, new.id).await.unwrap().expect("the job");
    assert!(found.args.same_content(&new.args));
    assert_eq!(store.activation(&tier).await.unwrap().map(|now| now.generation), Some(1));
    let again = store.insert(&tier, vec![new.clone()]).await.unwrap();
    assert_eq!(again, [Insert::Existing { id: new.id, state: sluicegate::job::State::Available }]);
}

#[tokio::test]
async fn a_stopped_process_that_has_the_turn_stops_nobody() {
    let place = place();
    let store = healthy(&place.file).await;
    let signal =
        std::fs::File::options().write(true).open(place.folder.path().join("jobs.db-signal")).unwrap();
    rustix::fs::flock(&signal, rustix::fs::FlockOperation::LockExclusive).unwrap();
    for n in 0..40 {
        store.insert(&Tier::default(), vec![job(n)]).await.unwrap();
    }
    drop(signal);
    for n in 0..40 {
        store.insert(&Tier::default(), vec![job(n)]).await.unwrap();
    }
}
