//! Rules 9 and 10: what costs an attempt, what a lost worker means, and that an outage is not a crash.

use std::collections::HashSet;

use sluicegate::activation::WorkerState;
use sluicegate::job::{Parked, State};
use sluicegate::store::*;

use super::bench::*;

pub(crate) async fn rule_09_attempts_a_failure_costs_one(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1)).await;
    for failures in 0..3 {
        let batch = rig.claim(&hand, 1).await;
        assert_eq!(batch.jobs[0].failures, failures);
        assert_eq!(rig.settle(&batch, id, retry(rig.units(1))).await, Settled::Ok);
        let found = rig.get(id).await;
        assert_eq!((found.state, found.failures, found.crashes), (State::Retryable, failures + 1, 0));
        assert_eq!(found.last_error(), Some("no luck"));
        let attempt = found.history.last().expect("an attempt");
        assert_eq!((attempt.outcome.as_str(), attempt.ran.map(|ran| ran.as_millis())), ("failed", Some(3)));
        assert_eq!(attempt.worker.as_ref(), Some(&hand.name));
        assert_eq!(attempt.release.as_ref(), Some(&hand.release));
        rig.pass(2).await;
        rig.sweep().await;
    }
    let batch = rig.claim(&hand, 1).await;
    assert_eq!(rig.settle(&batch, id, Verdict::Dead { error: "given up".into() }).await, Settled::Ok);
    let found = rig.get(id).await;
    assert_eq!((found.state, found.failures, found.history.len()), (State::Dead, 4, 4));
    assert_eq!(rig.census().await.queues[0].failed_total, 4);
}

pub(crate) async fn rule_09_attempts_snooze_park_and_return_cost_nothing(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1)).await;
    let park = Verdict::Park { why: Parked::Asked, reason: "wait for it".into() };
    for (verdict, then) in [
        (Verdict::Snooze { delay: rig.units(1) }, State::Scheduled),
        (park, State::Parked),
        (Verdict::Return, State::Available),
    ] {
        let batch = rig.claim(&hand, 1).await;
        assert_eq!(rig.settle(&batch, id, verdict).await, Settled::Ok);
        let found = rig.get(id).await;
        assert_eq!((found.state, found.failures, found.crashes), (then, 0, 0));
        assert_eq!(found.parked, (then == State::Parked).then_some(Parked::Asked));
        if then != State::Available {
            rig.act(id, Action::Retry).await;
        }
    }
    let found = rig.get(id).await;
    assert_eq!(rig.claim(&hand, 1).await.jobs[0].failures, 0);
    assert_eq!((found.parked, found.failures), (None, 0));
    assert_eq!(rig.census().await.queues[0].failed_total, 0);
}

pub(crate) async fn rule_09_attempts_the_story_is_bounded(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1)).await;
    for n in 0..30 {
        let batch = rig.claim(&hand, 1).await;
        let error = if n == 29 { "é".repeat(5_000) } else { format!("error {n}") };
        rig.settle_all(&batch, &Verdict::Retry { delay: rig.units(0), error }).await;
        rig.act(id, Action::Retry).await;
    }
    let found = rig.get(id).await;
    assert!(found.history.len() <= sluicegate::job::record::MAX_HISTORY, "{}", found.history.len());
    assert_eq!(found.history[0].error.as_deref(), Some("error 0"), "the first is kept");
    let last = found.last_error().expect("an error").len();
    assert!((1_990..2_010).contains(&last), "{last}");
    assert_eq!(found.failures, 30);
}

/// A worker claims and is never heard of again.
async fn crash(rig: &Rig, hand: &Hand, max: usize) -> Batch {
    let batch = rig.claim(hand, max).await;
    assert!(!batch.jobs.is_empty(), "there is something to crash on");
    rig.leases_end().await;
    batch
}

pub(crate) async fn rule_09_attempts_a_crash_makes_suspects_and_charges_nobody(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let all = rig.add_many(3).await;
    crash(&rig, &hand, 3).await;
    for id in &all {
        let found = rig.get(*id).await;
        assert_eq!((found.state, found.failures, found.crashes), (State::Available, 0, 0));
        let last = found.history.last().expect("it is told");
        assert_eq!((last.outcome.as_str(), last.worker.as_ref()), ("crashed", Some(&hand.name)));
    }
    let fresh = rig.add(job(9)).await;
    // One suspect at a time, alone, and only to who may take one.
    let batch = rig.claim(&hand, 10).await;
    assert_eq!((batch.suspect, batch.more, ids(&batch)), (true, true, vec![all[0]]));
    let mut careful = Hand::new("w-2", "r1");
    careful.suspects = false;
    let ordinary = rig.claim(&careful, 10).await;
    assert_eq!((ordinary.suspect, ids(&ordinary)), (false, vec![fresh]));
    assert!(rig.claim(&careful, 10).await.jobs.is_empty());
    // Settled, it is no suspect any more.
    assert_eq!(rig.settle(&batch, all[0], retry(rig.units(0))).await, Settled::Ok);
    rig.sweep().await;
    assert_eq!(ids(&rig.claim(&careful, 10).await), [all[0]]);
}

