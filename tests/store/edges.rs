//! Where two promises meet: a key that must outlive its job's record, a claim that meets only what is too late, settles of
//! several leases in one call.

use std::time::Duration;

use sluicegate::job::{State, Unique};
use sluicegate::store::*;

use super::bench::*;

pub(crate) async fn rule_03_one_settle_of_several_leases_is_answered_in_order(rig: Rig) {
    let all = rig.add_many(3).await;
    let hand = Hand::new("w-1", "r1");
    let mut items = Vec::new();
    for id in &all {
        let batch = rig.claim(&hand, 1).await;
        let (nonce, slot) = (batch.nonce, batch.jobs[0].slot);
        items.push(Settle { nonce, id: *id, slot, ran: Duration::ZERO, verdict: Verdict::Completed });
    }
    items[1].nonce = items[2].nonce; // another lease's nonce is no key to this job
    items.push(items[0].clone());
    let answers = rig.store.settle(&rig.tier, items).await.expect("answers");
    assert_eq!(answers, [Settled::Ok, Settled::Lost, Settled::Ok, Settled::Already]);
    assert_eq!(rig.state(all[1]).await, State::Running);
}

pub(crate) async fn unique_keys_with_a_window_longer_than_the_retention_are_held_as_long(rig: Rig) {
    let window = KEEP_COMPLETED * 24;
    if !rig.can_wait(window) {
        return;
    }
    let unique = |n| job(n).unique(Unique { key: "k".into(), window: Some(window), states: None });
    let holder = rig.add(unique(1)).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    rig.settle(&batch, holder, Verdict::Completed).await;
    rig.harness.pass(KEEP_COMPLETED * 2).await;
    assert_eq!(rig.sweep().await.trimmed, 1);
    let held = Insert::Held { holder, state: State::Completed };
    assert_eq!(rig.insert(unique(2)).await, held, "whatever became of the job's record");
    rig.harness.pass(window).await;
    rig.add(unique(3)).await;
}

pub(crate) async fn rule_08_a_claim_that_took_everything_does_not_say_more(rig: Rig) {
    rig.add_many(5).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 5).await;
    assert_eq!((batch.jobs.len(), batch.more), (5, false));
}

pub(crate) async fn rule_08_a_claim_that_met_only_what_is_too_late_says_that_there_is_more(rig: Rig) {
    rig.inserts((0..50).map(|n| job(n).expires_in(rig.units(1))).collect()).await;
    let good = rig.add(job(50)).await;
    rig.pass(2).await;
    let hand = Hand::new("w-1", "r1");
    loop {
        let batch = rig.claim(&hand, 1).await;
        if !batch.jobs.is_empty() {
            assert_eq!(ids(&batch), [good]);
            break;
        }
        assert!(batch.more, "a worker that hears \"no more\" waits to be woken, and nothing would wake it");
    }
}

pub(crate) async fn rule_08_asking_for_nothing_tells_whether_something_waits(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    assert!(!rig.claim(&hand, 0).await.more);
    rig.add(job(1)).await;
    let batch = rig.claim(&hand, 0).await;
    assert_eq!((batch.jobs.len(), batch.more), (0, true));
}

pub(crate) async fn rule_09_a_suspect_that_ends_properly_is_no_suspect_any_more(rig: Rig) {
    let id = rig.add(job(1)).await;
    let hand = Hand::new("w-1", "r1");
    rig.claim(&hand, 1).await;
    assert_eq!(rig.leases_end().await.rescued, 1);
    let alone = rig.claim(&hand, 10).await;
    assert!(alone.suspect);
    rig.settle(&alone, id, retry(rig.units(1))).await;
    rig.pass(1).await;
    rig.sweep().await;
    rig.add(job(2)).await;
    let batch = rig.claim(&hand, 10).await;
    assert_eq!((batch.jobs.len(), batch.suspect), (2, false), "it shares a batch again");
}

pub(crate) async fn rule_09_what_was_to_be_cancelled_is_not_run_again_after_a_crash(rig: Rig) {
    let id = rig.add(job(1)).await;
    let hand = Hand::new("w-1", "r1");
    rig.claim(&hand, 1).await;
    assert_eq!(rig.act(id, Action::Cancel).await, Acted::Asked);
    rig.leases_end().await;
    assert_eq!(rig.state(id).await, State::Cancelled);
    assert!(rig.claim(&hand, 1).await.jobs.is_empty());
}

pub(crate) async fn a_claim_that_fails_leaves_nothing_behind(rig: Rig) {
    let all = rig.add_many(2).await;
    let (a, b) = (Hand::new("a", "r1"), Hand::new("b", "r1"));
    let used = rig.claim(&a, 1).await.nonce;
    // A nonce that names a lease already. The worker was new in this call: nothing of it may stay half known.
    let ask = ClaimAsk { nonce: used, ..rig.ask(&b, 1) };
    let answer = rig.store.claim(ask).await;
    assert!(!matches!(&answer, Ok(Claim::Active(batch)) if !batch.jobs.is_empty()), "{answer:?}");
    assert_eq!(rig.state(all[1]).await, State::Available);
    assert_eq!(ids(&rig.claim(&b, 1).await), [all[1]]);
    assert_eq!(rig.get(all[1]).await.worker.as_ref().map(|worker| worker.as_str()), Some("b"));
}
