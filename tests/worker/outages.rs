//! The store goes away under a worker and comes back: jobs go on, outcomes are kept, and nobody takes it for a crash.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use sluicegate::job::{NewJob, State};
use sluicegate::worker::{Options, Worker};

use super::bench::*;
use crate::redis::proxy::Proxy;
use crate::redis::server::Server;

/// From the first answer after an outage until jobs run again.
const SOON: Duration = Duration::from_secs(3);

/// A server that writes to disk before it answers, a wire before it, and a store on that wire.
struct Away {
    bench: Bench,
    beside: Bench,
    proxy: Proxy,
    server: Server,
}

impl Away {
    async fn new() -> Self {
        let server = Server::setup().append_only("always").start();
        let proxy = Proxy::before(&server);
        let bench = Bench::at(&proxy.url()).await;
        // Who looks from outside is not held up by the wire.
        let mut beside = Bench::at(&server.url()).await;
        beside.signals = bench.signals.clone();
        Self { bench, beside, proxy, server }
    }

    /// Two workers: what one holds, the other one could rescue.
    async fn workers(&self) -> [Worker; 2] {
        let one = self.bench.worker_with(usual("w-1")).await;
        let two = self.beside.worker_with(usual("w-2")).await;
        active(&one).await;
        active(&two).await;
        [one, two]
    }
}

/// The times that `sluicegate work` uses; leases are shorter, so that a rescue would be seen.
fn usual(name: &str) -> Options {
    Options {
        name: sluicegate::names::WorkerName::new(name).unwrap(),
        slots: 4,
        lease: Duration::from_secs(3),
        renew_every: Duration::from_millis(500),
        presence_every: Duration::from_millis(500),
        ..options()
    }
}

/// After an outage of a lease and more: what ran goes on, what ended arrives, nothing runs twice, and work resumes soon.
async fn outage(away: &mut Away, begin: impl Fn(&mut Away), end: impl Fn(&mut Away)) {
    let workers = away.workers().await;
    // Of the jobs that run on both workers, some end while the store is away, and some when it is back.
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(away.bench.probe("gate").await);
    }
    away.bench.signals.begun(8).await;
    begin(away);
    let began = Instant::now();
    for worker in &workers {
        facts_say(worker, "it is away", |facts| facts.store_down.is_some()).await;
    }
    away.bench.signals.gate.add_permits(4);
    eventually("outcomes are kept", async || {
        let unsettled: usize = workers.iter().map(|worker| worker.facts().unwrap().unsettled).sum();
        if unsettled == 4 { Ok(()) } else { Err(format!("{unsettled}")) }
    })
    .await;
    for worker in &workers {
        let longer = 4.0; // than a lease
        facts_say(worker, "a lease has passed", |facts| {
            facts.store_down.as_ref().is_some_and(|(_, since)| *since > longer)
        })
        .await;
    }
    println!("away for {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(13), "it was not seen in time, or forgotten in between");
    end(away);
    let answers = Instant::now();
    // The look from outside may find a connection that the outage has ended.
    eventually("a job is inserted", async || {
        let job = NewJob::of(&Probe { act: "done".into() }).unwrap();
        away.beside
            .store
            .insert(&away.beside.tier, vec![job])
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await;
    away.bench.signals.begun(9).await;
    let took = answers.elapsed();
    assert!(took < SOON, "work resumed after {took:?}");

    away.bench.signals.gate.add_permits(4);
    for id in ids {
        let job = away.beside.reaches(id, State::Completed).await;
        assert_eq!((job.failures, job.crashes), (0, 0), "{:?}", job.history);
        assert!(job.history.is_empty(), "rule 10: {:?}", job.history);
    }
    assert_eq!(away.bench.signals.started.load(SeqCst), 9, "no job ran twice");
    for worker in &workers {
        facts_say(worker, "all is well", |facts| facts.unsettled == 0 && facts.store_down.is_none()).await;
        assert_eq!(worker.facts().unwrap().lost, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_a_redis_that_is_killed_and_comes_back_loses_nothing_and_nothing_runs_twice() {
    let mut away = Away::new().await;
    outage(&mut away, |away| away.server.kill(), |away| away.server.start_again()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_a_redis_that_stands_still_and_goes_on_loses_nothing_and_nothing_runs_twice() {
    let mut away = Away::new().await;
    outage(&mut away, |away| away.server.stop(), |away| away.server.cont()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_a_wire_that_swallows_everything_loses_nothing_and_nothing_runs_twice() {
    let mut away = Away::new().await;
    // Both workers are behind it: for the tier, the store is away.
    away.beside.store = Arc::clone(&away.bench.store);
    outage(&mut away, |away| away.proxy.black_hole(), |away| away.proxy.heal()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wire_that_is_cut_again_and_again_runs_every_job_and_settles_each_once() {
    let away = Away::new().await;
    let worker = away.bench.worker_with(usual("w-1")).await;
    active(&worker).await;
    let census = async || away.beside.store.census(&away.beside.tier).await.unwrap().queues.remove(0);
    let (mut jobs, work) = (0, || NewJob::of(&Probe { act: "done".into() }).unwrap());
    let enough = async {
        while away.proxy.counts().dropped < 6 {
            away.beside.many(100, work).await;
            jobs += 100;
            eventually("all jobs are done", async || {
                let queue = census().await;
                if queue.completed_total == jobs {
                    Ok(())
                } else {
                    Err(format!("{queue:?} {:?}", worker.facts()))
                }
            })
            .await;
        }
    };
    let cuts = async {
        loop {
            away.proxy.drop_replies(25);
            let replies = away.proxy.counts().replies;
            away.proxy.until(|counts| counts.replies > replies + 80).await;
            away.proxy.cut();
            away.proxy.heal();
        }
    };
    tokio::select! { () = enough => {} () = cuts => {} }
    println!("{jobs} jobs; {:?}", away.proxy.counts());
    let queue = census().await;
    assert_eq!((queue.completed_total, queue.failed_total), (jobs, 0));
}
