//! Workers prove that they work: the self-test, the activation hook, canaries, kinds that fail.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sluicegate::activation::{Mode, WorkerState};
use sluicegate::ids::JobId;
use sluicegate::job::{Args, NewJob, State};
use sluicegate::names::{Kind, WorkerName};
use sluicegate::store::{FaultCode, Flip, Flipped, Insert, Space};
use sluicegate::worker::{Facts, Hook, Options, Worker};
use tempfile::TempDir;

use super::bench::{Bench, Engine, active, ended, eventually, facts_say, options, release};
use super::faulty::Faulty;
use super::releases::{by, flip};

/// Canaries often, so that nothing has to be waited for.
fn eager() -> Options {
    Options { canary_every: Duration::from_millis(50), ..options() }
}

fn fault(facts: &Facts) -> Option<(FaultCode, &str)> {
    facts.presence.fault.as_ref().map(|fault| (fault.code, fault.detail.as_str()))
}

async fn a_worker_is_starting_and_claims_nothing_until_its_canary_came_back(engine: Engine) {
    let bench = Bench::on(engine).await;
    let faulty = Faulty::around(Arc::clone(&bench.store));
    let id = bench.probe("done").await;
    faulty.read_only.store(true, SeqCst);
    let worker = Worker::start(faulty.clone(), bench.registry(), eager()).await.unwrap();
    facts_say(&worker, "it says which step failed", |facts| {
        let told = fault(facts).is_some_and(|(code, why)| {
            code == FaultCode::SelfTestFailed && why.contains("could not be stored")
        });
        told && facts.presence.state == WorkerState::Starting && facts.presence.canary_age.is_none()
    })
    .await;
    assert_eq!(bench.get(id).await.state, State::Available);
    let seen = bench.store.workers(&bench.tier).await.unwrap();
    assert_eq!(seen[0].presence.state, WorkerState::Starting, "the store says so, too");
    faulty.read_only.store(false, SeqCst);
    active(&worker).await;
    bench.reaches(id, State::Completed).await;
    facts_say(&worker, "nothing is wrong any more", |facts| {
        fault(facts).is_none() && facts.presence.canary_error.is_none() && facts.presence.canary_age.is_some()
    })
    .await;
}

/// That is how a full store gets room again.
async fn in_a_full_store_a_new_worker_works_what_is_there_and_says_what_is_wrong(engine: Engine) {
    let bench = Bench::on(engine).await;
    let faulty = Faulty::around(Arc::clone(&bench.store));
    let id = bench.probe("done").await;
    faulty.full.store(true, SeqCst);
    let worker = Worker::start(faulty.clone(), bench.registry(), eager()).await.unwrap();
    bench.reaches(id, State::Completed).await;
    facts_say(&worker, "no room is told", |facts| {
        facts.presence.canary_error.as_deref().is_some_and(|error| error.contains("no room"))
    })
    .await;
    faulty.full.store(false, SeqCst);
    facts_say(&worker, "all is well", |facts| facts.presence.canary_error.is_none()).await;
}

async fn canaries_need_no_slot_and_do_not_count_as_work(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker_with(Options { slots: 1, ..eager() }).await;
    bench.probe("gate").await;
    bench.signals.begun(1).await;
    bench.many(600, || NewJob::raw(Kind::new("test.noop").unwrap(), Args::default())).await;
    let passed = worker.facts().unwrap().presence.canary_age.unwrap();
    facts_say(&worker, "a canary came back past the full slot and the backlog", |facts| {
        facts.presence.busy == 1 && facts.presence.canary_age.is_some_and(|age| age < passed)
    })
    .await;
    bench.signals.gate.add_permits(1);
    facts_say(&worker, "the backlog is worked", |facts| facts.presence.completed == 601).await;
    let census = bench.store.census(&bench.tier).await.unwrap();
    assert_eq!(census.queues.len(), 1, "{census:?}");
    assert_eq!(census.queues[0].inserted_total, 601);
}

/// Sends a canary of a kind to a worker, as a deploy would.
async fn send_canary(bench: &Bench, kind: &str, worker: &str) -> JobId {
    let (kind, worker) = (Kind::new(kind).unwrap(), WorkerName::new(worker).unwrap());
    let job = NewJob::canary(kind, Args::default(), &worker, Duration::from_secs(30));
    match bench.store.insert(&bench.tier, vec![job]).await.unwrap().first() {
        Some(Insert::Stored { id, .. }) => *id,
        other => panic!("{other:?}"),
    }
}

async fn receipt(bench: &Bench, id: JobId) -> serde_json::Value {
    let text = eventually("the receipt is there", async || {
        let record = bench.store.record(&bench.tier, Space::Receipt, &id.to_string()).await.unwrap();
        record.map(|record| record.value).ok_or_else(|| "none".to_owned())
    })
    .await;
    serde_json::from_str(&text).unwrap()
}

