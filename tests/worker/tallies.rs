//! How first attempts went, as a worker tells it and as a judge near the store reads it.

use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::job::{Args, NewJob, State};
use sluicegate::names::{Kind, WorkerName};
use sluicegate::release::evidence::{Count, History, Observed, Terms};
use sluicegate::store::{Insert, Tallies};
use sluicegate::worker::{Options, Worker};

use super::bench::*;
use super::releases::flip;

fn kind(name: &str) -> Kind {
    Kind::new(name).unwrap()
}

/// It looks for canaries often: one that arrives wakes nobody.
async fn of_release(bench: &Bench, name: &str) -> Worker {
    let release = Some(release(name));
    bench.worker_with(Options { release, canary_every: Duration::from_millis(50), ..options() }).await
}

/// What the store knows of the only worker, once that is so.
async fn told(bench: &Bench, what: &str, so: impl Fn(&Tallies) -> bool) -> Tallies {
    eventually(what, async || {
        let workers = bench.store.workers(&bench.tier).await.unwrap();
        let tallies = workers.into_iter().next().and_then(|seen| seen.presence.tallies).unwrap_or_default();
        if so(&tallies) { Ok(tallies) } else { Err(format!("{tallies:?}")) }
    })
    .await
}

fn probes(tallies: &Tallies) -> (u64, u64) {
    tallies.kinds.get(&kind("test.probe")).map_or((0, 0), |tally| (tally.ok, tally.failed))
}

async fn a_worker_tells_first_attempts_and_canaries_apart(engine: Engine) {
    let bench = Bench::on(engine).await;
    flip(&bench, None, "r1").await;
    let worker = of_release(&bench, "r1").await;
    active(&worker).await;
    for act in ["done", "done", "die"] {
        bench.probe(act).await;
    }
    bench.reaches(bench.probe("fail").await, State::Dead).await; // after two attempts, of which the first one counts
    let canary = NewJob::canary(kind("test.teller"), Args::default(), &WorkerName::new("w-1").unwrap(), LONG);
    let stored = bench.store.insert(&bench.tier, vec![canary]).await.unwrap();
    assert!(matches!(stored.first(), Some(Insert::Stored { .. })), "{stored:?}");
    let teller = |tallies: &Tallies| tallies.kinds.get(&kind("test.teller")).copied().unwrap_or_default();
    let tallies = told(&bench, "all are told", |tallies| {
        probes(tallies) == (2, 2) && teller(tallies).canaries_passed == 1
    })
    .await;
    assert_eq!(tallies.generation, 1);
    assert_eq!((teller(&tallies).ok, teller(&tallies).failed), (0, 0));
    assert_eq!(tallies.kinds.len(), 2, "its own canaries prove the worker, and no kind: {tallies:?}");
    let error = tallies.errors.get(&kind("test.probe")).map(String::as_str);
    assert!(matches!(error, Some("as told" | "given up")), "{error:?}");
}

async fn what_was_claimed_under_an_earlier_generation_is_not_mixed_in(engine: Engine) {
    let bench = Bench::on(engine).await;
    flip(&bench, None, "r1").await;
    let worker = of_release(&bench, "r1").await;
    active(&worker).await;
    bench.reaches(bench.probe("die").await, State::Dead).await;
    told(&bench, "the first is told", |tallies| probes(tallies) == (0, 1)).await;
    let late = bench.probe("gate").await;
    bench.signals.begun(2).await;
    flip(&bench, Some(1), "r2").await;
    worker.until(WorkerState::Inactive).await;
    flip(&bench, Some(2), "r1").await;
    active(&worker).await;
    bench.reaches(bench.probe("done").await, State::Completed).await;
    let tallies = told(&bench, "only the new is told", |tallies| probes(tallies) == (1, 0)).await;
    assert_eq!(tallies.generation, 3);
    assert!(tallies.errors.is_empty(), "{tallies:?}");
    bench.signals.gate.add_permits(1);
    bench.reaches(late, State::Completed).await;
    bench.reaches(bench.probe("done").await, State::Completed).await;
    let tallies = told(&bench, "the next is told", |tallies| probes(tallies).0 >= 2).await;
    assert_eq!(probes(&tallies), (2, 0), "and not the late one");
}

async fn a_judge_reads_them_and_the_history_of_a_release_is_kept(engine: Engine) {
    let bench = Bench::on(engine).await;
    flip(&bench, None, "r1").await;
    let worker = of_release(&bench, "r1").await;
    active(&worker).await;
    bench.reaches(bench.probe("done").await, State::Completed).await;
    bench.reaches(bench.probe("die").await, State::Dead).await;
    told(&bench, "both are told", |tallies| probes(tallies) == (1, 1)).await;
    let workers = bench.store.workers(&bench.tier).await.unwrap();
    let terms = Terms::new(release("r1"), 1);
    let of = |generation| {
        let observed = Observed::from_workers(&workers, &terms, generation);
        let hands = observed.workers.into_values().next().unwrap();
        hands.jobs.get(&kind("test.probe")).cloned().unwrap_or_default()
    };
    assert_eq!((of(1).count, of(1).error.as_deref()), (Count { ok: 1, failed: 1 }, Some("given up")));
    assert_eq!((of(0).count, of(2).count), (Count::default(), Count::default()), "of no other generation");
    let (store, tier, r1) = (&*bench.store, &bench.tier, release("r1"));
    assert!(History::read(store, tier, &r1).await.unwrap().kinds().is_empty());
    for _ in 0..2 {
        let kept = History::keep(store, tier, &r1, 1).await.unwrap();
        assert_eq!(kept, History::read(store, tier, &r1).await.unwrap());
        assert_eq!(
            kept.kinds()[&kind("test.probe")],
            Count { ok: 1, failed: 1 },
            "a repeated step counts once"
        );
    }
}

const LONG: Duration = Duration::from_secs(20);

on_both! {
    #[tokio::test] async:
        a_worker_tells_first_attempts_and_canaries_apart
        what_was_claimed_under_an_earlier_generation_is_not_mixed_in
        a_judge_reads_them_and_the_history_of_a_release_is_kept;
}
