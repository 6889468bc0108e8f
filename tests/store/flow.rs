//! The ways of a job: priorities, expiry, delays, hand-back, cancelling, retrying, parking.

use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::job::{NewJob, Parked, State};
use sluicegate::names::Kind;
use sluicegate::store::*;

use super::bench::*;

fn lane(n: u64, priority: i8) -> NewJob {
    NewJob { priority, ..job(n) }
}

pub(crate) async fn order_is_first_in_first_out(rig: Rig) {
    let all = rig.add_many(20).await;
    let hand = Hand::new("w-1", "r1");
    let mut got = ids(&rig.claim(&hand, 7).await);
    got.extend(ids(&rig.claim(&hand, 100).await));
    assert_eq!(got, all);
}

pub(crate) async fn priorities_the_higher_goes_first(rig: Rig) {
    let low = rig.add(lane(1, -5)).await;
    let middle = rig.add(lane(2, 0)).await;
    let high = rig.add(lane(3, 9)).await;
    assert_eq!(ids(&rig.claim(&Hand::new("w-1", "r1"), 30).await), [high, middle, low]);
}

pub(crate) async fn priorities_most_of_a_claim_goes_to_the_highest_and_the_lower_is_not_starved(rig: Rig) {
    rig.inserts((0..400).map(|n| lane(n, 5)).collect()).await;
    let low: Vec<_> = (0..50).map(|n| lane(n, 0)).collect();
    let low_ids: std::collections::HashSet<_> = low.iter().map(|job| job.id).collect();
    rig.inserts(low).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 100).await;
    let lower = ids(&batch).iter().filter(|id| low_ids.contains(id)).count();
    assert!((1..=50).contains(&lower), "{lower} of 100 places");
    assert_eq!(batch.jobs.len(), 100);
}

pub(crate) async fn priorities_small_claims_do_not_starve_the_lower_either(rig: Rig) {
    rig.inserts((0..400).map(|n| lane(n, 5)).collect()).await;
    let low = rig.add(lane(1, 0)).await;
    let hand = Hand::new("w-1", "r1");
    // One of ten claims looks lower first: 300 in a row that do not are a chance of 2e-14.
    for n in 0..300 {
        if ids(&rig.claim(&hand, 1).await).contains(&low) {
            return;
        }
        assert!(n < 299, "starved");
    }
}

pub(crate) async fn priorities_hold_for_a_suspect_too(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let (low, high) = (rig.add(lane(1, 0)).await, rig.add(lane(2, 3)).await);
    rig.claim(&hand, 2).await;
    rig.leases_end().await;
    assert_eq!(ids(&rig.claim(&hand, 2).await), [high]);
    assert_eq!(ids(&rig.claim(&hand, 2).await), [low]);
}

pub(crate) async fn hand_back_goes_to_the_head_in_order(rig: Rig) {
    let all = rig.add_many(6).await;
    let hand = Hand::new("w-1", "r1");
    let (first, second) = (rig.claim(&hand, 2).await, rig.claim(&hand, 2).await);
    rig.settle_all(&second, &Verdict::Return).await;
    rig.settle_all(&first, &Verdict::Return).await;
    let again = rig.claim(&hand, 10).await;
    assert_eq!(ids(&again), all);
    assert!(again.jobs.iter().all(|job| job.failures == 0));
}

pub(crate) async fn expiry_at_claim(rig: Rig) {
    let late: Vec<_> = (0..5).map(|n| job(n).expires_in(rig.units(1))).collect();
    let late_ids: Vec<_> = late.iter().map(|job| job.id).collect();
    rig.inserts(late).await;
    let good = rig.add(job(9)).await;
    rig.pass(2).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 3).await;
    assert!(ids(&batch).iter().all(|id| *id == good), "{batch:?}");
    for id in late_ids {
        let found = rig.get(id).await;
        assert!(found.state == State::Expired || found.state == State::Available, "never handed out");
    }
    rig.sweep().await;
    assert_eq!(rig.census().await.queues[0].states[&State::Expired], 5);
}

