//! Canary jobs: sent to one worker, taken by it alone, whatever the activation says; and seen by nobody else.

use std::collections::HashSet;
use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::ids::{JobId, Nonce};
use sluicegate::job::{Args, NewJob, State};
use sluicegate::names::{Kind, Queue, Tier};
use sluicegate::store::*;

use super::bench::*;

/// A canary job for a worker, that expires after so many units.
fn canary(rig: &Rig, n: u64, hand: &Hand, units: u32) -> NewJob {
    let args = Args::parse(format!("{{\"n\":{n}}}").as_bytes()).unwrap();
    NewJob::canary(Kind::new("test.job").unwrap(), args, &hand.name, rig.units(units))
}

async fn ask(rig: &Rig, hand: &Hand, max: usize) -> Claim {
    let ask = ClaimAsk { lane: Lane::Canaries, ..rig.ask(hand, max) };
    rig.store.claim(ask).await.expect("an answer")
}

async fn take(rig: &Rig, hand: &Hand, max: usize) -> Batch {
    match ask(rig, hand, max).await {
        Claim::Canaries(batch) => batch,
        other => panic!("{other:?}"),
    }
}

/// What a claim of the tier's jobs tells a worker that is not active.
async fn told(rig: &Rig, hand: &Hand) -> bool {
    match rig.try_claim(hand, 10).await {
        Claim::NotActive { canaries, .. } => canaries,
        other => panic!("{other:?}"),
    }
}

fn named() -> PageAsk {
    PageAsk { queue: Some(Queue::canaries()), limit: MAX_BATCH, ..PageAsk::default() }
}

async fn page(rig: &Rig, ask: PageAsk) -> Vec<JobId> {
    let page = rig.store.page(&rig.tier, ask).await.unwrap();
    page.jobs.iter().map(|job| job.id).collect()
}

pub(crate) async fn rule_02_an_inactive_worker_is_given_its_own_canaries_and_nothing_else(rig: Rig) {
    let hand = Hand::new("w-2", "r2");
    let job = rig.add(job(1)).await;
    assert!(!told(&rig, &hand).await, "there is none yet");
    assert!(take(&rig, &hand, 10).await.jobs.is_empty());
    let id = rig.add(canary(&rig, 2, &hand, 9)).await;
    assert!(told(&rig, &hand).await);
    let only_asked = take(&rig, &hand, 0).await;
    assert!(only_asked.jobs.is_empty() && only_asked.more && only_asked.canaries);

    let batch = take(&rig, &hand, 10).await;
    assert_eq!((ids(&batch), batch.generation), (vec![id], 1));
    assert_eq!((batch.more, batch.canaries, batch.suspect), (false, false, false));
    let one = &batch.jobs[0];
    assert!(one.queue.is_canaries());
    assert_eq!(one.extras.as_ref().and_then(|extras| extras.canary.as_ref()), Some(&hand.name));
    assert_eq!(one.extras.as_ref().and_then(|extras| extras.retry.as_ref()?.max_attempts.into()), Some(1));
    assert_eq!(one.expires_at.map(|at| at.since(one.enqueued_at)), Some(rig.units(9)));
    assert!(!told(&rig, &hand).await);

    let found = rig.get(id).await;
    assert_eq!((found.state, found.worker.as_ref()), (State::Running, Some(&hand.name)));
    assert_eq!((found.release, found.claimed_at), (Some(release("r2")), Some(batch.now)));
    assert!(matches!(rig.renew(batch.nonce).await, Renewed::Until { .. }));
    assert_eq!(rig.settle(&batch, id, Verdict::Completed).await, Settled::Ok);
    let found = rig.get(id).await;
    assert_eq!((found.state, found.release), (State::Completed, Some(release("r2"))));
    assert_eq!(rig.state(job).await, State::Available);
}

