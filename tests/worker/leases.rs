//! Leases, the heartbeat, and a store that is away.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sluicegate::job::{NewJob, State};
use sluicegate::worker::{Ended, Worker};

use super::bench::*;
use super::faulty::Faulty;

async fn faulty(bench: &Bench) -> (Arc<Faulty>, Worker) {
    let store = Faulty::around(Arc::clone(&bench.store));
    let worker = Worker::start(Arc::clone(&store) as _, bench.registry(), options()).await.unwrap();
    (store, worker)
}

async fn a_lost_lease_cancels_the_job_and_settles_nothing(engine: Engine) {
    let bench = Bench::on(engine).await;
    let (store, worker) = faulty(&bench).await;
    let id = bench.probe("heed").await;
    bench.signals.begun(1).await;
    store.lost.store(true, SeqCst);
    facts_say(&worker, "one lost", |facts| facts.lost == 1 && facts.presence.busy == 0).await;
    assert_eq!(bench.signals.dropped.load(SeqCst), 1);
    let job = bench.get(id).await;
    assert_eq!((job.state, job.failures, job.history.len()), (State::Running, 0, 0));
}

async fn a_long_job_keeps_its_lease(engine: Engine) {
    let bench = Bench::on(engine).await;
    let mut options = options();
    options.lease = Duration::from_millis(300);
    let worker = bench.worker_with(options).await;
    let job = bench.reaches(bench.probe("sleep 1").await, State::Completed).await;
    assert_eq!((job.crashes, bench.signals.started.load(SeqCst)), (0, 1));
    assert_eq!(worker.facts().unwrap().lost, 0);
}

async fn a_blocked_runtime_keeps_its_leases_and_is_seen(engine: Engine) {
    let bench = Bench::on(engine).await;
    let store = Arc::clone(&bench.store);
    let (registry, mut options) = (bench.registry(), options());
    options.lease = Duration::from_millis(500);
    let id = bench.probe("gate").await;
    // The worker lives on a runtime of one thread, which is then blocked for three leases.
    let (tell, told) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let worker = Worker::start(store, registry, options).await.unwrap();
            while worker.dump().is_empty() {
                tokio::task::yield_now().await;
            }
            tell.send(worker.clone()).unwrap();
            gone.recv().unwrap(); // blocks the runtime
            worker.stop();
            worker.ended().await
        })
    });
    let worker = tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
    facts_say(&worker, "the runtime is blocked", |facts| {
        facts.presence.runtime_age > Duration::from_millis(1_500)
    })
    .await;
    let job = bench.get(id).await;
    assert_eq!((job.state, job.crashes), (State::Running, 0));
    let seen = bench.store.workers(&bench.tier).await.unwrap();
    assert!(seen[0].age < Duration::from_millis(500), "{seen:?}");
    bench.signals.gate.add_permits(1);
    go.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), Ended::Stopped { returned: 0 });
    assert_eq!(bench.get(id).await.state, State::Completed);
}

