//! Measurements, run by hand: `cargo test --release --test all -- --ignored --nocapture speed`.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sluicegate::clock;
use sluicegate::job::NewJob;
use sluicegate::worker::Worker;

use super::bench::*;
use super::faulty::Faulty;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed_of_no_op_jobs() {
    let bench = Bench::new().await;
    let count = 300_000;
    bench.many(count, || NewJob::of(&Noop {}).unwrap()).await;
    let mut options = options();
    (options.slots, options.renew_every, options.presence_every) =
        (200, Duration::from_secs(4), Duration::from_secs(3));
    let store = Faulty::around(Arc::clone(&bench.store));
    let begun = clock::instant();
    let worker = Worker::start(Arc::clone(&store) as _, bench.registry(), options).await.unwrap();
    facts_say(&worker, "all done", |facts| facts.presence.completed >= count as u64).await;
    let (took, calls) = (begun.elapsed(), store.calls.load(SeqCst));
    let rate = count as f64 / took.as_secs_f64();
    println!("{count} no-op jobs in {took:?} with {calls} calls: {rate:.0} jobs/s");
    worker.stop();
    ended(&worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed_of_waiting_jobs() {
    let bench = Bench::new().await;
    bench.many(10_000, || NewJob::of(&Probe { act: "sleep 1".into() }).unwrap()).await;
    let mut options = options();
    (options.slots, options.renew_every, options.presence_every) =
        (1_000, Duration::from_secs(4), Duration::from_secs(3));
    let begun = clock::instant();
    let worker = bench.worker_with(options).await;
    facts_say(&worker, "all done", |facts| facts.presence.completed >= 10_000).await;
    println!("10,000 jobs of 1 s with 1,000 slots in {:?}", begun.elapsed());
    worker.stop();
    ended(&worker).await;
}