pub(crate) async fn rule_02_a_tier_without_an_activation_has_canaries_too(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    // The first that this store ever holds is a canary: what comes after it is found all the same.
    let id = rig.add(canary(&rig, 1, &hand, 9)).await;
    let (first, second) = (rig.add(job(2)).await, rig.add(job(3).queue("mail").unwrap()).await);
    assert!(told(&rig, &hand).await);
    let batch = take(&rig, &hand, 10).await;
    assert_eq!((ids(&batch), batch.generation), (vec![id], 0));
    rig.flip(None, "r1").await;
    assert_eq!(take(&rig, &hand, 10).await.generation, 1);
    let all: HashSet<_> = ids(&rig.claim(&hand, 10).await).into_iter().collect();
    assert_eq!(all, HashSet::from([first, second]));
}

pub(crate) async fn rule_02_a_canary_of_another_worker_is_not_taken(rig: Rig) {
    let (a, b) = (Hand::new("w-1", "r1"), Hand::new("w-10", "r1"));
    // All in one insert, with jobs between them.
    let all = rig
        .inserts(vec![
            canary(&rig, 1, &a, 9),
            canary(&rig, 2, &b, 9),
            job(3),
            canary(&rig, 4, &a, 9),
            canary(&rig, 5, &a, 9),
        ])
        .await;
    assert!(all.iter().all(|one| matches!(one, Insert::Stored { state: State::Available, .. })));
    let id = |n: usize| match &all[n] {
        Insert::Stored { id, .. } => *id,
        other => panic!("{other:?}"),
    };
    assert!(take(&rig, &Hand::new("w", "r1"), 10).await.jobs.is_empty());
    // One of the same name in another tier is somebody else.
    let elsewhere = Tier::new("other").unwrap();
    rig.store.insert(&elsewhere, vec![canary(&rig, 6, &a, 9)]).await.unwrap();
    let first = take(&rig, &a, 2).await;
    assert_eq!(
        (ids(&first), first.more, first.canaries),
        (vec![id(0), id(3)], true, true),
        "the oldest first"
    );
    let rest = take(&rig, &a, 2).await;
    assert_eq!((ids(&rest), rest.more), (vec![id(4)], false));
    assert_eq!(ids(&take(&rig, &b, 10).await), [id(1)]);
    assert_eq!(ids(&rig.claim(&a, 10).await), [id(2)]);
}

pub(crate) async fn rule_02_a_superseded_worker_is_given_no_canary(rig: Rig) {
    let (old, new) = (Hand::new("w-1", "r1"), Hand::new("w-1", "r2"));
    rig.beat(&old, WorkerState::Starting).await;
    rig.beat(&new, WorkerState::Starting).await;
    let id = rig.add(canary(&rig, 1, &old, 9)).await;
    for max in [0, 10] {
        assert!(matches!(ask(&rig, &old, max).await, Claim::Superseded));
    }
    assert_eq!(ids(&take(&rig, &new, 10).await), [id], "the name's present process proves itself");
}

pub(crate) async fn rule_02_a_claim_of_jobs_takes_no_canary_and_tells_of_it(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(canary(&rig, 1, &hand, 99)).await;
    let mut narrow = hand.clone();
    narrow.queues = Some(vec![Queue::default()]);
    for max in [0, 10] {
        for hand in [&hand, &narrow] {
            let batch = rig.claim(hand, max).await;
            assert!(batch.jobs.is_empty() && !batch.more, "{batch:?}");
            assert!(batch.canaries);
        }
    }
    let other = rig.claim(&Hand::new("w-2", "r1"), 10).await;
    assert!(!other.canaries && other.jobs.is_empty());
    let job = rig.add(job(2)).await;
    let batch = rig.claim(&hand, 10).await;
    assert_eq!((ids(&batch), batch.canaries), (vec![job], true));
    // Which queues a worker serves does not matter to its canaries.
    assert_eq!(ids(&take(&rig, &narrow, 10).await), [id]);
    assert!(!rig.claim(&hand, 10).await.canaries);
}

pub(crate) async fn rule_04_a_claim_of_canaries_does_not_fire_the_dead_man(rig: Rig) {
    rig.provisional(1, "r2", "r1", 2).await;
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(canary(&rig, 1, &hand, 99)).await;
    rig.pass(3).await;
    for _ in 0..2 {
        assert_eq!(take(&rig, &hand, 10).await.generation, 2);
    }
    assert_eq!(rig.state(id).await, State::Running);
    assert_eq!(rig.store.activation(&rig.tier).await.unwrap().map(|now| now.generation), Some(2));
    assert_eq!(rig.claim(&hand, 0).await.generation, 3, "a claim of jobs does");
}

