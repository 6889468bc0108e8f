//! Rules 1, 6, 7 and 8: what an insert promises; unique keys; limits of a call.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sluicegate::job::{Args, NewJob, State, Unique};
use sluicegate::names::{Queue, Tier};
use sluicegate::store::*;

use super::bench::*;

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) async fn rule_01_conservation_an_inserted_job_is_found_as_it_was_given(rig: Rig) {
    let mut new = raw("test.job", r#"{"b":[1,2,{"c":null}],"a":"ünï\u0000code 😀"}"#).queue("mail").unwrap();
    new.priority = -3;
    new.version = 7;
    let mut new = new.tag("team", "x").expires_in(rig.units(100));
    new.extras.limit_key = Some("account-1".into());
    new.extras.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    new.extras.timeout = Some(Duration::from_millis(1500));
    let before = rig.now().await;
    let id = rig.add(new.clone()).await;
    let found = rig.get(id).await;
    assert_eq!((found.id, found.tier.clone()), (id, rig.tier.clone()));
    assert_eq!((&found.kind, &found.queue, found.version), (&new.kind, &new.queue, 7));
    assert_eq!((found.state, found.priority, found.failures, found.crashes), (State::Available, -3, 0, 0));
    assert!(found.args.same_content(&new.args), "{:?}", found.args);
    assert_eq!(found.extras, new.extras);
    assert_eq!(found.expires_at, Some(found.enqueued_at.plus(rig.units(100))));
    assert!(found.enqueued_at >= before && found.run_at.is_none() && found.finished_at.is_none());
    let batch = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    let job = &batch.jobs[0];
    assert!(job.args.same_content(&new.args));
    assert_eq!((job.id, &job.kind, &job.queue, job.version), (id, &new.kind, &new.queue, 7));
    assert_eq!(job.extras.as_deref(), Some(&new.extras));
    assert_eq!((job.enqueued_at, job.expires_at), (found.enqueued_at, found.expires_at));
}

pub(crate) async fn rule_01_conservation_through_every_state(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(job(1).delay(rig.units(1))).await;
    assert_eq!(rig.state(id).await, State::Scheduled);
    rig.pass(2).await;
    rig.sweep().await;
    for (verdict, then) in [
        (Verdict::Return, State::Available),
        (retry(rig.units(1)), State::Retryable),
        (Verdict::Snooze { delay: rig.units(1) }, State::Scheduled),
        (Verdict::Park { why: sluicegate::job::Parked::Asked, reason: "?".into() }, State::Parked),
        (Verdict::Expired, State::Expired),
        (Verdict::Cancelled, State::Cancelled),
        (Verdict::Dead { error: "x".into() }, State::Dead),
        (Verdict::Completed, State::Completed),
    ] {
        if rig.state(id).await != State::Available {
            assert_eq!(rig.act(id, Action::Retry).await, Acted::Done(State::Available));
        }
        let batch = rig.claim(&hand, 1).await;
        assert_eq!(ids(&batch), [id]);
        assert_eq!(rig.state(id).await, State::Running);
        assert_eq!(rig.settle(&batch, id, verdict).await, Settled::Ok);
        assert_eq!(rig.state(id).await, then);
        let census = rig.census().await;
        let total: u64 = census.queues.iter().flat_map(|queue| queue.states.values()).sum();
        assert_eq!((total, census.queues[0].states[&then]), (1, 1));
    }
}

pub(crate) async fn rule_01_conservation_a_second_client_sees_it(rig: Rig) {
    let id = rig.add(job(1)).await;
    let other = rig.harness.client().await;
    assert_eq!(other.get(&rig.tier, id).await.unwrap().map(|found| found.state), Some(State::Available));
}

pub(crate) async fn rule_01_conservation_with_many_callers_of_two_clients_at_once(rig: Rig) {
    let rig = Arc::new(rig);
    let other = rig.harness.client().await;
    let done = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let store = if n % 2 == 0 { Arc::clone(&rig.store) } else { Arc::clone(&other) };
        let (rig, done) = (Arc::clone(&rig), Arc::clone(&done));
        tasks.spawn(async move {
            let hand = Hand::new(&format!("w-{n}"), "r1");
            let jobs = (0..5).map(job).collect();
            store.insert(&rig.tier, jobs).await.expect("an insert");
            while done.load(SeqCst) < 200 {
                let Claim::Active(batch) = store.claim(rig.ask(&hand, 3)).await.expect("a claim") else {
                    panic!("not active")
                };
                let item = |job: &Claimed| Settle {
                    nonce: batch.nonce,
                    id: job.id,
                    slot: job.slot,
                    ran: Duration::ZERO,
                    verdict: Verdict::Completed,
                };
                let items = batch.jobs.iter().map(item).collect();
                let answers = store.settle(&rig.tier, items).await.expect("answers");
                assert!(answers.iter().all(|answer| *answer == Settled::Ok), "{answers:?}");
                done.fetch_add(answers.len() as u64, SeqCst);
            }
        });
    }
    tasks.join_all().await;
    let census = rig.census().await;
    let queue = &census.queues[0];
    assert_eq!((queue.inserted_total, queue.completed_total), (200, 200));
    assert_eq!(queue.states[&State::Completed], 200);
}

