//! The control plane.

use std::time::Duration;

use sluicegate::activation::{Mode, WorkerState};
use sluicegate::job::State;
use sluicegate::store::{Beat, Claim, Flip, Flipped, Put, Space};

use super::harness::{Hand, Harness, by, job, release, tier};

pub(crate) async fn records_are_compared_and_set_and_versions_never_repeat(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    let put = async |expect: u64, value: &str| {
        hand.store.put(&tier(), Space::Effect, "k", expect, value, None).await.expect("an answer")
    };
    let Put::Done(first) = put(0, "1").await else { panic!("not written") };
    assert!(
        matches!(put(0, "2").await, Put::Raced(Some(record)) if record.version == first && record.value == "1")
    );
    let Put::Done(second) = put(first, "2").await else { panic!("not written") };
    assert!(second > first);
    assert!(matches!(put(first, "3").await, Put::Raced(Some(_))));
    assert_eq!(put(second, "").await, Put::Done(0));
    assert!(hand.store.record(&tier(), Space::Effect, "k").await.expect("an answer").is_none());
    let Put::Done(third) = put(0, "4").await else { panic!("not written") };
    assert!(third > second, "a recreated record repeats no version");
    // A record with a time to live vanishes.
    hand.store
        .put(&tier(), Space::Drain, "t", 0, "x", Some(Duration::from_secs(10)))
        .await
        .expect("an answer");
    let listed = hand.store.records(&tier(), Space::Drain, None, 10).await.expect("an answer");
    assert_eq!(listed.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["t"]);
    harness.pass(Duration::from_secs(10));
    assert!(hand.store.record(&tier(), Space::Drain, "t").await.expect("an answer").is_none());
    assert!(hand.store.records(&tier(), Space::Drain, None, 10).await.expect("an answer").is_empty());
}

pub(crate) async fn a_flip_is_compared_and_set_and_the_generation_only_rises(harness: impl Harness) {
    let (a, b) = (Hand::of(harness.store(), "a"), Hand::of(harness.another().await, "b"));
    a.activate("r1").await;
    let next = |name: &str| Flip {
        release: release(name),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
    };
    let (tier, who) = (tier(), by());
    let (x, y) = tokio::join!(
        a.store.flip(&tier, Some(1), next("r2"), &who),
        b.store.flip(&tier, Some(1), next("r3"), &who)
    );
    let won = [x, y]
        .into_iter()
        .filter(|answer| matches!(answer, Ok(Flipped::Now(now)) if now.generation == 2))
        .count();
    assert_eq!(won, 1, "exactly one flip per generation");
    assert!(matches!(a.store.flip(&tier, None, next("r4"), &who).await, Ok(Flipped::Raced(Some(_)))));
    assert_eq!(a.activate("r1").await, 3);
}

pub(crate) async fn the_ledger_is_in_order(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    for n in 1..=5 {
        let seq = hand.store.append(&tier(), "test.event", &by(), &n.to_string()).await.expect("an answer");
        assert_eq!(seq, n);
    }
    let entries = hand.store.ledger(&tier(), 2, 2).await.expect("an answer");
    assert_eq!(
        entries.iter().map(|entry| (entry.seq, entry.detail.as_str())).collect::<Vec<_>>(),
        [(3, "3"), (4, "4")]
    );
}

pub(crate) async fn a_name_that_registers_again_takes_over_at_once(harness: impl Harness) {
    let old = Hand::of(harness.store(), "w");
    let new = Hand::of(harness.another().await, "w");
    old.activate("default").await;
    assert!(matches!(
        old.store.beat(&tier(), &old.presence(WorkerState::Starting)).await,
        Ok(Beat::Ok { .. })
    ));
    let id = old.insert_new(job()).await;
    let batch = old.claim(1).await;
    assert!(matches!(
        new.store.beat(&tier(), &new.presence(WorkerState::Starting)).await,
        Ok(Beat::Ok { .. })
    ));
    assert_eq!(new.state(id).await, State::Available, "what the old one held is rescued at once");
    assert!(matches!(
        old.store.beat(&tier(), &old.presence(WorkerState::Active)).await,
        Ok(Beat::Superseded)
    ));
    assert!(matches!(old.store.claim(old.ask("default", 0, 1)).await, Ok(Claim::Superseded)));
    assert_eq!(new.claim(1).await.jobs[0].id, id);
    assert_eq!(
        old.settle(&batch, 0, sluicegate::store::Verdict::Completed).await,
        sluicegate::store::Settled::Lost
    );
    let seen = new.store.workers(&tier()).await.expect("an answer");
    assert_eq!(seen.len(), 1);
}

pub(crate) async fn a_stopped_worker_is_gone(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.store.beat(&tier(), &hand.presence(WorkerState::Starting)).await.expect("an answer");
    harness.pass(Duration::from_secs(4));
    let seen = hand.store.workers(&tier()).await.expect("an answer");
    assert_eq!(seen[0].age, Duration::from_secs(4));
    hand.store.beat(&tier(), &hand.presence(WorkerState::Stopped)).await.expect("an answer");
    assert!(hand.store.workers(&tier()).await.expect("an answer").is_empty());
}

pub(crate) async fn an_insert_a_schedule_and_a_flip_wake_the_other_client(harness: impl Harness) {
    let (a, b) = (Hand::of(harness.store(), "a"), Hand::of(harness.another().await, "b"));
    let long = Duration::from_secs(20);
    let mut wake = b.store.subscribe(&tier()).await.expect("a subscription");
    a.insert_new(job()).await;
    assert!(wake.woken(long).await);
    a.insert_new(job().delay(Duration::from_secs(5))).await;
    assert!(wake.woken(long).await);
    a.activate("default").await;
    assert!(wake.woken(long).await);
}