pub(crate) async fn canaries_are_in_no_census_and_in_a_page_only_when_they_are_named(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    assert_eq!(page(&rig, named()).await, []);
    let waiting = rig.add(canary(&rig, 1, &hand, 99)).await;
    assert_eq!(rig.census().await.queues, []);
    let job = rig.add(job(2)).await;
    let other = rig.add(canary(&rig, 3, &hand, 99)).await;
    let batch = take(&rig, &hand, 1).await;
    rig.settle_all(&batch, &Verdict::Completed).await;
    let census = rig.census().await;
    assert_eq!(census.queues.len(), 1);
    let queue = &census.queues[0];
    assert_eq!((queue.inserted_total, queue.completed_total), (1, 0));
    assert_eq!(queue.states.values().sum::<u64>(), 1);

    assert_eq!(page(&rig, PageAsk { limit: 10, ..PageAsk::default() }).await, [job]);
    let kind = Some(Kind::new("test.job").unwrap());
    assert_eq!(page(&rig, PageAsk { limit: 10, kind, ..PageAsk::default() }).await, [job]);
    assert_eq!(page(&rig, named()).await, [other, waiting], "newest first");
    let done = PageAsk { state: Some(State::Completed), ..named() };
    assert_eq!(page(&rig, done).await, [waiting]);
}

pub(crate) async fn rule_08_a_canary_does_not_wait_behind_a_backlog(rig: Rig) {
    let hand = Hand::new("w-1", "r2");
    let all = rig.add_many(4_000).await;
    let id = rig.add(canary(&rig, 1, &hand, 99)).await;
    rig.inserts((0..500).map(|n| job(9_000 + n).queue("mail").unwrap()).collect()).await;
    assert!(told(&rig, &hand).await);
    assert_eq!(ids(&take(&rig, &hand, 10).await), [id]);
    let batch = rig.claim(&Hand::new("w-2", "r1"), 1).await;
    assert!(batch.jobs[0].id == all[0] || batch.jobs[0].queue.as_str() == "mail", "{batch:?}");
    // Many waiting canaries of others do not get in the way either.
    let others: Vec<_> = (0..300).map(|n| canary(&rig, n, &Hand::new(&format!("o-{n}"), "r1"), 99)).collect();
    rig.inserts(others).await;
    assert_eq!(rig.claim(&Hand::new("w-2", "r1"), 500).await.jobs.len(), 500);
    let many = (0..600).map(|n| canary(&rig, 10_000 + n, &hand, 99)).collect::<Vec<_>>();
    for some in many.chunks(MAX_BATCH) {
        rig.inserts(some.to_vec()).await;
    }
    let batch = take(&rig, &hand, MAX_BATCH).await;
    assert_eq!((batch.jobs.len(), batch.more), (MAX_BATCH, true));
    let ask = ClaimAsk { lane: Lane::Canaries, ..rig.ask(&hand, MAX_BATCH + 1) };
    assert_eq!(rig.store.claim(ask).await.unwrap_err().kind, ErrorKind::Refused);
}

pub(crate) async fn rule_09_a_canary_of_a_lost_worker_expires_and_charges_nobody(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let id = rig.add(canary(&rig, 1, &hand, 99)).await;
    let job = rig.add(job(2)).await;
    let batch = take(&rig, &hand, 10).await;
    let swept = rig.leases_end().await;
    assert_eq!((swept.rescued, swept.quarantined), (0, 0));
    let found = rig.get(id).await;
    assert_eq!((found.state, found.failures, found.crashes), (State::Expired, 0, 0));
    let story: Vec<&str> = found.history.iter().map(|attempt| attempt.outcome.as_str()).collect();
    assert_eq!(story, ["crashed", "expired"]);
    assert_eq!(found.history[0].worker.as_ref(), Some(&hand.name));
    assert_eq!(rig.settle(&batch, id, Verdict::Completed).await, Settled::Lost);
    let jobs = rig.claim(&hand, 10).await;
    assert_eq!((ids(&jobs), jobs.suspect, jobs.canaries), (vec![job], false, false));
    assert!(take(&rig, &hand, 10).await.jobs.is_empty());
}