async fn a_blocking_handler_that_ignores_its_cancellation_is_reported_as_stuck(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    let id = bench.insert(NewJob::of(&Deaf {}).unwrap()).await;
    facts_say(&worker, "one is stuck", |facts| facts.presence.stuck == 1).await;
    assert!(worker.dump()[0].ends_with("timed out, stuck"), "{:?}", worker.dump());
    eventually("the store knows", async || {
        let seen = bench.store.workers(&bench.tier).await.unwrap();
        if seen[0].presence.stuck == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert_eq!(bench.get(id).await.state, State::Running);
    bench.signals.gate.add_permits(1);
    bench.reaches(id, State::Completed).await; // it did its work after all
    facts_say(&worker, "none is stuck", |facts| facts.presence.stuck == 0).await;
}

async fn suspects_run_one_at_a_time_and_hold_up_nobody_else(engine: Engine) {
    let bench = Bench::on(engine).await;
    let old = bench.worker().await;
    let ids = [bench.probe("gate").await, bench.probe("gate").await, bench.probe("gate").await];
    bench.signals.begun(3).await;
    let new = bench.worker().await;
    assert_eq!(ended(&old).await, Ended::Superseded);
    bench.signals.begun(4).await;
    bench.reaches(bench.probe("done").await, State::Completed).await;
    assert_eq!((new.dump().len(), bench.signals.started.load(SeqCst)), (1, 5));
    bench.signals.gate.add_permits(3);
    for id in ids {
        let job = bench.reaches(id, State::Completed).await;
        assert_eq!(job.failures, 0);
    }
}

async fn a_store_that_was_away_gets_the_outcomes_and_work_resumes_by_itself(engine: Engine) {
    let bench = Bench::on(engine).await;
    let (store, worker) = faulty(&bench).await;
    let id = bench.probe("gate").await;
    bench.signals.begun(1).await;
    store.away.store(true, SeqCst);
    facts_say(&worker, "it is away", |facts| facts.store_down.is_some()).await;
    bench.signals.gate.add_permits(1);
    facts_say(&worker, "the outcome is kept", |facts| facts.unsettled == 1 && facts.presence.busy == 0).await;
    let later = bench.probe("done").await;
    assert_eq!(bench.get(id).await.state, State::Running);
    store.away.store(false, SeqCst);
    bench.reaches(id, State::Completed).await;
    bench.reaches(later, State::Completed).await;
    facts_say(&worker, "it is back", |facts| facts.store_down.is_none() && facts.unsettled == 0).await;
    assert_eq!(bench.signals.started.load(SeqCst), 2);
}

async fn a_store_that_refuses_for_good_ends_the_worker(engine: Engine) {
    let bench = Bench::on(engine).await;
    let (store, worker) = faulty(&bench).await;
    store.corrupt.store(true, SeqCst);
    bench.probe("done").await;
    match ended(&worker).await {
        Ended::Broken(reason) => assert!(reason.contains("scrambled"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

async fn a_part_that_panics_ends_the_worker_and_its_heartbeat(engine: Engine) {
    let bench = Bench::on(engine).await;
    let (store, worker) = faulty(&bench).await;
    store.panics.store(true, SeqCst);
    bench.probe("done").await;
    assert_eq!(ended(&worker).await, Ended::Broken("the settler panicked: a bug".into()));
    drop(worker);
    store.let_go().await;
}

async fn an_idle_worker_makes_at_most_one_call_a_second(engine: Engine) {
    let bench = Bench::on(engine).await;
    let store = Faulty::around(Arc::clone(&bench.store));
    let mut options = options();
    let usual = sluicegate::worker::Options::default();
    (options.renew_every, options.presence_every) = (usual.renew_every, usual.presence_every);
    let worker = Worker::start(Arc::clone(&store) as _, bench.registry(), options).await.unwrap();
    active(&worker).await;
    facts_say(&worker, "it settled down", |facts| facts.presence.state_age > Duration::from_secs(2)).await;
    let (before, begun) = (store.calls.load(SeqCst), worker.facts().unwrap().presence.state_age);
    let end = begun + Duration::from_secs(8);
    facts_say(&worker, "eight seconds more", |facts| facts.presence.state_age >= end).await;
    let calls = store.calls.load(SeqCst) - before;
    assert!((4..=9).contains(&calls), "{calls} calls in 8 s");
}

on_both! {
    #[tokio::test] async:
        a_lost_lease_cancels_the_job_and_settles_nothing
        a_long_job_keeps_its_lease
        a_blocked_runtime_keeps_its_leases_and_is_seen
        a_blocking_handler_that_ignores_its_cancellation_is_reported_as_stuck
        suspects_run_one_at_a_time_and_hold_up_nobody_else
        a_store_that_was_away_gets_the_outcomes_and_work_resumes_by_itself
        a_store_that_refuses_for_good_ends_the_worker
        a_part_that_panics_ends_the_worker_and_its_heartbeat
        an_idle_worker_makes_at_most_one_call_a_second;
}
