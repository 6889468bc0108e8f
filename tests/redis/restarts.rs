//! A server that forgets: its scripts, its replies' order, or everything.

use std::time::Duration;

use futures_util::future::join_all;
use sluicegate::activation::WorkerState;
use sluicegate::job::State;
use sluicegate::store::*;

use super::server::Server;
use super::site::*;
use crate::store::bench::*;

#[tokio::test]
async fn scripts_that_the_server_forgot_are_told_again() {
    let site = Site::new().await;
    let hand = Hand::new("w-1", "r1");
    let flush = async || assert_eq!(site.server.cli(&["SCRIPT", "FLUSH"]).await.text(), "OK");
    for n in 0..3 {
        flush().await;
        let id = site.add(job(n)).await;
        flush().await;
        let batch = site.claim(&hand, 1).await;
        flush().await;
        assert!(matches!(site.renew(batch.nonce).await, Renewed::Until { .. }));
        flush().await;
        assert_eq!(site.settle(&batch, id, Verdict::Completed).await, Settled::Ok);
        flush().await;
        assert_eq!(site.state(id).await, State::Completed);
        flush().await;
        site.sweep().await;
    }
}

#[tokio::test]
async fn scripts_that_the_server_forgets_again_and_again_under_load_heal_by_themselves() {
    const JOBS: u64 = 200;
    let site = Site::new().await;
    let other = site.beside().await;
    let over = std::sync::atomic::AtomicBool::new(false);
    let forgets = async {
        let mut flushes = 0;
        let mut wire = super::resp::Wire::to(site.server.port()).await.unwrap();
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            wire.ask(&["SCRIPT", "FLUSH"]).await.unwrap();
            flushes += 1;
        }
        flushes
    };
    let works = async {
        join_all((0..8_u64).map(async |worker| {
            let (rig, hand) = (if worker % 2 == 0 { &*site } else { &other }, format!("w-{worker}"));
            let hand = Hand::new(&hand, "r1");
            for n in 0..JOBS / 8 {
                rig.add(job(worker * 1_000 + n)).await;
                let batch = rig.claim(&hand, 1).await;
                rig.settle_all(&batch, &Verdict::Completed).await;
            }
        }))
        .await;
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (flushes, ()) = tokio::join!(forgets, works);
    println!("{flushes} flushes");
    assert_eq!(site.census().await.queues[0].completed_total, JOBS);
}

/// Two clients that know names of a server, which then comes back empty.
async fn empty_again() -> (Site, Rig) {
    let mut site = Site::new().await;
    let other = site.beside().await;
    for (rig, queue) in [(&*site, "mail"), (&other, "sms")] {
        rig.add(of_queue(queue, "send.one", 1)).await;
        rig.add(of_queue(queue, "send.two", 2)).await;
    }
    let hand = Hand::new("w-1", "r1");
    assert_eq!(site.claim(&hand, 10).await.jobs.len(), 4);
    assert_eq!(other.census().await.queues.len(), 2);
    site.server.kill();
    site.server.start_again();
    // The first call finds out that the connections are gone, and all of them are made anew.
    for rig in [&*site, &other] {
        rig.store.census(&rig.tier).await.unwrap_err();
    }
    (site, other)
}

