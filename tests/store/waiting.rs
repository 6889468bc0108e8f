//! How jobs wait: keys, order, queues, and what a person does to them.

use std::collections::HashSet;
use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::ids::JobId;
use sluicegate::job::{NewJob, Parked, State, Unique};
use sluicegate::names::{Kind, Queue, Tier};
use sluicegate::store::{Acted, Action, Claim, Insert, PageAsk, Renewed, Settled, Verdict};

use super::harness::{Hand, Harness, LEASE, by, job, tier};

fn unique(window: Option<Duration>) -> NewJob {
    job().unique(Unique { key: "k".into(), window, states: None })
}

pub(crate) async fn a_unique_key_is_held_until_its_job_ends(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let holder = hand.insert_new(unique(None)).await;
    assert_eq!(hand.insert(unique(None)).await, Insert::Held { holder, state: State::Available });
    let batch = hand.claim(1).await;
    assert_eq!(hand.insert(unique(None)).await, Insert::Held { holder, state: State::Running });
    hand.settle(&batch, 0, Verdict::Retry { delay: Duration::from_secs(9), error: "x".into() }).await;
    assert_eq!(hand.insert(unique(None)).await, Insert::Held { holder, state: State::Retryable });
    assert_eq!(act(&hand, holder, Action::Cancel).await, Acted::Done(State::Cancelled));
    let next = hand.insert_new(unique(None)).await;
    assert_eq!(hand.insert(unique(None)).await, Insert::Held { holder: next, state: State::Available });
}

pub(crate) async fn a_unique_key_with_a_window_outlives_its_job(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let window = Duration::from_secs(600);
    let holder = hand.insert_new(unique(Some(window))).await;
    let batch = hand.claim(1).await;
    hand.settle(&batch, 0, Verdict::Completed).await;
    assert_eq!(hand.insert(unique(Some(window))).await, Insert::Held { holder, state: State::Completed });
    harness.pass(window);
    assert!(matches!(hand.insert(unique(Some(window))).await, Insert::Stored { .. }));
}

fn prioritised(priority: i8) -> NewJob {
    NewJob { priority, ..job() }
}

pub(crate) async fn higher_priorities_go_first_and_lower_ones_do_not_starve(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    for _ in 0..4 {
        hand.store.insert(&tier(), (0..100).map(|_| prioritised(5)).collect()).await.expect("answers");
        hand.store.insert(&tier(), (0..100).map(|_| prioritised(0)).collect()).await.expect("answers");
    }
    let batch = hand.claim(100).await;
    let mut high = 0;
    for job in &batch.jobs {
        high += u32::from(hand.get(job.id).await.expect("the job").priority == 5);
    }
    assert_eq!(batch.jobs.len(), 100);
    assert_eq!(high, 90, "most, but a tenth is kept for the others");
    // One at a time, a lower one comes through as well.
    let mut low = false;
    for _ in 0..200 {
        let batch = hand.claim(1).await;
        low |= hand.get(batch.jobs[0].id).await.expect("the job").priority == 0;
    }
    assert!(low);
}

pub(crate) async fn jobs_of_one_queue_go_in_order_and_what_is_handed_back_goes_first(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(hand.insert_new(job()).await);
    }
    let batch = hand.claim(3).await;
    assert_eq!(batch.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), ids[..3]);
    for index in [2, 0, 1] {
        assert_eq!(hand.settle(&batch, index, Verdict::Return).await, Settled::Ok);
    }
    let batch = hand.claim(10).await;
    assert_eq!(batch.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), ids);
    assert!(batch.jobs.iter().all(|job| job.failures == 0 && job.crashes == 0));
}

pub(crate) async fn a_worker_takes_only_from_its_queues(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    for queue in ["mail", "metrics", "mail"] {
        hand.insert_new(job().queue(queue).expect("a queue")).await;
    }
    let mut ask = hand.ask("default", 0, 10);
    ask.queues = Some(vec![Queue::new("mail").expect("a queue")]);
    match hand.store.claim(ask).await.expect("an answer") {
        Claim::Active(batch) => {
            assert!(batch.jobs.len() == 2 && batch.jobs.iter().all(|job| job.queue.as_str() == "mail"))
        }
        other => panic!("{other:?}"),
    }
}

async fn act(hand: &Hand, id: JobId, action: Action) -> Acted {
    hand.store.bulk(&tier(), vec![id], action, &by()).await.expect("an answer")[0]
}

pub(crate) async fn cancel_ends_what_waits_and_asks_what_runs(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    for new in [job(), job().delay(Duration::from_secs(60))] {
        let id = hand.insert_new(new).await;
        assert_eq!(act(&hand, id, Action::Cancel).await, Acted::Done(State::Cancelled));
        assert_eq!(act(&hand, id, Action::Cancel).await, Acted::Unchanged(State::Cancelled));
    }
    assert!(hand.claim(10).await.jobs.is_empty());
    let id = hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    assert_eq!(act(&hand, id, Action::Cancel).await, Acted::Asked);
    match &hand.store.renew(&tier(), vec![batch.nonce], LEASE).await.expect("an answer")[..] {
        [Renewed::Until { cancel, .. }] => assert_eq!(cancel, &[id]),
        other => panic!("{other:?}"),
    }
    // Whatever its worker reports but "done" ends it as cancelled: it is not retried.
    hand.settle(&batch, 0, Verdict::Retry { delay: Duration::ZERO, error: "x".into() }).await;
    assert_eq!(hand.state(id).await, State::Cancelled);
    assert_eq!(act(&hand, JobId::new(), Action::Cancel).await, Acted::NotFound);
}

