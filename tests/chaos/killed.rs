//! Workers and producers that are killed or stopped.

use sluicegate::job::State;
use sluicegate::names::Tier;

use super::kit::{Ground, Process, until};
use crate::both::Engine;

/// Two workers and two producers on one store, killed again and again.
async fn t01_t02_killed_workers_and_producers_lose_nothing_and_repeat_no_more_than_was_in_flight(
    engine: Engine,
) {
    const KILLS: usize = 14;
    let ground = Ground::new(engine).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut workers = ["w-1", "w-2"].map(|name| ground.work(name));
    let mut producers = [0; 2].map(|_| ground.produce("100000"));
    let mut in_flight = 0;
    for kill in 0..KILLS {
        ground.progress(150).await;
        let one = random.usize(..2);
        if kill % 3 == 2 {
            producers[one].kill();
            producers[one] = ground.produce("100000");
        } else {
            let name = ["w-1", "w-2"][one];
            workers[one].kill();
            in_flight += ground.in_flight(name).await;
            workers[one] = ground.work(name);
        }
    }
    producers.iter_mut().for_each(Process::kill);
    ground.worked_off().await;
    ground.retry_quarantined(seed).await;
    let told = ground.told();
    let (stored, ended, repeated) = (told.stored.len(), told.ends.len(), told.repeated());
    println!(
        "{stored} stored, {ended} ended, {repeated} begun again, {in_flight} in flight at {KILLS} kills"
    );
    told.is_whole(seed);
    assert!(repeated <= in_flight, "seed {seed}: {repeated} begun again, {in_flight} in flight");
    assert_eq!(ground.count(&[State::Dead]).await, 0, "seed {seed}: nobody was quarantined");
    assert!(workers.iter_mut().all(|worker| !worker.is_over()));
}

/// A worker that was stopped past its lease comes back, and can change nothing that it lost.
async fn t38_a_stopped_worker_that_was_taken_over_ends_by_itself(engine: Engine) {
    let ground = Ground::new(engine).await;
    let mut old = ground.work("w-1");
    let mut producer = ground.produce("200");
    until("jobs run", async || !ground.told().ends.is_empty()).await;
    // A process that is stopped in the middle of a transaction holds the file: nobody can go on, and everybody is told.
    // That is SQLite's nature; there the stop must fall between two transactions.
    loop {
        old.signal("STOP");
        if ground.store.probe(&Tier::default()).await.is_ok() {
            break;
        }
        old.signal("CONT");
        let before = ground.told().ends.len();
        until("it goes on", async || ground.told().ends.len() > before || producer.is_over()).await;
    }
    let _new = ground.work("w-1");
    until("the producer is done", async || producer.is_over()).await;
    ground.worked_off().await;
    old.signal("CONT");
    until("the old one ended", async || old.is_over()).await;
    let told = ground.told();
    assert!(told.stored.iter().all(|id| told.ends.contains_key(id)));
}

on_both! {
    #[tokio::test] async:
        t01_t02_killed_workers_and_producers_lose_nothing_and_repeat_no_more_than_was_in_flight
        t38_a_stopped_worker_that_was_taken_over_ends_by_itself;
}
