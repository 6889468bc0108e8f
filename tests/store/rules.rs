//! One case or more for each rule of `store/mod.rs`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use sluicegate::activation::Mode;
use sluicegate::ids::{JobId, Nonce};
use sluicegate::job::{Args, Parked, State};
use sluicegate::store::{
    Claim, Durability, ErrorKind, Insert, MAX_BATCH, PageAsk, Renewed, Settled, Verdict,
};

use super::harness::{Hand, Harness, LEASE, by, job, tier};

pub(crate) async fn rule_01_conservation_the_census_equals_a_recount_after_random_steps(
    harness: impl Harness,
) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let (mut ids, mut batches) = (Vec::new(), Vec::new());
    for _ in 0..250 {
        match random.u8(..9) {
            0..=2 => {
                let mut new = job().queue(if random.bool() { "a" } else { "b" }).expect("a queue");
                if random.u8(..4) == 0 {
                    new = new.delay(Duration::from_secs(random.u64(1..20)));
                }
                ids.push(hand.insert_new(new).await);
            }
            3 | 4 => {
                let batch = hand.claim(random.usize(1..5)).await;
                if !batch.jobs.is_empty() {
                    batches.push(batch);
                }
            }
            5 | 6 if !batches.is_empty() => {
                let batch = batches.swap_remove(random.usize(..batches.len()));
                for index in 0..batch.jobs.len() {
                    let verdict = match random.u8(..7) {
                        0 => Verdict::Retry { delay: Duration::from_secs(3), error: "x".into() },
                        1 => Verdict::Dead { error: "x".into() },
                        2 => Verdict::Snooze { delay: Duration::from_secs(3) },
                        3 => Verdict::Park { why: Parked::UnknownKind, reason: "x".into() },
                        4 => Verdict::Return,
                        _ => Verdict::Completed,
                    };
                    hand.settle(&batch, index, verdict).await;
                }
            }
            7 if !ids.is_empty() => {
                let id = ids[random.usize(..ids.len())];
                let action = if random.bool() {
                    sluicegate::store::Action::Retry
                } else {
                    sluicegate::store::Action::Cancel
                };
                hand.store.bulk(&tier(), vec![id], action, &by()).await.expect("an answer");
            }
            _ => {
                harness.pass(Duration::from_secs(random.u64(..5)));
                hand.sweep().await;
            }
        }
    }
    let mut counted: BTreeMap<(String, State), u64> = BTreeMap::new();
    for id in &ids {
        let job = hand.get(*id).await.unwrap_or_else(|| panic!("seed {seed}: {id} is lost"));
        *counted.entry((job.queue.to_string(), job.state)).or_default() += 1;
    }
    let census = hand.store.census(&tier()).await.expect("an answer");
    for queue in &census.queues {
        for (state, n) in &queue.states {
            let recount = counted.get(&(queue.queue.to_string(), *state)).copied().unwrap_or(0);
            assert_eq!(*n, recount, "seed {seed}: {} {state}", queue.queue);
        }
    }
    assert_eq!(census.queues.iter().map(|queue| queue.inserted_total).sum::<u64>(), ids.len() as u64);
}

pub(crate) async fn rule_01_two_claimers_never_get_the_same_job(harness: impl Harness) {
    let (a, b) = (Hand::of(harness.store(), "a"), Hand::of(harness.another().await, "b"));
    a.activate("default").await;
    for _ in 0..40 {
        a.insert_new(job()).await;
    }
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let (x, y) = tokio::join!(a.claim(3), b.claim(3));
        for job in x.jobs.iter().chain(&y.jobs) {
            assert!(seen.insert(job.id), "{} was claimed twice", job.id);
        }
    }
    assert_eq!(seen.len(), 40);
}

pub(crate) async fn rule_01_two_clients_that_write_at_once_meet_no_errors(harness: impl Harness) {
    let (a, b) = (Hand::of(harness.store(), "a"), Hand::of(harness.another().await, "b"));
    a.activate("default").await;
    // A transaction that first reads and then writes fails as soon as another one wrote in between, unless it took the
    // lock at its beginning.
    let work = async |hand: &Hand| {
        for _ in 0..150 {
            hand.insert_new(job()).await;
            let batch = hand.claim(2).await;
            for index in 0..batch.jobs.len() {
                assert_eq!(hand.settle(&batch, index, Verdict::Completed).await, Settled::Ok);
            }
        }
    };
    tokio::join!(work(&a), work(&b));
    let census = a.store.census(&tier()).await.expect("an answer");
    assert_eq!(census.queues[0].completed_total, 300);
}

pub(crate) async fn rule_02_fence_at_claim_no_activation_takes_nothing(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    let id = hand.insert_new(job()).await;
    let answer = hand.store.claim(hand.ask("default", 0, 10)).await.expect("an answer");
    assert!(matches!(answer, Claim::NotActive { current: None, .. }), "{answer:?}");
    assert_eq!(hand.state(id).await, State::Available);
}

