//! The control plane: records, the ledger, wake-ups; and retention.

use std::time::Duration;

use sluicegate::job::{Parked, State};
use sluicegate::names::Tier;
use sluicegate::store::*;

use super::bench::*;
use super::inserts::drain;

const HOUR: Duration = Duration::from_secs(3600);
/// Nothing here takes this long unless it is broken.
const LONG: Duration = Duration::from_secs(20);

async fn put(rig: &Rig, key: &str, expect: u64, value: &str) -> Put {
    rig.store.put(&rig.tier, Space::Release, key, expect, value, None).await.expect("an answer")
}

async fn write(rig: &Rig, key: &str, expect: u64, value: &str) -> u64 {
    match put(rig, key, expect, value).await {
        Put::Done(version) => version,
        raced => panic!("{raced:?}"),
    }
}

async fn read(rig: &Rig, key: &str) -> Option<Record> {
    rig.store.record(&rig.tier, Space::Release, key).await.expect("an answer")
}

async fn tiers(store: &dyn Store) -> Vec<String> {
    store.tiers().await.expect("an answer").iter().map(Tier::to_string).collect()
}

fn tier(name: &str) -> Tier {
    Tier::new(name).unwrap()
}

pub(crate) async fn tiers_are_known_by_an_activation_a_worker_or_a_job(mut rig: Rig) {
    let other = rig.harness.client().await;
    assert_eq!(tiers(&*rig.store).await, [""; 0]);
    rig.tier = tier("web");
    rig.flip(None, "r1").await;
    assert_eq!(tiers(&*other).await, ["web"]);
    rig.tier = tier("mail");
    rig.beat(&Hand::new("w-1", "r1"), sluicegate::activation::WorkerState::Starting).await;
    rig.tier = tier("0-metrics");
    let (ours, theirs) = (job(1), job(2));
    let (a, b) = tokio::join!(rig.store.insert(&rig.tier, vec![ours]), other.insert(&rig.tier, vec![theirs]));
    assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
    assert_eq!(tiers(&*other).await, ["0-metrics", "mail", "web"], "by name, each once");
    assert_eq!(tiers(&*rig.store).await, tiers(&*rig.harness.client().await).await);
}

pub(crate) async fn tiers_that_are_only_asked_about_are_not_known(rig: Rig) {
    let (store, nowhere) = (&*rig.store, tier("nowhere"));
    store.probe(&nowhere).await.unwrap();
    assert_eq!(store.activation(&nowhere).await.unwrap(), None);
    assert!(store.workers(&nowhere).await.unwrap().is_empty());
    store.census(&nowhere).await.unwrap();
    store.append(&nowhere, "test.event", &actor(), "{}").await.unwrap();
    let raced = store.flip(&nowhere, Some(1), committed("r1"), &actor()).await.unwrap();
    assert_eq!(raced, Flipped::Raced(None));
    assert_eq!(store.commit(&nowhere, 1, None, &actor()).await.unwrap(), Flipped::Raced(None));
    assert_eq!(tiers(store).await, [rig.tier.as_str()]);
}

pub(crate) async fn tiers_stay_known_when_their_jobs_have_ended(mut rig: Rig) {
    rig.tier = tier("batch");
    let id = rig.add(job(1)).await;
    rig.act(id, Action::Cancel).await;
    if rig.can_wait(KEEP_DEAD) {
        rig.harness.pass(KEEP_DEAD + HOUR).await;
        while rig.sweep().await.trimmed > 0 {}
        assert!(rig.store.get(&rig.tier, id).await.unwrap().is_none());
    }
    assert_eq!(tiers(&*rig.harness.client().await).await, ["batch", "default"]);
}

pub(crate) async fn records_compare_and_set(rig: Rig) {
    assert_eq!(read(&rig, "a").await, None);
    assert_eq!(put(&rig, "a", 5, "1").await, Put::Raced(None));
    let first = write(&rig, "a", 0, "1").await;
    match put(&rig, "a", 0, "2").await {
        Put::Raced(Some(there)) => assert_eq!((there.version, there.value.as_str()), (first, "1")),
        other => panic!("{other:?}"),
    }
    rig.pass(1).await;
    let second = write(&rig, "a", first, "2").await;
    assert!(second > first);
    assert!(matches!(put(&rig, "a", first, "3").await, Put::Raced(Some(_))));
    let found = read(&rig, "a").await.expect("a record");
    assert_eq!((found.key.as_str(), found.version, found.value.as_str()), ("a", second, "2"));
    assert!(rig.now().await.since(found.at) < rig.units(1));
    // Spaces and tiers are apart.
    assert_eq!(rig.store.record(&rig.tier, Space::Deploy, "a").await.unwrap(), None);
    assert_eq!(rig.store.record(&Tier::new("other").unwrap(), Space::Release, "a").await.unwrap(), None);
}

