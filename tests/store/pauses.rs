//! Pauses, which every claim checks, and the revision that tells workers of what operators set.

use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::ids::JobId;
use sluicegate::job::{NewJob, State};
use sluicegate::names::{Queue, Tier};
use sluicegate::store::*;

use super::bench::*;
use super::control::heard;

fn queue(name: &str) -> Queue {
    Queue::new(name).unwrap()
}

fn mail(n: u64) -> NewJob {
    job(n).queue("mail").unwrap()
}

async fn pause(rig: &Rig, name: &str, for_: Option<Duration>) -> Option<Paused> {
    let pause = Some(Pause { for_ });
    rig.store.pause(&rig.tier, &queue(name), pause, &actor()).await.expect("an answer")
}

async fn resume(rig: &Rig, name: &str) -> Option<Paused> {
    rig.store.pause(&rig.tier, &queue(name), None, &actor()).await.expect("an answer")
}

async fn standing(rig: &Rig) -> Vec<String> {
    let pauses = rig.store.pauses(&rig.tier).await.expect("an answer");
    pauses.iter().map(|paused| paused.queue.to_string()).collect()
}

/// A claim that takes nothing and says that nothing waits.
async fn nothing(rig: &Rig, hand: &Hand) {
    for max in [0, 10] {
        let batch = rig.claim(hand, max).await;
        assert!(batch.jobs.is_empty() && !batch.more, "{batch:?}");
    }
}

pub(crate) async fn pauses_hold_at_once_wherever_a_job_stands(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    // A suspect, one that is handed back, one that was promoted, one of another priority, and one that just came.
    let suspect = rig.add(mail(1)).await;
    rig.claim(&hand, 1).await;
    rig.leases_end().await;
    let mut careful = hand.clone();
    careful.suspects = false;
    let back = rig.add(mail(2)).await;
    let batch = rig.claim(&careful, 1).await;
    rig.settle(&batch, back, Verdict::Return).await;
    let promoted = rig.add(mail(3).delay(rig.units(1))).await;
    rig.pass(2).await;
    assert_eq!(rig.sweep().await.promoted, 1);
    let mut urgent = mail(4);
    urgent.priority = 9;
    let urgent = rig.add(urgent).await;
    assert_eq!(pause(&rig, "mail", None).await, None);
    let fresh = rig.add(mail(5)).await;

    nothing(&rig, &hand).await;
    nothing(&rig, &careful).await;
    let other = rig.harness.client().await;
    match other.claim(rig.ask(&hand, 10)).await.unwrap() {
        Claim::Active(batch) => assert!(batch.jobs.is_empty() && !batch.more),
        answer => panic!("{answer:?}"),
    }
    let mut only = hand.clone();
    only.queues = Some(vec![queue("mail")]);
    nothing(&rig, &only).await;
    for id in [suspect, back, promoted, urgent, fresh] {
        assert_eq!(rig.state(id).await, State::Available);
    }

    assert!(resume(&rig, "mail").await.is_some());
    let first = rig.claim(&hand, 10).await;
    assert_eq!((ids(&first), first.suspect, first.more), (vec![suspect], true, true));
    let mut rest = ids(&rig.claim(&hand, 10).await);
    rest.sort();
    let mut all = [back, promoted, urgent, fresh];
    all.sort();
    assert_eq!(rest, all);
}

pub(crate) async fn pauses_leave_other_queues_and_what_runs_alone(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let runs = rig.add(mail(1)).await;
    let batch = rig.claim(&hand, 1).await;
    pause(&rig, "mail", None).await;
    let waits = rig.add(mail(2)).await;
    let others = [rig.add(job(3)).await, rig.add(job(4).queue("mail2").unwrap()).await];
    assert!(matches!(rig.renew(batch.nonce).await, Renewed::Until { .. }));
    let mut got: Vec<JobId> = Vec::new();
    for _ in 0..2 {
        let batch = rig.claim(&hand, 1).await;
        assert_eq!(batch.more, got.is_empty(), "the paused one does not count");
        got.extend(ids(&batch));
    }
    got.sort();
    assert_eq!(got, others);
    assert_eq!(rig.settle(&batch, runs, Verdict::Completed).await, Settled::Ok);
    nothing(&rig, &hand).await;
    // What time does to the jobs of a paused queue it does all the same.
    let late = rig.add(mail(5).expires_in(rig.units(1))).await;
    rig.pass(2).await;
    assert_eq!(rig.sweep().await.expired, 1);
    assert_eq!((rig.state(late).await, rig.state(waits).await), (State::Expired, State::Available));
    // In another tier the queue goes on.
    let tier = Tier::new("other").unwrap();
    rig.store.flip(&tier, None, committed("r1"), &actor()).await.unwrap();
    rig.store.insert(&tier, vec![mail(6)]).await.unwrap();
    match rig.store.claim(ClaimAsk { tier: tier.clone(), ..rig.ask(&hand, 10) }).await.unwrap() {
        Claim::Active(batch) => assert_eq!(batch.jobs.len(), 1),
        answer => panic!("{answer:?}"),
    }
    assert_eq!(rig.store.pauses(&tier).await.unwrap(), []);
}

