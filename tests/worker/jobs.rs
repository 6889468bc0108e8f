//! What becomes of a job.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sluicegate::job::{NewJob, Parked, State};
use sluicegate::store::{Action, Actor};

use super::bench::*;

const TWO: usize = 2;

async fn a_panic_costs_its_own_attempt_and_nothing_else(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    let bad = bench.probe("panic").await;
    let good = bench.probe("done").await;
    bench.reaches(good, State::Completed).await;
    let dead = bench.reaches(bad, State::Dead).await;
    assert_eq!(dead.last_error(), Some("panicked: as told"));
    assert_eq!((dead.failures, dead.crashes, dead.history.len()), (2, 0, TWO));
    facts_say(&worker, "two failed", |facts| facts.presence.failed == 2).await;
    worker.stop();
    ended(&worker).await;
}

async fn a_failure_is_retried_and_the_last_one_is_dead(engine: Engine) {
    let bench = Bench::on(engine).await;
    let _worker = bench.worker().await;
    let dead = bench.reaches(bench.probe("fail").await, State::Dead).await;
    assert_eq!((dead.failures, dead.last_error()), (2, Some("as told")));
    let given_up = bench.reaches(bench.probe("die").await, State::Dead).await;
    assert_eq!((given_up.failures, given_up.last_error()), (1, Some("given up")));
}

async fn a_job_over_its_time_out_is_cancelled_dropped_and_failed(engine: Engine) {
    let bench = Bench::on(engine).await;
    let _worker = bench.worker().await;
    let mut job = NewJob::of(&Probe { act: "hang".into() }).unwrap();
    job.extras.timeout = Some(Duration::from_millis(20));
    let dead = bench.reaches(bench.insert(job).await, State::Dead).await;
    assert_eq!(dead.last_error(), Some("timed out after 20 ms"));
    assert_eq!((dead.failures, bench.signals.dropped.load(SeqCst)), (2, 2));
}

async fn a_job_that_heeds_its_time_out_still_counts_as_failed(engine: Engine) {
    let bench = Bench::on(engine).await;
    let _worker = bench.worker().await;
    let mut job = NewJob::of(&Probe { act: "heed".into() }).unwrap();
    job.extras.timeout = Some(Duration::from_millis(20));
    let dead = bench.reaches(bench.insert(job).await, State::Dead).await;
    assert_eq!(dead.last_error(), Some("timed out after 20 ms"));
}

async fn a_running_job_is_cancelled_when_somebody_asks(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    let ids = [bench.probe("heed").await, bench.probe("hang").await];
    bench.signals.begun(2).await;
    assert_eq!(worker.dump().len(), 2);
    assert!(worker.dump().iter().all(|line| line.contains("kind=test.probe") && line.contains("attempt=1")));
    let by = Actor { who: "ada".into(), reason: None };
    bench.store.bulk(&bench.tier, ids.to_vec(), Action::Cancel, &by).await.unwrap();
    for id in ids {
        let job = bench.reaches(id, State::Cancelled).await;
        assert_eq!(job.failures, 0);
    }
}

async fn a_snooze_costs_no_attempt(engine: Engine) {
    let bench = Bench::on(engine).await;
    let _worker = bench.worker().await;
    let job = bench.reaches(bench.probe("snooze once").await, State::Completed).await;
    assert_eq!((job.failures, bench.signals.started.load(SeqCst)), (0, 2));
}

async fn an_unknown_kind_is_parked(engine: Engine) {
    let bench = Bench::on(engine).await;
    let _worker = bench.worker().await;
    let job = bench.reaches(bench.insert(raw("test.nobody", "{}")).await, State::Parked).await;
    assert_eq!((job.parked, job.failures), (Some(Parked::UnknownKind), 0));
}

async fn arguments_of_another_shape_or_a_newer_version_are_parked(engine: Engine) {
    let bench = Bench::on(engine).await;
    let _worker = bench.worker().await;
    let shape = bench.insert(raw("test.probe", r#"{"act":7}"#)).await;
    let mut newer = NewJob::of(&Probe { act: "done".into() }).unwrap();
    newer.version = 3;
    let newer = bench.insert(newer).await;
    for id in [shape, newer] {
        let job = bench.reaches(id, State::Parked).await;
        assert_eq!((job.parked, job.failures), (Some(Parked::Undecodable), 0));
    }
    assert_eq!(bench.signals.started.load(SeqCst), 0);
}

async fn an_uncertain_effect_waits_for_a_person(engine: Engine) {
    let bench = Bench::on(engine).await;
    let _worker = bench.worker().await;
    let job = bench.reaches(bench.probe("uncertain").await, State::Parked).await;
    assert_eq!((job.parked, job.failures), (Some(Parked::Uncertain), 0));
}

async fn an_effect_that_was_sent_is_not_sent_again(engine: Engine) {
    let bench = Bench::on(engine).await;
    let _worker = bench.worker().await;
    bench.reaches(bench.probe("effect").await, State::Completed).await;
    assert_eq!(bench.signals.notes(), ["1: Fresh", "2: Sent", "Fresh Unknown Fresh"]);
}

async fn a_scheduled_job_runs_soon_after_it_is_due(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker().await;
    active(&worker).await;
    let begun = sluicegate::clock::instant();
    let job = NewJob::of(&Probe { act: "done".into() }).unwrap().delay(Duration::from_millis(300));
    let job = bench.insert(job).await;
    assert_eq!(bench.get(job).await.state, State::Scheduled);
    bench.signals.begun(1).await;
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(295) && waited < Duration::from_secs(3), "{waited:?}");
}

on_both! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async:
        a_panic_costs_its_own_attempt_and_nothing_else;
    #[tokio::test] async:
        a_failure_is_retried_and_the_last_one_is_dead
        a_job_over_its_time_out_is_cancelled_dropped_and_failed
        a_job_that_heeds_its_time_out_still_counts_as_failed
        a_running_job_is_cancelled_when_somebody_asks
        a_snooze_costs_no_attempt
        an_unknown_kind_is_parked
        arguments_of_another_shape_or_a_newer_version_are_parked
        an_uncertain_effect_waits_for_a_person
        an_effect_that_was_sent_is_not_sent_again
        a_scheduled_job_runs_soon_after_it_is_due;
}
