//! The index of tiers: written before what it stands for, once by each process, and again in a store that came back empty.

use sluicegate::activation::WorkerState;
use sluicegate::names::Tier;

use super::server::Server;
use super::site::*;
use crate::store::bench::*;

fn tier(name: &str) -> Tier {
    Tier::new(name).unwrap()
}

async fn names(rig: &Rig) -> Vec<String> {
    rig.store.tiers().await.unwrap().iter().map(Tier::to_string).collect()
}

/// How often anybody wrote into the index.
async fn writes(server: &Server) -> u64 {
    let stats = server.info("commandstats").await;
    let Some(calls) = stats.get("cmdstat_sadd") else { return 0 };
    calls.strip_prefix("calls=").unwrap().split(',').next().unwrap().parse().unwrap()
}

/// What stops between the two writes leaves a name: here it is a store that has room for nothing else.
#[tokio::test]
async fn a_tier_is_in_the_index_before_its_first_job() {
    let server = Server::start();
    let mut rig = rig_at(&server.url()).await;
    rig.tier = tier("mail");
    server.cli(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    rig.store.insert(&rig.tier, vec![job(1)]).await.unwrap_err();
    assert_eq!(rig.census().await.queues.iter().map(|queue| queue.inserted_total).sum::<u64>(), 0);
    assert_eq!(names(&rig).await, ["mail"]);
}

#[tokio::test]
async fn a_process_writes_a_tier_into_the_index_once() {
    let server = Server::start();
    let mut rig = rig_at(&server.url()).await;
    let before = writes(&server).await;
    rig.tier = tier("mail");
    let hand = Hand::new("w-1", "r1");
    for n in 0..20 {
        rig.add(of_queue(&format!("q-{}", n % 4), "test.job", n)).await;
        rig.beat(&hand, if n == 0 { WorkerState::Starting } else { WorkerState::Active }).await;
    }
    assert_eq!(writes(&server).await - before, 1);
}

#[tokio::test]
async fn a_store_that_came_back_empty_is_told_of_its_tiers_again() {
    let mut server = Server::start();
    let mut rig = rig_at(&server.url()).await;
    let other = rig_at(&server.url()).await;
    rig.tier = tier("mail");
    let hand = Hand::new("w-1", "r1");
    rig.beat(&hand, WorkerState::Starting).await;
    rig.beat(&hand, WorkerState::Active).await;
    other.add(job(1)).await;
    for came_back in [&["default"][..], &["default", "mail"]] {
        server.kill();
        server.start_again();
        while other.store.tiers().await.is_err() {} // the connections that were cut are made anew
        assert_eq!(names(&other).await, [""; 0]);
        while other.store.insert(&other.tier, vec![job(2)]).await.is_err() {}
        if came_back.len() > 1 {
            // It goes on as if nothing had been, and is new to the store.
            while rig.store.beat(&rig.tier, &hand.presence(WorkerState::Active, "x")).await.is_err() {}
        }
        assert_eq!(names(&other).await, came_back);
    }
}
