//! A Redis server that is killed while everybody works. It writes every change to disk before it answers, and comes back at
//! once with the same port and files.

use sluicegate::job::State;

use super::kit::{Ground, Process};
use crate::both::Engine;

/// Workers live on and keep what they hold: whatever the server forgot of it, they tell it again. So nothing runs twice.
#[tokio::test]
async fn t01_t15_a_server_killed_again_and_again_loses_nothing_and_nothing_runs_twice() {
    const KILLS: usize = 15;
    let mut ground = Ground::new(Engine::Redis).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut workers = ["w-1", "w-2"].map(|name| ground.work(name));
    let mut producers = [0; 2].map(|_| ground.produce("1000000"));
    for _ in 0..KILLS {
        ground.progress(random.usize(100..300)).await;
        let server = ground.place.server.as_mut().expect("a server");
        server.kill();
        server.start_again();
    }
    ground.progress(200).await;
    assert!(producers.iter_mut().all(|producer| !producer.is_over()), "producers go on");
    producers.iter_mut().for_each(Process::kill);
    ground.worked_off().await;
    let told = ground.told();
    let (stored, ended, repeated) = (told.stored.len(), told.ends.len(), told.repeated());
    println!("{stored} stored, {ended} ended, {repeated} begun again after {KILLS} kills");
    told.is_whole(seed);
    assert_eq!(repeated, 0, "seed {seed}: an outage is not a crash");
    assert_eq!(ground.count(&[State::Dead]).await, 0, "seed {seed}: nobody was quarantined");
    assert!(workers.iter_mut().all(|worker| !worker.is_over()), "seed {seed}: workers live");
}
