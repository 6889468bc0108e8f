//! Connections that are cut, that carry nothing, or only one way: every call ends in time, and the next one works at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sluicegate::activation::WorkerState;
use sluicegate::ids::JobId;
use sluicegate::names::{Queue, Tier};
use sluicegate::store::*;

use super::proxy::Way;
use super::site::*;
use crate::store::bench::*;

/// No call takes longer, whatever the wire does.
const BOUND: Duration = Duration::from_secs(6);
/// A call on a good wire takes no longer, even here.
const SOON: Duration = Duration::from_secs(1);

pub(super) type Call<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

/// One call of every method of the seam.
pub(super) fn every<'a>(
    rig: &'a Rig,
    store: &'a Arc<dyn Store>,
    tier: &'a Tier,
) -> Vec<(&'static str, Call<'a>)> {
    let hand = Hand::new("w-1", "r1");
    let presence = hand.presence(WorkerState::Inactive, "r1+build1");
    let nonce = sluicegate::ids::Nonce::new();
    let item = Settle { nonce, id: JobId::new(), slot: 0, ran: Duration::ZERO, verdict: Verdict::Return };
    macro_rules! calls {
        ($($name:literal: $call:expr;)+) => {
            vec![$(($name, Box::pin(async move { $call.await.map(drop) }) as Call<'_>)),+]
        };
    }
    calls! {
        "insert": store.insert(tier, vec![job(1)]);
        "claim": store.claim(ClaimAsk { tier: tier.clone(), ..rig.ask(&hand, 1) });
        "settle": store.settle(tier, vec![item]);
        "renew": store.renew(tier, vec![nonce], rig.lease());
        "sweep": store.sweep(SweepAsk { tier: tier.clone(), ..rig.sweeper() });
        "subscribe": store.subscribe(tier);
        "get": store.get(tier, JobId::new());
        "page": store.page(tier, PageAsk { limit: 10, ..PageAsk::default() });
        "bulk": store.bulk(tier, vec![JobId::new()], Action::Cancel, &actor());
        "census": store.census(tier);
        "activation": store.activation(tier);
        "flip": store.flip(tier, Some(1), committed("r1"), &actor());
        "record": store.record(tier, Space::Effect, "key");
        "put": store.put(tier, Space::Effect, "other", 0, "value", None);
        "records": store.records(tier, Space::Effect, None, 10);
        "pause": store.pause(tier, &Queue::default(), None, &actor());
        "pauses": store.pauses(tier);
        "append": store.append(tier, "event", &actor(), "{}");
        "ledger": store.ledger(tier, 0, 10);
        "beat": store.beat(tier, &presence);
        "workers": store.workers(tier);
        "probe": store.probe(tier);
    }
}

/// Makes them all at once; how each ended, and after how long.
async fn all_at_once(site: &Site) -> Vec<(&'static str, Result<(), StoreError>, Duration)> {
    join_all(every(site, &site.store, &site.tier).into_iter().map(async |(name, call)| {
        let began = Instant::now();
        let answer = call.await;
        (name, answer, began.elapsed())
    }))
    .await
}

/// A subscription that stands is good until its silence is noticed; it goes over a connection of its own.
async fn all_fail(site: &Site, within: Duration) {
    for (name, answer, took) in all_at_once(site).await {
        if name == "subscribe" && answer.is_ok() {
            continue;
        }
        let error = answer.expect_err(name);
        assert!(error.is_transient(), "{name}: {error:?}");
        assert!(took < within, "{name}: {took:?}");
    }
}

async fn all_work(site: &Site) {
    for (name, answer, took) in all_at_once(site).await {
        answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(took < SOON, "{name}: {took:?}");
    }
}

#[tokio::test]
async fn every_call_works_on_a_good_wire() {
    all_work(&Site::new().await).await;
}

#[tokio::test]
async fn a_cut_wire_fails_every_call_in_time_and_all_work_when_it_is_healed() {
    let site = Site::new().await;
    all_work(&site).await;
    site.proxy.cut();
    for _ in 0..2 {
        all_fail(&site, BOUND).await;
    }
    let error = site.store.census(&site.tier).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "nothing was sent: {error}");
    site.proxy.heal();
    all_work(&site).await;
}

#[tokio::test]
async fn a_black_hole_fails_every_call_in_time_and_all_work_when_it_is_healed() {
    let site = Site::new().await;
    all_work(&site).await;
    site.proxy.black_hole();
    all_fail(&site, BOUND).await; // on connections that were good
    all_fail(&site, BOUND).await; // on connections that do not come about
    site.proxy.heal();
    all_work(&site).await;
}

#[tokio::test]
async fn a_half_open_wire_fails_every_call_in_time_and_all_work_when_it_is_healed() {
    let site = Site::new().await;
    all_work(&site).await;
    site.proxy.half_open();
    all_fail(&site, BOUND).await;
    all_fail(&site, BOUND).await;
    site.proxy.heal();
    all_work(&site).await;
}

#[tokio::test]
async fn a_server_that_stands_still_fails_every_call_in_time() {
    let site = Site::new().await;
    all_work(&site).await;
    site.server.stop();
    all_fail(&site, BOUND).await;
    site.server.cont();
    all_work(&site).await;
}

#[tokio::test]
async fn a_black_hole_holds_nobody_up_for_long_however_many_call() {
    let site = Site::new().await;
    site.warm().await;
    site.proxy.black_hole();
    for _ in 0..2 {
        let calls = (0..100).map(async |n| {
            let began = Instant::now();
            let error = site.store.insert(&site.tier, vec![job(n)]).await.unwrap_err();
            (error, began.elapsed())
        });
        for (error, took) in join_all(calls).await {
            assert!(error.is_transient() && took < BOUND, "{took:?}: {error}");
        }
    }
    site.proxy.heal();
    let began = Instant::now();
    site.add(job(1_000)).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_slow_bulk_answer_holds_up_no_renewal() {
    let site = Site::new().await;
    for n in 0..500 {
        site.add(raw("test.job", &format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(2_000)))).await;
    }
    site.now().await;
    site.census().await;
    site.proxy.slow(200_000); // a page of 200 is 400 kB: two seconds
    let ask = PageAsk { limit: 200, ..PageAsk::default() };
    let mut page = std::pin::pin!(site.store.page(&site.tier, ask));
    let began = Instant::now();
    tokio::select! {
        page = &mut page => panic!("the page was not slow: {page:?}"),
        renewed = site.store.renew(&site.tier, vec![sluicegate::ids::Nonce::new()], site.lease()) => {
            assert_eq!(renewed.unwrap(), [Renewed::Lost]);
        }
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn rule_01_a_wire_that_loses_replies_all_the_time_loses_and_doubles_no_job() {
    const JOBS: u64 = 300;
    let site = Site::new().await;
    site.proxy.delay(Way::Both, Duration::from_micros(300));
    site.proxy.drop_replies(7); // about one in seven calls
    let lost = std::sync::atomic::AtomicU64::new(0);
    let producers = (0..10).map(async |producer| {
        for n in 0..JOBS / 10 {
            let job = job(producer * 1_000 + n);
            loop {
                match site.store.insert(&site.tier, vec![job.clone()]).await {
                    Ok(answers) => {
                        assert!(matches!(answers[0], Insert::Stored { .. } | Insert::Existing { .. }));
                        break;
                    }
                    Err(error) => {
                        assert!(error.is_transient(), "{error:?}");
                        lost.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            }
        }
    });
    join_all(producers).await;
    site.proxy.heal();
    assert!(lost.into_inner() > 10, "the wire was too good");
    assert_eq!(states(&site, "default").await, [("available".into(), JOBS)]);
}

#[tokio::test]
async fn wake_ups_come_again_after_a_cut() {
    let site = Site::new().await;
    let beside = site.beside().await;
    let mut wake = site.store.subscribe(&site.tier).await.unwrap();
    site.proxy.cut();
    site.proxy.heal();
    // Whatever happened meanwhile is a wake-up as well.
    assert!(wake.woken(Duration::from_secs(5)).await, "the subscription comes about again");
    let mut wake = site.store.subscribe(&site.tier).await.unwrap();
    beside.add(job(1)).await;
    assert!(wake.woken(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_store_that_was_away_for_long_is_subscribed_to_within_three_seconds() {
    let site = Site::new().await;
    site.store.subscribe(&site.tier).await.unwrap();
    site.proxy.cut();
    // Long enough for the delays between attempts to have grown to their most.
    let grown = Instant::now() + Duration::from_secs(6);
    while Instant::now() < grown {
        let _ = site.store.subscribe(&site.tier).await;
    }
    site.proxy.heal();
    let began = Instant::now();
    site.store.subscribe(&site.tier).await.map(drop).unwrap();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