pub(crate) async fn tiers_do_not_see_each_other(rig: Rig) {
    let other = Tier::new("other").unwrap();
    let id = rig.add(job(1)).await;
    assert!(rig.store.get(&other, id).await.unwrap().is_none());
    assert!(rig.store.activation(&other).await.unwrap().is_none());
    assert!(rig.store.census(&other).await.unwrap().queues.is_empty());
    assert!(rig.store.ledger(&other, 0, 10).await.unwrap().is_empty());
    assert!(
        rig.store.page(&other, PageAsk { limit: 10, ..PageAsk::default() }).await.unwrap().jobs.is_empty()
    );
    let hand = Hand::new("w-1", "r1");
    let ask = ClaimAsk { tier: other.clone(), ..rig.ask(&hand, 10) };
    assert!(matches!(rig.store.claim(ask.clone()).await.unwrap(), Claim::NotActive { current: None, .. }));
    rig.store.flip(&other, None, committed("r1"), &actor()).await.unwrap();
    match rig.store.claim(ask).await.unwrap() {
        Claim::Active(batch) => assert!(batch.jobs.is_empty()),
        other => panic!("{other:?}"),
    }
    // The same id in another tier is another job.
    let same = NewJob { id, ..job(2) };
    let stored = rig.store.insert(&other, vec![same]).await.unwrap();
    assert!(matches!(stored[0], Insert::Stored { .. }), "{stored:?}");
    let acted = rig.store.bulk(&other, vec![id], Action::Cancel, &actor()).await.unwrap();
    assert_eq!(acted, [Acted::Done(State::Cancelled)]);
    assert_eq!(rig.state(id).await, State::Available);
}

