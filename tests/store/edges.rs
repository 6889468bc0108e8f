//! Where two promises meet: a key that must outlive its job, a claim that finds only what is too late, a flip while jobs
//! run, a store that was away before anybody ever swept.

use std::time::Duration;

use sluicegate::job::{State, Unique};
use sluicegate::store::{
    Acted, Action, Claim, Insert, KEEP_COMPLETED, MAX_BATCH, Renewed, Settle, Settled, Verdict,
};

use super::harness::{Hand, Harness, LEASE, by, job, tier};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn rule_02_a_worker_that_lost_its_place_may_finish_what_it_holds(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let id = hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    hand.activate("r2").await;
    let answers = hand.store.renew(&tier(), vec![batch.nonce], LEASE).await.expect("an answer");
    assert!(matches!(&answers[..], [Renewed::Until { .. }]), "{answers:?}");
    assert_eq!(hand.settle(&batch, 0, Verdict::Completed).await, Settled::Ok);
    assert_eq!(hand.state(id).await, State::Completed);
}

pub(crate) async fn rule_03_one_settle_of_several_leases_is_answered_in_order(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let mut items = Vec::new();
    for _ in 0..3 {
        hand.insert_new(job()).await;
        let batch = hand.claim(1).await;
        let (nonce, id, slot) = (batch.nonce, batch.jobs[0].id, batch.jobs[0].slot);
        items.push(Settle { nonce, id, slot, ran: SECOND, verdict: Verdict::Completed });
    }
    let again = items[0].clone();
    items[1].nonce = items[2].nonce; // another lease's nonce: not a key to this job
    items.push(again);
    let answers = hand.store.settle(&tier(), items.clone()).await.expect("answers");
    assert_eq!(answers, [Settled::Ok, Settled::Lost, Settled::Ok, Settled::Already]);
    assert_eq!(hand.state(items[1].id).await, State::Running);
}

pub(crate) async fn rule_05_the_longest_wait_counts_from_when_a_job_could_run(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let wait = async || hand.store.census(&tier()).await.expect("an answer").queues[0].oldest_wait;
    hand.insert_new(job().delay(SECOND * 100)).await;
    assert_eq!(wait().await, None, "what is not due does not wait");
    harness.pass(SECOND * 105);
    hand.sweep().await;
    assert_eq!(wait().await, Some(SECOND * 5));
    hand.claim(1).await;
    assert_eq!(wait().await, None);
}

pub(crate) async fn a_unique_window_longer_than_the_retention_is_kept(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let window = KEEP_COMPLETED * 24;
    let unique = || job().unique(Unique { key: "k".into(), window: Some(window), states: None });
    let holder = hand.insert_new(unique()).await;
    let batch = hand.claim(1).await;
    hand.settle(&batch, 0, Verdict::Completed).await;
    harness.pass(KEEP_COMPLETED * 2);
    hand.sweep().await;
    assert_eq!(
        hand.insert(unique()).await,
        Insert::Held { holder, state: State::Completed },
        "the window was asked for, whatever becomes of the job's record"
    );
    harness.pass(window);
    assert!(matches!(hand.insert(unique()).await, Insert::Stored { .. }));
}

pub(crate) async fn rule_08_a_claim_that_took_everything_does_not_say_more(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    for _ in 0..5 {
        hand.insert_new(job()).await;
    }
    let batch = hand.claim(5).await;
    assert_eq!((batch.jobs.len(), batch.more), (5, false));
}

pub(crate) async fn rule_08_a_claim_that_finds_only_what_is_too_late_says_that_there_is_more(
    harness: impl Harness,
) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    for _ in 0..20 {
        hand.insert_new(job().expires_in(SECOND)).await;
    }
    let fine = hand.insert_new(job()).await;
    harness.pass(SECOND * 2);
    let mut claims = 0;
    let taken = loop {
        let batch = hand.claim(1).await;
        claims += 1;
        match batch.jobs.first() {
            Some(job) => break job.id,
            // A worker that hears "no more" waits to be woken, and nothing will wake it.
            None => {
                assert!(batch.more, "after {claims} claims: nothing taken, one waits, and it says no more")
            }
        }
    };
    assert_eq!(taken, fine);
}

