//! Rules 2, 3, 4 and 5: who may claim, who may settle, the dead-man, and whose clock counts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::activation::{Activation, Mode};
use sluicegate::ids::Nonce;
use sluicegate::job::State;
use sluicegate::store::*;

use super::bench::*;

pub(crate) async fn rule_02_fence_at_claim_without_an_activation_nobody_is_served(rig: Rig) {
    let id = rig.add(job(1)).await;
    assert_eq!(rig.refused(&Hand::new("w-1", "r1")).await, None);
    assert_eq!(rig.state(id).await, State::Available);
    assert_eq!(rig.store.activation(&rig.tier).await.unwrap(), None);
}

pub(crate) async fn rule_02_fence_at_claim_another_release_takes_nothing(rig: Rig) {
    let id = rig.add(job(1)).await;
    let told = rig.refused(&Hand::new("w-2", "r2")).await.expect("the activation is told");
    assert_eq!((told.generation, told.release), (1, release("r1")));
    assert_eq!(rig.state(id).await, State::Available);
    assert_eq!(ids(&rig.claim(&Hand::new("w-1", "r1"), 10).await), [id]);
}

pub(crate) async fn rule_02_fence_at_claim_an_old_generation_of_the_same_release_is_told_and_served(
    rig: Rig,
) {
    rig.flip(Some(1), "r2").await;
    rig.flip(Some(2), "r1").await;
    let id = rig.add(job(1)).await;
    let batch = rig.claim(&Hand::new("w-1", "r1").generation(1), 10).await;
    assert_eq!((batch.generation, ids(&batch)), (3, vec![id]));
}

pub(crate) async fn rule_02_fence_at_claim_a_newer_generation_than_the_stores_is_refused(rig: Rig) {
    let id = rig.add(job(1)).await;
    let told = rig.refused(&Hand::new("w-1", "r1").generation(2)).await.expect("the activation is told");
    assert_eq!(told.generation, 1);
    assert_eq!(rig.state(id).await, State::Available);
}

pub(crate) async fn rule_02_fence_at_claim_a_flip_stops_the_old_release_at_once(rig: Rig) {
    rig.add_many(2).await;
    let (old, new) = (Hand::new("w-1", "r1"), Hand::new("w-2", "r2"));
    let running = rig.claim(&old, 1).await;
    rig.flip(Some(1), "r2").await;
    assert_eq!(rig.refused(&old).await.map(|told| told.generation), Some(2));
    // What it runs it may finish, and keep.
    assert!(matches!(rig.renew(running.nonce).await, Renewed::Until { .. }));
    rig.settle_all(&running, &Verdict::Completed).await;
    assert_eq!(rig.claim(&new, 10).await.jobs.len(), 1);
}

pub(crate) async fn rule_02_fence_at_claim_a_claim_of_none_only_asks(rig: Rig) {
    let id = rig.add(job(1)).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 0).await;
    assert_eq!((batch.generation, batch.jobs.len()), (1, 0));
    assert_eq!(rig.state(id).await, State::Available);
    assert_eq!(rig.renew(batch.nonce).await, Renewed::Lost, "there is no lease over nothing");
}

pub(crate) async fn rule_02_a_flip_must_expect_the_present_generation(rig: Rig) {
    for expect in [None, Some(0), Some(2)] {
        match rig.store.flip(&rig.tier, expect, committed("r2"), &actor()).await.unwrap() {
            Flipped::Raced(Some(current)) => assert_eq!(current.release, release("r1")),
            other => panic!("{other:?}"),
        }
    }
    let entries = rig.store.ledger(&rig.tier, 0, 100).await.unwrap();
    assert_eq!(entries.len(), 1, "what raced is not recorded: {entries:?}");
    assert_eq!(rig.flip(Some(1), "r2").await.generation, 2);
}

pub(crate) async fn rule_02_two_flips_at_once_have_one_winner(rig: Rig) {
    let other = rig.harness.client().await;
    let by = actor();
    let (a, b) = tokio::join!(
        rig.store.flip(&rig.tier, Some(1), committed("r2"), &by),
        other.flip(&rig.tier, Some(1), committed("r3"), &by),
    );
    let won = [a.unwrap(), b.unwrap()].iter().filter(|flip| matches!(flip, Flipped::Now(_))).count();
    assert_eq!(won, 1);
    assert_eq!(rig.store.ledger(&rig.tier, 0, 100).await.unwrap().len(), 2);
}