pub(crate) async fn records_never_repeat_a_version(rig: Rig) {
    let mut seen = std::collections::HashSet::new();
    let mut last = 0;
    for n in 0..5 {
        let version = write(&rig, "a", 0, "x").await;
        assert!(seen.insert(version) && version > last, "{version} in round {n}");
        last = version;
        assert!(matches!(put(&rig, "a", 999_999, "").await, Put::Raced(Some(_))));
        write(&rig, "a", version, "").await;
        assert_eq!(read(&rig, "a").await, None, "an empty value deletes");
        // A writer that still believes in the old one is refused, before and after it is recreated.
        assert_eq!(put(&rig, "a", version, "y").await, Put::Raced(None));
    }
}

pub(crate) async fn records_two_writers_at_once_have_one_winner(rig: Rig) {
    let other = rig.harness.client().await;
    let (a, b) = tokio::join!(
        rig.store.put(&rig.tier, Space::Deploy, "k", 0, "a", None),
        other.put(&rig.tier, Space::Deploy, "k", 0, "b", None),
    );
    let won = [a.unwrap(), b.unwrap()].iter().filter(|put| matches!(put, Put::Done(_))).count();
    assert_eq!(won, 1);
}

pub(crate) async fn records_that_are_kept_for_a_time_vanish(rig: Rig) {
    let keep = Some(rig.units(2));
    let store = &rig.store;
    let first = match store.put(&rig.tier, Space::Effect, "job/mail", 0, "begun", keep).await.unwrap() {
        Put::Done(version) => version,
        other => panic!("{other:?}"),
    };
    rig.pass(1).await;
    assert!(store.record(&rig.tier, Space::Effect, "job/mail").await.unwrap().is_some());
    rig.pass(2).await;
    assert_eq!(store.record(&rig.tier, Space::Effect, "job/mail").await.unwrap(), None);
    assert!(store.records(&rig.tier, Space::Effect, None, 10).await.unwrap().is_empty());
    match store.put(&rig.tier, Space::Effect, "job/mail", 0, "again", keep).await.unwrap() {
        Put::Done(version) => assert!(version > first),
        other => panic!("{other:?}"),
    }
    // A write prolongs it; a sweep takes nothing that is still wanted.
    rig.sweep().await;
    assert!(store.record(&rig.tier, Space::Effect, "job/mail").await.unwrap().is_some());
}

pub(crate) async fn records_are_listed_by_key(rig: Rig) {
    for key in ["b", "a", "d", "c"] {
        write(&rig, key, 0, key).await;
    }
    let list = async |after: Option<&'static str>, limit| {
        let found = rig.store.records(&rig.tier, Space::Release, after, limit).await.unwrap();
        found.into_iter().map(|record| record.key).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 10).await, ["a", "b", "c", "d"]);
    assert_eq!(list(None, 2).await, ["a", "b"]);
    assert_eq!(list(Some("b"), 10).await, ["c", "d"]);
    assert!(list(Some("d"), 10).await.is_empty());
}

pub(crate) async fn ledger_is_in_order_without_gaps(rig: Rig) {
    let store = &rig.store;
    let other = rig.harness.client().await;
    let mut last = store.ledger(&rig.tier, 0, 100).await.unwrap().last().map_or(0, |entry| entry.seq);
    assert_eq!(store.ledger_end(&rig.tier).await.unwrap(), last);
    let none = Tier::new("no-entry").unwrap();
    assert_eq!(store.ledger_end(&none).await.unwrap(), 0);
    for n in 0..10 {
        let by = if n % 2 == 0 { store } else { &other };
        let seq = by.append(&rig.tier, "note", &actor(), &format!("{{\"n\":{n}}}")).await.unwrap();
        assert_eq!(seq, last + 1);
        last = seq;
    }
    rig.flip(Some(1), "r2").await;
    let all = store.ledger(&rig.tier, 0, 100).await.unwrap();
    assert_eq!(all.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=last + 1).collect::<Vec<_>>());
    assert!(all.is_sorted_by_key(|entry| entry.at));
    assert_eq!(all[0].event, "activation.flipped");
    assert_eq!((all[1].event.as_str(), all[1].detail.as_str(), &all[1].by), ("note", "{\"n\":0}", &actor()));
    assert_eq!(store.ledger_end(&rig.tier).await.unwrap(), last + 1);
    let page = store.ledger(&rig.tier, 3, 4).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert!(store.ledger(&rig.tier, last + 1, 10).await.unwrap().is_empty());
}

