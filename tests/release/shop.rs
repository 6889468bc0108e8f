//! A tier of `examples/shop.rs`: real workers of several releases, jobs that keep coming, and deploys through the real program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate::activation::Activation;
use sluicegate::ids::JobId;
use sluicegate::job::{Args, NewJob, State};
use sluicegate::names::{Kind, Queue};
use sluicegate::release::description::Description;
use sluicegate::release::records::{self, ReleaseRecord};
use sluicegate::store::{Pause, Store};

use super::kit::{ada, release, store, tier};
use crate::both::Engine;
use crate::chaos::kit::{program, until};
use crate::cli::sandbox::{Run, Running, Sandbox};

/// A deploy that ends in seconds, unless these arguments say something else.
fn quick<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let usual = [["--verify", "1s"], ["--workers", "1"], ["--timeout", "60s"]];
    let unsaid = usual.into_iter().filter(|[flag, _]| !more.contains(flag)).flatten();
    unsaid.chain(more.iter().copied()).collect()
}

pub(super) struct Shop {
    pub(super) sandbox: Sandbox,
    pub(super) store: Arc<dyn Store>,
    workers: Vec<Running>,
}

impl Shop {
    /// Nothing is active.
    pub(super) async fn closed(engine: Engine) -> Self {
        let sandbox = Sandbox::on(engine);
        let store = store(&sandbox).await;
        Self { sandbox, store, workers: Vec::new() }
    }

    /// `r1` is active, verified and works.
    pub(super) async fn open(engine: Engine) -> Self {
        Self::open_with(engine, "").await
    }

    pub(super) async fn open_with(engine: Engine, faults: &str) -> Self {
        let mut shop = Self::closed(engine).await;
        shop.starts("r1", faults).await;
        let first = shop.deploy("r1", &["--first"]).exits(0);
        assert_eq!(
            (first.out.contains("committed"), shop.active().await.as_str()),
            (true, "r1"),
            "{first:?}"
        );
        shop
    }

    /// Registers a release, and starts a worker of it.
    pub(super) async fn starts(&mut self, name: &str, faults: &str) {
        self.register(name, faults).await;
        self.work(name, faults);
    }

    /// As `release register` does, without the copy of the program.
    pub(super) async fn register(&self, name: &str, faults: &str) {
        let mut ask = self.sandbox.command(&program("shop"));
        // One that does not even start was described by a build that did.
        let faults = if faults.contains("boot") { "" } else { faults };
        let told = ask.args(["release", "describe", "--json"]).env("SHOP", faults).output().unwrap();
        let runs: Description = serde_json::from_slice(&told.stdout).unwrap();
        let record = ReleaseRecord::new(release(name), name.repeat(20), runs.checked().unwrap());
        records::register(&*self.store, &tier(), record, &ada()).await.unwrap();
    }

    /// Starts a worker, named as its release.
    pub(super) fn work(&mut self, name: &str, faults: &str) {
        let worker = self.worker(name, &[("SHOP", faults)]);
        self.workers.push(worker);
    }

    pub(super) fn worker(&self, name: &str, env: &[(&str, &str)]) -> Running {
        self.named(name, name, env)
    }

    /// A second worker of a release.
    pub(super) fn another(&self, release: &str) -> Running {
        self.named(&format!("{release}-too"), release, &[])
    }

    fn named(&self, name: &str, of: &str, env: &[(&str, &str)]) -> Running {
        let args = ["work", "--name", name, "--release", of, "--health-listen", "127.0.0.1:0"];
        // Nobody reads what it complains of, and a full pipe would stop it.
        let quiet = [("SLUICEGATE__LOG__LEVEL", "error")];
        self.sandbox.start_with(&program("shop"), &args, &[&quiet[..], env].concat())
    }

    /// The worker that was started n-th says goodbye.
    pub(super) fn stop(&mut self, nth: usize) {
        let worker = self.workers.remove(nth);
        worker.signal("TERM");
        worker.ended().exits(0);
    }

    pub(super) fn deploy(&self, to: &str, more: &[&str]) -> Run {
        self.sandbox.run(&[&["deploy", to], &quick(more)[..]].concat())
    }

