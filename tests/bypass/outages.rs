//! The store is away: the page is made, or the refusal says that nobody keeps the job.

use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;

use sluicegate::client::Handlers;
use sluicegate::job::State;
use sluicegate::names::Tier;
use sluicegate::store::{ErrorKind, StoreError};
use sluicegate::{Bypass, Client, EnqueueError, NewJob, Way};

use super::kit::{Calm, FRESH, Page, Site, bust, registry};
use crate::both::{Engine, Place};
use crate::chaos::kit::{Process, program, until};
use crate::http::faulty::Faulty;
use crate::worker::bench::eventually;

fn unrecorded(way: &Way) -> bool {
    match way {
        Way::InlineUnrecorded { may_repeat, .. } => *may_repeat,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_redis_does_not_keep_a_page_stale() {
    let mut site = Site::on(Engine::Redis).await;
    site.recorded("").await;
    site.place.server.as_mut().unwrap().kill();
    // The first call may still be on a connection that has just ended; every later one is refused.
    unrecorded(&site.fresh("").await.way);
    for _ in 0..3 {
        assert!(!unrecorded(&site.fresh("").await.way), "nothing was sent, so nothing can come back");
    }
    let calm = site.client.enqueue(&Calm {}).await.unwrap();
    assert!(!unrecorded(&calm.way));
    let begun = sluicegate::clock::instant();
    let refused = site.client.insert(bust("fail")).await.unwrap_err();
    assert!(begun.elapsed() < FRESH, "{:?}", begun.elapsed());
    let text = refused.to_string();
    assert!(matches!(refused, EnqueueError::Failed { .. }), "{refused:?}");
    assert!(text.contains("the cache says no") && text.contains("not done and not kept"), "{text}");
    assert!(text.contains("redis://"), "{text}");
    let plain = site.client.insert(bust("").bypass(Bypass::Never)).await.unwrap_err();
    assert!(matches!(plain, EnqueueError::Store(_)), "{plain:?}");
    site.place.server.as_mut().unwrap().start_again();
    let made = site.page.made();
    eventually("it is recorded again", async || {
        let done = site.client.insert(bust("")).await.unwrap();
        if matches!(done.way, Way::Inline { .. }) { Ok(()) } else { Err(format!("{done:?}")) }
    })
    .await;
    assert!(site.page.made() > made);
}

/// A store that hangs: nobody knows whether it has the job, and the answer says so. It learns of the run when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_does_not_keep_a_page_stale() {
    let site = Site::on(Engine::Redis).await;
    site.recorded("").await;
    site.place.server.as_ref().unwrap().stop();
    let done = site.fresh("").await;
    assert!(unrecorded(&done.way), "{done:?}");
    site.place.server.as_ref().unwrap().cont();
    site.reaches(&done, State::Completed).await;
    assert_eq!(site.page.made(), 2);
}

/// The job was there before, and is somebody's: what fails here while the store hangs does not bring its turn forward.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_there_before_keeps_its_turn_when_it_fails_here() {
    let site = Site::on(Engine::Redis).await;
    let job = bust("fail here");
    let later = job.clone().bypass(Bypass::Never).delay(std::time::Duration::from_secs(3_000));
    let before = site.client.insert(later).await.unwrap();
    site.place.server.as_ref().unwrap().stop();
    let caller = site.caller(job).await;
    site.place.server.as_ref().unwrap().cont();
    let told = caller.await.unwrap().unwrap();
    assert!(told.replayed && told.state == State::Scheduled, "{told:?}");
    // What the caller told the store by then would have been done before this.
    site.client.insert(bust("").bypass(Bypass::Never)).await.unwrap();
    assert_eq!(site.get(&before).await.state, State::Scheduled);
}

/// The task that enqueues it dies: it may be stored or not, and the answer says so.
#[tokio::test]
async fn a_job_whose_task_died_may_be_stored() {
    // This store panics when it is asked who is active.
    let store = std::sync::Arc::new(Faulty::new(ErrorKind::Unavailable));
    let client = Client::new(store, Tier::default()).with_handlers(registry(&Page::default()));
    let job = NewJob::of(&Calm {}).unwrap();
    let id = job.id;
    let answers = client.insert_many(vec![job]).await;
    assert!(matches!(&answers[..], [Err(EnqueueError::Unknown { id: of, .. })] if *of == id), "{answers:?}");
}

