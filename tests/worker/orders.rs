//! What operators tell workers through the store.

use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::job::State;
use sluicegate::names::WorkerName;
use sluicegate::store::orders::{self, Order, Target};
use sluicegate::store::{Actor, Space};
use sluicegate::worker::{Ended, Options};

use super::bench::{Bench, Engine, active, ended, eventually, facts_say, options, release};
use super::releases::flip;

fn ada() -> Actor {
    Actor { who: "ada@host".into(), reason: Some("INC-4711".into()) }
}

fn named(name: &str) -> WorkerName {
    WorkerName::new(name).unwrap()
}

async fn a_quieted_worker_says_who_why_and_until_when_and_claims_again_by_itself(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    active(&worker).await;
    let target = Target::Worker(named("w-1"));
    let span = Duration::from_millis(1_500);
    let quieting = orders::quiet(&*bench.store, &bench.tier, target, Some(span), &ada()).await.unwrap();
    worker.until(WorkerState::Quiet).await;
    let facts = worker.facts().unwrap().presence;
    let quiet = facts.quiet.unwrap();
    assert_eq!(
        (quiet.owner.as_str(), quiet.reason.as_str(), quiet.until),
        ("ada@host", "INC-4711", quieting.until)
    );
    assert!(facts.reason.unwrap().contains("by ada@host: INC-4711"));
    let id = bench.probe("done").await;
    bench.reaches(id, State::Completed).await;
    let done = bench.get(id).await.finished_at.unwrap();
    assert!(done >= quieting.until.unwrap(), "{done} {quieting:?}");
    let ledger = bench.store.ledger(&bench.tier, 0, 100).await.unwrap();
    assert!(ledger.iter().any(|line| line.event == "worker.quieted" && line.by == ada()), "{ledger:?}");
}

async fn a_release_is_quieted_with_those_that_come_later_and_nobody_else(engine: Engine) {
    let bench = Bench::on(engine).await;
    flip(&bench, None, "r2").await;
    let of =
        |name: &str, which: &str| Options { name: named(name), release: Some(release(which)), ..options() };
    let one = bench.worker_with(of("w-1", "r2")).await;
    let other = bench.worker_with(of("w-2", "r1")).await;
    active(&one).await;
    let target = Target::Release(release("r2"));
    orders::quiet(&*bench.store, &bench.tier, target.clone(), None, &ada()).await.unwrap();
    one.until(WorkerState::Quiet).await;
    let later = bench.worker_with(of("w-3", "r2")).await;
    later.until(WorkerState::Quiet).await;
    assert_eq!(other.facts().unwrap().presence.quiet, None);
    // One of them may go on, the others stay.
    let alone = Target::Worker(named("w-3"));
    orders::resume(&*bench.store, &bench.tier, &alone, &[named("w-3")], &ada()).await.unwrap();
    active(&later).await;
    assert_eq!(one.facts().unwrap().presence.state, WorkerState::Quiet);
    orders::resume(&*bench.store, &bench.tier, &target, &[], &ada()).await.unwrap();
    active(&one).await;
}

async fn a_resume_lifts_what_a_signal_said(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    active(&worker).await;
    worker.quiet("a signal", "SIGTSTP", None);
    worker.until(WorkerState::Quiet).await;
    // The first look at the controls is over when the store has heard that it is quiet.
    eventually("the store knows", async || {
        let seen = bench.store.workers(&bench.tier).await.unwrap();
        if seen[0].presence.quiet.is_some() { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let target = Target::Worker(named("w-1"));
    orders::resume(&*bench.store, &bench.tier, &target, &[named("w-1")], &ada()).await.unwrap();
    active(&worker).await;
}

async fn a_worker_stops_when_it_is_ordered_to_and_its_successor_does_not(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    active(&worker).await;
    facts_say(&worker, "it has beaten", |facts| facts.presence.ticks > 1).await;
    orders::order(&*bench.store, &bench.tier, &named("w-1"), Order::Stop, &ada()).await.unwrap();
    assert_eq!(ended(&worker).await, Ended::Stopped { returned: 0 });
    let next = bench.worker().await;
    bench.reaches(bench.probe("done").await, State::Completed).await;
    active(&next).await;
}

async fn a_dump_says_what_runs_now(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    let id = bench.probe("gate").await;
    bench.signals.begun(1).await;
    orders::order(&*bench.store, &bench.tier, &named("w-1"), Order::Dump, &ada()).await.unwrap();
    let text = eventually("it is written down", async || {
        let record =
            bench.store.record(&bench.tier, Space::Receipt, &orders::dump_key(&named("w-1"))).await.unwrap();
        record.map(|record| record.value).ok_or_else(|| format!("{:?}", worker.facts()))
    })
    .await;
    assert!(text.contains(&id.to_string()), "{text}");
}

on_both! {
    #[tokio::test] async:
        a_quieted_worker_says_who_why_and_until_when_and_claims_again_by_itself
        a_release_is_quieted_with_those_that_come_later_and_nobody_else
        a_resume_lifts_what_a_signal_said
        a_worker_stops_when_it_is_ordered_to_and_its_successor_does_not
        a_dump_says_what_runs_now;
}
