//! Who may claim.

use std::time::Duration;

use sluicegate::activation::{Mode, WorkerState};
use sluicegate::job::State;
use sluicegate::names::WorkerName;
use sluicegate::store::{Actor, Flip, Flipped};
use sluicegate::worker::Ended;

use super::bench::*;

pub(crate) fn by() -> Actor {
    Actor { who: "ada".into(), reason: None }
}

pub(crate) async fn flip(bench: &Bench, expect: Option<u64>, name: &str) {
    let flip = Flip {
        release: release(name),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
        guard: None,
        least: 0,
    };
    let flipped = bench.store.flip(&bench.tier, expect, flip, &by()).await.unwrap();
    assert!(matches!(flipped, Flipped::Now(_)), "{flipped:?}");
}

async fn a_worker_without_a_release_activates_default_in_a_tier_without_an_activation(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    active(&worker).await;
    let activation = bench.store.activation(&bench.tier).await.unwrap().expect("an activation");
    assert_eq!((activation.release.as_str(), activation.mode), ("default", Mode::Committed));
    let ledger = bench.store.ledger(&bench.tier, 0, 10).await.unwrap();
    assert!(ledger.iter().any(|entry| entry.by.who == "worker/w-1"), "{ledger:?}");
}

async fn a_named_release_waits_for_its_activation_and_says_so(engine: Engine) {
    let bench = Bench::on(engine).await;
    let mut options = options();
    options.release = Some(release("r1"));
    let worker = bench.worker_with(options).await;
    let id = bench.probe("done").await;
    facts_say(&worker, "it says why", |facts| {
        facts.presence.reason.as_deref() == Some("no release is active in tier `default`")
    })
    .await;
    assert!(bench.store.activation(&bench.tier).await.unwrap().is_none());
    assert_eq!(bench.get(id).await.state, State::Available);
    flip(&bench, None, "r1").await;
    bench.reaches(id, State::Completed).await;
    assert_eq!(worker.facts().unwrap().presence.generation, 1);
}

async fn another_release_stays_inactive_and_a_flip_hands_over(engine: Engine) {
    let bench = Bench::on(engine).await;
    flip(&bench, None, "r1").await;
    let [mut one, mut two] = [options(), options()];
    (one.release, two.release) = (Some(release("r1")), Some(release("r2")));
    two.name = WorkerName::new("w-2").unwrap();
    let (one, two) = (bench.worker_with(one).await, bench.worker_with(two).await);
    active(&one).await;
    facts_say(&two, "it says why", |facts| {
        facts.presence.reason.as_deref()
            == Some("release `r1` is active in tier `default` (generation 1), this worker is `r2`")
    })
    .await;
    flip(&bench, Some(1), "r2").await;
    active(&two).await;
    one.until(WorkerState::Inactive).await;
    let job = bench.reaches(bench.probe("done").await, State::Completed).await;
    assert_eq!(job.release, Some(release("r2")));
}

async fn a_name_that_registers_again_takes_over(engine: Engine) {
    let bench = Bench::on(engine).await;
    let old = bench.worker().await;
    let id = bench.probe("gate").await;
    bench.signals.begun(1).await;
    let new = bench.worker().await;
    assert_eq!(ended(&old).await, Ended::Superseded);
    bench.signals.gate.add_permits(1);
    let job = bench.reaches(id, State::Completed).await;
    assert_eq!(job.failures, 0);
    let seen = bench.store.workers(&bench.tier).await.unwrap();
    assert_eq!(seen.len(), 1);
    new.stop();
    ended(&new).await;
}

async fn a_quiet_worker_claims_nothing_until_it_resumes(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    active(&worker).await;
    worker.quiet("ada", "looks at the disk", None);
    worker.until(WorkerState::Quiet).await;
    assert_eq!(
        worker.facts().unwrap().presence.reason.as_deref(),
        Some("quiet without an end by ada: looks at the disk")
    );
    let id = bench.probe("done").await;
    let before = worker.facts().unwrap().presence.ticks;
    facts_say(&worker, "it ticks on, and asks for nothing", |facts| {
        let asked = facts.presence.claim_age.expect("it asked once");
        facts.presence.ticks > before && asked > Duration::from_secs(1)
    })
    .await;
    assert_eq!(bench.get(id).await.state, State::Available);
    worker.resume();
    bench.reaches(id, State::Completed).await;
    active(&worker).await;
}

on_both! {
    #[tokio::test] async:
        a_worker_without_a_release_activates_default_in_a_tier_without_an_activation
        a_named_release_waits_for_its_activation_and_says_so
        another_release_stays_inactive_and_a_flip_hands_over
        a_name_that_registers_again_takes_over
        a_quiet_worker_claims_nothing_until_it_resumes;
}