pub(crate) async fn expiry_at_claim_reaches_what_is_behind_it(rig: Rig) {
    rig.inserts((0..500).map(|n| job(n).expires_in(rig.units(1))).collect()).await;
    let good = rig.add(job(9)).await;
    rig.pass(2).await;
    let hand = Hand::new("w-1", "r1");
    for _ in 0..1_000 {
        let batch = rig.claim(&hand, 1).await;
        if !batch.jobs.is_empty() {
            assert_eq!(ids(&batch), [good]);
            return;
        }
    }
    panic!("the one that is not late was never reached");
}

pub(crate) async fn expiry_at_sweep_from_every_waiting_state(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let late = |n| job(n).expires_in(rig.units(2));
    let parked = rig.add(late(1)).await;
    let failed = rig.add(late(2)).await;
    let running = rig.add(late(3)).await;
    let batch = rig.claim(&hand, 3).await;
    rig.settle(&batch, parked, Verdict::Park { why: Parked::Asked, reason: "?".into() }).await;
    rig.settle(&batch, failed, retry(rig.units(50))).await;
    let waiting = rig.add(late(4)).await;
    let scheduled = rig.add(late(5).delay(rig.units(50))).await;
    let never = rig.add(job(6)).await;
    rig.pass(1).await;
    assert_eq!(rig.sweep().await.expired, 0);
    rig.renew(batch.nonce).await;
    rig.pass(1).await;
    assert_eq!(rig.sweep().await.expired, 4);
    for id in [parked, failed, waiting, scheduled] {
        let found = rig.get(id).await;
        assert_eq!((found.state, found.failures), (State::Expired, u32::from(id == failed)));
        assert!(found.finished_at.is_some());
    }
    assert_eq!(rig.state(never).await, State::Available);
    assert_eq!(rig.state(running).await, State::Running, "its worker ends it");
    assert_eq!(rig.settle(&batch, running, Verdict::Expired).await, Settled::Ok);
    assert_eq!(rig.state(running).await, State::Expired);
}

pub(crate) async fn delays_and_next_due(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    assert_eq!(rig.sweep().await.next_due, None);
    let id = rig.add(job(1).delay(rig.units(2))).await;
    let later = rig.add(job(2).delay(rig.units(9))).await;
    let due = rig.sweep().await.next_due.expect("something is due");
    assert!(due <= rig.units(2) && due + rig.units(1) > rig.units(2), "{due:?}");
    let found = rig.get(id).await;
    assert_eq!((found.state, found.run_at), (State::Scheduled, Some(found.enqueued_at.plus(rig.units(2)))));
    assert!(rig.claim(&hand, 10).await.jobs.is_empty());
    rig.pass(1).await;
    assert_eq!(rig.sweep().await.promoted, 0);
    rig.pass(1).await;
    let swept = rig.sweep().await;
    assert_eq!(swept.promoted, 1);
    assert!(swept.next_due.is_some_and(|due| due > rig.units(4)), "{swept:?}");
    assert_eq!(ids(&rig.claim(&hand, 10).await), [id]);
    assert_eq!(rig.state(later).await, State::Scheduled);
    // Also after a failure.
    rig.pass(8).await;
    rig.sweep().await;
    let batch = rig.claim(&hand, 10).await;
    rig.settle_all(&batch, &retry(rig.units(3))).await;
    let due = rig.sweep().await.next_due.expect("a retry is due");
    assert!(due <= rig.units(3) && due > rig.units(1), "{due:?}");
}

pub(crate) async fn delays_a_time_that_has_passed_is_now(rig: Rig) {
    let now = rig.now().await;
    let id = rig.add(job(1).at(now.minus(Duration::from_secs(60)))).await;
    assert_eq!(rig.state(id).await, State::Available);
    let future = rig.add(job(2).at(now.plus(rig.units(50)))).await;
    assert_eq!(rig.get(future).await.run_at, Some(now.plus(rig.units(50))));
}

pub(crate) async fn delays_what_is_due_goes_to_the_tail_in_order_of_time(rig: Rig) {
    let second = rig.add(job(1).delay(rig.units(2))).await;
    let first = rig.add(job(2).delay(rig.units(1))).await;
    let ready = rig.add(job(3)).await;
    rig.pass(3).await;
    assert_eq!(rig.sweep().await.promoted, 2);
    assert_eq!(ids(&rig.claim(&Hand::new("w-1", "r1"), 10).await), [ready, first, second]);
}

