//! The page is fresh whatever the tier does, and it is made once.

use std::time::Duration;

use sluicegate::client::SentCount;
use sluicegate::job::State;
use sluicegate::names::{Kind, Queue, Release, Tier, WorkerName};
use sluicegate::store::{Action, Actor};
use sluicegate::worker::Options;
use sluicegate::{Bypass, Client, Way};

use super::kit::{Bust, Calm, Page, Site, bust, registry};
use crate::both::Engine;
use crate::worker::bench::{active, eventually};

/// StatusPage: the workers are up, and inactive.
async fn statuspage_2017_a_page_is_fresh_while_the_tier_is_inactive(engine: Engine) {
    let site = Site::on(engine).await;
    let first = site.worker(|options| Options { release: None, ..options }).await;
    active(&first).await;
    first.stop();
    first.ended().await;
    let other = |options: Options| Options {
        release: Some(Release::new("r-2").unwrap()),
        name: WorkerName::new("w-2").unwrap(),
        ..options
    };
    let worker = site.worker(other).await;
    worker.until(sluicegate::activation::WorkerState::Inactive).await;
    site.recorded("").await;
    assert_eq!(site.count(State::Completed).await, 1);
}

async fn a_page_is_fresh_while_no_worker_runs(engine: Engine) {
    let site = Site::on(engine).await;
    let job = site.recorded("effect").await;
    assert_eq!(job.queue.as_str(), "pages");
    // And nobody makes it again when workers are back.
    let worker = site.worker(|options| options).await;
    active(&worker).await;
    let witness = site.client.insert(bust("").bypass(Bypass::Never)).await.unwrap();
    site.reaches(&witness, State::Completed).await;
    assert_eq!(site.page.made(), 2);
}

/// It is scheduled in the store only so that no worker takes it.
async fn what_its_caller_runs_is_enqueued_now(engine: Engine) {
    let site = Site::on(engine).await;
    let kinds = registry(&site.page);
    let client = site.client.clone().counting(kinds.infos().map(|info| (&info.queue, &info.kind)));
    let jobs = vec![bust(""), bust("").bypass(Bypass::Never), bust("").delay(Duration::from_secs(3_600))];
    for answer in client.insert_many(jobs).await {
        answer.expect("stored");
    }
    let place = (Queue::new("pages").unwrap(), Kind::new("page.bust").unwrap());
    assert_eq!(client.sent().remove(&place), Some(SentCount { now: 2, scheduled: 1 }));
    assert_eq!((client.sent().len(), site.client.sent().len()), (3, 0), "each kind, and only who counts");
}

/// SupportBee: jobs run, and all fail.
async fn supportbee_2016_a_page_is_fresh_while_its_jobs_fail_in_the_tier(engine: Engine) {
    let site = Site::on(engine).await;
    let broken = Page { broken: true, ..Page::default() };
    let worker = site.worker_of(registry(&broken), |options| options).await;
    active(&worker).await;
    let queued = site.client.insert(bust("").bypass(Bypass::Never)).await.unwrap();
    assert_eq!(queued.way, Way::Queued { why: None });
    assert!(site.reaches(&queued, State::Retryable).await.last_error().unwrap().contains("broken"));
    site.recorded("").await;
}

async fn a_page_is_fresh_beside_twenty_thousand_waiting_jobs(engine: Engine) {
    let site = Site::on(engine).await;
    for _ in 0..40 {
        let jobs = (0..500).map(|_| bust("").bypass(Bypass::Never)).collect();
        site.client.insert_many(jobs).await.into_iter().for_each(|answer| drop(answer.unwrap()));
    }
    assert_eq!(site.count(State::Available).await, 20_000);
    site.recorded("").await;
}

/// Two hundred, while a worker takes whatever it can get: each ran once, and each was done here.
async fn it_does_not_run_twice_beside_a_greedy_worker(engine: Engine) {
    let site = Site::on(engine).await;
    let worker = site.worker(|options| Options { slots: 64, ..options }).await;
    active(&worker).await;
    for _ in 0..50 {
        let four = [(); 4].map(|()| site.client.insert(bust("")));
        let [a, b, c, d] = four;
        let all = tokio::join!(a, b, c, d);
        for done in [all.0, all.1, all.2, all.3] {
            let done = done.expect("it runs");
            assert!(matches!(done.way, Way::Inline { .. }) && done.state == State::Completed, "{done:?}");
        }
    }
    // What the worker would have taken, it took before this one.
    let witness = site.client.insert(bust("").bypass(Bypass::Never)).await.unwrap();
    site.reaches(&witness, State::Completed).await;
    assert_eq!(site.page.made(), 201);
    assert_eq!(site.count(State::Completed).await, 201);
}

/// Whoever comes second learns where the job is, and runs nothing.
async fn a_second_caller_runs_nothing(engine: Engine) {
    let site = Site::on(engine).await;
    let new = || bust("gate").idempotency_key(&Tier::default(), "index.html");
    let first = site.caller(new()).await;
    let second = site.client.insert(new()).await.unwrap();
    assert_eq!((second.way, second.state, second.replayed), (Way::Existing, State::Scheduled, true));
    site.page.gate.add_permits(1);
    assert!(matches!(first.await.unwrap().unwrap().way, Way::Inline { .. }));
    let third = site.client.insert(new()).await.unwrap();
    assert_eq!((third.way, third.state), (Way::Existing, State::Completed));
    assert_eq!(site.page.made(), 1);
}