pub(crate) async fn rule_02_fence_at_claim_another_release_takes_nothing(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("r1").await;
    let id = hand.insert_new(job()).await;
    let answer = hand.store.claim(hand.ask("r2", 1, 10)).await.expect("an answer");
    match answer {
        Claim::NotActive { current: Some(current), .. } => {
            assert_eq!((current.release.as_str(), current.generation), ("r1", 1))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(hand.state(id).await, State::Available);
}

pub(crate) async fn rule_02_fence_at_claim_an_old_generation_of_the_active_release_is_served_and_told(
    harness: impl Harness,
) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("r1").await;
    hand.activate("r2").await;
    hand.activate("r1").await;
    hand.insert_new(job()).await;
    match hand.store.claim(hand.ask("r1", 1, 10)).await.expect("an answer") {
        Claim::Active(batch) => assert_eq!((batch.generation, batch.jobs.len()), (3, 1)),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn rule_02_fence_at_claim_a_generation_the_store_never_reached_is_refused(
    harness: impl Harness,
) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("r1").await;
    hand.insert_new(job()).await;
    let answer = hand.store.claim(hand.ask("r1", 2, 10)).await.expect("an answer");
    assert!(matches!(answer, Claim::NotActive { current: Some(_), .. }), "{answer:?}");
}

pub(crate) async fn rule_03_fence_at_settle_a_lost_lease_changes_nothing(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let id = hand.insert_new(job()).await;
    let old = hand.claim(1).await;
    hand.sweep().await;
    assert_eq!(hand.sweep_for(&harness, LEASE + Duration::from_secs(5)).await.rescued, 1);
    let new = hand.claim(1).await;
    assert_eq!(new.jobs[0].id, id);
    assert_eq!(hand.settle(&old, 0, Verdict::Completed).await, Settled::Lost);
    assert_eq!(hand.state(id).await, State::Running);
    assert_eq!(hand.settle(&new, 0, Verdict::Completed).await, Settled::Ok);
    assert_eq!(hand.settle(&old, 0, Verdict::Dead { error: "late".into() }).await, Settled::Lost);
    assert_eq!(hand.state(id).await, State::Completed);
}

pub(crate) async fn rule_03_fence_at_settle_twice_is_already_done(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    for verdict in [
        Verdict::Completed,
        Verdict::Retry { delay: Duration::from_secs(60), error: "x".into() },
        Verdict::Dead { error: "x".into() },
    ] {
        let id = hand.insert_new(job()).await;
        let batch = hand.claim(1).await;
        assert_eq!(hand.settle(&batch, 0, verdict.clone()).await, Settled::Ok);
        let before = hand.get(id).await.expect("the job");
        assert_eq!(hand.settle(&batch, 0, verdict).await, Settled::Already);
        let after = hand.get(id).await.expect("the job");
        assert_eq!(
            (after.state, after.failures, after.history.len()),
            (before.state, before.failures, before.history.len())
        );
    }
}

pub(crate) async fn rule_03_fence_at_settle_a_nonce_of_another_batch_changes_nothing(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.insert_new(job()).await;
    hand.insert_new(job()).await;
    let (one, mut two) = (hand.claim(1).await, hand.claim(1).await);
    two.nonce = one.nonce;
    assert_eq!(hand.settle(&two, 0, Verdict::Completed).await, Settled::Lost);
    two.nonce = Nonce::new();
    assert_eq!(hand.settle(&two, 0, Verdict::Completed).await, Settled::Lost);
    assert_eq!(hand.state(two.jobs[0].id).await, State::Running);
}

pub(crate) async fn rule_03_a_lost_lease_cannot_be_renewed(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    hand.sweep().await;
    hand.sweep_for(&harness, LEASE + Duration::from_secs(5)).await;
    let answers = hand.store.renew(&tier(), vec![batch.nonce, Nonce::new()], LEASE).await.expect("an answer");
    assert_eq!(answers, [Renewed::Lost, Renewed::Lost]);
}

pub(crate) async fn rule_04_dead_man_reverts_at_the_poll_of_the_fallback_only(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("r1").await;
    hand.flip("r2", Mode::Provisional, Some(("r1", Duration::from_secs(15)))).await;
    hand.insert_new(job()).await;
    let early = hand.store.claim(hand.ask("r1", 1, 0)).await.expect("an answer");
    assert!(matches!(early, Claim::NotActive { .. }), "{early:?}");
    harness.pass(Duration::from_secs(16));
    // The new release goes on: its own poll proves nothing about the way back.
    assert!(matches!(hand.store.claim(hand.ask("r2", 2, 0)).await.expect("an answer"), Claim::Active(_)));
    match hand.store.claim(hand.ask("r1", 1, 1)).await.expect("an answer") {
        Claim::Active(batch) => assert_eq!((batch.generation, batch.jobs.len()), (3, 1)),
        other => panic!("{other:?}"),
    }
    let now = hand.store.activation(&tier()).await.expect("an answer").expect("an activation");
    assert_eq!((now.generation, now.release.as_str(), now.mode), (3, "r1", Mode::Committed));
    let ledger = hand.store.ledger(&tier(), 0, 100).await.expect("an answer");
    assert!(ledger.iter().any(|entry| entry.event == "activation.reverted"), "{ledger:?}");
    assert!(matches!(
        hand.store.claim(hand.ask("r2", 2, 1)).await.expect("an answer"),
        Claim::NotActive { .. }
    ));
}

pub(crate) async fn rule_04_dead_man_spares_a_committed_activation(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("r1").await;
    hand.activate("r2").await;
    harness.pass(Duration::from_secs(3600));
    assert!(matches!(
        hand.store.claim(hand.ask("r1", 1, 1)).await.expect("an answer"),
        Claim::NotActive { .. }
    ));
}

pub(crate) async fn rule_06_the_same_id_and_content_is_the_same_job(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let mut new = job();
    new.args = Args::parse(br#"{"a":1,"b":[2]}"#).expect("args");
    let mut again = new.clone();
    again.args = Args::parse(br#"{ "b": [2], "a": 1 }"#).expect("args");
    let answers = hand.store.insert(&tier(), vec![new.clone(), again.clone()]).await.expect("answers");
    assert!(
        matches!(answers[0], Insert::Stored { .. })
            && answers[1] == Insert::Existing { id: new.id, state: State::Available },
        "{answers:?}"
    );
    let batch = hand.claim(10).await;
    assert_eq!(batch.jobs.len(), 1);
    assert_eq!(hand.insert(again.clone()).await, Insert::Existing { id: new.id, state: State::Running });
    hand.settle(&batch, 0, Verdict::Completed).await;
    assert_eq!(hand.insert(again).await, Insert::Existing { id: new.id, state: State::Completed });
    assert!(hand.claim(10).await.jobs.is_empty());
}

pub(crate) async fn rule_06_other_content_under_an_id_is_a_conflict(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    let new = job();
    hand.insert_new(new.clone()).await;
    let mut other = new.clone();
    other.args = Args::parse(b"[1]").expect("args");
    assert_eq!(hand.insert(other).await, Insert::Conflict { id: new.id });
    let elsewhere = new.clone().queue("other").expect("a queue");
    assert_eq!(hand.insert(elsewhere).await, Insert::Conflict { id: new.id });
    assert_eq!(hand.get(new.id).await.expect("the job").args.as_str(), "{}");
}

pub(crate) async fn rule_06_an_idempotency_key_is_remembered_for_a_day_after_its_job_is_gone(
    harness: impl Harness,
) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let keyed = || job().idempotency_key(&tier(), "order-7");
    let id = hand.insert_new(keyed()).await;
    let batch = hand.claim(1).await;
    hand.settle(&batch, 0, Verdict::Completed).await;
    harness.pass(Duration::from_secs(2 * 3600));
    assert_eq!(hand.sweep().await.trimmed, 1);
    assert!(hand.get(id).await.is_none());
    assert_eq!(hand.insert(keyed()).await, Insert::Existing { id, state: State::Completed });
    let mut other = keyed();
    other.args = Args::parse(b"[1]").expect("args");
    assert_eq!(hand.insert(other).await, Insert::Conflict { id });
    harness.pass(Duration::from_secs(23 * 3600));
    assert!(matches!(hand.insert(keyed()).await, Insert::Stored { .. }));
}

pub(crate) async fn rule_07_an_insert_says_what_it_survives(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    let told = hand.store.about().durability;
    match hand.insert(job()).await {
        Insert::Stored { durability, .. } => assert_eq!(durability, told),
        other => panic!("{other:?}"),
    }
    assert_ne!(told, Durability::Memory);
}

pub(crate) async fn rule_08_batches_over_the_limit_are_refused(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let over = MAX_BATCH + 1;
    let errors = [
        hand.store.insert(&tier(), (0..over).map(|_| job()).collect()).await.map(drop),
        hand.store.claim(hand.ask("default", 0, over)).await.map(drop),
        hand.store.renew(&tier(), vec![Nonce::new(); over], LEASE).await.map(drop),
        hand.store
            .bulk(&tier(), vec![JobId::new(); over], sluicegate::store::Action::Cancel, &by())
            .await
            .map(drop),
    ];
    for error in errors {
        let error = error.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.to_string().contains("501") && error.to_string().contains("500"), "{error}");
    }
    let page =
        hand.store.page(&tier(), PageAsk { limit: 10, ..PageAsk::default() }).await.expect("an answer");
    assert!(page.jobs.is_empty(), "nothing of a refused batch is stored");
}

pub(crate) async fn rule_08_a_claim_takes_no_more_than_it_asks_for(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.store.insert(&tier(), (0..20).map(|_| job()).collect()).await.expect("answers");
    let batch = hand.claim(7).await;
    assert_eq!((batch.jobs.len(), batch.more), (7, true));
    let rest = hand.claim(100).await;
    assert_eq!((rest.jobs.len(), rest.more), (13, false));
}

pub(crate) async fn rule_09_a_failure_costs_an_attempt_and_nothing_else_does(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let second = Duration::from_secs(1);
    for (verdict, state, failures) in [
        (Verdict::Retry { delay: second, error: "boom".into() }, State::Retryable, 1),
        (Verdict::Dead { error: "boom".into() }, State::Dead, 1),
        (Verdict::Snooze { delay: second }, State::Scheduled, 0),
        (Verdict::Park { why: Parked::Asked, reason: "later".into() }, State::Parked, 0),
        (Verdict::Cancelled, State::Cancelled, 0),
        (Verdict::Expired, State::Expired, 0),
        (Verdict::Return, State::Available, 0),
    ] {
        let id = hand.insert_new(job()).await;
        let batch = hand.claim(1).await;
        assert_eq!(hand.settle(&batch, 0, verdict.clone()).await, Settled::Ok);
        let record = hand.get(id).await.expect("the job");
        assert_eq!((record.state, record.failures, record.crashes), (state, failures, 0), "{verdict:?}");
        if failures > 0 {
            assert_eq!(record.last_error(), Some("boom"));
            assert_eq!(record.history[0].worker.as_ref().map(|worker| worker.as_str()), Some("w"));
        }
        hand.store
            .bulk(&tier(), vec![id], sluicegate::store::Action::Cancel, &by())
            .await
            .expect("an answer");
    }
}

/// Loses a worker: what it held is rescued when its lease is over.
async fn lose(hand: &Hand, harness: &impl Harness) -> sluicegate::store::Swept {
    hand.sweep_for(harness, LEASE + Duration::from_secs(5)).await
}

pub(crate) async fn rule_09_a_lost_worker_makes_suspects_that_run_alone(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.sweep().await;
    for _ in 0..3 {
        hand.insert_new(job()).await;
    }
    assert_eq!(hand.claim(3).await.jobs.len(), 3);
    assert_eq!(lose(&hand, &harness).await.rescued, 3);
    hand.insert_new(job()).await;
    let mut ask = hand.ask("default", 0, 10);
    ask.suspects = false;
    match hand.store.claim(ask).await.expect("an answer") {
        Claim::Active(batch) => assert_eq!((batch.jobs.len(), batch.suspect), (1, false)),
        other => panic!("{other:?}"),
    }
    for _ in 0..3 {
        let alone = hand.claim(10).await;
        assert_eq!((alone.jobs.len(), alone.suspect, alone.jobs[0].crashes), (1, true, 0));
        assert_eq!(hand.settle(&alone, 0, Verdict::Completed).await, Settled::Ok);
    }
}

pub(crate) async fn rule_09_a_job_that_kills_its_worker_three_times_is_quarantined(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.sweep().await;
    let poison = hand.insert_new(job()).await;
    let mut healthy = Vec::new();
    for _ in 0..4 {
        healthy.push(hand.insert_new(job()).await);
    }
    // The worker dies whenever it runs the poison, and does everything else in between.
    for _ in 0..20 {
        let batch = hand.claim(10).await;
        if batch.jobs.iter().any(|job| job.id == poison) {
            lose(&hand, &harness).await;
        } else {
            for index in 0..batch.jobs.len() {
                hand.settle(&batch, index, Verdict::Completed).await;
            }
        }
    }
    let record = hand.get(poison).await.expect("the job");
    assert_eq!((record.state, record.crashes, record.failures), (State::Dead, 3, 0));
    assert_eq!(record.history.iter().filter(|attempt| attempt.outcome == "crashed").count(), 3);
    for id in healthy {
        assert_eq!(hand.state(id).await, State::Completed);
    }
}

pub(crate) async fn rule_09_a_fleet_that_keeps_dying_quarantines_nobody(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.sweep().await;
    for _ in 0..6 {
        hand.insert_new(job()).await;
    }
    for _ in 0..8 {
        hand.claim(1).await;
        hand.claim(10).await;
        lose(&hand, &harness).await;
    }
    let census = hand.store.census(&tier()).await.expect("an answer");
    assert_eq!((census.queues[0].states[&State::Available], census.queues[0].states[&State::Dead]), (6, 0));
}