    /// A deploy that can be waited for, step by step.
    pub(super) fn deploying(&self, to: &str, more: &[&str]) -> Running {
        self.sandbox.start(&[&["deploy", to, "-o", "jsonl"], &quick(more)[..]].concat())
    }

    pub(super) async fn activation(&self) -> Activation {
        self.store.activation(&tier()).await.unwrap().expect("something is active")
    }

    pub(super) async fn active(&self) -> String {
        self.activation().await.release.to_string()
    }

    pub(super) async fn record(&self, name: &str) -> ReleaseRecord {
        records::read(&*self.store, &tier(), &release(name)).await.unwrap().expect("registered")
    }

    /// Every change of the activation: event, generation and release after it.
    pub(super) async fn flips(&self) -> Vec<(String, u64, String)> {
        let lines = self.store.ledger(&tier(), 0, 500).await.unwrap();
        let of = |line: &&sluicegate::store::LedgerEntry| line.event.starts_with("activation.");
        let told = lines.iter().filter(of).map(|line| {
            let detail: Value = serde_json::from_str(&line.detail).unwrap();
            let to = &detail["to"];
            (
                line.event.clone(),
                to["generation"].as_u64().unwrap(),
                to["release"].as_str().unwrap().to_owned(),
            )
        });
        told.collect()
    }

    /// One generation, one flip; and all of them in order.
    pub(super) async fn has_one_flip_a_generation(&self) {
        let flips = self.flips().await;
        let installed = flips.iter().filter(|(event, ..)| event != "activation.committed");
        let generations: Vec<u64> = installed.map(|(_, generation, _)| *generation).collect();
        assert!(generations.is_sorted_by(|one, next| one < next), "{flips:?}");
    }

    /// Jobs wait, or do not any more.
    pub(super) async fn pause(&self, paused: bool) {
        let queue = Queue::new("default").unwrap();
        self.store.pause(&tier(), &queue, paused.then(Pause::default), &ada()).await.unwrap();
    }

    /// A job that comes now is settled now: the tier works.
    pub(super) async fn works(&self) {
        let ids = enqueue(&*self.store, &["shop.order", "shop.mail"]).await;
        self.settles(&ids).await;
    }

    pub(super) async fn settles(&self, ids: &[JobId]) {
        for id in ids {
            let done = async || {
                let job = self.store.get(&tier(), *id).await.unwrap();
                job.unwrap_or_else(|| panic!("job {id} was lost")).state == State::Completed
            };
            until("an enqueued job is completed", done).await;
        }
    }

    /// Jobs of these kinds come from now on, one of each at a time.
    pub(super) fn flow(&self, kinds: &'static [&'static str]) -> Flow {
        Flow::begin(self.sandbox.url(), kinds)
    }
}

pub(super) async fn enqueue(store: &dyn Store, kinds: &[&str]) -> Vec<JobId> {
    let args = Args::of(&serde_json::json!({ "n": 1 })).unwrap();
    let job = |kind: &&str| NewJob::raw(Kind::new(kind).unwrap(), args.clone());
    let jobs: Vec<NewJob> = kinds.iter().map(job).collect();
    let ids = jobs.iter().map(|job| job.id).collect();
    store.insert(&tier(), jobs).await.unwrap();
    ids
}

/// Jobs that keep coming, whatever the tier does.
pub(super) struct Flow {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<JobId>>,
    began: Instant,
}

impl Flow {
    fn begin(url: String, kinds: &'static [&'static str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let store = sluicegate::store::open(&url.parse().unwrap()).await.unwrap();
                let mut ids = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    ids.extend(enqueue(&*store, kinds).await);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                ids
            })
        });
        Self { stop, thread, began: Instant::now() }
    }

    /// Ends it, and wants every single one to be completed.
    pub(super) async fn lost_nothing(self, shop: &Shop) -> Vec<JobId> {
        self.stop.store(true, Ordering::Relaxed);
        let ids = self.thread.join().unwrap();
        let took = self.began.elapsed();
        shop.settles(&ids).await;
        println!("{} jobs came within {took:?}, none was lost", ids.len());
        assert!(!ids.is_empty());
        ids
    }
}