pub(crate) async fn rule_09_attempts_a_suspect_given_back_is_still_a_suspect(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let all = rig.add_many(1).await;
    crash(&rig, &hand, 1).await;
    let batch = rig.claim(&hand, 1).await;
    assert_eq!(rig.settle(&batch, all[0], Verdict::Return).await, Settled::Ok);
    let again = rig.claim(&hand, 10).await;
    assert_eq!((again.suspect, ids(&again)), (true, all));
}

pub(crate) async fn rule_09_attempts_a_killer_is_quarantined_and_its_neighbours_are_not_charged(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let all = rig.add_many(5).await;
    let killer = all[2];
    let mut deaths = 0;
    for _ in 0..40 {
        let batch = rig.claim(&hand, 10).await;
        if batch.jobs.is_empty() {
            break;
        }
        if ids(&batch).contains(&killer) {
            deaths += 1;
            rig.leases_end().await;
        } else {
            rig.settle_all(&batch, &Verdict::Completed).await;
        }
    }
    let found = rig.get(killer).await;
    assert_eq!((found.state, found.crashes, deaths), (State::Dead, MAX_CRASHES, MAX_CRASHES));
    assert_eq!(found.failures, 0, "crashes are counted apart");
    assert!(found.last_error().is_some_and(|error| error.contains("died")), "{:?}", found.last_error());
    for id in all.into_iter().filter(|id| *id != killer) {
        let found = rig.get(id).await;
        assert_eq!((found.state, found.failures, found.crashes), (State::Completed, 0, 0));
    }
    // A person brings it back with a clean slate.
    assert_eq!(rig.act(killer, Action::Retry).await, Acted::Done(State::Available));
    let found = rig.get(killer).await;
    assert_eq!((found.crashes, found.failures), (0, 0));
    assert!(!rig.claim(&hand, 1).await.suspect);
}

pub(crate) async fn rule_09_attempts_a_lone_killer_is_quarantined(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1)).await;
    for _ in 0..MAX_CRASHES {
        assert_eq!(rig.state(id).await, State::Available);
        crash(&rig, &hand, 1).await;
    }
    assert_eq!(rig.state(id).await, State::Dead);
}

pub(crate) async fn rule_09_attempts_a_fleet_that_fails_again_and_again_quarantines_nobody(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let all = rig.add_many(4).await;
    crash(&rig, &hand, 4).await;
    for round in 0..20 {
        let batch = crash(&rig, &hand, 4).await;
        assert_eq!(batch.jobs.len(), 1, "round {round}: suspects go one by one");
    }
    for id in &all {
        let found = rig.get(*id).await;
        assert!(found.state == State::Available && found.crashes < MAX_CRASHES, "{found:?}");
    }
    // The fleet is well again: everything completes.
    let mut done = HashSet::new();
    loop {
        let batch = rig.claim(&hand, 4).await;
        if batch.jobs.is_empty() {
            break;
        }
        rig.settle_all(&batch, &Verdict::Completed).await;
        done.extend(ids(&batch));
    }
    assert_eq!(done, all.into_iter().collect());
}

pub(crate) async fn rule_09_attempts_a_failure_after_a_crash_is_charged_as_a_failure_only(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1)).await;
    crash(&rig, &hand, 1).await;
    let batch = rig.claim(&hand, 1).await;
    assert_eq!(rig.settle(&batch, id, retry(rig.units(0))).await, Settled::Ok);
    let found = rig.get(id).await;
    assert_eq!((found.failures, found.crashes), (1, 0));
}

pub(crate) async fn rule_10_an_outage_is_not_a_crash(rig: Rig) {
    let (first, second) = (Hand::new("w-1", "r1"), Hand::new("w-2", "r1"));
    rig.add_many(2).await;
    rig.sweep().await;
    let (a, b) = (rig.claim(&first, 1).await, rig.claim(&second, 1).await);
    // The store is away for much longer than a lease; then everybody comes back, a sweeper first.
    rig.pass(20).await;
    assert_eq!(rig.sweep().await.rescued, 0);
    rig.pass(1).await;
    assert!(matches!(rig.renew(a.nonce).await, Renewed::Until { .. }), "the lease is still there");
    assert_eq!(rig.sweep().await.rescued, 0);
    rig.pass(1).await;
    assert_eq!(rig.sweep().await.rescued, 0, "two units are less than one lease");
    // The second one never comes back.
    let mut rescued = 0;
    for _ in 0..4 {
        rig.renew(a.nonce).await;
        rig.pass(1).await;
        rescued += rig.sweep().await.rescued;
    }
    assert_eq!(rescued, 1);
    assert_eq!(rig.state(a.jobs[0].id).await, State::Running);
    assert_eq!(rig.state(b.jobs[0].id).await, State::Available);
    rig.settle_all(&a, &Verdict::Completed).await;
}

