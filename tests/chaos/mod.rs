//! Processes that are killed while they work, and a ledger outside of the store that tells what really happened.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::job::State;
use sluicegate::names::Tier;
use sluicegate::store::sqlite::SqliteStore;
use sluicegate::store::{PageAsk, Store};
use tempfile::TempDir;

fn ledger_program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_sluicegate")).with_file_name("examples").join("ledger");
    assert!(program.exists(), "`cargo build --examples` builds {}", program.display());
    program
}

struct Process(Child);

impl Process {
    fn start(what: &str, dir: &Path, last: &str) -> Self {
        let store = format!("sqlite:{}", dir.join("jobs.db").display());
        let child = Command::new(ledger_program())
            .args([what, &store])
            .arg(dir.join("ledger"))
            .arg(last)
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("started"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("reaped");
    }

    fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the ledger says, by id.
#[derive(Default)]
struct Told {
    intents: HashSet<String>,
    stored: HashSet<String>,
    starts: HashMap<String, u32>,
    ends: HashMap<String, u32>,
}

fn told(dir: &Path) -> Told {
    let text = std::fs::read_to_string(dir.join("ledger")).unwrap_or_default();
    let mut told = Told::default();
    for (what, id) in text.lines().filter_map(|line| line.split_once(' ')) {
        match what {
            "intent" => drop(told.intents.insert(id.to_owned())),
            "stored" => drop(told.stored.insert(id.to_owned())),
            "start" => *told.starts.entry(id.to_owned()).or_default() += 1,
            _ => *told.ends.entry(id.to_owned()).or_default() += 1,
        }
    }
    told
}

/// Jobs that a killed worker held and had begun, before anybody rescues them.
async fn in_flight(store: &Arc<dyn Store>, worker: &str, told: &Told) -> u32 {
    let (mut count, mut token) = (0, None);
    loop {
        let ask = PageAsk { state: Some(State::Running), limit: 500, token, ..PageAsk::default() };
        let page = store.page(&Tier::default(), ask).await.expect("a page");
        let held =
            page.jobs.iter().filter(|job| job.worker.as_ref().is_some_and(|name| name.as_str() == worker));
        count += held.filter(|job| told.starts.contains_key(&job.id.to_string())).count();
        token = page.next;
        if token.is_none() {
            return u32::try_from(count).expect("a number");
        }
    }
}

/// Waits until the ledger or the store says so.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < Duration::from_secs(120), "never: {what}");
        tokio::task::yield_now().await;
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

async fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&dir.join("jobs.db")).await.expect("a store"))
}

async fn waiting(store: &Arc<dyn Store>) -> u64 {
    let census = store.census(&Tier::default()).await.expect("an answer");
    let count = |state: State| census.queues.iter().map(|queue| queue.states[&state]).sum::<u64>();
    [State::Available, State::Running, State::Scheduled, State::Retryable, State::Parked]
        .into_iter()
        .map(count)
        .sum()
}

/// T01, T02: two workers and two producers on one file, killed again and again.
#[tokio::test]
async fn t01_t02_killed_workers_and_producers_lose_nothing_and_repeat_no_more_than_was_in_flight() {
    const KILLS: usize = 14;
    let dir = TempDir::new().expect("a folder");
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let store = open(dir.path()).await;
    let mut workers = ["w-1", "w-2"].map(|name| Process::start("work", dir.path(), name));
    let mut producers = [0; 2].map(|_| Process::start("produce", dir.path(), "100000"));
    let mut killed_in_flight = 0;
    for kill in 0..KILLS {
        let before = told(dir.path()).ends.len();
        until("progress between kills", async || told(dir.path()).ends.len() >= before + 150).await;
        let one = random.usize(..2);
        if kill % 3 == 2 {
            producers[one].kill();
            producers[one] = Process::start("produce", dir.path(), "100000");
        } else {
            let name = ["w-1", "w-2"][one];
            workers[one].kill();
            killed_in_flight += in_flight(&store, name, &told(dir.path())).await;
            workers[one] = Process::start("work", dir.path(), name);
        }
    }
    producers.iter_mut().for_each(Process::kill);
    until("the backlog is worked off", async || waiting(&store).await == 0).await;
    let told = told(dir.path());
    let lost: Vec<&String> = told.stored.iter().filter(|id| !told.ends.contains_key(*id)).collect();
    assert!(lost.is_empty(), "seed {seed}: {} acknowledged jobs were lost: {lost:?}", lost.len());
    let strange: Vec<&String> = told.ends.keys().filter(|id| !told.intents.contains(*id)).collect();
    assert!(strange.is_empty(), "seed {seed}: nobody enqueued {strange:?}");
    let repeated: u32 = told.starts.values().map(|starts| starts - 1).sum();
    println!(
        "{} stored, {} ended, {repeated} begun again, {killed_in_flight} in flight at {KILLS} kills",
        told.stored.len(),
        told.ends.len()
    );
    assert!(
        repeated <= killed_in_flight,
        "seed {seed}: {repeated} begun again, {killed_in_flight} in flight"
    );
    let census = store.census(&Tier::default()).await.expect("an answer");
    assert_eq!(census.queues[0].states[&State::Dead], 0, "seed {seed}: nobody was quarantined");
    assert!(workers.iter_mut().all(|worker| !worker.is_over()));
}

/// T07: a worker that was stopped past its lease comes back, and can change nothing that it lost.
#[tokio::test]
async fn t38_a_stopped_worker_that_was_taken_over_ends_by_itself() {
    let dir = TempDir::new().expect("a folder");
    let mut old = Process::start("work", dir.path(), "w-1");
    let mut producer = Process::start("produce", dir.path(), "200");
    until("jobs run", async || !told(dir.path()).ends.is_empty()).await;
    let kill = |signal: &str, process: &Process| {
        Command::new("kill").args(["-s", signal, &process.0.id().to_string()]).status().expect("kill runs")
    };
    let store = open(dir.path()).await;
    // A process that is stopped in the middle of a transaction holds the file: nobody can go on, and everybody is told.
    // That is SQLite's nature; here the stop must fall between two transactions.
    loop {
        kill("STOP", &old);
        if store.probe(&Tier::default()).await.is_ok() {
            break;
        }
        kill("CONT", &old);
        let before = told(dir.path()).ends.len();
        until("it goes on", async || told(dir.path()).ends.len() > before || producer.is_over()).await;
    }
    let _new = Process::start("work", dir.path(), "w-1");
    until("the producer is done", async || producer.is_over()).await;
    until("the new one did everything", async || waiting(&store).await == 0).await;
    kill("CONT", &old);
    until("the old one ended", async || old.is_over()).await;
    let told = told(dir.path());
    assert!(told.stored.iter().all(|id| told.ends.contains_key(id)));
}