pub(crate) async fn pauses_lapse_by_store_time_and_the_next_claim_serves(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(mail(1)).await;
    let before = rig.now().await;
    pause(&rig, "mail", Some(rig.units(2))).await;
    let paused = rig.store.pauses(&rig.tier).await.unwrap().remove(0);
    assert_eq!(paused.until, Some(paused.at.plus(rig.units(2))));
    assert!(paused.at.since(before) < rig.units(1));
    assert_eq!(paused.by, actor());
    rig.pass(1).await;
    nothing(&rig, &hand).await;
    rig.pass(2).await;
    assert_eq!(standing(&rig).await, [""; 0]);
    let batch = rig.claim(&hand, 10).await; // no sweep was needed
    assert_eq!(ids(&batch), [id]);
    // It stood no more: there is nothing to resume.
    assert_eq!(resume(&rig, "mail").await, None);
}

pub(crate) async fn pauses_that_lapse_wake_who_waits(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    rig.add(mail(1)).await;
    pause(&rig, "cold", None).await;
    pause(&rig, "later", Some(rig.units(5))).await;
    pause(&rig, "mail", Some(rig.units(2))).await;
    rig.sweep().await;
    let due = rig.sweep().await.next_due.expect("the end of the pause");
    assert!(due <= rig.units(2) && due > rig.units(1), "{due:?}");
    // A job that is due earlier still counts.
    rig.add(job(2).delay(rig.units(1))).await;
    assert!(rig.sweep().await.next_due.expect("a job") <= rig.units(1));
    rig.pass(3).await;
    assert_eq!(rig.sweep().await.promoted, 1);
    pause(&rig, "mail", Some(rig.units(1))).await;
    let other = rig.harness.client().await;
    let mut wake = other.subscribe(&rig.tier).await.unwrap();
    rig.pass(2).await;
    assert_eq!(rig.sweep().await.promoted, 0);
    heard(&mut wake).await;
    assert_eq!(standing(&rig).await, ["cold"]);
    assert_eq!(rig.claim(&hand, 10).await.jobs.len(), 2);
    assert_eq!(rig.sweep().await.next_due, None, "one without an end is never due");
}

pub(crate) async fn pauses_answer_what_stood_before_and_are_in_the_ledger(rig: Rig) {
    let ledger = async || {
        let all = rig.store.ledger(&rig.tier, 1, 100).await.unwrap();
        all.into_iter().map(|entry| (entry.event, entry.detail, entry.by)).collect::<Vec<_>>()
    };
    assert_eq!(resume(&rig, "mail").await, None);
    assert_eq!(ledger().await, [], "nothing happened");
    assert_eq!(pause(&rig, "mail", None).await, None);
    let first = rig.store.pauses(&rig.tier).await.unwrap().remove(0);
    assert_eq!((first.queue.clone(), first.until, first.by.clone()), (queue("mail"), None, actor()));
    rig.pass(1).await;
    let other = Actor { who: "bob@there".into(), reason: None };
    let again = Some(Pause { for_: Some(rig.units(3)) });
    let stood = rig.store.pause(&rig.tier, &queue("mail"), again, &other).await.unwrap();
    assert_eq!(stood, Some(first.clone()));
    let second = rig.store.pauses(&rig.tier).await.unwrap();
    assert_eq!(second.len(), 1, "a queue is paused once");
    assert_eq!((&second[0].by, second[0].until), (&other, Some(second[0].at.plus(rig.units(3)))));
    assert!(second[0].at > first.at);
    assert_eq!(resume(&rig, "mail").await.as_ref(), second.first());
    assert_eq!(standing(&rig).await, [""; 0]);

    let secs = rig.units(3).as_secs_f64();
    let said: Vec<_> = ledger().await;
    let expected = [
        ("queue.paused", serde_json::json!({ "queue": "mail", "for": null }), actor()),
        ("queue.paused", serde_json::json!({ "queue": "mail", "for": secs }), other),
        ("queue.resumed", serde_json::json!({ "queue": "mail" }), actor()),
    ];
    assert_eq!(said.len(), expected.len());
    for ((event, detail, by), expected) in said.iter().zip(expected) {
        let detail: serde_json::Value = serde_json::from_str(detail).unwrap();
        assert_eq!((event.as_str(), detail, by.clone()), expected);
    }
}

pub(crate) async fn pauses_of_a_queue_that_nobody_knows_hold_from_its_first_job_on(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    pause(&rig, "mail", None).await;
    pause(&rig, "alpha", None).await;
    assert_eq!(standing(&rig).await, ["alpha", "mail"]);
    let id = rig.add(mail(1)).await;
    nothing(&rig, &hand).await;
    resume(&rig, "mail").await;
    assert_eq!(ids(&rig.claim(&hand, 10).await), [id]);
}

