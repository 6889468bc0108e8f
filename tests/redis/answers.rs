//! Replies that are lost after their command was executed: nobody knows, asking again is safe, and nothing happens twice.

use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::job::State;
use sluicegate::store::*;

use super::site::*;
use crate::store::bench::*;

#[tokio::test]
async fn a_lost_reply_of_an_insert_is_nobody_knows_and_the_same_id_again_is_the_same_job() {
    let site = Site::new().await;
    site.warm().await;
    let job = job(1);
    let error = site.losing(1, site.store.insert(&site.tier, vec![job.clone()])).await;
    assert_eq!((error.kind, error.is_transient()), (ErrorKind::Timeout, true), "{error}");
    match site.insert(job.clone()).await {
        Insert::Existing { id, state } => assert_eq!((id, state), (job.id, State::Available)),
        other => panic!("{other:?}"),
    }
    assert_eq!(states(&site, "default").await, [("available".into(), 2)]);
    let batch = site.claim(&Hand::new("w-1", "r1"), 10).await;
    assert_eq!(batch.jobs.iter().filter(|claimed| claimed.id == job.id).count(), 1);
}

#[tokio::test]
async fn a_lost_reply_of_a_whole_batch_stores_each_of_it_once() {
    let site = Site::new().await;
    site.warm().await;
    let jobs: Vec<_> = (1..=MAX_BATCH as u64).map(job).collect();
    site.losing(1, site.store.insert(&site.tier, jobs.clone())).await;
    let answers = site.inserts(jobs).await;
    assert!(answers.iter().all(|answer| matches!(answer, Insert::Existing { .. })));
    assert_eq!(states(&site, "default").await, [("available".into(), MAX_BATCH as u64 + 1)]);
}