/// What a wait is counted from.
pub(crate) async fn a_claimed_job_says_since_when_it_could_run(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let due = async |id| {
        let batch = rig.claim(&hand, 1).await;
        assert_eq!(ids(&batch), [id]);
        (batch.jobs[0].due_at, batch)
    };
    let id = rig.add(job(1)).await;
    let enqueued = rig.get(id).await.enqueued_at;
    rig.pass(1).await;
    let (at, batch) = due(id).await;
    assert_eq!(at, enqueued);
    // What was not begun waits on.
    assert_eq!(rig.settle(&batch, id, Verdict::Return).await, Settled::Ok);
    let (at, batch) = due(id).await;
    assert_eq!(at, enqueued);
    rig.settle_all(&batch, &retry(rig.units(2))).await;
    let again = rig.get(id).await.run_at;
    rig.pass(5).await;
    rig.sweep().await;
    let (at, batch) = due(id).await;
    assert_eq!((Some(at), at > enqueued), (again, true));
    rig.settle_all(&batch, &Verdict::Completed).await;

    let planned = rig.now().await.plus(rig.units(2));
    let id = rig.add(job(2).at(planned)).await;
    rig.pass(5).await;
    rig.sweep().await;
    let (at, batch) = due(id).await;
    assert_eq!(at, planned);
    rig.settle_all(&batch, &Verdict::Completed).await;

    let id = parked(&rig, Parked::UnknownKind).await;
    rig.pass(5).await;
    let before = rig.now().await;
    assert_eq!(rig.store.sweep(able(&rig, "test.job", "r1+build1")).await.unwrap().unparked, 1);
    let after = rig.now().await;
    let hand = Hand::new("w-2", "r1");
    let at = rig.claim(&hand, 1).await.jobs.iter().map(|job| (job.id, job.due_at)).next().expect("it");
    assert!(at.0 == id && (before..=after).contains(&at.1), "parked jobs do not wait: {at:?}, {before}");
}

pub(crate) async fn cancel_what_waits_at_once(rig: Rig) {
    let waiting = rig.add(job(1)).await;
    let scheduled = rig.add(job(2).delay(rig.units(1))).await;
    for id in [waiting, scheduled] {
        assert_eq!(rig.act(id, Action::Cancel).await, Acted::Done(State::Cancelled));
        assert_eq!(rig.act(id, Action::Cancel).await, Acted::Unchanged(State::Cancelled));
    }
    rig.pass(2).await;
    rig.sweep().await;
    assert!(rig.claim(&Hand::new("w-1", "r1"), 10).await.jobs.is_empty());
    assert_eq!(rig.act(sluicegate::ids::JobId::new(), Action::Cancel).await, Acted::NotFound);
    let ledger = rig.store.ledger(&rig.tier, 0, 100).await.unwrap();
    let told: Vec<_> = ledger.iter().filter(|entry| entry.event == "jobs.cancelled").collect();
    assert_eq!(told.len(), 2, "{ledger:?}");
    assert_eq!(told[0].by, actor());
}

pub(crate) async fn cancel_what_runs_by_asking_its_worker(rig: Rig) {
    let all = rig.add_many(3).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 3).await;
    assert_eq!(rig.act(all[1], Action::Cancel).await, Acted::Asked);
    assert_eq!(rig.act(all[1], Action::Cancel).await, Acted::Asked);
    match rig.renew(batch.nonce).await {
        Renewed::Until { cancel, .. } => assert_eq!(cancel, [all[1]]),
        Renewed::Lost => panic!("it is held"),
    }
    assert_eq!(rig.state(all[1]).await, State::Running);
    // Whatever its worker says short of "done", it does not come back.
    assert_eq!(rig.settle(&batch, all[1], retry(rig.units(0))).await, Settled::Ok);
    let found = rig.get(all[1]).await;
    assert_eq!((found.state, found.failures), (State::Cancelled, 0));
    match rig.renew(batch.nonce).await {
        Renewed::Until { cancel, .. } => assert!(cancel.is_empty(), "{cancel:?}"),
        Renewed::Lost => panic!("it is held"),
    }
    // What is done is done.
    assert_eq!(rig.act(all[0], Action::Cancel).await, Acted::Asked);
    assert_eq!(rig.settle(&batch, all[0], Verdict::Completed).await, Settled::Ok);
    assert_eq!(rig.state(all[0]).await, State::Completed);
    assert_eq!(rig.act(all[0], Action::Cancel).await, Acted::Refused(State::Completed));
    // A lost worker cannot be asked any more.
    assert_eq!(rig.act(all[2], Action::Cancel).await, Acted::Asked);
    rig.leases_end().await;
    assert_eq!(rig.state(all[2]).await, State::Cancelled);
}