pub(crate) async fn rule_08_asking_for_nothing_tells_whether_something_waits(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    assert!(!hand.claim(0).await.more);
    hand.insert_new(job()).await;
    let batch = hand.claim(0).await;
    assert_eq!((batch.jobs.len(), batch.more), (0, true));
}

pub(crate) async fn rule_08_a_settle_over_the_limit_is_refused_whole(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let id = hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    let item =
        Settle { nonce: batch.nonce, id, slot: batch.jobs[0].slot, ran: SECOND, verdict: Verdict::Completed };
    let error = hand.store.settle(&tier(), vec![item; MAX_BATCH + 1]).await.expect_err("refused");
    assert_eq!(error.kind, sluicegate::store::ErrorKind::Refused);
    assert_eq!(hand.state(id).await, State::Running);
}

pub(crate) async fn rule_09_a_suspect_that_ends_properly_is_no_suspect_any_more(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.sweep().await;
    let id = hand.insert_new(job()).await;
    hand.claim(1).await;
    assert_eq!(hand.sweep_for(&harness, LEASE + SECOND * 5).await.rescued, 1);
    let alone = hand.claim(10).await;
    assert!(alone.suspect);
    hand.settle(&alone, 0, Verdict::Retry { delay: SECOND, error: "x".into() }).await;
    harness.pass(SECOND);
    hand.sweep().await;
    hand.insert_new(job()).await;
    let batch = hand.claim(10).await;
    assert_eq!((batch.jobs.len(), batch.suspect), (2, false), "it shares a batch again");
    assert!(batch.jobs.iter().any(|job| job.id == id && job.failures == 1));
}

pub(crate) async fn rule_09_what_was_to_be_cancelled_is_not_run_again_after_a_crash(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.sweep().await;
    let id = hand.insert_new(job()).await;
    hand.claim(1).await;
    let asked = hand.store.bulk(&tier(), vec![id], Action::Cancel, &by()).await.expect("an answer");
    assert_eq!(asked, [Acted::Asked]);
    hand.sweep_for(&harness, LEASE + SECOND * 5).await;
    assert_eq!(hand.state(id).await, State::Cancelled);
    assert!(hand.claim(1).await.jobs.is_empty());
}

pub(crate) async fn rule_10_an_outage_before_the_first_sweep_is_not_a_crash_either(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    harness.pass(LEASE * 4); // nobody ever swept: the store went away right after the first claim
    assert_eq!(hand.sweep().await.rescued, 0);
    let answers = hand.store.renew(&tier(), vec![batch.nonce], LEASE).await.expect("an answer");
    assert!(matches!(&answers[..], [Renewed::Until { .. }]), "{answers:?}");
    assert_eq!(hand.settle(&batch, 0, Verdict::Completed).await, Settled::Ok);
}

pub(crate) async fn a_refused_step_leaves_nothing_behind(harness: impl Harness) {
    let (a, b) = (Hand::of(harness.store(), "a"), Hand::of(harness.store(), "b"));
    a.activate("default").await;
    a.insert_new(job()).await;
    let id = a.insert_new(job()).await;
    let nonce = a.claim(1).await.nonce;
    // A nonce that is in use already: refused, and the name of the worker that was new with it must not stay half known.
    let mut ask = b.ask("default", 0, 1);
    ask.nonce = nonce;
    assert!(!matches!(b.store.claim(ask).await, Ok(Claim::Active(batch)) if !batch.jobs.is_empty()));
    assert_eq!(b.state(id).await, State::Available);
    let batch = b.claim(1).await;
    assert_eq!(batch.jobs[0].id, id);
    let record = b.get(id).await.expect("the job");
    assert_eq!(record.worker.as_ref().map(|worker| worker.as_str()), Some("b"));
}