pub(crate) async fn rule_10_an_outage_before_the_first_sweep_is_none_either(rig: Rig) {
    rig.add_many(1).await;
    let held = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    rig.pass(20).await;
    assert_eq!(rig.sweep().await.rescued, 0);
    rig.pass(1).await;
    assert!(matches!(rig.renew(held.nonce).await, Renewed::Until { .. }));
    rig.settle_all(&held, &Verdict::Completed).await;
}

pub(crate) async fn rule_10_without_an_outage_the_lost_are_rescued_when_their_lease_ends(rig: Rig) {
    rig.add_many(1).await;
    rig.sweep().await;
    rig.claim(&Hand::new("w-1", "r1"), 1).await;
    for unit in 0..3 {
        assert_eq!(rig.sweep().await.rescued, 0, "after {unit} units");
        rig.pass(1).await;
    }
    rig.pass(1).await;
    assert_eq!(rig.sweep().await.rescued, 1);
}

pub(crate) async fn presence_a_new_process_takes_over_and_the_old_leases_are_rescued_at_once(rig: Rig) {
    let (old, new, other) = (Hand::new("w-1", "r1"), Hand::new("w-1", "r1"), Hand::new("w-2", "r1"));
    let all = rig.add_many(3).await;
    for hand in [&old, &other] {
        assert!(matches!(rig.beat(hand, WorkerState::Starting).await, Beat::Ok { .. }));
    }
    let (lost, kept) = (rig.claim(&old, 2).await, rig.claim(&other, 1).await);
    assert!(matches!(rig.beat(&old, WorkerState::Active).await, Beat::Ok { .. }));

    assert!(matches!(rig.beat(&new, WorkerState::Starting).await, Beat::Ok { .. }));
    for id in ids(&lost) {
        assert_eq!(rig.state(id).await, State::Available, "at once, without a sweep");
    }
    assert_eq!(rig.state(kept.jobs[0].id).await, State::Running, "another name is not touched");
    assert_eq!(rig.renew(lost.nonce).await, Renewed::Lost);
    assert_eq!(rig.settle(&lost, all[0], Verdict::Completed).await, Settled::Lost);

    assert_eq!(rig.beat(&old, WorkerState::Active).await, Beat::Superseded);
    assert_eq!(rig.beat(&old, WorkerState::Stopped).await, Beat::Superseded, "it cannot remove the new one");
    assert!(matches!(rig.try_claim(&old, 1).await, Claim::Superseded));
    let workers = rig.store.workers(&rig.tier).await.unwrap();
    assert_eq!(workers.len(), 2);
    assert!(rig.claim(&new, 1).await.suspect);
}

pub(crate) async fn presence_is_listed_aged_and_removed_at_a_stop(rig: Rig) {
    let (a, b) = (Hand::new("w-b", "r1"), Hand::new("w-a", "r1"));
    rig.beat(&a, WorkerState::Starting).await;
    rig.pass(2).await;
    rig.beat(&b, WorkerState::Starting).await;
    let seen = rig.store.workers(&rig.tier).await.unwrap();
    assert_eq!(seen.iter().map(|one| one.presence.worker.as_str()).collect::<Vec<_>>(), ["w-a", "w-b"]);
    assert!(seen[1].age >= rig.units(2) && seen[0].age < rig.units(2), "{seen:?}");
    assert_eq!(seen[1].presence.capability, "r1+build1");
    rig.beat(&a, WorkerState::Active).await;
    let again = rig.store.workers(&rig.tier).await.unwrap();
    assert_eq!(again[1].since, seen[1].since, "it is the same process");
    assert_eq!(again[1].presence.state, WorkerState::Active);
    assert!(again[1].at > seen[1].at);
    rig.beat(&a, WorkerState::Stopped).await;
    assert_eq!(rig.store.workers(&rig.tier).await.unwrap().len(), 1);
    // Its name is free.
    assert!(matches!(rig.beat(&Hand::new("w-b", "r1"), WorkerState::Starting).await, Beat::Ok { .. }));
}

pub(crate) async fn presence_a_takeover_ends_what_was_to_be_cancelled(rig: Rig) {
    let (old, new) = (Hand::new("w-1", "r1"), Hand::new("w-1", "r1"));
    let all = rig.add_many(2).await;
    rig.beat(&old, WorkerState::Starting).await;
    rig.claim(&old, 2).await;
    assert_eq!(rig.act(all[0], Action::Cancel).await, Acted::Asked);
    rig.beat(&new, WorkerState::Starting).await;
    assert_eq!(rig.state(all[0]).await, State::Cancelled);
    assert_eq!(rig.state(all[1]).await, State::Available);
}