async fn insert_again(rig: &Rig, jobs: Vec<sluicegate::job::NewJob>) {
    loop {
        match rig.store.insert(&rig.tier, jobs.clone()).await {
            Ok(answers) => return assert!(answers.iter().all(|a| matches!(a, Insert::Stored { .. }))),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
}

/// Every job is in the queue and of the kind that it was inserted with, whoever looks.
async fn nothing_is_mixed_up(site: &Site, other: &Rig, jobs: &[sluicegate::job::NewJob]) {
    let third = site.beside().await;
    for rig in [&**site, other, &third] {
        for job in jobs {
            let found = rig.get(job.id).await;
            assert_eq!((&found.queue, &found.kind), (&job.queue, &job.kind));
        }
    }
    third.flip(None, "r1").await;
    for job in &third.claim(&Hand::new("w-2", "r1"), 100).await.jobs {
        let given = jobs.iter().find(|given| given.id == job.id).expect("one of ours");
        assert_eq!((&job.queue, &job.kind), (&given.queue, &given.kind));
    }
}

#[tokio::test]
async fn a_server_that_came_back_empty_mixes_up_no_names_of_two_clients() {
    let (site, other) = empty_again().await;
    // The numbers are given in another order now: what each client knows is wrong.
    let first = [of_queue("sms", "send.two", 1)];
    let second = [of_queue("mail", "send.two", 2), of_queue("mail", "send.one", 3)];
    let third = [of_queue("sms", "send.one", 4), of_queue("chat", "send.one", 5)];
    insert_again(&other, first.to_vec()).await;
    insert_again(&site, second.to_vec()).await;
    insert_again(&other, third.to_vec()).await;
    nothing_is_mixed_up(&site, &other, &[&first[..], &second, &third].concat()).await;
}

#[tokio::test]
async fn a_batch_of_known_and_new_names_is_not_mixed_up_by_a_server_that_came_back_empty() {
    let (site, other) = empty_again().await;
    // `mail` has a number that is known, and wrong by now; `chat` asks for one, and gets the same.
    let jobs = vec![of_queue("mail", "send.one", 1), of_queue("chat", "send.one", 2)];
    insert_again(&site, jobs.clone()).await;
    nothing_is_mixed_up(&site, &other, &jobs).await;
}

#[tokio::test]
async fn callers_of_one_client_at_once_are_not_mixed_up_by_a_server_that_came_back_empty() {
    let (site, other) = empty_again().await;
    let jobs: Vec<_> = (0..40)
        .map(|n| match n % 4 {
            0 => of_queue("mail", "send.one", n),
            1 => of_queue("sms", "send.two", n),
            2 => of_queue(&format!("new-{n}"), "send.one", n),
            _ => of_queue("mail", "send.two", n),
        })
        .collect();
    let both = [&*site, &other];
    join_all(
        jobs.iter().enumerate().map(async |(n, job)| insert_again(both[n % 2], vec![job.clone()]).await),
    )
    .await;
    nothing_is_mixed_up(&site, &other, &jobs).await;
}

#[tokio::test]
async fn what_was_claimed_before_the_server_came_back_empty_is_lost_and_no_damage() {
    let mut site = Site::new().await;
    let id = site.add(of_queue("mail", "send.one", 1)).await;
    let other = site.add(of_queue("mail", "send.two", 2)).await;
    let batch = site.claim(&Hand::new("w-1", "r1"), 10).await;
    site.server.kill();
    site.server.start_again();
    let _ = site.store.census(&site.tier).await;
    // Somebody works with the new one, so the names of the old one are forgotten.
    insert_again(&site, vec![of_queue("sms", "send.one", 3)]).await;
    site.flip(None, "r1").await;
    assert_eq!(site.claim(&Hand::new("w-2", "r1"), 10).await.jobs.len(), 1);
    assert_eq!(site.settle(&batch, id, Verdict::Completed).await, Settled::Lost);
    assert_eq!(site.settle(&batch, other, retry(Duration::from_secs(1))).await, Settled::Lost);
    assert_eq!(site.renew(batch.nonce).await, Renewed::Lost);
    assert!(site.store.get(&site.tier, id).await.unwrap().is_none());
    assert_eq!(states(&site, "mail").await, []);
}

#[tokio::test]
async fn rule_01_a_server_that_is_killed_and_keeps_a_file_loses_nothing_acknowledged() {
    let mut site = Site::of(Server::setup().append_only("always")).await;
    let hand = Hand::new("w-1", "r1");
    let ids = site.add_many(50).await;
    let batch = site.claim(&hand, 20).await;
    site.server.kill();
    site.server.start_again();
    let _ = site.store.census(&site.tier).await;
    assert_eq!(states(&site, "default").await, [("available".into(), 30), ("running".into(), 20)]);
    // The lease is as good as before, and so is its fence.
    assert!(matches!(site.renew(batch.nonce).await, Renewed::Until { .. }));
    site.settle_all(&batch, &Verdict::Completed).await;
    let rest = site.claim(&hand, 100).await;
    assert_eq!(rest.jobs.len() + batch.jobs.len(), ids.len());
}

#[tokio::test]
async fn a_worker_that_a_new_server_does_not_know_is_registered_by_its_next_beat() {
    let mut site = Site::new().await;
    let hand = Hand::new("w-1", "r1");
    site.beat(&hand, WorkerState::Active).await;
    site.server.kill();
    site.server.start_again();
    let presence = hand.presence(WorkerState::Active, "r1+build1");
    let _ = site.store.beat(&site.tier, &presence).await;
    // Only a starting process takes a name over; but there is nobody to take it from.
    assert!(matches!(site.store.beat(&site.tier, &presence).await, Ok(Beat::Ok { .. })));
    assert_eq!(site.store.workers(&site.tier).await.unwrap().len(), 1);
}