/// One of them, from anybody, while it is inactive: the payload is the kind's own, and the receipt what only its code knows.
async fn a_canary_of_a_kind_runs_its_handler_on_an_inactive_worker_and_leaves_a_receipt(engine: Engine) {
    let bench = Bench::on(engine).await;
    flip(&bench, None, "r1").await;
    let worker = bench.worker_with(Options { release: Some(release("r2")), ..eager() }).await;
    worker.until(WorkerState::Inactive).await;
    let told = receipt(&bench, send_canary(&bench, "test.teller", "w-1").await).await;
    assert_eq!((&told["passed"], &told["receipt"]), (&true.into(), &"told 42".into()), "{told}");
    assert_eq!(
        (&told["worker"], &told["release"], &told["kind"]),
        (&"w-1".into(), &"r2".into(), &"test.teller".into())
    );
    assert_eq!(worker.facts().unwrap().presence.state, WorkerState::Inactive);
}

async fn a_canary_without_a_receipt_a_payload_or_a_handler_fails(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker_with(eager()).await;
    active(&worker).await;
    for (kind, why) in [
        ("test.silent", "gave no receipt"),
        ("test.noop", "declares no canary payload"),
        ("test.unheard-of", "no handler of this worker"),
    ] {
        let told = receipt(&bench, send_canary(&bench, kind, "w-1").await).await;
        assert_eq!(told["passed"], false, "{told}");
        assert!(told["error"].as_str().unwrap().contains(why), "{told}");
    }
    let facts = worker.facts().unwrap();
    assert_eq!((facts.presence.completed, facts.presence.failed), (0, 0), "canaries are nobody's jobs");
}

/// A hook that writes down how it was called, and then does what the test says.
struct Script {
    folder: TempDir,
}