pub(crate) async fn rule_09_a_takeover_ends_the_canaries_of_the_old_process(rig: Rig) {
    let (old, new) = (Hand::new("w-1", "r1"), Hand::new("w-1", "r1"));
    rig.beat(&old, WorkerState::Starting).await;
    let ran = rig.add(canary(&rig, 1, &old, 99)).await;
    take(&rig, &old, 10).await;
    let waits = rig.add(canary(&rig, 2, &old, 99)).await;
    rig.beat(&new, WorkerState::Starting).await;
    assert_eq!(rig.state(ran).await, State::Expired, "at once");
    let batch = take(&rig, &new, 10).await;
    assert_eq!((ids(&batch), batch.suspect), (vec![waits], false));
}

pub(crate) async fn rule_09_canaries_tell_nothing_of_the_fleet(rig: Rig) {
    let (hand, idle) = (Hand::new("w-1", "r1"), Hand::new("w-2", "r2"));
    let crash = async || {
        let batch = rig.claim(&hand, 10).await;
        rig.leases_end().await;
        ids(&batch)
    };
    let all = rig.add_many(2).await;
    assert_eq!(crash().await, all);
    // Each is charged once, and then the whole fleet is failing: nothing completed since.
    let charged = [crash().await, crash().await].concat();
    assert_eq!(charged, all);
    rig.add(canary(&rig, 3, &idle, 99)).await;
    let proved = take(&rig, &idle, 10).await;
    rig.settle_all(&proved, &Verdict::Completed).await;
    crash().await;
    for id in &all {
        assert_eq!((rig.state(*id).await, rig.get(*id).await.crashes), (State::Available, 2));
    }
    // And one that waits is no other work: a lone killer is found out.
    assert_eq!(rig.act(all[0], Action::Cancel).await, Acted::Done(State::Cancelled));
    rig.add(canary(&rig, 4, &idle, 999)).await;
    assert_eq!(crash().await, [all[1]]);
    assert_eq!(rig.state(all[1]).await, State::Dead);
}

pub(crate) async fn canaries_that_nobody_takes_expire(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let (swept, claimed) =
        (rig.add(canary(&rig, 1, &hand, 1)).await, rig.add(canary(&rig, 2, &hand, 3)).await);
    let late = rig.add(canary(&rig, 3, &hand, 9)).await;
    rig.pass(2).await;
    assert_eq!(rig.sweep().await.expired, 1);
    assert_eq!(rig.state(swept).await, State::Expired);
    rig.pass(2).await;
    let batch = take(&rig, &hand, 10).await;
    assert!(ids(&batch) == [late] || batch.more, "{batch:?}");
    let rest = take(&rig, &hand, 10).await;
    assert_eq!([ids(&batch), ids(&rest)].concat(), [late]);
    assert_eq!(rig.state(claimed).await, State::Expired);
    // The lane of a worker that is gone does not stay.
    let gone = rig.add(canary(&rig, 4, &Hand::new("gone", "r1"), 1)).await;
    rig.pass(2).await;
    rig.sweep().await;
    assert_eq!(rig.state(gone).await, State::Expired);
    assert!(!rig.claim(&Hand::new("gone", "r1"), 10).await.canaries);
}

pub(crate) async fn rule_03_canaries_are_settled_once_and_under_their_lease(rig: Rig) {
    let hand = Hand::new("w-1", "r2");
    for (n, verdict) in [Verdict::Completed, Verdict::Dead { error: "no".into() }].into_iter().enumerate() {
        let id = rig.add(canary(&rig, n as u64, &hand, 99)).await;
        let batch = take(&rig, &hand, 10).await;
        let made_up = Batch { nonce: Nonce::new(), ..batch.clone() };
        assert_eq!(rig.settle(&made_up, id, verdict.clone()).await, Settled::Lost);
        assert_eq!(rig.state(id).await, State::Running);
        assert_eq!(rig.settle(&batch, id, verdict.clone()).await, Settled::Ok);
        assert_eq!(rig.settle(&batch, id, verdict).await, Settled::Already);
    }
}

