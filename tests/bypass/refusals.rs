//! What fails here is the queue's.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sluicegate::job::State;
use sluicegate::{Enqueued, Way};

use super::kit::{Deaf, FRESH, Site, bust};
use crate::both::Engine;
use crate::worker::bench::active;

fn error(done: &Enqueued) -> &str {
    match &done.way {
        Way::QueuedAfterInline { error } => error,
        other => panic!("{other:?}"),
    }
}

/// Whatever goes wrong: the error is told and kept, and the queue does it, with all of its attempts.
async fn what_fails_here_is_done_by_the_queue(engine: Engine) {
    let site = Site::on(engine).await;
    let mut made = 0;
    let worker = site.worker(|options| options).await;
    active(&worker).await;
    for (act, wanted) in [
        ("fail here", "the cache says no"),
        ("panic here", "panicked: as told"),
        ("hang here", "timed out after 700 ms"),
        ("give up here", "never"),
    ] {
        let begun = sluicegate::clock::instant();
        let done = site.client.insert(bust(act)).await.expect("it is queued");
        assert!(begun.elapsed() < FRESH, "{act}: {:?}", begun.elapsed());
        assert_eq!(error(&done), wanted);
        let job = site.reaches(&done, State::Completed).await;
        assert_eq!((job.failures, job.last_error()), (0, Some(wanted)), "{act}");
        assert_eq!(job.worker.as_ref().map(sluicegate::names::WorkerName::as_str), Some("w-1"), "{act}");
        made += 1;
        assert_eq!(site.page.made(), made, "{act}");
    }
}

/// A handler that wants to be called later is; nobody calls it before.
async fn what_wants_to_run_later_waits_in_the_queue(engine: Engine) {
    let site = Site::on(engine).await;
    let done = site.client.insert(bust("later here")).await.unwrap();
    assert_eq!((error(&done), done.state), ("not now", State::Scheduled));
    let job = site.get(&done).await;
    let wait = job.run_at.unwrap().since(job.enqueued_at);
    assert!((2_990..3_010).contains(&wait.as_secs()), "{wait:?}");
}

/// A thread that cannot be ended goes on; if it succeeds after all, the queue does not do it again.
async fn a_deaf_thread_is_told_of_and_what_it_does_counts(engine: Engine) {
    let site = Site::on(engine).await;
    let done = site.client.enqueue(&Deaf {}).await.unwrap();
    assert!(error(&done).contains("its thread cannot be ended"), "{done:?}");
    assert_eq!((done.state, site.page.made()), (State::Scheduled, 0));
    // It keeps its place until it ends.
    let limited = site.limited(1);
    let stuck = limited.enqueue(&Deaf {}).await.unwrap();
    assert!(error(&stuck).contains("its thread"), "{stuck:?}");
    let queued = limited.insert(bust("")).await.unwrap();
    assert_eq!(serde_json::to_value(&queued).unwrap()["why"], "as many run here already as may");
    site.page.gate.add_permits(2);
    for job in [&done, &stuck] {
        site.reaches(job, State::Completed).await;
    }
    assert_eq!((site.page.made(), site.page.begun.load(SeqCst)), (2, 2));
}

/// Callers that run what hangs hold nobody up: beyond the limit, jobs are queued at once.
async fn beyond_the_limit_jobs_are_queued_at_once(engine: Engine) {
    let site = Site::on(engine).await;
    let limited = site.limited(4);
    let hanging: Vec<_> = (0..4)
        .map(|_| {
            let limited = limited.clone();
            tokio::spawn(async move { limited.insert(bust("gate")).await.unwrap() })
        })
        .collect();
    site.page.begun(4).await;
    let begun = sluicegate::clock::instant();
    let queued = limited.insert(bust("gate")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    assert!(matches!(queued.way, Way::Queued { why: Some(_) }), "{queued:?}");
    site.page.gate.add_permits(4);
    for caller in hanging {
        assert!(matches!(caller.await.unwrap().way, Way::Inline { .. }));
    }
}

on_both! {
    #[tokio::test(flavor = "multi_thread")] async:
        what_fails_here_is_done_by_the_queue
        what_wants_to_run_later_waits_in_the_queue
        a_deaf_thread_is_told_of_and_what_it_does_counts
        beyond_the_limit_jobs_are_queued_at_once;
}