pub(crate) async fn pauses_do_not_matter_to_canaries(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let error = rig.store.pause(&rig.tier, &Queue::canaries(), Some(Pause::default()), &actor()).await;
    assert_eq!(error.unwrap_err().kind, ErrorKind::Refused);
    pause(&rig, "default", None).await;
    let one = job(1);
    let id = rig.add(NewJob::canary(one.kind, one.args, &hand.name, rig.units(9))).await;
    rig.add(job(2)).await;
    assert!(rig.claim(&hand, 10).await.canaries);
    let ask = ClaimAsk { lane: Lane::Canaries, ..rig.ask(&hand, 10) };
    match rig.store.claim(ask).await.unwrap() {
        Claim::Canaries(batch) => assert_eq!(ids(&batch), [id]),
        answer => panic!("{answer:?}"),
    }
}

pub(crate) async fn pauses_are_bounded(rig: Rig) {
    for n in 0..MAX_PAUSES {
        pause(&rig, &format!("q-{n:03}"), (n == 0).then(|| rig.units(1))).await;
    }
    let one_more = rig.store.pause(&rig.tier, &queue("mail"), Some(Pause::default()), &actor()).await;
    let error = one_more.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.to_string().contains("500"), "{error}");
    pause(&rig, "q-001", None).await; // one that is paused can be paused anew
    assert_eq!(standing(&rig).await.len(), MAX_PAUSES);
    rig.pass(2).await;
    pause(&rig, "mail", None).await; // one has lapsed
    assert_eq!(standing(&rig).await.len(), MAX_PAUSES);
    let long = Some(Pause { for_: Some(Duration::MAX) });
    let error = rig.store.pause(&rig.tier, &queue("q-002"), long, &actor()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
}

pub(crate) async fn controls_have_a_revision_that_beats_tell_and_wake_who_waits(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let revision = async |state| match rig.beat(&hand, state).await {
        Beat::Ok { control, .. } => control,
        other => panic!("{other:?}"),
    };
    let put = async |space, expect, value: &'static str, keep| match rig
        .store
        .put(&rig.tier, space, "limit", expect, value, keep)
        .await
        .unwrap()
    {
        Put::Done(version) => version,
        other => panic!("{other:?}"),
    };
    let mut last = revision(WorkerState::Starting).await;
    assert_eq!(last, 0);
    put(Space::Release, 0, "x", None).await;
    assert!(matches!(
        rig.store.put(&rig.tier, Space::Control, "limit", 99, "x", None).await.unwrap(),
        Put::Raced(None)
    ));
    put(Space::Control, 0, "", None).await; // there was none to delete
    resume(&rig, "mail").await; // nor one to resume
    rig.add(job(1)).await;
    assert_eq!(revision(WorkerState::Active).await, 0, "operators set nothing");

    let other = rig.harness.client().await;
    let mut wake = other.subscribe(&rig.tier).await.unwrap();
    let mut version = 0;
    for step in 0..5 {
        match step {
            0 => version = put(Space::Control, 0, "1", None).await,
            1 => version = put(Space::Control, version, "2", Some(rig.units(1))).await,
            2 => assert_eq!(pause(&rig, "mail", None).await, None),
            3 => assert!(resume(&rig, "mail").await.is_some()),
            _ => assert_eq!(put(Space::Control, version, "", None).await, 0),
        }
        heard(&mut wake).await;
        let now = revision(WorkerState::Active).await;
        assert!(now > last, "{now} after {last} at step {step}");
        last = now;
        wake = other.subscribe(&rig.tier).await.unwrap();
    }
    // A record that vanishes by itself is a deletion too, when a sweep finds it.
    put(Space::Control, 0, "3", Some(rig.units(1))).await;
    last = revision(WorkerState::Active).await;
    wake = other.subscribe(&rig.tier).await.unwrap();
    rig.pass(2).await;
    rig.sweep().await;
    heard(&mut wake).await;
    assert!(revision(WorkerState::Active).await > last);
    // Another tier has its own.
    let tier = Tier::new("other").unwrap();
    let presence = hand.presence(WorkerState::Starting, "r1+build1");
    assert!(matches!(rig.store.beat(&tier, &presence).await.unwrap(), Beat::Ok { control: 0, .. }));
    assert_eq!(revision(WorkerState::Stopped).await, last + 1, "also at the last beat");
}

pub(crate) async fn receipts_are_records_of_their_own(rig: Rig) {
    let put = rig.store.put(&rig.tier, Space::Receipt, "key", 0, "proof", Some(rig.units(1))).await;
    assert!(matches!(put.unwrap(), Put::Done(_)));
    let read = async |space| rig.store.record(&rig.tier, space, "key").await.unwrap().map(|one| one.value);
    assert_eq!((read(Space::Receipt).await, read(Space::Effect).await), (Some("proof".into()), None));
    rig.pass(2).await;
    rig.sweep().await;
    assert_eq!(read(Space::Receipt).await, None);
}