/// Every worker of a fleet sends one every few seconds: the others must not ask for work each time.
pub(crate) async fn a_canary_of_its_own_worker_wakes_nobody(rig: Rig) {
    let mut wake = rig.store.subscribe(&rig.tier).await.unwrap();
    let hand = Hand::new("w-1", "r1");
    rig.add(NewJob { silent: true, ..canary(&rig, 1, &hand, 99) }).await;
    assert!(!wake.woken(Duration::from_millis(100)).await);
    // Whoever else sends one waits for it.
    rig.add(canary(&rig, 2, &hand, 99)).await;
    super::control::heard(&mut wake).await;
}

pub(crate) async fn a_canary_that_is_given_back_waits_in_its_lane_again(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let (id, next) = (rig.add(canary(&rig, 1, &hand, 99)).await, rig.add(canary(&rig, 2, &hand, 99)).await);
    let mut wake = rig.store.subscribe(&rig.tier).await.unwrap();
    let batch = take(&rig, &hand, 1).await;
    assert_eq!(rig.settle(&batch, id, Verdict::Return).await, Settled::Ok);
    super::control::heard(&mut wake).await;
    assert_eq!(rig.state(id).await, State::Available);
    assert!(rig.claim(&hand, 10).await.jobs.is_empty());
    let batch = take(&rig, &hand, 10).await;
    assert_eq!(ids(&batch), [id, next], "at the head");
    // So does one that comes back later.
    for (id, verdict) in [(id, retry(rig.units(1))), (next, Verdict::Snooze { delay: rig.units(2) })] {
        assert_eq!(rig.settle(&batch, id, verdict).await, Settled::Ok);
    }
    rig.pass(3).await;
    assert_eq!(rig.sweep().await.promoted, 2);
    assert!(rig.claim(&hand, 10).await.jobs.is_empty());
    assert_eq!(ids(&take(&rig, &hand, 10).await), [id, next]);
}

pub(crate) async fn rule_06_a_canary_is_inserted_once(rig: Rig) {
    let (hand, other) = (Hand::new("w-1", "r1"), Hand::new("w-2", "r1"));
    let one = canary(&rig, 1, &hand, 99);
    let id = rig.add(one.clone()).await;
    let existing = |state| Insert::Existing { id, state };
    assert_eq!(rig.insert(one.clone()).await, existing(State::Available));
    let mut changed = canary(&rig, 2, &hand, 99);
    changed.id = id;
    assert_eq!(rig.insert(changed).await, Insert::Conflict { id });
    let batch = take(&rig, &hand, 10).await;
    assert_eq!(rig.insert(one.clone()).await, existing(State::Running));
    rig.settle_all(&batch, &Verdict::Completed).await;
    assert_eq!(rig.insert(one).await, existing(State::Completed));
    assert!(take(&rig, &hand, 10).await.jobs.is_empty() && take(&rig, &other, 10).await.jobs.is_empty());
}

pub(crate) async fn a_canary_without_a_worker_is_refused_and_nobody_can_name_their_queue(rig: Rig) {
    assert!(Queue::new(Queue::canaries().as_str()).is_err());
    let hand = Hand::new("w-1", "r1");
    let (mut nameless, mut misled) = (canary(&rig, 1, &hand, 9), canary(&rig, 2, &hand, 9));
    nameless.extras.canary = None;
    misled.queue = Queue::default();
    for bad in [nameless, misled] {
        assert!(bad.clone().check().is_err());
        let error = rig.store.insert(&rig.tier, vec![job(1), bad]).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    }
    assert_eq!(rig.census().await.queues, [], "refused whole");
}

