//! What time does to jobs.

use std::time::Duration;

use sluicegate::job::{Expiry, State};
use sluicegate::store::{KEEP_COMPLETED_PER_QUEUE, MAX_BATCH, Renewed, Settle, Verdict};

use super::harness::{Hand, Harness, LEASE, job, tier};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn rule_05_leases_end_by_the_stores_clock(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.sweep().await;
    let id = hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    assert_eq!(batch.until.since(batch.now), LEASE);
    assert_eq!(hand.sweep_for(&harness, LEASE).await.rescued, 0);
    assert_eq!(hand.sweep_for(&harness, SECOND).await.rescued, 1);
    assert_eq!(hand.state(id).await, State::Available);
}

pub(crate) async fn rule_05_a_renewed_lease_is_kept(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.sweep().await;
    hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    for _ in 0..5 {
        assert_eq!(hand.sweep_for(&harness, SECOND * 10).await.rescued, 0);
        let answers = hand.store.renew(&tier(), vec![batch.nonce], LEASE).await.expect("an answer");
        assert!(matches!(&answers[..], [Renewed::Until { .. }]), "{answers:?}");
    }
}

pub(crate) async fn rule_05_a_delayed_job_is_never_early_and_says_when_it_is_due(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let id = hand.insert_new(job().delay(SECOND * 60)).await;
    let swept = hand.sweep().await;
    assert_eq!((swept.promoted, swept.next_due), (0, Some(SECOND * 60)));
    harness.pass(Duration::from_millis(59_999));
    assert_eq!(hand.sweep().await.promoted, 0);
    assert!(hand.claim(1).await.jobs.is_empty());
    assert_eq!(hand.state(id).await, State::Scheduled);
    harness.pass(Duration::from_millis(1));
    let swept = hand.sweep().await;
    assert_eq!((swept.promoted, swept.next_due), (1, None));
    assert_eq!(hand.claim(1).await.jobs.len(), 1);
}

pub(crate) async fn rule_10_an_outage_is_not_a_crash(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.sweep().await;
    let id = hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    // Nobody swept for a minute: the store was away, and the worker may well live.
    harness.pass(SECOND * 60);
    assert_eq!(hand.sweep().await.rescued, 0);
    assert_eq!(hand.sweep_for(&harness, LEASE - SECOND).await.rescued, 0);
    let renewed = hand.store.renew(&tier(), vec![batch.nonce], LEASE).await.expect("an answer");
    assert!(matches!(&renewed[..], [Renewed::Until { .. }]), "{renewed:?}");
    assert_eq!(hand.sweep_for(&harness, SECOND * 5).await.rescued, 0);
    assert_eq!(hand.state(id).await, State::Running);
    // It never renews again: now it is lost.
    assert_eq!(hand.sweep_for(&harness, LEASE + SECOND * 5).await.rescued, 1);
}

pub(crate) async fn what_is_too_late_expires_instead_of_running(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let late = hand.insert_new(job().expires_in(SECOND * 10)).await;
    let fine = hand.insert_new(job().expires_in(SECOND * 60)).await;
    harness.pass(SECOND * 10);
    let batch = hand.claim(10).await;
    assert_eq!(batch.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [fine]);
    assert_eq!(hand.state(late).await, State::Expired);
}

pub(crate) async fn what_is_too_late_expires_in_a_sweep(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let running = hand.insert_new(job().expires_in(SECOND * 10)).await;
    let batch = hand.claim(1).await;
    let waiting = hand.insert_new(job().expires_in(SECOND * 10)).await;
    let mut scheduled = job().delay(SECOND * 3600);
    scheduled.expiry = Some(Expiry::After(SECOND * 10));
    let scheduled = hand.insert_new(scheduled).await;
    harness.pass(SECOND * 10);
    assert_eq!(hand.sweep().await.expired, 2);
    for id in [waiting, scheduled] {
        assert_eq!(hand.state(id).await, State::Expired);
    }
    assert_eq!(hand.state(running).await, State::Running);
    hand.settle(&batch, 0, Verdict::Completed).await;
    assert_eq!(hand.state(running).await, State::Completed);
}

pub(crate) async fn completed_jobs_are_kept_an_hour(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let id = hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    hand.settle(&batch, 0, Verdict::Completed).await;
    harness.pass(SECOND * 3600);
    hand.sweep().await;
    assert_eq!(hand.state(id).await, State::Completed);
    harness.pass(SECOND);
    assert_eq!(hand.sweep().await.trimmed, 1);
    assert!(hand.get(id).await.is_none());
    assert_eq!(hand.store.census(&tier()).await.expect("an answer").queues[0].states[&State::Completed], 0);
}

pub(crate) async fn completed_jobs_are_kept_up_to_a_number_per_queue(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let most = usize::try_from(KEEP_COMPLETED_PER_QUEUE).expect("a number");
    let rounds = most / MAX_BATCH + 3;
    for _ in 0..rounds {
        hand.store.insert(&tier(), (0..MAX_BATCH).map(|_| job()).collect()).await.expect("answers");
        let batch = hand.claim(MAX_BATCH).await;
        let settle = |job: &sluicegate::store::Claimed| Settle {
            nonce: batch.nonce,
            id: job.id,
            slot: job.slot,
            ran: SECOND,
            verdict: Verdict::Completed,
        };
        hand.store.settle(&tier(), batch.jobs.iter().map(settle).collect()).await.expect("answers");
    }
    let queue = hand.store.census(&tier()).await.expect("an answer").queues.remove(0);
    assert_eq!(queue.states[&State::Completed], KEEP_COMPLETED_PER_QUEUE);
    assert_eq!(queue.completed_total, (rounds * MAX_BATCH) as u64);
}

pub(crate) async fn dead_jobs_are_kept_for_thirty_days(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let id = hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    hand.settle(&batch, 0, Verdict::Dead { error: "x".into() }).await;
    harness.pass(SECOND * 30 * 86_400);
    hand.sweep().await;
    assert_eq!(hand.state(id).await, State::Dead);
    harness.pass(SECOND);
    assert_eq!(hand.sweep().await.trimmed, 1);
    assert!(hand.get(id).await.is_none());
}