pub(crate) async fn cancel_a_wish_does_not_outlive_its_attempt(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1)).await;
    let batch = rig.claim(&hand, 1).await;
    rig.act(id, Action::Cancel).await;
    assert_eq!(rig.settle(&batch, id, Verdict::Return).await, Settled::Ok);
    assert_eq!(rig.state(id).await, State::Cancelled);
    rig.act(id, Action::Retry).await;
    let batch = rig.claim(&hand, 1).await;
    match rig.renew(batch.nonce).await {
        Renewed::Until { cancel, .. } => assert!(cancel.is_empty(), "{cancel:?}"),
        Renewed::Lost => panic!("it is held"),
    }
    assert_eq!(rig.settle(&batch, id, Verdict::Return).await, Settled::Ok);
    assert_eq!(rig.state(id).await, State::Available);
}

pub(crate) async fn retry_brings_the_ended_back_with_fresh_attempts(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1).expires_in(rig.units(5))).await;
    let batch = rig.claim(&hand, 1).await;
    rig.settle(&batch, id, Verdict::Dead { error: "no".into() }).await;
    rig.pass(9).await;
    assert_eq!(rig.act(id, Action::Retry).await, Acted::Done(State::Available));
    let found = rig.get(id).await;
    assert_eq!((found.state, found.failures, found.finished_at), (State::Available, 0, None));
    assert_eq!(found.last_error(), Some("no"), "its story stays");
    rig.sweep().await;
    let batch = rig.claim(&hand, 1).await;
    assert_eq!(ids(&batch), [id], "who wants it now does not want it expired again");
    assert_eq!(rig.act(id, Action::Retry).await, Acted::Unchanged(State::Running));
    rig.settle_all(&batch, &Verdict::Completed).await;
    assert_eq!(rig.act(id, Action::Retry).await, Acted::Refused(State::Completed));
    assert_eq!(rig.act(sluicegate::ids::JobId::new(), Action::Retry).await, Acted::NotFound);
}

pub(crate) async fn retry_of_what_waits_is_now(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let scheduled = rig.add(job(1).delay(rig.units(50))).await;
    assert_eq!(rig.act(scheduled, Action::Retry).await, Acted::Done(State::Available));
    assert_eq!(rig.act(scheduled, Action::Retry).await, Acted::Unchanged(State::Available));
    let batch = rig.claim(&hand, 10).await;
    assert_eq!(ids(&batch), [scheduled]);
    rig.settle_all(&batch, &retry(rig.units(50))).await;
    assert_eq!(rig.act(scheduled, Action::Retry).await, Acted::Done(State::Available));
    let batch = rig.claim(&hand, 10).await;
    assert_eq!(batch.jobs[0].failures, 1, "it had not ended: its failures stand");
}

const RAN: Action = Action::RanInline { ran: Duration::from_millis(7) };

/// What the caller ran is completed from wherever it waits, and nobody runs it again.
pub(crate) async fn inline_what_its_caller_ran_is_completed(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let keyed = job(3).idempotency_key(&rig.tier, "k").delay(rig.units(2)).expires_in(rig.units(50));
    let all = [rig.add(job(1).delay(rig.units(2))).await, rig.add(job(2)).await, rig.add(keyed).await];
    for id in all {
        assert_eq!(rig.act(id, RAN).await, Acted::Done(State::Completed));
        assert_eq!(rig.act(id, RAN).await, Acted::Unchanged(State::Completed));
        let found = rig.get(id).await;
        assert_eq!((found.state, found.ran), (State::Completed, Some(Duration::from_millis(7))));
        assert!(found.finished_at.is_some() && found.worker.is_none() && found.failures == 0, "{found:?}");
        let told = found.history.last().expect("a story");
        assert_eq!((told.outcome.as_str(), &told.error, told.ran), ("inline", &None, found.ran));
        assert_eq!(rig.act(id, Action::Retry).await, Acted::Refused(State::Completed));
    }
    let queue = rig.census().await.queues.remove(0);
    assert_eq!((queue.states[&State::Completed], queue.completed_total, queue.inserted_total), (3, 3, 3));
    let again = job(3).idempotency_key(&rig.tier, "k");
    let answer = rig.store.insert(&rig.tier, vec![again]).await.unwrap().remove(0);
    assert_eq!(answer, Insert::Existing { id: all[2], state: State::Completed });
    rig.pass(9).await;
    assert_eq!(rig.sweep().await, Swept { next_due: None, ..Swept::default() }, "nothing is due of them");
    assert!(rig.claim(&hand, 10).await.jobs.is_empty());
    let ledger = rig.store.ledger(&rig.tier, 0, 100).await.unwrap();
    assert!(!ledger.iter().any(|entry| entry.event.starts_with("jobs.")), "no act of a person: {ledger:?}");
}