pub(crate) async fn rule_03_fence_at_settle_a_lost_nonce_changes_nothing(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1)).await;
    let lost = rig.claim(&hand, 1).await;
    assert_eq!(rig.leases_end().await.rescued, 1);
    for verdict in [Verdict::Completed, Verdict::Dead { error: "late".into() }, retry(rig.units(1))] {
        assert_eq!(rig.settle(&lost, id, verdict).await, Settled::Lost);
    }
    let found = rig.get(id).await;
    assert_eq!((found.state, found.failures), (State::Available, 0));
    // Nor while somebody else runs it.
    let held = rig.claim(&Hand::new("w-2", "r1"), 1).await;
    assert_eq!(rig.settle(&lost, id, Verdict::Completed).await, Settled::Lost);
    assert_eq!(rig.settle(&lost, id, Verdict::Return).await, Settled::Lost);
    assert_eq!(rig.state(id).await, State::Running);
    assert_eq!(rig.settle(&held, id, Verdict::Completed).await, Settled::Ok);
    assert_eq!(rig.settle(&lost, id, Verdict::Dead { error: "late".into() }).await, Settled::Lost);
    assert_eq!(rig.state(id).await, State::Completed);
}

pub(crate) async fn rule_03_fence_at_settle_a_made_up_nonce_settles_nothing(rig: Rig) {
    let id = rig.add(job(1)).await;
    let mut batch = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    let real = std::mem::replace(&mut batch.nonce, Nonce::new());
    assert_eq!(rig.settle(&batch, id, Verdict::Completed).await, Settled::Lost);
    assert_eq!(rig.renew(batch.nonce).await, Renewed::Lost);
    assert_eq!(rig.state(id).await, State::Running);
    batch.nonce = real;
    assert_eq!(rig.settle(&batch, id, Verdict::Completed).await, Settled::Ok);
}

pub(crate) async fn rule_03_fence_at_settle_twice_is_already(rig: Rig) {
    for verdict in [
        Verdict::Completed,
        Verdict::Dead { error: "no".into() },
        retry(rig.units(1)),
        Verdict::Snooze { delay: rig.units(1) },
        Verdict::Cancelled,
        Verdict::Return,
    ] {
        let id = rig.add(job(1)).await;
        let mut hand = Hand::new("w-1", "r1");
        hand.suspects = false;
        let batch = rig.claim(&hand, 1).await;
        assert_eq!(rig.settle(&batch, id, verdict.clone()).await, Settled::Ok);
        let first = rig.get(id).await;
        assert_eq!(rig.settle(&batch, id, verdict.clone()).await, Settled::Already, "{verdict:?}");
        let second = rig.get(id).await;
        assert_eq!((first.state, first.failures), (second.state, second.failures));
        assert_eq!(first.history, second.history);
    }
}

pub(crate) async fn rule_03_twice_in_one_call_is_ok_and_already(rig: Rig) {
    rig.add_many(2).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 2).await;
    let item = |job: &Claimed| Settle {
        nonce: batch.nonce,
        id: job.id,
        slot: job.slot,
        ran: rig.units(0),
        verdict: Verdict::Completed,
    };
    let (a, b) = (&batch.jobs[0], &batch.jobs[1]);
    let answers = rig.store.settle(&rig.tier, vec![item(a), item(b), item(a)]).await.unwrap();
    assert_eq!(answers, [Settled::Ok, Settled::Ok, Settled::Already]);
    assert_eq!(rig.census().await.queues[0].completed_total, 2);
}

pub(crate) async fn rule_03_a_partly_settled_lease_still_holds_the_rest(rig: Rig) {
    let all = rig.add_many(3).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 3).await;
    assert_eq!(rig.settle(&batch, all[1], Verdict::Completed).await, Settled::Ok);
    assert!(matches!(rig.renew(batch.nonce).await, Renewed::Until { .. }));
    assert_eq!(rig.state(all[0]).await, State::Running);
    assert_eq!(rig.leases_end().await.rescued, 2, "what was settled is not rescued");
    assert_eq!(rig.state(all[1]).await, State::Completed);
}

pub(crate) async fn rule_03_a_renewal_keeps_a_lease_and_a_lost_one_says_so(rig: Rig) {
    let id = rig.add(job(1)).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    for _ in 0..6 {
        rig.pass(1).await;
        match rig.renew(batch.nonce).await {
            Renewed::Until { until, cancel } => {
                assert!(until.since(rig.now().await) <= rig.lease() && until > batch.until, "{until}");
                assert!(cancel.is_empty());
            }
            Renewed::Lost => panic!("it was renewed in time"),
        }
        assert_eq!(rig.sweep().await.rescued, 0);
    }
    assert_eq!(rig.leases_end().await.rescued, 1);
    assert_eq!(rig.renew(batch.nonce).await, Renewed::Lost);
    assert_eq!(rig.state(id).await, State::Available);
}