impl Script {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn install(&self, then: &str) {
        let log = self.path("log");
        let text = format!(
            "#!/bin/sh\necho \"$SLUICEGATE_PHASE $SLUICEGATE_RELEASE $SLUICEGATE_GENERATION $1\" >> {}\n{then}\n",
            log.display()
        );
        let (half, whole) = (self.path("half"), self.path("register"));
        fs::write(&half, text).unwrap();
        fs::set_permissions(&half, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(half, whole).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn options(&self, timeout: Duration) -> Options {
        let command = vec![self.path("register").to_string_lossy().into_owned(), "now".to_owned()];
        Options { release: Some(release("r1")), hook: Some(Hook { command, timeout }), ..eager() }
    }
}

const SOON: Duration = Duration::from_secs(5);

/// The outage of 2017: the program that activates the workers is not there. Installed, all goes on by itself.
async fn a_missing_hook_keeps_the_worker_from_claiming_until_it_is_installed(engine: Engine) {
    let (bench, script) = (Bench::on(engine).await, Script::new());
    flip(&bench, None, "r1").await;
    let worker = bench.worker_with(script.options(SOON)).await;
    let id = bench.probe("done").await;
    facts_say(&worker, "the missing program is named", |facts| {
        fault(facts).is_some_and(|(code, why)| {
            code == FaultCode::ActivationHookFailed && why.contains("register: not found")
        })
    })
    .await;
    assert_eq!(bench.get(id).await.state, State::Available);
    script.install("exit 0");
    active(&worker).await;
    bench.reaches(id, State::Completed).await;
    assert_eq!(fault(&worker.facts().unwrap()), None);
    assert_eq!(script.calls(), ["rehearse r1 0 now", "activate r1 1 now"]);
}

/// A rehearsal that passes proves little: in 2017 the real run failed after the deploy had been validated.
async fn a_hook_that_fails_after_the_switch_keeps_the_worker_inactive(engine: Engine) {
    let (bench, script) = (Bench::on(engine).await, Script::new());
    script.install("[ $SLUICEGATE_PHASE = rehearse ] || { echo removed API >&2; exit 3; }");
    let worker = bench.worker_with(script.options(SOON)).await;
    facts_say(&worker, "it stands by, proven", |facts| {
        facts.presence.state == WorkerState::Inactive && fault(facts).is_none()
    })
    .await;
    let id = bench.probe("done").await;
    flip(&bench, None, "r1").await;
    facts_say(&worker, "exit code and last words are told", |facts| {
        fault(facts).is_some_and(|(_, why)| why.ends_with("register: exit 3: removed API"))
            && facts.presence.state == WorkerState::Inactive
            && facts.presence.reason.as_deref().is_some_and(|why| why.contains("activation hook failed"))
    })
    .await;
    assert_eq!(bench.get(id).await.state, State::Available);
    script.install("exit 0");
    active(&worker).await;
    bench.reaches(id, State::Completed).await;
}

async fn a_hook_that_hangs_is_killed_with_all_that_it_started(engine: Engine) {
    let (bench, script) = (Bench::on(engine).await, Script::new());
    let child = script.path("child");
    script.install(&format!("sleep 600 & echo $! > {}\nwait", child.display()));
    let worker = bench.worker_with(script.options(Duration::from_secs(1))).await;
    facts_say(&worker, "it is told that it hung", |facts| {
        fault(facts).is_some_and(|(_, why)| why.contains("did not end within 1.0 s, and was killed"))
    })
    .await;
    let child = fs::read_to_string(child).unwrap();
    eventually("what it started is gone", async || {
        // A zombie is gone as well: nobody has asked for its exit code yet.
        let status =
            fs::read_to_string(Path::new("/proc").join(child.trim()).join("status")).unwrap_or_default();
        let lives = status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'));
        if lives { Err(status) } else { Ok(()) }
    })
    .await;
    worker.stop();
    ended(&worker).await;
}

/// Another release registered itself meanwhile: the app must be told again, before the first claim.
async fn the_hook_runs_again_when_its_release_is_activated_again(engine: Engine) {
    let (bench, script) = (Bench::on(engine).await, Script::new());
    script.install("exit 0");
    flip(&bench, None, "r1").await;
    let worker = bench.worker_with(script.options(SOON)).await;
    active(&worker).await;
    flip(&bench, Some(1), "r2").await;
    flip(&bench, Some(2), "r1").await;
    let id = bench.probe("done").await;
    bench.reaches(id, State::Completed).await;
    assert_eq!(script.calls().last().unwrap(), "activate r1 3 now");
    assert_eq!(bench.get(id).await.failures, 0);
}

async fn a_kind_whose_jobs_all_fail_is_told_with_its_error_and_ends_when_they_succeed(engine: Engine) {
    let bench = Bench::on(engine).await;
    let worker = bench.worker_with(eager()).await;
    let failing = || NewJob::of(&super::bench::Probe { act: "fail".into() }).unwrap();
    bench.many(5, failing).await;
    facts_say(&worker, "the kind fails", |facts| {
        facts.presence.failing.first().is_some_and(|failing| {
            failing.kind.as_str() == "test.probe" && failing.error == "as told" && failing.failed >= 3
        })
    })
    .await;
    let seen = eventually("the store knows", async || {
        let seen = bench.store.workers(&bench.tier).await.unwrap();
        seen[0].presence.failing.first().cloned().ok_or_else(|| format!("{seen:?}"))
    })
    .await;
    assert!(seen.baseline < 0.1, "{seen:?}");
    bench.many(20, || NewJob::of(&super::bench::Probe { act: "done".into() }).unwrap()).await;
    facts_say(&worker, "it is over", |facts| facts.presence.failing.is_empty()).await;
}

/// No controller is alive: the poll of the fallback's worker, timed by what it was told, is what reverts it.
async fn rule_04_a_standby_of_the_fallback_reverts_when_it_is_due_by_itself(engine: Engine) {
    let bench = Bench::on(engine).await;
    flip(&bench, None, "r1").await;
    let worker = bench.worker_with(Options { release: Some(release("r1")), ..eager() }).await;
    active(&worker).await;
    let within = Duration::from_millis(1_500);
    let next = Flip {
        release: release("r2"),
        mode: Mode::Provisional,
        confirm_within: Some(within),
        fallback: Some(release("r1")),
        deploy: None,
        guard: None,
        least: 0,
    };
    let Flipped::Now(provisional) = bench.store.flip(&bench.tier, Some(1), next, &by()).await.unwrap() else {
        panic!("raced")
    };
    worker.until(WorkerState::Inactive).await;
    active(&worker).await;
    let now = bench.store.activation(&bench.tier).await.unwrap().unwrap();
    assert_eq!((now.generation, now.release, now.mode), (3, release("r1"), Mode::Committed));
    let late = now.since.since(provisional.confirm_by.unwrap());
    println!("reverted {late:?} after it was due");
}

async fn a_restarted_worker_counts_its_restarts(engine: Engine) {
    let bench = Bench::on(engine).await;
    let first = bench.worker().await;
    active(&first).await;
    let second = bench.worker().await;
    assert_eq!(second.facts().unwrap().presence.restarts, 1);
    ended(&first).await;
    second.stop();
    ended(&second).await;
    let third = bench.worker().await;
    assert_eq!(third.facts().unwrap().presence.restarts, 0, "it had said goodbye");
}

on_both! {
    #[tokio::test] async:
        a_worker_is_starting_and_claims_nothing_until_its_canary_came_back
        in_a_full_store_a_new_worker_works_what_is_there_and_says_what_is_wrong
        canaries_need_no_slot_and_do_not_count_as_work
        a_canary_of_a_kind_runs_its_handler_on_an_inactive_worker_and_leaves_a_receipt
        a_canary_without_a_receipt_a_payload_or_a_handler_fails
        a_missing_hook_keeps_the_worker_from_claiming_until_it_is_installed
        a_hook_that_fails_after_the_switch_keeps_the_worker_inactive
        a_hook_that_hangs_is_killed_with_all_that_it_started
        the_hook_runs_again_when_its_release_is_activated_again
        a_kind_whose_jobs_all_fail_is_told_with_its_error_and_ends_when_they_succeed
        rule_04_a_standby_of_the_fallback_reverts_when_it_is_due_by_itself
        a_restarted_worker_counts_its_restarts;
}
