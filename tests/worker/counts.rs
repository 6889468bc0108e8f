//! What became of jobs, by queue and kind.

use std::sync::atomic::Ordering::SeqCst;

use sluicegate::job::State;
use sluicegate::names::{Kind, OTHER, Queue};
use sluicegate::store::{Action, Actor};
use sluicegate::worker::{Count, Done, Worker};

use super::bench::*;

fn count(worker: &Worker, kind: &str) -> Option<Count> {
    worker.counts().remove(&(Queue::default(), Kind::new(kind).unwrap()))
}

fn ended_as(count: &Count) -> [u64; 5] {
    Done::ALL.map(|done| count.of(done))
}

async fn jobs_are_counted_by_how_they_ended(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    assert_eq!(count(&worker, "test.probe"), Some(Count::default()), "there from the start");
    bench.reaches(bench.probe("snooze once").await, State::Completed).await; // only the very first attempt does
    assert_eq!(bench.signals.started.load(SeqCst), 2);
    bench.reaches(bench.probe("done").await, State::Completed).await;
    bench.reaches(bench.probe("fail").await, State::Dead).await; // the second attempt is the last
    bench.reaches(bench.probe("die").await, State::Dead).await;
    let begun = bench.signals.started.load(SeqCst);
    let heeds = bench.probe("heed").await;
    bench.signals.begun(begun + 1).await;
    let by = Actor { who: "ada".into(), reason: None };
    bench.store.bulk(&bench.tier, vec![heeds], Action::Cancel, &by).await.unwrap();
    bench.reaches(heeds, State::Cancelled).await;
    // The store answers before the worker counts.
    let wanted = |count: &Count| ended_as(count) == [2, 3, 1, 0, 0];
    eventually("all are counted", async || {
        let now = count(&worker, "test.probe").unwrap();
        if wanted(&now) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let probe = count(&worker, "test.probe").unwrap();
    assert_eq!((probe.retried, probe.dead), (1, 2), "{probe:?}");
    assert_eq!(probe.buckets.iter().sum::<u64>(), 6, "a snooze is no end: {probe:?}");
    assert_eq!(count(&worker, OTHER), None);
    // Whoever asks for sums alone is told the same.
    assert_eq!(worker.processed().by_outcome().map(|(_, count)| count), [2, 3, 1, 0]);
    worker.stop();
    ended(&worker).await;
}

on_both! {
    #[tokio::test] async:
        jobs_are_counted_by_how_they_ended;
}