pub(crate) async fn retry_gives_a_dead_job_a_fresh_set_of_attempts(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let id = hand.insert_new(job()).await;
    let batch = hand.claim(1).await;
    hand.settle(&batch, 0, Verdict::Dead { error: "x".into() }).await;
    assert_eq!(act(&hand, id, Action::Retry).await, Acted::Done(State::Available));
    let batch = hand.claim(1).await;
    assert_eq!((batch.jobs[0].id, batch.jobs[0].failures), (id, 0));
    assert_eq!(act(&hand, id, Action::Retry).await, Acted::Unchanged(State::Running));
    hand.settle(&batch, 0, Verdict::Completed).await;
    assert_eq!(act(&hand, id, Action::Retry).await, Acted::Refused(State::Completed));
    assert_eq!(hand.get(id).await.expect("the job").history.len(), 1, "its story stays");
}

pub(crate) async fn parked_jobs_come_back_for_who_can_run_them(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    hand.store.beat(&tier(), &hand.presence(WorkerState::Starting)).await.expect("an answer"); // says "default/1"
    let mut ids = Vec::new();
    for why in [Parked::UnknownKind, Parked::Undecodable, Parked::Uncertain, Parked::Asked] {
        ids.push(hand.insert_new(job()).await);
        let batch = hand.claim(1).await;
        hand.settle(&batch, 0, Verdict::Park { why, reason: "x".into() }).await;
        assert_eq!(hand.get(ids[ids.len() - 1]).await.expect("the job").parked, Some(why));
    }
    assert_eq!(hand.sweep_as("other/1", &["mail"]).await.unparked, 0, "not its kind");
    assert_eq!(
        hand.sweep_as("default/1", &["echo"]).await.unparked,
        1,
        "the same build cannot read it any better"
    );
    assert_eq!(hand.state(ids[0]).await, State::Available);
    assert_eq!(hand.sweep_as("default/2", &["echo"]).await.unparked, 1, "another build may");
    assert_eq!(hand.state(ids[1]).await, State::Available);
    for id in &ids[2..] {
        assert_eq!(hand.state(*id).await, State::Parked, "these wait for a person");
        assert_eq!(act(&hand, *id, Action::Retry).await, Acted::Done(State::Available));
    }
}

pub(crate) async fn pages_go_through_everything_once_and_filters_hold(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let mut ids = Vec::new();
    for n in 0..25 {
        let mut new =
            job().queue(if n % 2 == 0 { "even" } else { "odd" }).expect("a queue").tag("n", &n.to_string());
        new.kind = Kind::new(if n < 20 { "echo" } else { "other" }).expect("a kind");
        ids.push(hand.insert_new(new).await);
    }
    let (mut seen, mut token) = (Vec::new(), None);
    loop {
        let page = hand
            .store
            .page(&tier(), PageAsk { limit: 4, token, ..PageAsk::default() })
            .await
            .expect("a page");
        seen.extend(page.jobs.iter().map(|job| job.id));
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    ids.reverse();
    assert_eq!(seen, ids, "newest first, each once");
    let find = async |ask: PageAsk| {
        hand.store.page(&tier(), PageAsk { limit: 100, ..ask }).await.expect("a page").jobs
    };
    assert_eq!(
        find(PageAsk { queue: Some(Queue::new("even").expect("a queue")), ..PageAsk::default() }).await.len(),
        13
    );
    assert_eq!(
        find(PageAsk { kind: Some(Kind::new("other").expect("a kind")), ..PageAsk::default() }).await.len(),
        5
    );
    assert_eq!(find(PageAsk { tags: vec![("n".into(), "7".into())], ..PageAsk::default() }).await.len(), 1);
    let batch = hand.claim(3).await;
    let running: HashSet<JobId> = find(PageAsk { state: Some(State::Running), ..PageAsk::default() })
        .await
        .iter()
        .map(|job| job.id)
        .collect();
    assert_eq!(running, batch.jobs.iter().map(|job| job.id).collect());
    hand.settle(&batch, 0, Verdict::Dead { error: "smtp 421 timeout".into() }).await;
    assert_eq!(find(PageAsk { error: Some("421".into()), ..PageAsk::default() }).await.len(), 1);
    assert!(
        find(PageAsk { older_than: Some(Duration::from_secs(60)), ..PageAsk::default() }).await.is_empty()
    );
    harness.pass(Duration::from_secs(60));
    assert_eq!(
        find(PageAsk { older_than: Some(Duration::from_secs(60)), ..PageAsk::default() }).await.len(),
        25
    );
}

pub(crate) async fn tiers_do_not_see_each_other(harness: impl Harness) {
    let hand = Hand::of(harness.store(), "w");
    hand.activate("default").await;
    let new = job();
    hand.insert_new(new.clone()).await;
    let other = Tier::new("other").expect("a tier");
    assert!(hand.store.get(&other, new.id).await.expect("an answer").is_none());
    assert!(hand.store.activation(&other).await.expect("an answer").is_none());
    let answers = hand.store.insert(&other, vec![new.clone()]).await.expect("answers");
    assert!(
        matches!(answers[..], [Insert::Stored { .. }]),
        "the same id, another tier, another job: {answers:?}"
    );
    assert_eq!(hand.claim(10).await.jobs.len(), 1);
}