#[tokio::test]
async fn a_lost_reply_of_a_claim_loses_no_job_its_lease_brings_it_back() {
    let site = Site::new().await;
    let id = site.add(job(1)).await;
    let hand = Hand::new("w-1", "r1");
    site.try_claim(&hand, 0).await;
    let error = site.losing(1, site.store.claim(site.ask(&hand, 10))).await;
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    assert_eq!(site.state(id).await, State::Running, "it was taken, and nobody knows it");
    assert!(site.claim(&hand, 10).await.jobs.is_empty(), "nobody gets it twice");
    assert_eq!(site.leases_run_out().await, 1);
    let job = site.get(id).await;
    assert_eq!((job.state, job.failures, job.crashes), (State::Available, 0, 0));
    let batch = site.claim(&hand, 10).await;
    assert_eq!(ids(&batch), [id]);
    assert_eq!(site.settle(&batch, id, Verdict::Completed).await, Settled::Ok);
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_is_asked_again_with_its_nonce_and_answers_the_same() {
    let site = Site::new().await;
    site.add_many(20).await;
    let hand = Hand::new("w-1", "r1");
    site.try_claim(&hand, 0).await;
    let ask = site.ask(&hand, 10);
    site.losing(1, site.store.claim(ask.clone())).await;
    let Claim::Active(again) = site.store.claim(ask.clone()).await.unwrap() else { panic!("it is active") };
    assert_eq!((again.jobs.len(), again.nonce, again.suspect, again.more), (10, ask.nonce, false, true));
    // What was settled meanwhile is not given again, and nobody else gets any of it.
    let first = again.jobs[0].id;
    assert_eq!(site.settle(&again, first, Verdict::Completed).await, Settled::Ok);
    let Claim::Active(rest) = site.store.claim(ask.clone()).await.unwrap() else { panic!("it is active") };
    assert_eq!(ids(&rest), ids(&again)[1..]);
    let other = ClaimAsk { nonce: ask.nonce, ..site.ask(&Hand::new("w-2", "r1"), 10) };
    assert_eq!(site.store.claim(other).await.unwrap_err().kind, ErrorKind::Refused);
    site.settle_all(&rest, &Verdict::Completed).await;
    assert_eq!(states(&site, "default").await, [("available".into(), 10), ("completed".into(), 10)]);
    // The lease is over, so the nonce is free.
    let Claim::Active(new) = site.store.claim(ask).await.unwrap() else { panic!("it is active") };
    assert_eq!(new.jobs.len(), 10);
}

#[tokio::test]
async fn a_claim_of_canaries_whose_reply_was_lost_answers_the_same_again() {
    let site = Site::new().await;
    let hand = Hand::new("w-1", "r2");
    let one = job(1);
    let id = site.add(sluicegate::job::NewJob::canary(one.kind, one.args, &hand.name, site.units(9))).await;
    site.try_claim(&hand, 0).await;
    let ask = ClaimAsk { lane: Lane::Canaries, ..site.ask(&hand, 10) };
    site.losing(1, site.store.claim(ask.clone())).await;
    let Claim::Canaries(again) = site.store.claim(ask).await.unwrap() else { panic!("its canaries") };
    assert_eq!((ids(&again), again.more, again.canaries), (vec![id], false, false));
    site.settle_all(&again, &Verdict::Completed).await;
}

/// Loses the reply number `n` of one settle, settles again, and says what that answered.
async fn settled_again(n: u32, verdict: Verdict) -> (Site, sluicegate::ids::JobId, Settled) {
    let site = Site::new().await;
    let id = site.add(job(1)).await;
    let batch = site.claim(&Hand::new("w-1", "r1"), 10).await;
    let slot = batch.jobs[0].slot;
    let ran = Duration::from_millis(3);
    let item = Settle { nonce: batch.nonce, id, slot, ran, verdict };
    site.census().await;
    let error = site.losing(n, site.store.settle(&site.tier, vec![item.clone()])).await;
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    let again = site.store.settle(&site.tier, vec![item.clone()]).await.unwrap().remove(0);
    let third = site.store.settle(&site.tier, vec![item]).await.unwrap().remove(0);
    assert_eq!(third, Settled::Already);
    (site, id, again)
}

#[tokio::test]
async fn rule_03_a_lost_reply_of_a_completion_is_already_and_counted_once() {
    let (site, id, again) = settled_again(1, Verdict::Completed).await;
    assert_eq!((again, site.state(id).await), (Settled::Already, State::Completed));
    let census = site.census().await;
    let queue = &census.queues[0];
    assert_eq!((queue.inserted_total, queue.completed_total, queue.failed_total), (1, 1, 0));
    assert_eq!(states(&site, "default").await, [("completed".into(), 1)]);
    assert_eq!(site.leases_run_out().await, 0, "its lease is over");
}

#[tokio::test]
async fn rule_09_a_lost_reply_of_a_failure_is_already_and_costs_one_attempt() {
    // What a failure does is two calls: a look, and the commit. The second one's reply is lost.
    let (site, id, again) = settled_again(2, retry(Duration::from_secs(60))).await;
    let job = site.get(id).await;
    assert_eq!((again, job.state, job.failures), (Settled::Already, State::Retryable, 1));
    assert_eq!(job.history.len(), 1, "{:?}", job.history);
    assert_eq!(site.census().await.queues[0].failed_total, 1);
    assert_eq!(states(&site, "default").await, [("retryable".into(), 1)]);
}

#[tokio::test]
async fn rule_09_a_reply_lost_before_the_commit_changes_nothing_and_the_retry_does_it() {
    let (site, id, again) = settled_again(1, Verdict::Dead { error: "no luck".into() }).await;
    let job = site.get(id).await;
    assert_eq!((again, job.state, job.failures), (Settled::Ok, State::Dead, 1));
    assert_eq!(states(&site, "default").await, [("dead".into(), 1)]);
}

#[tokio::test]
async fn rule_03_a_lost_reply_of_a_batch_of_completions_counts_each_once() {
    let site = Site::new().await;
    site.add_many(100).await;
    let batch = site.claim(&Hand::new("w-1", "r1"), 100).await;
    let ran = Duration::from_millis(3);
    let item = |job: &Claimed| Settle {
        nonce: batch.nonce,
        id: job.id,
        slot: job.slot,
        ran,
        verdict: Verdict::Completed,
    };
    let items: Vec<_> = batch.jobs.iter().map(item).collect();
    site.losing(1, site.store.settle(&site.tier, items.clone())).await;
    let answers = site.store.settle(&site.tier, items).await.unwrap();
    assert_eq!(answers, [Settled::Already; 100]);
    assert_eq!(site.census().await.queues[0].completed_total, 100);
    assert_eq!(states(&site, "default").await, [("completed".into(), 100)]);
}

#[tokio::test]
async fn a_lost_reply_of_a_renewal_prolonged_the_lease() {
    let site = Site::new().await;
    site.add(job(1)).await;
    site.now().await;
    let batch = site.claim(&Hand::new("w-1", "r1"), 10).await;
    site.pass_units(2);
    site.losing(1, site.store.renew(&site.tier, vec![batch.nonce], site.lease())).await;
    site.sweep().await;
    site.pass_units(2); // one unit after it would have ended
    assert_eq!(site.sweep().await.rescued, 0);
    assert!(matches!(site.renew(batch.nonce).await, Renewed::Until { .. }));
}

#[tokio::test]
async fn rule_02_a_lost_reply_of_a_flip_flipped_once() {
    let site = Site::new().await;
    site.census().await;
    // A flip reads the activation, lists the tier, asks for the time, and installs: the fourth reply is the answer.
    let error = site.losing(4, site.store.flip(&site.tier, Some(1), committed("r2"), &actor())).await;
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    match site.store.flip(&site.tier, Some(1), committed("r2"), &actor()).await.unwrap() {
        Flipped::Raced(Some(current)) => {
            assert_eq!((current.generation, current.release.as_str()), (2, "r2"));
        }
        other => panic!("{other:?}"),
    }
    let flips = site.store.ledger(&site.tier, 0, 100).await.unwrap();
    assert_eq!(flips.iter().filter(|entry| entry.event == "activation.flipped").count(), 2, "{flips:?}");
}

#[tokio::test]
async fn a_lost_reply_of_a_put_wrote_once() {
    let site = Site::new().await;
    site.census().await;
    let put = |expect| site.store.put(&site.tier, Space::Effect, "key", expect, "value", None);
    site.losing(1, put(0)).await;
    let Put::Raced(Some(there)) = put(0).await.unwrap() else { panic!("it was written before") };
    assert_eq!((there.version, there.value.as_str()), (1, "value"));
    assert_eq!(put(1).await.unwrap(), Put::Done(2), "one version, not two");
}

#[tokio::test]
async fn a_lost_reply_of_a_cancellation_cancelled_once() {
    let site = Site::new().await;
    let id = site.add(job(1)).await;
    site.census().await;
    // A cancellation looks, commits and tells the ledger.
    site.losing(2, site.store.bulk(&site.tier, vec![id], Action::Cancel, &actor())).await;
    assert_eq!(site.act(id, Action::Cancel).await, Acted::Unchanged(State::Cancelled));
    assert_eq!(states(&site, "default").await, [("cancelled".into(), 1)]);
}

#[tokio::test]
async fn a_lost_reply_of_a_beat_registered_the_worker_and_it_takes_nobody_over() {
    let site = Site::new().await;
    site.now().await;
    let hand = Hand::new("w-1", "r1");
    let presence = hand.presence(WorkerState::Starting, "r1+build1");
    site.losing(1, site.store.beat(&site.tier, &presence)).await;
    assert!(matches!(site.beat(&hand, WorkerState::Starting).await, Beat::Ok { .. }));
    assert_eq!(site.store.workers(&site.tier).await.unwrap().len(), 1);
}

#[tokio::test]
async fn rule_09_a_lost_reply_in_a_rescue_rescues_in_the_end_and_charges_nobody() {
    let site = Site::new().await;
    let id = site.add(job(1)).await;
    site.claim(&Hand::new("w-1", "r1"), 10).await;
    for _ in 0..4 {
        site.sweep().await;
        site.pass_units(1);
    }
    // A rescue sweeps, seizes the lease, counts the fleet, looks and commits. Whatever reply is lost, …
    for lost in 1..=5 {
        site.census().await;
        site.proxy.drop_replies(lost);
        let _ = site.store.sweep(site.sweeper()).await;
        site.proxy.heal();
    }
    // … the next sweeper takes over in turn.
    site.leases_run_out().await;
    let job = site.get(id).await;
    assert_eq!((job.state, job.failures, job.crashes), (State::Available, 0, 0), "{:?}", job.history);
    assert_eq!(job.history.len(), 1, "{:?}", job.history);
    assert_eq!(states(&site, "default").await, [("available".into(), 1)]);
}
