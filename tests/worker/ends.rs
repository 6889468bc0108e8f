//! How a worker ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::clock;
use sluicegate::job::{NewJob, State};
use sluicegate::worker::{Ended, Worker};

use super::bench::*;
use super::faulty::Faulty;

async fn a_stop_lets_running_jobs_finish_and_removes_the_worker(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    let id = bench.probe("gate").await;
    bench.signals.begun(1).await;
    worker.stop();
    worker.until(WorkerState::Stopping).await;
    let late = bench.probe("done").await;
    bench.signals.gate.add_permits(1);
    assert_eq!(ended(&worker).await, Ended::Stopped { returned: 0 });
    assert_eq!(bench.get(id).await.state, State::Completed);
    assert_eq!(bench.get(late).await.state, State::Available);
    assert_eq!(bench.store.workers(&bench.tier).await.unwrap(), []);
}

async fn a_stop_gives_back_what_did_not_finish_and_charges_nothing(engine: Engine) {
    let bench = Bench::on(engine).await;
    let mut options = options();
    options.grace = Duration::from_millis(50);
    let worker = bench.worker_with(options).await;
    let ids = [bench.probe("heed").await, bench.probe("hang").await];
    let deaf = bench.insert(raw("test.deaf", "{}")).await;
    bench.signals.begun(3).await;
    worker.stop();
    assert_eq!(ended(&worker).await, Ended::Stopped { returned: 3 });
    for id in [ids[0], ids[1], deaf] {
        let job = bench.get(id).await;
        assert_eq!((job.state, job.failures, job.crashes), (State::Available, 0, 0), "{:?}", job.history);
    }
}

async fn a_second_stop_cuts_the_grace_and_loses_nothing(engine: Engine) {
    let bench = Bench::on(engine).await;
    let mut options = options();
    options.grace = Duration::from_secs(3600);
    let worker = bench.worker_with(options).await;
    let id = bench.probe("hang").await;
    bench.signals.begun(1).await;
    worker.stop();
    worker.until(WorkerState::Stopping).await;
    let begun = clock::instant();
    worker.stop();
    assert_eq!(ended(&worker).await, Ended::Stopped { returned: 1 });
    assert!(begun.elapsed() < Duration::from_secs(5));
    let job = bench.get(id).await;
    assert_eq!((job.state, job.failures), (State::Available, 0));
}

async fn a_hurried_stop_ends_although_the_store_is_away(engine: Engine) {
    let bench = Bench::on(engine).await;
    let store = Faulty::around(Arc::clone(&bench.store));
    let worker = Worker::start(Arc::clone(&store) as _, bench.registry(), options()).await.unwrap();
    let id = bench.probe("gate").await;
    bench.signals.begun(1).await;
    store.away.store(true, SeqCst);
    bench.signals.gate.add_permits(1);
    facts_say(&worker, "the outcome is kept", |facts| facts.unsettled == 1).await;
    worker.stop();
    worker.stop();
    assert_eq!(ended(&worker).await, Ended::Stopped { returned: 0 });
    // Nobody could tell the store: the job is rescued when its lease ends.
    assert_eq!(bench.get(id).await.state, State::Running);
}

async fn what_was_claimed_ahead_is_given_back_at_once(engine: Engine) {
    let bench = Bench::on(engine).await;
    let mut options = options();
    options.slots = 1;
    let worker = bench.worker_with(options).await;
    // Fast jobs teach the worker to claim ahead; then one holds the only slot.
    bench.many(3_000, || NewJob::of(&Noop {}).unwrap()).await;
    bench.many(1, || NewJob::of(&Probe { act: "gate".into() }).unwrap()).await;
    bench.many(2_000, || NewJob::of(&Noop {}).unwrap()).await;
    bench.signals.begun(1).await;
    facts_say(&worker, "all before it are done", |facts| facts.presence.completed == 3_000).await;
    worker.stop();
    worker.until(WorkerState::Stopping).await;
    let census = async || bench.store.census(&bench.tier).await.unwrap();
    eventually("all others wait again while one still runs", async || {
        let states = census().await.queues[0].states.clone();
        let counts = (states[&State::Available], states[&State::Running]);
        if counts == (2_000, 1) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    bench.signals.gate.add_permits(1);
    ended(&worker).await;
    let states = census().await.queues[0].states.clone();
    assert_eq!((states[&State::Available], states[&State::Running]), (2_000, 0));
}

async fn a_runtime_that_goes_away_takes_the_heartbeat_with_it(engine: Engine) {
    let bench = Bench::on(engine).await;
    let (store, registry) = (Faulty::around(Arc::clone(&bench.store)), bench.registry());
    let theirs = Arc::clone(&store) as _;
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(Worker::start(theirs, registry, options())).unwrap()
    })
    .join()
    .unwrap();
    match ended(&worker).await {
        Ended::Broken(reason) => assert_eq!(reason, "the runtime of the worker was shut down"),
        other => panic!("{other:?}"),
    }
    drop(worker);
    store.let_go().await;
}

on_both! {
    #[tokio::test] async:
        a_stop_lets_running_jobs_finish_and_removes_the_worker
        a_stop_gives_back_what_did_not_finish_and_charges_nothing
        a_second_stop_cuts_the_grace_and_loses_nothing
        a_hurried_stop_ends_although_the_store_is_away
        what_was_claimed_ahead_is_given_back_at_once
        a_runtime_that_goes_away_takes_the_heartbeat_with_it;
}
