//! A Redis server that is killed while everybody works. It writes every change to disk before it answers, and comes back at
//! once with the same port and files.

use sluicegate::job::State;

use super::kit::{Ground, Process};
use crate::both::Engine;

const NAMES: [&str; 2] = ["w-1", "w-2"];

/// Kills the server so often, alone or each time with one of the workers, and judges what came of it.
async fn killed_again_and_again(kills: usize, with_a_worker: bool) {
    let mut ground = Ground::new(Engine::Redis).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut workers = NAMES.map(|name| ground.work(name));
    let mut producers = [0; 2].map(|_| ground.produce("1000000"));
    let mut in_flight = 0;
    for _ in 0..kills {
        ground.progress(random.usize(100..300)).await;
        let one = random.usize(..2);
        let server = ground.place.server.as_mut().expect("a server");
        server.kill();
        if with_a_worker {
            workers[one].kill();
        }
        server.start_again();
        ground.store = ground.place.open().await; // the connections of the last one are dead
        if with_a_worker {
            in_flight += ground.in_flight(NAMES[one]).await;
            workers[one] = ground.work(NAMES[one]);
            // One that has not started when its store goes away ends with an error, as it should.
            ground.is_active(&workers[one]).await;
        }
    }
    ground.progress(200).await;
    assert!(producers.iter_mut().all(|producer| !producer.is_over()), "seed {seed}: producers go on");
    producers.iter_mut().for_each(Process::kill);
    ground.worked_off().await;
    let told = ground.told();
    let (stored, ended, repeated) = (told.stored.len(), told.ends.len(), told.repeated());
    println!(
        "{stored} stored, {ended} ended, {repeated} begun again, {in_flight} in flight at {kills} kills"
    );
    told.is_whole(seed);
    assert!(repeated <= in_flight, "seed {seed}: {repeated} begun again, {in_flight} in flight");
    assert_eq!(ground.count(&[State::Dead]).await, 0, "seed {seed}: nobody was quarantined");
    assert!(workers.iter_mut().all(|worker| !worker.is_over()), "seed {seed}: workers live");
}

/// Workers live on and keep what they hold: whatever the server forgot of it, they tell it again. So nothing runs twice.
#[tokio::test]
async fn t01_t15_a_server_killed_again_and_again_loses_nothing_and_nothing_runs_twice() {
    killed_again_and_again(15, false).await;
}

#[tokio::test]
async fn t01_t15_a_server_killed_with_a_worker_loses_nothing_and_repeats_no_more_than_that_worker_ran() {
    killed_again_and_again(10, true).await;
}
