//! A store with processes around it, and what their ledger says.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::activation::WorkerState;
use sluicegate::job::State;
use sluicegate::names::Tier;
use sluicegate::store::{Action, Actor, PageAsk, Seen, Store};
use tempfile::TempDir;

use crate::both::{Engine, Place};

pub(crate) fn program(name: &str) -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_sluicegate")).with_file_name("examples").join(name);
    assert!(program.exists(), "`cargo build --examples` builds {}", program.display());
    program
}

/// A process; killed when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.spawn().expect("started"))
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("reaped");
    }

    pub(super) fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let status = kill.args(["-s", signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    pub(super) fn is_over(&mut self) -> bool {
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
pub(super) struct Told {
    pub(super) intents: HashSet<String>,
    pub(super) stored: HashSet<String>,
    pub(super) starts: HashMap<String, u32>,
    pub(super) ends: HashMap<String, u32>,
}

impl Told {
    /// No acknowledged job was lost, and nothing ran that nobody enqueued.
    pub(super) fn is_whole(&self, seed: u64) {
        let lost: Vec<&String> = self.stored.iter().filter(|id| !self.ends.contains_key(*id)).collect();
        assert!(lost.is_empty(), "seed {seed}: {} acknowledged jobs were lost: {lost:?}", lost.len());
        let strange: Vec<&String> = self.starts.keys().filter(|id| !self.intents.contains(*id)).collect();
        assert!(strange.is_empty(), "seed {seed}: nobody enqueued {strange:?}");
    }

    /// How many attempts were one too many.
    pub(super) fn repeated(&self) -> u32 {
        self.starts.values().map(|starts| starts - 1).sum()
    }
}

/// One store and one ledger, and processes that use both.
pub(super) struct Ground {
    pub(super) place: Place,
    pub(super) store: Arc<dyn Store>,
    folder: TempDir,
}

impl Ground {
    pub(super) async fn new(engine: Engine) -> Self {
        let place = Place::new(engine);
        let store = place.open().await;
        Self { place, store, folder: TempDir::new().expect("a folder") }
    }

    pub(super) fn work(&self, name: &str) -> Process {
        self.start("work", name)
    }

    pub(super) fn produce(&self, jobs: &str) -> Process {
        self.start("produce", jobs)
    }

    /// The program itself, as a worker of a release.
    pub(super) fn worker(&self, name: &str, release: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.args(["--store", &self.place.url(), "work", "--name", name, "--release", release]);
        command.args(["--health-listen", "127.0.0.1:0"]).env("HOME", self.folder.path());
        // What it complains of is shown when the test fails.
        Process(command.stdout(Stdio::null()).spawn().expect("started"))
    }

    fn start(&self, what: &str, last: &str) -> Process {
        let mut command = Command::new(program("ledger"));
        command.args([what, &self.place.url()]).arg(self.folder.path().join("ledger")).arg(last);
        Process(command.stdout(Stdio::null()).spawn().expect("started"))
    }

    pub(super) fn told(&self) -> Told {
        let text = std::fs::read_to_string(self.folder.path().join("ledger")).unwrap_or_default();
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

    /// Waits until so many more jobs have ended.
    pub(super) async fn progress(&self, jobs: usize) {
        let before = self.told().ends.len();
        until("progress between kills", async || self.told().ends.len() >= before + jobs).await;
    }

    /// Jobs that a killed worker held and had begun, before anybody rescues them.
    pub(super) async fn in_flight(&self, worker: &str) -> u32 {
        let told = self.told();
        let (mut count, mut token) = (0, None);
        loop {
            let ask = PageAsk { state: Some(State::Running), limit: 500, token, ..PageAsk::default() };
            let page = self.store.page(&Tier::default(), ask).await.expect("a page");
            let by = |name: &sluicegate::names::WorkerName| name.as_str() == worker;
            let held = page.jobs.iter().filter(|job| job.worker.as_ref().is_some_and(by));
            count += held.filter(|job| told.starts.contains_key(&job.id.to_string())).count();
            token = page.next;
            if token.is_none() {
                return u32::try_from(count).expect("a number");
            }
        }
    }

    /// Waits until the store knows that this worker serves.
    pub(super) async fn is_active(&self, process: &Process) {
        until("the worker serves", async || {
            let seen = self.store.workers(&Tier::default()).await.expect("an answer");
            let of = |seen: &Seen| {
                (seen.presence.pid, seen.presence.state) == (process.0.id(), WorkerState::Active)
            };
            seen.iter().any(of)
        })
        .await;
    }

    /// Jobs in these states.
    pub(super) async fn count(&self, states: &[State]) -> u64 {
        let census = self.store.census(&Tier::default()).await.expect("an answer");
        states.iter().flat_map(|state| census.queues.iter().map(|queue| queue.states[state])).sum()
    }

    /// Kills that come every few milliseconds may hit one job three times, and then it is set aside: rightly, for nobody can
    /// tell it from one that kills its worker. What an operator does then is done here.
    pub(super) async fn retry_quarantined(&self, seed: u64) {
        let (tier, by) = (Tier::default(), Actor { who: "test".into(), reason: None });
        let ask = PageAsk { state: Some(State::Dead), limit: 500, ..PageAsk::default() };
        let dead = self.store.page(&tier, ask).await.expect("a page").jobs;
        for job in &dead {
            let lost = job.history.iter().filter(|attempt| attempt.outcome == "crashed").count();
            assert!(lost >= 3 && job.failures == 0, "seed {seed}: set aside without a cause: {job:?}");
        }
        println!("{} set aside", dead.len());
        let ids = dead.iter().map(|job| job.id).collect();
        self.store.bulk(&tier, ids, Action::Retry, &by).await.expect("an answer");
        self.worked_off().await;
    }

    /// Waits until every job has ended.
    pub(super) async fn worked_off(&self) {
        use State::{Available, Parked, Retryable, Running, Scheduled};
        let open = [Available, Running, Scheduled, Retryable, Parked];
        until("the backlog is worked off", async || self.count(&open).await == 0).await;
    }
}

/// Waits until the ledger or the store says so.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < Duration::from_secs(120), "never: {what}");
        tokio::task::yield_now().await;
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
