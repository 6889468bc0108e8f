//! How long jobs waited until they began, by queue.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::clock::{ManualClock, Timestamp};
use sluicegate::histogram::Times;
use sluicegate::job::{NewJob, State};
use sluicegate::names::Queue;
use sluicegate::store::sqlite::{Options as StoreOptions, SqliteStore};
use sluicegate::worker::{Options, WAITS, Waits, Worker};

use super::bench::*;

fn queue(name: &str) -> Queue {
    Queue::new(name).unwrap()
}

fn waited(worker: &Worker, name: &str) -> Times {
    worker.waits().remove(&queue(name)).unwrap_or_else(|| panic!("no queue {name} in {:?}", worker.waits()))
}

/// The canary that proves a worker has begun and ended by the time it is active.
async fn waits_are_there_from_the_start_and_never_of_canaries(engine: Engine) {
    let bench = Bench::on(engine).await;
    let queues = Some(vec![Queue::default(), queue("mail")]);
    let worker = bench.worker_with(Options { queues, ..options() }).await;
    active(&worker).await;
    let none = Times::none(&WAITS);
    let wanted: Waits = [(Queue::default(), none.clone()), (queue("mail"), none)].into();
    assert_eq!(worker.waits(), wanted);
    worker.stop();
    ended(&worker).await;
}

/// Both attempts of a job began; what waits in a queue that nobody named is counted as well.
async fn every_attempt_waits_and_a_wait_shows_while_the_job_runs(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    bench.reaches(bench.probe("fail").await, State::Dead).await;
    assert_eq!(waited(&worker, "default").count(), 2);
    let begun = bench.signals.started.load(std::sync::atomic::Ordering::SeqCst);
    let mut job = NewJob::of(&Probe { act: "gate".into() }).unwrap();
    job.queue = queue("late");
    bench.insert(job).await;
    bench.signals.begun(begun + 1).await;
    assert_eq!((waited(&worker, "late").count(), waited(&worker, "default").count()), (1, 2));
    bench.signals.gate.add_permits(1);
    worker.stop();
    ended(&worker).await;
}

on_both! {
    #[tokio::test] async:
        waits_are_there_from_the_start_and_never_of_canaries
        every_attempt_waits_and_a_wait_shows_while_the_job_runs;
}

/// The store's time is moved by hand, so that an hour is one, and passes at once.
#[tokio::test]
async fn a_wait_counts_from_when_the_job_could_run_by_the_stores_time() {
    let hour = Duration::from_secs(3_600);
    let clock = ManualClock::new(Timestamp::from_ms(1_768_036_445_123));
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { clock: Arc::new(clock.clone()), ..StoreOptions::default() };
    let store = SqliteStore::open_with(&folder.path().join("jobs.db"), options).await.unwrap();
    let bench = Bench::over(Arc::new(store));
    let probe = |name: &str| {
        let mut job = NewJob::of(&Probe { act: "done".into() }).unwrap();
        job.queue = queue(name);
        job
    };
    let at_once = bench.insert(probe("at-once")).await;
    let delayed = bench.insert(probe("delayed").delay(hour)).await;
    clock.advance(hour);
    let worker = bench.worker().await;
    bench.reaches(at_once, State::Completed).await;
    bench.reaches(delayed, State::Completed).await;
    let (at_once, delayed) = (waited(&worker, "at-once"), waited(&worker, "delayed"));
    assert_eq!((at_once.count(), delayed.count()), (1, 1));
    assert!((hour..hour + LONG).contains(&at_once.total), "{at_once:?}");
    assert!(delayed.total < LONG, "it waited from when it was due: {delayed:?}");
    worker.stop();
    ended(&worker).await;
}