async fn a_unique_key_is_held_by_the_one_that_runs_here(engine: Engine) {
    let site = Site::on(engine).await;
    let unique = || sluicegate::job::Unique { key: "index".into(), window: None, states: None };
    let first = site.caller(bust("gate").unique(unique())).await;
    let held = site.client.insert(bust("gate").unique(unique())).await.unwrap_err();
    assert!(matches!(held, sluicegate::EnqueueError::Held { state: State::Scheduled, .. }), "{held:?}");
    site.page.gate.add_permits(1);
    first.await.unwrap().unwrap();
    site.page.gate.add_permits(1);
    site.client.insert(bust("gate").unique(unique())).await.unwrap();
    assert_eq!(site.page.made(), 2);
}

/// A caller that does not wait for the answer leaves nothing half done.
async fn a_caller_that_goes_away_leaves_a_whole_run(engine: Engine) {
    let site = Site::on(engine).await;
    let new = bust("gate");
    let id = new.id;
    let caller = site.caller(new).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    site.page.gate.add_permits(1);
    eventually("the store knows", async || {
        let job = site.store.get(&Tier::default(), id).await.unwrap().unwrap();
        if job.state == State::Completed { Ok(()) } else { Err(job.state.to_string()) }
    })
    .await;
    assert_eq!(site.page.made(), 1);
}

/// An operator who cancels what runs here, or sends it on, is not undone.
async fn what_a_person_did_meanwhile_stands(engine: Engine) {
    let site = Site::on(engine).await;
    let new = bust("gate");
    let id = new.id;
    let caller = site.caller(new).await;
    let by = Actor { who: "ada".into(), reason: None };
    site.store.bulk(&Tier::default(), vec![id], Action::Cancel, &by).await.unwrap();
    site.page.gate.add_permits(1);
    let done = caller.await.unwrap().unwrap();
    assert!(matches!(done.way, Way::Inline { .. }) && done.state == State::Cancelled, "{done:?}");
}

async fn when_inactive_runs_here_only_when_no_worker_would(engine: Engine) {
    let site = Site::on(engine).await;
    let alone = site.client.enqueue(&Calm {}).await.unwrap();
    assert!(matches!(alone.way, Way::Inline { .. }), "{alone:?}");
    let worker = site.worker(|options| options).await;
    active(&worker).await;
    eventually("the worker's word is out", async || {
        let queued = site.client.enqueue(&Calm {}).await.unwrap();
        match &queued.way {
            Way::Queued { why: Some(why) } if why.to_string() == "worker w-1 is active" => {
                site.reaches(&queued, State::Completed).await;
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    worker.stop();
    worker.ended().await;
    let alone = site.client.enqueue(&Calm {}).await.unwrap();
    assert!(matches!(alone.way, Way::Inline { .. }), "{alone:?}");
    // A worker that does not serve its queue is none.
    let queues = Some(vec![sluicegate::names::Queue::new("mail").unwrap()]);
    let worker = site.worker(|options| Options { queues, ..options }).await;
    active(&worker).await;
    let alone = site.client.enqueue(&Calm {}).await.unwrap();
    assert!(matches!(alone.way, Way::Inline { .. }), "{alone:?}");
}

/// A batch has both kinds of jobs; the answers are in order.
async fn a_batch_is_answered_in_order(engine: Engine) {
    let site = Site::on(engine).await;
    let jobs = (0..200).map(|n| if n % 2 == 0 { bust("") } else { bust("").bypass(Bypass::Never) });
    let jobs: Vec<_> = jobs.collect();
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let answers = site.client.insert_many(jobs).await;
    for (n, (answer, id)) in answers.into_iter().zip(ids).enumerate() {
        let answer = answer.unwrap();
        assert_eq!((answer.id, matches!(answer.way, Way::Inline { .. })), (id, n % 2 == 0), "{answer:?}");
    }
    assert_eq!(site.page.made(), 100);
}

/// Whoever has no handler says so, and queues it.
async fn without_a_handler_it_is_queued_and_says_so(engine: Engine) {
    let site = Site::on(engine).await;
    let bare = Client::new(site.store.clone(), Tier::default());
    let queued = bare.enqueue(&Bust { act: String::new() }).await.unwrap();
    let json = serde_json::to_value(&queued).unwrap();
    assert_eq!((&json["way"], &json["why"]), (&"queued".into(), &"no handler here".into()));
    assert_eq!(site.page.made(), 0);
    let after = site.client.insert(bust("").delay(Duration::from_secs(60))).await.unwrap();
    assert_eq!(serde_json::to_value(&after).unwrap()["why"], "it is to run later");
    let newer = sluicegate::NewJob { version: 2, ..bust("") };
    let newer = site.client.insert(newer).await.unwrap();
    assert_eq!(serde_json::to_value(&newer).unwrap()["why"], "its args are newer than the handler here");
    assert_eq!(site.page.made(), 0);
}

on_both! {
    #[tokio::test(flavor = "multi_thread")] async:
        statuspage_2017_a_page_is_fresh_while_the_tier_is_inactive
        a_page_is_fresh_while_no_worker_runs
        what_its_caller_runs_is_enqueued_now
        supportbee_2016_a_page_is_fresh_while_its_jobs_fail_in_the_tier
        a_page_is_fresh_beside_twenty_thousand_waiting_jobs
        it_does_not_run_twice_beside_a_greedy_worker
        a_second_caller_runs_nothing
        a_unique_key_is_held_by_the_one_that_runs_here
        a_caller_that_goes_away_leaves_a_whole_run
        what_a_person_did_meanwhile_stands
        when_inactive_runs_here_only_when_no_worker_would
        a_batch_is_answered_in_order
        without_a_handler_it_is_queued_and_says_so;
}