pub(crate) async fn rule_06_idempotent_insert_the_same_again_is_the_same_job(rig: Rig) {
    let new = raw("test.job", r#"{"a":1,"b":2}"#);
    rig.add(new.clone()).await;
    let swapped = NewJob { args: Args::parse(br#"{"b":2, "a":1}"#).unwrap(), ..new.clone() };
    for again in [new.clone(), swapped, new.clone().delay(rig.units(5))] {
        assert_eq!(rig.insert(again).await, Insert::Existing { id: new.id, state: State::Available });
    }
    let hand = Hand::new("w-1", "r1");
    let batch = rig.claim(&hand, 10).await;
    assert_eq!(ids(&batch), [new.id]);
    assert_eq!(rig.insert(new.clone()).await, Insert::Existing { id: new.id, state: State::Running });
    rig.settle_all(&batch, &Verdict::Completed).await;
    assert_eq!(rig.insert(new.clone()).await, Insert::Existing { id: new.id, state: State::Completed });
    assert!(rig.claim(&hand, 10).await.jobs.is_empty());
    assert_eq!(rig.census().await.queues[0].inserted_total, 1);
}

pub(crate) async fn rule_06_idempotent_insert_other_content_is_a_conflict(rig: Rig) {
    let first = job(1);
    rig.add(first.clone()).await;
    for other in [
        NewJob { id: first.id, ..job(2) },
        NewJob { id: first.id, ..raw("test.other", r#"{"n":1}"#) },
        first.clone().queue("elsewhere").unwrap(),
    ] {
        assert_eq!(rig.insert(other).await, Insert::Conflict { id: first.id });
    }
    assert!(rig.get(first.id).await.args.same_content(&first.args));
    assert_eq!(rig.claim(&Hand::new("w-1", "r1"), 10).await.jobs.len(), 1);
}

pub(crate) async fn rule_06_idempotent_insert_twice_in_one_batch(rig: Rig) {
    let (a, b) = (job(1), job(2));
    let changed = NewJob { id: a.id, ..job(3) };
    let answers = rig.inserts(vec![a.clone(), b.clone(), a.clone(), changed]).await;
    assert!(matches!(answers[0], Insert::Stored { id, .. } if id == a.id), "{answers:?}");
    assert!(matches!(answers[1], Insert::Stored { id, .. } if id == b.id), "{answers:?}");
    assert_eq!(answers[2], Insert::Existing { id: a.id, state: State::Available });
    assert_eq!(answers[3], Insert::Conflict { id: a.id });
    assert_eq!(ids(&rig.claim(&Hand::new("w-1", "r1"), 10).await), [a.id, b.id]);
}

/// An engine may write many at once, as long as each is answered for itself.
pub(crate) async fn rule_06_idempotent_insert_of_a_large_batch_that_repeats_itself(rig: Rig) {
    let new: Vec<NewJob> = (0..120).map(job).collect();
    rig.inserts(vec![new[3].clone(), new[70].clone()]).await;
    let mut batch = new.clone();
    batch.insert(40, new[39].clone());
    batch.push(new[5].clone());
    let answers = rig.inserts(batch.clone()).await;
    for (place, (job, answer)) in batch.iter().zip(answers).enumerate() {
        let again = [3, 40, 71, 120 + 1].contains(&place);
        match answer {
            Insert::Existing { id, state: State::Available } if again => assert_eq!(id, job.id),
            Insert::Stored { id, state: State::Available, .. } if !again => assert_eq!(id, job.id),
            other => panic!("{place}: {other:?}"),
        }
    }
    assert_eq!(rig.claim(&Hand::new("w-1", "r1"), MAX_BATCH).await.jobs.len(), 120);
    assert_eq!(rig.census().await.queues[0].inserted_total, 120);
}

pub(crate) async fn rule_06_idempotent_insert_by_two_clients_at_once(rig: Rig) {
    let other = rig.harness.client().await;
    let jobs: Vec<_> = (0..50).map(job).collect();
    let (a, b) =
        tokio::join!(rig.store.insert(&rig.tier, jobs.clone()), other.insert(&rig.tier, jobs.clone()));
    let stored = [a.unwrap(), b.unwrap()].concat();
    assert_eq!(stored.iter().filter(|answer| matches!(answer, Insert::Stored { .. })).count(), 50);
    assert_eq!(stored.iter().filter(|answer| matches!(answer, Insert::Existing { .. })).count(), 50);
}

async fn complete(rig: &Rig, new: NewJob) {
    let id = rig.add(new).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 1).await;
    assert_eq!(rig.settle(&batch, id, Verdict::Completed).await, Settled::Ok);
}

pub(crate) async fn rule_06_idempotency_key_is_remembered_a_day_after_completion_and_no_longer(rig: Rig) {
    if !rig.can_wait(KEEP_KEYS * 2) {
        return;
    }
    let new = job(1).idempotency_key(&rig.tier, "order-1");
    complete(&rig, new.clone()).await;
    rig.harness.pass(KEEP_COMPLETED + HOUR).await;
    assert_eq!(rig.sweep().await.trimmed, 1);
    assert!(rig.store.get(&rig.tier, new.id).await.unwrap().is_none(), "its row is trimmed");
    assert_eq!(rig.insert(new.clone()).await, Insert::Existing { id: new.id, state: State::Completed });
    let other = job(2).idempotency_key(&rig.tier, "order-1");
    assert_eq!(rig.insert(other).await, Insert::Conflict { id: new.id });

    rig.harness.pass(HOUR * 21).await;
    rig.sweep().await;
    assert_eq!(rig.insert(new.clone()).await, Insert::Existing { id: new.id, state: State::Completed });
    rig.harness.pass(HOUR * 2).await;
    let answer = rig.insert(new.clone()).await;
    assert!(matches!(answer, Insert::Stored { .. }), "a day later it is a new job: {answer:?}");
}

pub(crate) async fn rule_06_idempotency_key_is_remembered_when_trimmed_by_count(rig: Rig) {
    let new = job(1).idempotency_key(&rig.tier, "order-1");
    complete(&rig, new.clone()).await;
    drain(&rig, KEEP_COMPLETED_PER_QUEUE + 1_000).await;
    assert!(rig.store.get(&rig.tier, new.id).await.unwrap().is_none(), "its row is trimmed");
    assert_eq!(rig.insert(new.clone()).await, Insert::Existing { id: new.id, state: State::Completed });
}

/// Inserts and completes so many jobs.
pub(crate) async fn drain(rig: &Rig, count: u64) {
    let hand = Hand::new("w-1", "r1");
    rig.add_many(count).await;
    loop {
        let batch = rig.claim(&hand, MAX_BATCH).await;
        if batch.jobs.is_empty() {
            return;
        }
        rig.settle_all(&batch, &Verdict::Completed).await;
    }
}

pub(crate) async fn rule_07_honest_outcomes_an_insert_tells_its_durability(rig: Rig) {
    let about = rig.store.about();
    match rig.insert(job(1)).await {
        Insert::Stored { durability, state, .. } => {
            assert_eq!((durability, state), (about.durability, State::Available))
        }
        other => panic!("{other:?}"),
    }
    assert!(about.location.starts_with(about.engine), "{about:?}");
}

pub(crate) async fn rule_08_bounded_steps_batches_over_the_limit_are_refused_whole(rig: Rig) {
    let many: Vec<_> = (0..=MAX_BATCH as u64).map(job).collect();
    let nonces = many.iter().map(|_| sluicegate::ids::Nonce::new()).collect::<Vec<_>>();
    let settles = nonces.iter().zip(&many).map(|(nonce, job)| Settle {
        nonce: *nonce,
        id: job.id,
        slot: 1,
        ran: Duration::ZERO,
        verdict: Verdict::Completed,
    });
    let settles: Vec<_> = settles.collect();
    let all = many.iter().map(|job| job.id).collect::<Vec<_>>();
    let refused = [
        rig.store.insert(&rig.tier, many).await.err(),
        rig.store.claim(rig.ask(&Hand::new("w-1", "r1"), MAX_BATCH + 1)).await.err(),
        rig.store.settle(&rig.tier, settles).await.err(),
        rig.store.renew(&rig.tier, nonces, rig.lease()).await.err(),
        rig.store.bulk(&rig.tier, all, Action::Cancel, &actor()).await.err(),
    ];
    for error in refused {
        let error = error.expect("a refusal");
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("500") && !error.is_transient(), "{error}");
    }
    assert!(rig.census().await.queues.is_empty(), "nothing of it was stored");
}

pub(crate) async fn rule_08_bounded_steps_max_is_honoured(rig: Rig) {
    rig.add_many(MAX_BATCH as u64 + 20).await;
    let hand = Hand::new("w-1", "r1");
    let batch = rig.claim(&hand, MAX_BATCH).await;
    assert_eq!((batch.jobs.len(), batch.more), (MAX_BATCH, true));
    assert_eq!(rig.claim(&hand, 7).await.jobs.len(), 7);
    let last = rig.claim(&hand, 100).await;
    assert_eq!((last.jobs.len(), last.more), (13, false));
    assert!(rig.claim(&hand, 1).await.jobs.is_empty());
}

pub(crate) async fn rule_08_bounded_steps_a_sweep_does_at_most_a_batch_of_each_and_says_that_there_is_more(
    rig: Rig,
) {
    let full = MAX_BATCH as u64;
    let many = |change: &dyn Fn(NewJob) -> NewJob| (0..300).map(|n| change(job(n))).collect::<Vec<_>>();
    for _ in 0..2 {
        rig.inserts(many(&|new| new.delay(rig.units(1)))).await;
    }
    rig.pass(2).await;
    let swept = rig.sweep().await;
    assert_eq!((swept.promoted, swept.more), (full, true));
    let swept = rig.sweep().await;
    assert_eq!((swept.promoted, swept.more), (100, false));

    // Rescue: two leases of 300.
    let hand = Hand::new("w-1", "r1");
    rig.claim(&hand, 300).await;
    rig.claim(&hand, 300).await;
    let mut rescued = Vec::new();
    for _ in 0..6 {
        let swept = rig.sweep().await;
        assert!(swept.rescued <= full, "{swept:?}");
        rescued.push((swept.rescued, swept.more));
        rig.pass(1).await;
    }
    assert_eq!(rescued.iter().map(|(count, _)| count).sum::<u64>(), 600, "{rescued:?}");
    assert!(rescued.iter().any(|(count, more)| *count > 0 && *more), "{rescued:?}");

    // Expiry, of waiting and of scheduled ones at once.
    for _ in 0..2 {
        rig.inserts(many(&|new| new.expires_in(rig.units(1)))).await;
        rig.inserts(many(&|new| new.delay(rig.units(1)).expires_in(rig.units(1)))).await;
    }
    rig.pass(2).await;
    let mut expired = 0;
    loop {
        let swept = rig.sweep().await;
        assert!(swept.expired <= full, "{swept:?}");
        expired += swept.expired;
        if !swept.more {
            break;
        }
    }
    assert_eq!(expired, 1_200);
}

pub(crate) async fn rule_08_bounded_steps_unparking_says_that_there_is_more(rig: Rig) {
    rig.add_many(600).await;
    let hand = Hand::new("w-1", "r1");
    for _ in 0..2 {
        let batch = rig.claim(&hand, 300).await;
        let why = sluicegate::job::Parked::UnknownKind;
        rig.settle_all(&batch, &Verdict::Park { why, reason: "?".into() }).await;
    }
    let ask = SweepAsk { kinds: vec![job(1).kind], ..rig.sweeper() };
    let swept = rig.store.sweep(ask.clone()).await.unwrap();
    assert_eq!((swept.unparked, swept.more), (500, true));
    let swept = rig.store.sweep(ask).await.unwrap();
    assert_eq!((swept.unparked, swept.more), (100, false));
}

fn unique(key: &str) -> Unique {
    Unique { key: key.into(), window: None, states: None }
}

pub(crate) async fn unique_keys_are_held_until_the_job_ends(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let first = rig.add(job(1).unique(unique("k"))).await;
    let held = |state| Insert::Held { holder: first, state };
    assert_eq!(rig.insert(job(2).unique(unique("k"))).await, held(State::Available));
    rig.add(job(3).unique(unique("other"))).await;
    let batch = rig.claim(&hand, 2).await;
    assert_eq!(rig.insert(job(2).unique(unique("k"))).await, held(State::Running));
    assert_eq!(rig.settle(&batch, first, retry(rig.units(1))).await, Settled::Ok);
    assert_eq!(rig.insert(job(2).unique(unique("k"))).await, held(State::Retryable));
    rig.pass(2).await;
    rig.sweep().await;
    let batch = rig.claim(&hand, 2).await;
    assert_eq!(rig.settle(&batch, first, Verdict::Completed).await, Settled::Ok);
    let second = rig.add(job(2).unique(unique("k"))).await;
    assert_ne!(second, first);
    assert_eq!(rig.act(second, Action::Cancel).await, Acted::Done(State::Cancelled));
    rig.add(job(4).unique(unique("k"))).await;
}

pub(crate) async fn unique_keys_within_one_batch(rig: Rig) {
    let answers = rig.inserts(vec![job(1).unique(unique("k")), job(2).unique(unique("k"))]).await;
    match answers[..] {
        [Insert::Stored { id, .. }, Insert::Held { holder, state: State::Available }] => {
            assert_eq!(id, holder)
        }
        _ => panic!("{answers:?}"),
    }
}

pub(crate) async fn unique_keys_with_a_window_are_held_past_the_end(rig: Rig) {
    let wanted = Unique { key: "k".into(), window: Some(rig.units(10)), states: None };
    let new = job(1).unique(wanted.clone());
    let id = new.id;
    complete(&rig, new).await;
    assert_eq!(
        rig.insert(job(2).unique(wanted.clone())).await,
        Insert::Held { holder: id, state: State::Completed }
    );
    rig.pass(11).await;
    rig.add(job(2).unique(wanted)).await;
}

pub(crate) async fn unique_keys_with_named_states_are_held_in_those_only(rig: Rig) {
    let wanted = Unique { key: "k".into(), window: None, states: Some(vec![State::Available]) };
    let first = rig.add(job(1).unique(wanted.clone())).await;
    assert!(matches!(rig.insert(job(2).unique(wanted.clone())).await, Insert::Held { .. }));
    assert_eq!(ids(&rig.claim(&Hand::new("w-1", "r1"), 1).await), [first]);
    rig.add(job(2).unique(wanted)).await;
}

pub(crate) async fn unique_keys_are_held_again_by_a_job_that_is_retried(rig: Rig) {
    let first = rig.add(job(1).unique(unique("k"))).await;
    rig.act(first, Action::Cancel).await;
    let second = rig.add(job(2).unique(unique("k"))).await;
    assert_eq!(rig.act(first, Action::Retry).await, Acted::Refused(State::Cancelled), "another holds it");
    rig.act(second, Action::Cancel).await;
    assert_eq!(rig.act(first, Action::Retry).await, Acted::Done(State::Available));
    assert_eq!(
        rig.insert(job(3).unique(unique("k"))).await,
        Insert::Held { holder: first, state: State::Available }
    );
    assert_eq!(rig.act(second, Action::Retry).await, Acted::Refused(State::Cancelled));
}

pub(crate) async fn rule_06_the_same_id_is_the_same_job_even_when_another_holds_its_unique_key(rig: Rig) {
    let first = job(1).unique(unique("k"));
    complete(&rig, first.clone()).await;
    rig.add(job(2).unique(unique("k"))).await;
    // The first producer never heard the answer, and tries again.
    assert_eq!(rig.insert(first.clone()).await, Insert::Existing { id: first.id, state: State::Completed });
    let changed = NewJob { id: first.id, ..job(3) }.unique(unique("k"));
    assert_eq!(rig.insert(changed).await, Insert::Conflict { id: first.id });
}

pub(crate) async fn a_worker_is_given_its_own_queues_only(rig: Rig) {
    let mail = rig.add(job(1).queue("mail").unwrap()).await;
    rig.add(job(2).queue("web").unwrap()).await;
    let mut hand = Hand::new("w-1", "r1");
    hand.queues = Some(vec![Queue::new("mail").unwrap(), Queue::new("unused").unwrap()]);
    assert_eq!(ids(&rig.claim(&hand, 10).await), [mail]);
    assert!(rig.claim(&hand, 10).await.jobs.is_empty());
    hand.queues = Some(Vec::new());
    assert!(rig.claim(&hand, 10).await.jobs.is_empty(), "no queues is none, not all");
    hand.queues = None;
    assert_eq!(rig.claim(&hand, 10).await.jobs.len(), 1);
}