pub(crate) async fn canaries_can_be_called_off_and_do_not_come_back(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let (waits, runs) =
        (rig.add(canary(&rig, 1, &hand, 99)).await, rig.add(canary(&rig, 2, &hand, 99)).await);
    assert_eq!(rig.act(waits, Action::Cancel).await, Acted::Done(State::Cancelled));
    let batch = take(&rig, &hand, 10).await;
    assert_eq!(ids(&batch), [runs]);
    assert_eq!(rig.act(runs, Action::Cancel).await, Acted::Asked);
    match rig.renew(batch.nonce).await {
        Renewed::Until { cancel, .. } => assert_eq!(cancel, [runs]),
        Renewed::Lost => panic!("it holds"),
    }
    assert_eq!(rig.settle(&batch, runs, retry(rig.units(1))).await, Settled::Ok);
    for id in [waits, runs] {
        assert_eq!(rig.act(id, Action::Retry).await, Acted::Refused(State::Cancelled));
    }
}

pub(crate) async fn canaries_that_ended_are_kept_an_hour(rig: Rig) {
    if !rig.can_wait(KEEP_CANARIES * 2) {
        return;
    }
    let (hand, never) = (Hand::new("w-1", "r1"), Hand::new("w-2", "r1"));
    let all: Vec<_> = rig.inserts((0..4).map(|n| canary(&rig, n, &hand, 99)).collect()).await;
    let all: Vec<JobId> = all
        .into_iter()
        .map(|one| match one {
            Insert::Stored { id, .. } => id,
            other => panic!("{other:?}"),
        })
        .collect();
    let batch = take(&rig, &hand, 10).await;
    let dead = Verdict::Dead { error: "no".into() };
    for (id, verdict) in all.iter().zip([Verdict::Completed, dead, Verdict::Cancelled]) {
        rig.settle(&batch, *id, verdict).await;
    }
    let mut kept = canary(&rig, 9, &never, 1);
    kept.expiry = Some(sluicegate::job::new::Expiry::After(KEEP_CANARIES * 9));
    let kept = rig.add(kept).await;
    rig.leases_end().await; // the last of the four expires
    let job = rig.add(job(1)).await;
    let there = async || {
        let mut there = Vec::new();
        for id in all.iter().chain([&kept, &job]) {
            there.push(rig.store.get(&rig.tier, *id).await.unwrap().is_some());
        }
        there
    };
    rig.harness.pass(KEEP_CANARIES - rig.units(6)).await;
    rig.sweep().await;
    assert_eq!(there().await, [true; 6]);
    rig.harness.pass(rig.units(12)).await;
    assert_eq!(rig.sweep().await.trimmed, 4);
    assert_eq!(there().await, [false, false, false, false, true, true]);
    assert_eq!(page(&rig, named()).await, [kept]);
}

pub(crate) async fn canaries_that_ended_are_kept_in_bounded_number(rig: Rig) {
    const OVER: u64 = 350;
    let hand = Hand::new("w-1", "r1");
    let jobs = rig.add_many(3).await;
    let (mut first, mut last) = (None, None);
    let mut n = 0;
    while n < KEEP_CANARIES_PER_TIER + OVER {
        let some = 150.min(KEEP_CANARIES_PER_TIER + OVER - n);
        rig.inserts((n..n + some).map(|n| canary(&rig, n, &hand, 99)).collect()).await;
        let batch = take(&rig, &hand, MAX_BATCH).await;
        first = first.or(batch.jobs.first().map(|job| job.id));
        last = batch.jobs.last().map(|job| job.id);
        // Whatever became of them: half of these, half of those.
        let verdict = if n % 300 == 0 { Verdict::Completed } else { Verdict::Dead { error: "no".into() } };
        rig.settle_all(&batch, &verdict).await;
        rig.harness.pass(Duration::from_millis(5)).await;
        n += some;
    }
    let mut trimmed = 0;
    for _ in 0..20 {
        let swept = rig.sweep().await;
        assert!(swept.trimmed <= MAX_BATCH as u64, "{swept:?}");
        trimmed += swept.trimmed;
        if !swept.more {
            break;
        }
    }
    assert_eq!(trimmed, OVER);
    assert!(rig.store.get(&rig.tier, first.unwrap()).await.unwrap().is_none(), "the oldest went");
    assert!(rig.store.get(&rig.tier, last.unwrap()).await.unwrap().is_some());
    assert_eq!(rig.census().await.queues[0].states[&State::Available], 3);
    assert_eq!(ids(&rig.claim(&hand, 10).await), jobs);
}