pub(crate) async fn rule_03_renewals_are_answered_in_order(rig: Rig) {
    rig.add_many(2).await;
    let hand = Hand::new("w-1", "r1");
    let (a, b) = (rig.claim(&hand, 1).await, rig.claim(&hand, 1).await);
    let nonces = vec![a.nonce, Nonce::new(), b.nonce];
    let answers = rig.store.renew(&rig.tier, nonces, rig.lease()).await.unwrap();
    assert!(matches!(answers[..], [Renewed::Until { .. }, Renewed::Lost, Renewed::Until { .. }]));
}

pub(crate) async fn rule_03_two_clients_that_claim_at_once_never_get_the_same_job(rig: Rig) {
    let all: HashSet<_> = rig.add_many(400).await.into_iter().collect();
    let rig = Arc::new(rig);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..4 {
        let store = if n % 2 == 0 { Arc::clone(&rig.store) } else { rig.harness.client().await };
        let rig = Arc::clone(&rig);
        tasks.spawn(async move {
            let hand = Hand::new(&format!("w-{n}"), "r1");
            let mut got = Vec::new();
            loop {
                match store.claim(rig.ask(&hand, 7)).await.expect("an answer") {
                    Claim::Active(batch) if batch.jobs.is_empty() => return got,
                    Claim::Active(batch) => got.extend(ids(&batch)),
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    let got: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(got.len(), 400, "each is taken once");
    assert_eq!(got.into_iter().collect::<HashSet<_>>(), all);
}

pub(crate) async fn rule_04_dead_man_reverts_at_the_fallbacks_poll_only(rig: Rig) {
    let id = rig.add(job(1)).await;
    rig.provisional(1, "r2", "r1", 2).await;
    let (old, new, third) = (Hand::new("w-1", "r1"), Hand::new("w-2", "r2"), Hand::new("w-3", "r3"));
    rig.pass(1).await;
    rig.refused(&old).await; // not yet overdue
    rig.pass(2).await;
    // Overdue: neither sweeps, nor other releases, nor the provisional one itself make it revert.
    rig.sweep().await;
    rig.refused(&third).await;
    assert_eq!(rig.claim(&new.clone().generation(2), 0).await.generation, 2);
    assert_eq!(rig.store.activation(&rig.tier).await.unwrap().map(|now| now.generation), Some(2));

    let batch = rig.claim(&old, 10).await;
    assert_eq!((batch.generation, ids(&batch)), (3, vec![id]));
    let now = rig.store.activation(&rig.tier).await.unwrap().expect("an activation");
    assert_eq!((now.generation, now.release, now.mode), (3, release("r1"), Mode::Committed));
    assert_eq!((now.confirm_by, now.fallback), (None, None));
    rig.refused(&new.generation(2)).await;

    let ledger = rig.store.ledger(&rig.tier, 0, 100).await.unwrap();
    let last = ledger.last().expect("an entry");
    assert_eq!((last.seq, last.event.as_str()), (3, "activation.reverted"));
    assert!(last.by.who.contains("w-1"), "{last:?}");
    let reverts = ledger.iter().filter(|entry| entry.event == "activation.reverted").count();
    rig.claim(&old, 10).await;
    assert_eq!(reverts, 1);
    assert_eq!(rig.store.ledger(&rig.tier, 0, 100).await.unwrap().len(), 3, "it fires once");
}

pub(crate) async fn rule_04_dead_man_fires_when_there_is_nothing_to_take(rig: Rig) {
    rig.provisional(1, "r2", "r1", 1).await;
    rig.pass(2).await;
    assert_eq!(rig.claim(&Hand::new("w-1", "r1"), 0).await.generation, 3);
}

pub(crate) async fn rule_04_dead_man_is_disarmed_by_a_confirmation(rig: Rig) {
    let provisional = rig.provisional(1, "r2", "r1", 2).await;
    assert_eq!(provisional.mode, Mode::Provisional);
    assert_eq!(provisional.confirm_by, Some(provisional.since.plus(rig.units(2))));
    rig.flip(Some(2), "r2").await;
    rig.pass(5).await;
    assert_eq!(rig.refused(&Hand::new("w-1", "r1")).await.map(|now| now.generation), Some(3));
}

pub(crate) async fn rule_04_a_commit_keeps_the_generation_and_disarms_the_dead_man(rig: Rig) {
    let provisional = rig.provisional(1, "r2", "r1", 2).await;
    let mut wake = rig.store.subscribe(&rig.tier).await.unwrap();
    let committed = match rig.store.commit(&rig.tier, 2, None, &actor()).await.unwrap() {
        Flipped::Now(activation) => activation,
        other => panic!("{other:?}"),
    };
    assert_eq!(committed, provisional.committed());
    assert_eq!((committed.generation, committed.since), (2, provisional.since));
    assert_eq!((committed.mode, committed.confirm_by, &committed.fallback), (Mode::Committed, None, &None));
    assert!(wake.woken(std::time::Duration::from_secs(20)).await, "who watches is told");
    rig.pass(5).await;
    assert_eq!(rig.refused(&Hand::new("w-1", "r1")).await, Some(committed.clone()));
    assert_eq!(rig.claim(&Hand::new("w-2", "r2"), 1).await.generation, 2);
    // Once more changes nothing, and is not recorded again.
    let again = rig.store.commit(&rig.tier, 2, None, &actor()).await.unwrap();
    assert_eq!(again, Flipped::Now(committed));
    let ledger = rig.store.ledger(&rig.tier, 0, 100).await.unwrap();
    let events: Vec<&str> = ledger.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["activation.flipped", "activation.flipped", "activation.committed"]);
    assert_eq!(ledger[2].by, actor());
}

pub(crate) async fn rule_04_a_commit_must_name_the_present_generation(rig: Rig) {
    let provisional = rig.provisional(1, "r2", "r1", 2).await;
    for wrong in [0, 1, 3] {
        let answer = rig.store.commit(&rig.tier, wrong, None, &actor()).await.unwrap();
        assert_eq!(answer, Flipped::Raced(Some(provisional.clone())));
    }
    rig.pass(3).await;
    rig.claim(&Hand::new("w-1", "r1"), 1).await; // the dead-man fires, and was first
    match rig.store.commit(&rig.tier, 2, None, &actor()).await.unwrap() {
        Flipped::Raced(Some(now)) => assert_eq!((now.generation, now.release.as_str()), (3, "r1")),
        other => panic!("{other:?}"),
    }
    let nowhere = sluicegate::names::Tier::new("nowhere").unwrap();
    assert_eq!(rig.store.commit(&nowhere, 1, None, &actor()).await.unwrap(), Flipped::Raced(None));
}

async fn extend(
    store: &dyn Store,
    tier: &sluicegate::names::Tier,
    seen: &Activation,
    by: Duration,
) -> Flipped {
    store.extend(tier, seen, by, None).await.expect("an answer")
}

fn now(answer: Flipped) -> Activation {
    match answer {
        Flipped::Now(activation) => activation,
        other => panic!("{other:?}"),
    }
}

async fn events(rig: &Rig) -> Vec<String> {
    let ledger = rig.store.ledger(&rig.tier, 0, 100).await.unwrap();
    ledger.into_iter().map(|entry| entry.event).collect()
}

pub(crate) async fn rule_04_an_extension_moves_the_deadline_and_nothing_else(rig: Rig) {
    let first = rig.provisional(1, "r2", "r1", 2).await;
    let mut wake = rig.store.subscribe(&rig.tier).await.unwrap();
    rig.pass(1).await;
    let extended = now(extend(&*rig.store, &rig.tier, &first, rig.units(3)).await);
    let moved = extended.confirm_by.unwrap().since(first.confirm_by.unwrap());
    assert!(moved >= rig.units(2) && moved < rig.units(3), "store time counts: {moved:?}");
    assert_eq!(extended, Activation { confirm_by: extended.confirm_by, ..first });
    assert_eq!(rig.store.activation(&rig.tier).await.unwrap(), Some(extended.clone()));
    assert_eq!(events(&rig).await, ["activation.flipped"; 2], "every second, it would bury the ledger");
    assert!(!wake.woken(Duration::from_millis(50)).await, "nothing changed for anybody who waits");
    // The old deadline means nothing any more, the new one does.
    let old = Hand::new("w-1", "r1");
    rig.pass(2).await;
    assert_eq!(rig.refused(&old).await, Some(extended));
    rig.pass(2).await;
    assert_eq!(rig.claim(&old, 1).await.generation, 3);
}

pub(crate) async fn rule_04_a_stale_extension_undoes_no_commit(rig: Rig) {
    let provisional = rig.provisional(1, "r2", "r1", 2).await;
    let committed = now(rig.store.commit(&rig.tier, 2, None, &actor()).await.unwrap());
    let raced = Flipped::Raced(Some(committed.clone()));
    assert_eq!(extend(&*rig.store, &rig.tier, &provisional, rig.units(9)).await, raced);
    assert_eq!(extend(&*rig.store, &rig.tier, &committed, rig.units(9)).await, raced, "it has no deadline");
    assert_eq!(rig.store.activation(&rig.tier).await.unwrap(), Some(committed));
    let nowhere = sluicegate::names::Tier::new("nowhere").unwrap();
    assert_eq!(extend(&*rig.store, &nowhere, &provisional, rig.units(9)).await, Flipped::Raced(None));
}

pub(crate) async fn rule_04_a_stale_extension_loses_to_a_later_one(rig: Rig) {
    let first = rig.provisional(1, "r2", "r1", 2).await;
    let second = now(extend(&*rig.store, &rig.tier, &first, rig.units(5)).await);
    let other = rig.harness.client().await;
    let raced = Flipped::Raced(Some(second.clone()));
    assert_eq!(extend(&*other, &rig.tier, &first, rig.units(9)).await, raced);
    assert_eq!(rig.store.activation(&rig.tier).await.unwrap(), Some(second.clone()));
    // Several that saw the same have one winner.
    let (a, b) = tokio::join!(
        rig.store.extend(&rig.tier, &second, rig.units(6), None),
        other.extend(&rig.tier, &second, rig.units(7), None)
    );
    let won = [a.unwrap(), b.unwrap()].into_iter().filter(|answer| matches!(answer, Flipped::Now(_)));
    assert_eq!(won.count(), 1);
}

pub(crate) async fn rule_04_an_extension_comes_too_late_after_the_dead_man(rig: Rig) {
    let provisional = rig.provisional(1, "r2", "r1", 1).await;
    rig.pass(2).await;
    // Overdue, and nobody has reverted it: whoever watches may still come.
    let extended = now(extend(&*rig.store, &rig.tier, &provisional, rig.units(1)).await);
    rig.refused(&Hand::new("w-1", "r1")).await;
    rig.pass(2).await;
    assert_eq!(rig.claim(&Hand::new("w-1", "r1"), 1).await.generation, 3);
    match extend(&*rig.store, &rig.tier, &extended, rig.units(9)).await {
        Flipped::Raced(Some(now)) => assert_eq!((now.generation, now.release.as_str()), (3, "r1")),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.refused(&Hand::new("w-2", "r2")).await.map(|now| now.generation), Some(3));
}

/// Whoever extends has looked before the commit came, and writes after it.
pub(crate) async fn rule_04_a_commit_and_extensions_at_once_end_committed(rig: Rig) {
    let other = rig.harness.client().await;
    let mut generation = 1;
    for round in 0..20 {
        let name = if round % 2 == 0 { "r2" } else { "r1" };
        let seen = rig.provisional(generation, name, "r0", 100).await;
        generation += 1;
        let by = actor();
        let (extended, committed) = tokio::join!(
            other.extend(&rig.tier, &seen, rig.units(200), None),
            rig.store.commit(&rig.tier, generation, None, &by),
        );
        let committed = now(committed.unwrap());
        assert_eq!((committed.generation, committed.mode), (generation, Mode::Committed));
        assert_eq!(rig.store.activation(&rig.tier).await.unwrap(), Some(committed), "after {extended:?}");
    }
    assert_eq!(events(&rig).await.iter().filter(|event| *event == "activation.committed").count(), 20);
}

pub(crate) async fn rule_04_the_dead_man_and_an_extension_at_once_have_one_winner(rig: Rig) {
    let other = rig.harness.client().await;
    let fallback = Hand::new("w-1", "r1");
    for _ in 0..10 {
        let before = rig.store.activation(&rig.tier).await.unwrap().expect("an activation");
        let seen = rig.provisional(before.generation, "r2", "r1", 1).await;
        rig.pass(2).await;
        let (extended, claimed) =
            tokio::join!(other.extend(&rig.tier, &seen, rig.units(100), None), rig.try_claim(&fallback, 0));
        let stands = rig.store.activation(&rig.tier).await.unwrap().expect("an activation");
        match (extended.unwrap(), claimed) {
            (Flipped::Now(extended), Claim::NotActive { current, .. }) => {
                assert_eq!((Some(&extended), &stands), (current.as_ref(), &extended));
            }
            (Flipped::Raced(Some(current)), Claim::Active(batch)) => {
                assert_eq!((&current, batch.generation), (&stands, seen.generation + 1));
                assert_eq!((stands.release.as_str(), stands.mode), ("r1", Mode::Committed));
            }
            both => panic!("both won, or none: {both:?}"),
        }
    }
}

/// A person's way back must not depend on hitting the moment between two extensions.
pub(crate) async fn rule_04_a_flip_is_not_kept_out_by_extensions(rig: Rig) {
    let other = rig.harness.client().await;
    let mut seen = rig.provisional(1, "r2", "r1", 100).await;
    let by = actor();
    let flip = rig.store.flip(&rig.tier, Some(2), committed("r3"), &by);
    let extensions = async {
        while let Flipped::Now(next) = extend(&*other, &rig.tier, &seen, rig.units(100)).await {
            seen = next;
        }
    };
    let (flipped, ()) = tokio::join!(flip, extensions);
    let flipped = now(flipped.unwrap());
    assert_eq!((flipped.generation, flipped.release.as_str()), (3, "r3"));
    assert_eq!(rig.store.activation(&rig.tier).await.unwrap(), Some(flipped));
}

pub(crate) async fn rule_05_store_time_counts_for_leases_and_answers(rig: Rig) {
    let before = rig.now().await;
    rig.add(job(1)).await;
    rig.pass(1).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    assert!(batch.now.since(before) >= rig.units(1), "{} then {}", before, batch.now);
    assert_eq!(batch.until.since(batch.now), rig.lease());
    let held = rig.get(batch.jobs[0].id).await;
    assert_eq!(held.claimed_at, Some(batch.now));
    assert_eq!(held.worker.map(|worker| worker.to_string()), Some("w-1".into()));
    assert!(rig.census().await.now >= batch.now);
}

pub(crate) async fn rule_05_store_time_is_the_same_for_two_clients(rig: Rig) {
    let other = rig.harness.client().await;
    rig.pass(2).await;
    let (a, b) = (rig.now().await, other.probe(&rig.tier).await.unwrap());
    assert!(b.since(a) < rig.units(1) && a <= b, "{a} and {b}");
}

/// A controller that stood still must change nothing once another carries on: its lock is compared in the same step.
pub(crate) async fn rule_04_whoever_lost_its_lock_changes_no_activation(rig: Rig) {
    let lock = async |expect, value: &str| match rig
        .store
        .put(&rig.tier, Space::Deploy, "d-1", expect, value, None)
        .await
        .unwrap()
    {
        Put::Done(version) => version,
        Put::Raced(there) => panic!("{there:?}"),
    };
    let guard = |version| Guard { space: Space::Deploy, key: "d-1".into(), version };
    let provisional = |guard| Flip {
        mode: Mode::Provisional,
        confirm_within: Some(rig.units(100)),
        fallback: Some(release("r1")),
        guard: Some(guard),
        ..committed("r2")
    };
    let (by, first) = (actor(), lock(0, "first").await);
    let seen = now(rig.store.flip(&rig.tier, Some(1), provisional(guard(first)), &by).await.unwrap());
    let seen = now(rig.store.extend(&rig.tier, &seen, rig.units(200), Some(&guard(first))).await.unwrap());
    let second = lock(first, "second").await;
    let flip = rig.store.flip(&rig.tier, Some(2), provisional(guard(first)), &by).await.unwrap();
    assert_eq!(flip, Flipped::Fenced);
    let extension = rig.store.extend(&rig.tier, &seen, rig.units(300), Some(&guard(first))).await.unwrap();
    assert_eq!(extension, Flipped::Fenced);
    let commit = rig.store.commit(&rig.tier, 2, Some(&guard(first)), &by).await.unwrap();
    assert_eq!(commit, Flipped::Fenced);
    assert_eq!(rig.store.activation(&rig.tier).await.unwrap(), Some(seen.clone()), "nothing was changed");
    let nobody = Guard { key: "d-2".into(), ..guard(second) };
    let unknown = rig.store.commit(&rig.tier, 2, Some(&nobody), &by).await.unwrap();
    assert_eq!(unknown, Flipped::Fenced, "no lock is no lock");
    let done = now(rig.store.commit(&rig.tier, 2, Some(&guard(second)), &by).await.unwrap());
    assert_eq!(done, seen.committed());
}