/// A worker that holds it by now, or whoever ended it, is right.
pub(crate) async fn inline_what_a_worker_holds_or_a_person_ended_is_left(rig: Rig) {
    let all = rig.add_many(2).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    assert_eq!(rig.act(all[0], RAN).await, Acted::Refused(State::Running));
    rig.act(all[1], Action::Cancel).await;
    assert_eq!(rig.act(all[1], RAN).await, Acted::Refused(State::Cancelled));
    let now = Action::HandOver { after: Duration::ZERO };
    assert_eq!(rig.act(all[0], now).await, Acted::Unchanged(State::Running));
    assert_eq!(rig.act(all[1], now).await, Acted::Unchanged(State::Cancelled));
    assert_eq!(rig.settle(&batch, all[0], Verdict::Completed).await, Settled::Ok);
    assert_eq!(rig.act(all[0], RAN).await, Acted::Unchanged(State::Completed));
    assert!(rig.get(all[0]).await.history.is_empty(), "its worker completed it");
    assert_eq!(rig.act(sluicegate::ids::JobId::new(), RAN).await, Acted::NotFound);
}

/// What the caller could not do is the queue's at once, or when the handler wants it, with all of its attempts.
pub(crate) async fn inline_what_its_caller_could_not_do_is_handed_over(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let (now, later) =
        (rig.add(job(1).delay(rig.units(50))).await, rig.add(job(2).delay(rig.units(50))).await);
    let over = |after| Action::HandOver { after };
    assert_eq!(rig.act(now, over(Duration::ZERO)).await, Acted::Done(State::Available));
    assert_eq!(rig.act(now, over(Duration::ZERO)).await, Acted::Unchanged(State::Available));
    assert_eq!(rig.act(later, over(rig.units(2))).await, Acted::Done(State::Scheduled));
    for id in [now, later] {
        let found = rig.get(id).await;
        let told = found.history.last().expect("a story");
        assert_eq!(
            (told.outcome.as_str(), found.last_error(), found.failures),
            ("inline", Some("a test"), 0)
        );
    }
    let batch = rig.claim(&hand, 10).await;
    assert_eq!((ids(&batch), batch.jobs[0].failures), (vec![now], 0));
    rig.settle_all(&batch, &Verdict::Completed).await;
    rig.pass(3).await;
    rig.sweep().await;
    let batch = rig.claim(&hand, 10).await;
    assert_eq!(ids(&batch), [later], "not at the time that it was inserted for");
    rig.settle_all(&batch, &Verdict::Completed).await;
    let queue = rig.census().await.queues.remove(0);
    assert_eq!((queue.states[&State::Completed], queue.completed_total), (2, 2));
}

/// A tier without a worker keeps no more than any other: plain ones, and those whose keys are remembered.
pub(crate) async fn inline_completed_jobs_are_kept_within_bounds(rig: Rig) {
    let all = KEEP_COMPLETED_PER_QUEUE + 3 * MAX_BATCH as u64;
    for from in (0..all).step_by(MAX_BATCH) {
        let new = |n: u64| {
            let new = job(n).delay(rig.units(50));
            if n < MAX_BATCH as u64 { new.idempotency_key(&rig.tier, &n.to_string()) } else { new }
        };
        let jobs: Vec<NewJob> = (from..from + MAX_BATCH as u64).map(new).collect();
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        rig.store.insert(&rig.tier, jobs).await.unwrap();
        let answers = rig.store.bulk(&rig.tier, ids, RAN, &actor()).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Acted::Done(State::Completed)), "{answers:?}");
    }
    let queue = rig.census().await.queues.remove(0);
    assert_eq!(queue.completed_total, all);
    assert_eq!(queue.states[&State::Completed], KEEP_COMPLETED_PER_QUEUE);
    let again = rig.store.insert(&rig.tier, vec![job(7).idempotency_key(&rig.tier, "7")]).await.unwrap();
    assert!(matches!(again[0], Insert::Existing { state: State::Completed, .. }), "{again:?}");
}