/// Whether a subscriber hears of something.
pub(crate) async fn heard(wake: &mut Box<dyn Wake>) {
    let begun = sluicegate::clock::instant();
    assert!(wake.woken(LONG).await, "a wake-up, not a time-out");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

pub(crate) async fn wake_ups_of_another_client(rig: Rig) {
    let other = rig.harness.client().await;
    let mut wake = other.subscribe(&rig.tier).await.unwrap();
    rig.add(job(1)).await;
    heard(&mut wake).await;
    let mut wake = other.subscribe(&rig.tier).await.unwrap();
    rig.add(job(2).delay(rig.units(5))).await;
    heard(&mut wake).await;
    let mut wake = other.subscribe(&rig.tier).await.unwrap();
    rig.flip(Some(1), "r2").await;
    heard(&mut wake).await;
}

pub(crate) async fn wake_ups_within_one_client(rig: Rig) {
    let mut wake = rig.store.subscribe(&rig.tier).await.unwrap();
    rig.add(job(1)).await;
    heard(&mut wake).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    let mut wake = rig.store.subscribe(&rig.tier).await.unwrap();
    rig.settle_all(&batch, &Verdict::Return).await;
    heard(&mut wake).await;
    let mut wake = rig.store.subscribe(&rig.tier).await.unwrap();
    rig.flip(Some(1), "r2").await;
    heard(&mut wake).await;
}

pub(crate) async fn wake_ups_by_what_a_sweep_promotes(rig: Rig) {
    let other = rig.harness.client().await;
    rig.add(job(1).delay(rig.units(1))).await;
    rig.pass(2).await;
    let mut wake = other.subscribe(&rig.tier).await.unwrap();
    assert_eq!(rig.sweep().await.promoted, 1);
    heard(&mut wake).await;
}

pub(crate) async fn wake_ups_before_the_wait_are_not_missed(rig: Rig) {
    let other = rig.harness.client().await;
    let mut wake = rig.store.subscribe(&rig.tier).await.unwrap();
    let id = other.insert(&rig.tier, vec![job(1)]).await.unwrap();
    assert!(matches!(id[0], Insert::Stored { .. }));
    heard(&mut wake).await;
}

pub(crate) async fn wake_ups_time_out(rig: Rig) {
    let fresh = Tier::new("quiet").unwrap();
    let mut wake = rig.harness.client().await.subscribe(&fresh).await.unwrap();
    assert!(!wake.woken(Duration::from_millis(20)).await, "nothing happened");
}

pub(crate) async fn retention_by_count(rig: Rig) {
    drain(&rig, KEEP_COMPLETED_PER_QUEUE + 3_000).await;
    for _ in 0..20 {
        if !rig.sweep().await.more {
            break;
        }
    }
    let census = rig.census().await;
    let queue = &census.queues[0];
    let kept = queue.states[&State::Completed];
    assert!((KEEP_COMPLETED_PER_QUEUE - 1_000..=KEEP_COMPLETED_PER_QUEUE).contains(&kept), "{kept}");
    assert_eq!(queue.completed_total, KEEP_COMPLETED_PER_QUEUE + 3_000, "totals only rise");
    assert_eq!(queue.inserted_total, queue.completed_total);
}

pub(crate) async fn retention_by_age(rig: Rig) {
    if !rig.can_wait(KEEP_DEAD * 2) {
        return;
    }
    let hand = Hand::new("w-1", "r1");
    let all = rig.add_many(6).await;
    let batch = rig.claim(&hand, 5).await;
    for (id, verdict) in all.iter().zip([
        Verdict::Completed,
        Verdict::Dead { error: "no".into() },
        Verdict::Cancelled,
        Verdict::Expired,
        Verdict::Park { why: Parked::Asked, reason: "?".into() },
    ]) {
        rig.settle(&batch, *id, verdict).await;
    }
    let there = async || {
        let mut there = Vec::new();
        for id in &all {
            there.push(rig.store.get(&rig.tier, *id).await.unwrap().is_some());
        }
        there
    };
    rig.harness.pass(KEEP_COMPLETED - HOUR / 6).await;
    assert_eq!(rig.sweep().await.trimmed, 0);
    assert_eq!(there().await, [true; 6]);
    rig.harness.pass(HOUR / 3).await;
    assert_eq!(rig.sweep().await.trimmed, 1);
    assert_eq!(there().await, [false, true, true, true, true, true]);
    rig.harness.pass(KEEP_DEAD - HOUR * 2).await;
    assert_eq!(rig.sweep().await.trimmed, 0);
    rig.harness.pass(HOUR * 2).await;
    assert_eq!(rig.sweep().await.trimmed, 3);
    assert_eq!(there().await, [false, false, false, false, true, true], "what has not ended stays");
    let census = rig.census().await;
    assert_eq!(census.queues[0].states.values().sum::<u64>(), 2);
}

pub(crate) async fn retention_counts_from_the_end_of_a_second_life(rig: Rig) {
    if !rig.can_wait(KEEP_DEAD * 2) {
        return;
    }
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1)).await;
    let batch = rig.claim(&hand, 1).await;
    rig.settle_all(&batch, &Verdict::Dead { error: "no".into() }).await;
    rig.harness.pass(KEEP_DEAD - HOUR).await;
    rig.act(id, Action::Retry).await;
    rig.harness.pass(HOUR * 2).await;
    assert_eq!(rig.sweep().await.trimmed, 0);
    let batch = rig.claim(&hand, 1).await;
    rig.settle_all(&batch, &Verdict::Dead { error: "no".into() }).await;
    rig.harness.pass(HOUR).await;
    assert_eq!(rig.sweep().await.trimmed, 0);
    assert_eq!(rig.state(id).await, State::Dead);
}
