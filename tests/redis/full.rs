//! A server that reached `maxmemory`: it refuses new jobs and says why, and everything that makes room goes on.

use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::job::State;
use sluicegate::store::*;

use super::server::Server;
use super::site::*;
use crate::store::bench::*;

/// Adds jobs until one is refused; what was said.
async fn fill(site: &Site) -> StoreError {
    let padding = "x".repeat(1_000);
    for n in 0..100_000 {
        let job = raw("test.job", &format!("{{\"n\":{n},\"x\":\"{padding}\"}}"));
        match site.store.insert(&site.tier, vec![job]).await {
            Ok(answers) => assert!(matches!(answers[0], Insert::Stored { .. })),
            Err(error) => return error,
        }
    }
    panic!("it never became full");
}

async fn full() -> (Site, StoreError) {
    let site = Site::of(Server::setup().max_memory("3mb", "noeviction")).await;
    let error = fill(&site).await;
    (site, error)
}

/// Takes the last room away, so that even a small write is refused.
async fn tighten(site: &Site) {
    site.server.cli(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let refused = site.server.cli(&["SET", "somebody", "else"]).await;
    assert!(format!("{refused:?}").contains("OOM"), "{refused:?}");
}

#[tokio::test]
async fn a_full_store_refuses_an_insert_and_says_what_to_do() {
    let (site, error) = full().await;
    assert_eq!((error.kind, error.is_transient()), (ErrorKind::Full, true), "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("`maxmemory`")), "{error:?}");
    let before = states(&site, "default").await;
    tighten(&site).await;
    for _ in 0..3 {
        let error = site.store.insert(&site.tier, vec![job(1), job(2)]).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Full);
    }
    // Who asks whether the store is well hears the same.
    assert_eq!(site.store.probe(&site.tier).await.unwrap_err().kind, ErrorKind::Full);
    assert_eq!(states(&site, "default").await, before, "a refused batch leaves nothing behind");
}

#[tokio::test]
async fn a_full_store_is_drained_to_nothing_and_takes_jobs_again() {
    let (site, _) = full().await;
    tighten(&site).await;
    let hand = Hand::new("w-1", "r1");
    site.beat(&hand, WorkerState::Starting).await;
    let mut done = 0;
    loop {
        let batch = site.claim(&hand, 100).await;
        if batch.jobs.is_empty() {
            break;
        }
        assert!(matches!(site.renew(batch.nonce).await, Renewed::Until { .. }));
        site.settle_all(&batch, &Verdict::Completed).await;
        site.beat(&hand, WorkerState::Active).await;
        site.sweep().await;
        done += batch.jobs.len() as u64;
    }
    assert_eq!(states(&site, "default").await, [("completed".into(), done)]);
    assert!(done > 100, "{done}");
    // Completed jobs are kept for an hour; then their room is there again.
    site.server.cli(&["CONFIG", "SET", "maxmemory", "3mb"]).await;
    site.server.pass(KEEP_COMPLETED + Duration::from_secs(1));
    while site.sweep().await.trimmed > 0 {}
    site.add(job(1)).await;
}

#[tokio::test]
async fn a_full_store_carries_every_verdict() {
    let (site, _) = full().await;
    tighten(&site).await;
    let hand = Hand::new("w-1", "r1");
    let park = Verdict::Park { why: sluicegate::job::Parked::Asked, reason: "asked".into() };
    let verdicts = [
        (Verdict::Completed, State::Completed),
        (retry(Duration::from_secs(10)), State::Retryable),
        (Verdict::Dead { error: "no luck".into() }, State::Dead),
        (Verdict::Snooze { delay: Duration::from_secs(10) }, State::Scheduled),
        (park, State::Parked),
        (Verdict::Cancelled, State::Cancelled),
        (Verdict::Expired, State::Expired),
        (Verdict::Return, State::Available),
    ];
    for (verdict, state) in verdicts {
        let batch = site.claim(&hand, 1).await;
        let id = batch.jobs[0].id;
        assert_eq!(site.settle(&batch, id, verdict).await, Settled::Ok, "{state}");
        assert_eq!(site.state(id).await, state);
    }
    // What is due goes on, too.
    site.pass_units(2);
    assert_eq!(site.sweep().await.promoted, 2);
}

#[tokio::test]
async fn a_full_store_is_flipped_and_obeys_people() {
    let (site, _) = full().await;
    tighten(&site).await;
    site.flip(Some(1), "r2").await;
    let put = site.store.put(&site.tier, Space::Control, "pause", 0, "{}", None).await.unwrap();
    assert_eq!(put, Put::Done(1));
    site.store.append(&site.tier, "event", &actor(), "{}").await.unwrap();
    let page = site.store.page(&site.tier, PageAsk { limit: 2, ..PageAsk::default() }).await.unwrap();
    assert_eq!(site.act(page.jobs[0].id, Action::Cancel).await, Acted::Done(State::Cancelled));
    assert_eq!(site.act(page.jobs[0].id, Action::Retry).await, Acted::Done(State::Available));
    let hand = Hand::new("w-1", "r2").generation(2);
    let batch = site.claim(&hand, 1).await;
    assert_eq!(site.act(batch.jobs[0].id, Action::Cancel).await, Acted::Asked);
    assert!(matches!(site.renew(batch.nonce).await, Renewed::Until { cancel, .. } if cancel.len() == 1));
    let all = sluicegate::store::orders::Target::All;
    sluicegate::store::orders::quiet(&*site.store, &site.tier, all, None, &actor()).await.unwrap();
}

#[tokio::test]
async fn a_full_store_rescues_and_expires() {
    let site = Site::of(Server::setup().max_memory("3mb", "noeviction")).await;
    let hand = Hand::new("w-1", "r1");
    // One that waits and will be too late; one that runs and will be.
    let mut runs = job(1);
    runs.expiry = Some(sluicegate::job::new::Expiry::After(site.units(2)));
    let mut waits = job(2);
    waits.expiry = Some(sluicegate::job::new::Expiry::After(site.units(2)));
    let (runs, waits) = (site.add(runs).await, site.add(waits).await);
    let lost = site.claim(&hand, 1).await;
    assert_eq!(ids(&lost), [runs]);
    fill(&site).await;
    tighten(&site).await;
    let (mut expired, mut rescued) = (0, 0);
    for _ in 0..6 {
        let swept = site.sweep().await;
        (expired, rescued) = (expired + swept.expired, rescued + swept.rescued);
        site.pass_units(1);
    }
    // What ran is too late as well, once it is given back.
    assert_eq!((expired, rescued, site.state(waits).await), (2, 1, State::Expired));
    assert_eq!(site.get(runs).await.crashes, 0);
}