/// The same for a file that another process keeps locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_does_not_keep_a_page_stale() {
    let site = Site::on(Engine::Sqlite).await;
    let path = site.place.url();
    let lock = rusqlite::Connection::open(path.trim_start_matches("sqlite:")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let done = site.fresh("").await;
    assert!(unrecorded(&done.way), "{done:?}");
    let refused = site.client.insert(bust("fail")).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("the cache says no") && text.contains("nobody knows whether"), "{text}");
    lock.execute_batch("ROLLBACK").unwrap();
    eventually("the store knows", async || match site.store.get(&Tier::default(), done.id).await.unwrap() {
        Some(job) if job.state == State::Completed => Ok(()),
        other => Err(format!("{:?}", other.map(|job| job.state))),
    })
    .await;
    assert_eq!(site.page.made(), 1);
}

/// The run is over, and the store goes away before it hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_after_the_run_hears_of_it_later() {
    let site = Site::on(Engine::Redis).await;
    let caller = site.caller(bust("gate")).await;
    site.place.server.as_ref().unwrap().stop();
    site.page.gate.add_permits(1);
    let done = caller.await.unwrap().unwrap();
    assert!(unrecorded(&done.way), "{done:?}");
    site.place.server.as_ref().unwrap().cont();
    site.reaches(&done, State::Completed).await;
    assert_eq!(site.page.made(), 1);
}

/// Without any store: what an app does when it cannot even open one.
#[tokio::test]
async fn a_store_that_cannot_be_opened_is_done_without() {
    let (page, tier) = (Page::default(), Tier::default());
    let handlers = Handlers::from(registry(&page));
    let away = || StoreError::new("open", "redis://nowhere", ErrorKind::Unavailable, "no route");
    let done = handlers.run_without_store(&tier, bust(""), away()).await.unwrap();
    assert!(!unrecorded(&done.way) && page.made() == 1, "{done:?}");
    let refused = handlers.run_without_store(&tier, bust("fail"), away()).await.unwrap_err().to_string();
    assert!(refused.contains("the cache says no") && refused.contains("no route"), "{refused}");
    // What must not repeat does not run without its record.
    let effect = handlers.run_without_store(&tier, bust("effect"), away()).await.unwrap_err();
    assert!(matches!(effect, EnqueueError::Failed { .. }), "{effect:?}");
    let begun = page.begun.load(SeqCst);
    for job in [bust("").bypass(Bypass::Never), bust("").delay(std::time::Duration::from_secs(1))] {
        let queued = handlers.run_without_store(&tier, job, away()).await.unwrap_err();
        assert!(matches!(queued, EnqueueError::Store(_)), "{queued:?}");
    }
    assert_eq!(page.begun.load(SeqCst), begun);
}

/// The caller is killed between the insert and the end: the queue makes the page, once.
async fn a_killed_caller_leaves_its_job_to_the_queue(engine: Engine) {
    let place = Place::new(engine);
    let store = place.open().await;
    let folder = tempfile::TempDir::new().unwrap();
    let (page, gate) = (folder.path().join("page"), folder.path().join("gate"));
    let app = |args: &[&str]| {
        let mut command = Command::new(program("page"));
        command.args(args).args(["--store", &place.url()]).env("HOME", folder.path());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        Process::start(command)
    };
    let said = |what: &str| {
        let text = std::fs::read_to_string(&page).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(what)).count()
    };
    let args = serde_json::json!({ "page": page, "after": gate }).to_string();
    let mut caller = app(&["job", "enqueue", "page.bust", &args]);
    until("it runs in the caller", async || said("begun") == 1).await;
    caller.kill();
    let jobs = async |state| {
        let census = store.census(&Tier::default()).await.unwrap();
        census.queues.iter().map(|queue| queue.states[&state]).sum::<u64>()
    };
    assert_eq!((jobs(State::Scheduled).await, said("done")), (1, 0));
    std::fs::write(&gate, "").unwrap();
    let _worker = app(&["work", "--health-listen", "127.0.0.1:0"]);
    until("the queue does it", async || jobs(State::Completed).await == 1).await;
    assert_eq!((said("begun"), said("done")), (2, 1));
}

on_both! {
    #[tokio::test] async:
        a_killed_caller_leaves_its_job_to_the_queue;
}