pub(crate) async fn bulk_answers_in_order(rig: Rig) {
    let (a, b) = (rig.add(job(1)).await, rig.add(job(2)).await);
    let unknown = sluicegate::ids::JobId::new();
    let answers = rig.store.bulk(&rig.tier, vec![b, unknown, a, b], Action::Cancel, &actor()).await.unwrap();
    let done = Acted::Done(State::Cancelled);
    assert_eq!(answers, [done, Acted::NotFound, done, Acted::Unchanged(State::Cancelled)]);
}

/// Parks one job for a reason, as worker w-1 of release r1 and build1.
async fn parked(rig: &Rig, why: Parked) -> sluicegate::ids::JobId {
    let hand = Hand::new("w-1", "r1");
    rig.beat(&hand, WorkerState::Starting).await;
    let id = rig.add(job(1)).await;
    let batch = rig.claim(&hand, 1).await;
    assert_eq!(rig.settle(&batch, id, Verdict::Park { why, reason: "because".into() }).await, Settled::Ok);
    rig.beat(&hand, WorkerState::Stopped).await;
    let found = rig.get(id).await;
    assert_eq!((found.state, found.parked, found.last_error()), (State::Parked, Some(why), Some("because")));
    id
}

fn able(rig: &Rig, kind: &str, capability: &str) -> SweepAsk {
    SweepAsk { kinds: vec![Kind::new(kind).unwrap()], capability: capability.into(), ..rig.sweeper() }
}

pub(crate) async fn unparking_of_an_unknown_kind_waits_for_who_knows_it(rig: Rig) {
    let id = parked(&rig, Parked::UnknownKind).await;
    assert_eq!(rig.sweep().await.unparked, 0);
    assert_eq!(rig.store.sweep(able(&rig, "test.other", "r2+b")).await.unwrap().unparked, 0);
    assert_eq!(rig.store.sweep(able(&rig, "test.job", "r1+build1")).await.unwrap().unparked, 1);
    let found = rig.get(id).await;
    assert_eq!((found.state, found.parked, found.failures), (State::Available, None, 0));
}

pub(crate) async fn unparking_of_the_undecodable_waits_for_another_build(rig: Rig) {
    let id = parked(&rig, Parked::Undecodable).await;
    assert_eq!(rig.store.sweep(able(&rig, "test.job", "r1+build1")).await.unwrap().unparked, 0);
    assert_eq!(rig.store.sweep(able(&rig, "test.other", "r1+build2")).await.unwrap().unparked, 0);
    assert_eq!(rig.state(id).await, State::Parked);
    assert_eq!(rig.store.sweep(able(&rig, "test.job", "r1+build2")).await.unwrap().unparked, 1);
    assert_eq!(rig.state(id).await, State::Available);
}

pub(crate) async fn unparking_of_the_uncertain_and_the_asked_is_for_people(rig: Rig) {
    for why in [Parked::Uncertain, Parked::Asked] {
        let id = parked(&rig, why).await;
        assert_eq!(rig.store.sweep(able(&rig, "test.job", "r9+build9")).await.unwrap().unparked, 0);
        assert_eq!(rig.act(id, Action::Retry).await, Acted::Done(State::Available));
        assert_eq!(rig.get(id).await.parked, None);
        assert_eq!(rig.act(id, Action::Cancel).await, Acted::Done(State::Cancelled));
    }
}

pub(crate) async fn a_parked_job_that_is_cancelled_is_not_parked(rig: Rig) {
    let id = parked(&rig, Parked::Asked).await;
    assert_eq!(rig.act(id, Action::Cancel).await, Acted::Done(State::Cancelled));
    assert_eq!(rig.get(id).await.parked, None);
}
