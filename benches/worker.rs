//! Measurements of one worker process on SQLite: `cargo bench --bench worker`. Prints one JSON object; asserts nothing,
//! since machines are shared and noisy.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sluicegate::names::Tier;
use sluicegate::store::Store;
use sluicegate::store::sqlite::SqliteStore;
use sluicegate::worker::{Options, Registry, Worker};
use sluicegate::{Client, Context, Handler, Job, JobResult, NewJob, Outcome};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Serialize, Deserialize)]
struct Noop {
    pad: String,
}

impl Job for Noop {
    const KIND: &'static str = "noop";
}

impl Handler for Noop {
    async fn run(self, _: Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

#[derive(Serialize, Deserialize)]
struct Wait {}

impl Job for Wait {
    const KIND: &'static str = "wait";
}

impl Handler for Wait {
    async fn run(self, _: Context) -> JobResult {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Outcome::Done)
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement takes the time")]
fn now() -> Instant {
    Instant::now()
}

async fn fill(
    client: &Client,
    jobs: usize,
    make: impl Fn() -> Result<NewJob, sluicegate::job::InvalidJob>,
) -> Result<f64, Failure> {
    let began = now();
    for _ in 0..jobs / 500 {
        let batch = (0..500).map(|_| make()).collect::<Result<Vec<_>, _>>()?;
        client.insert_many(batch).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}

/// How long a worker takes for so many jobs, its start included.
async fn drain(store: &Arc<dyn Store>, jobs: usize, slots: usize) -> Result<Duration, Failure> {
    let mut registry = Registry::new();
    registry.add::<Noop>()?.add::<Wait>()?;
    let began = now();
    let worker = Worker::start(Arc::clone(store), registry, Options { slots, ..Options::default() }).await?;
    while worker.facts().is_none_or(|facts| facts.presence.completed < jobs as u64) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = began.elapsed();
    worker.stop();
    worker.ended().await;
    Ok(took)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let dir = tempfile::TempDir::new()?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.path().join("jobs.db")).await?);
    let client = Client::new(Arc::clone(&store), Tier::default());
    let bulk = fill(&client, 300_000, || NewJob::of(&Noop { pad: "x".repeat(90) })).await?;
    let noop = drain(&store, 300_000, 200).await?;
    fill(&client, 10_000, || NewJob::of(&Wait {})).await?;
    let wait_1000 = drain(&store, 10_000, 1_000).await?;
    fill(&client, 10_000, || NewJob::of(&Wait {})).await?;
    let wait_default = drain(&store, 10_000, Options::default().slots).await?;
    println!(
        "{{\"durability\":\"disk\",\"bulk_enqueue_per_s\":{bulk:.0},\"drain_per_s\":{:.0},\"ten_thousand_of_1s_with_1000_slots_s\":{:.2},\"with_200_slots_s\":{:.2}}}",
        300_000.0 / noop.as_secs_f64(),
        wait_1000.as_secs_f64(),
        wait_default.as_secs_f64()
    );
    Ok(())
}
