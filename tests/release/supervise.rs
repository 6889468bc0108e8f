//! A host's processes are as the store wants them: real ones, of the program itself.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::activation::{Mode, WorkerState};
use sluicegate::store::{Flip, Seen, Store};

use super::kit::{ada, events, release, shelf, store, tier};
use crate::both::Engine;
use crate::cli::sandbox::{Run, Running, Sandbox, binary};

/// What is not so within this is not so at all: a test must fail, and not hang.
const PATIENCE: Duration = Duration::from_secs(90);

/// A host, whose processes all end with it: workers outlive their supervisor, and must not outlive a test.
struct Host {
    sandbox: Sandbox,
    store: Arc<dyn Store>,
}

impl Drop for Host {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
        }
    }
}

impl Host {
    /// With `r1` on its shelf.
    async fn new(engine: Engine) -> Self {
        let sandbox = Sandbox::on(engine);
        let store = store(&sandbox).await;
        let host = Self { sandbox, store };
        host.register("r1");
        host
    }

    fn register(&self, id: &str) {
        self.sandbox.run(&["release", "register", binary().to_str().unwrap(), "--id", id]).exits(0);
    }

    fn supervise(&self, args: &[&str]) -> Running {
        let mut all = vec!["supervise"];
        all.extend(args);
        self.sandbox.start(&all)
    }

    /// Every process that was started in this sandbox and still lives.
    fn processes(&self) -> Vec<u32> {
        let here = format!("XDG_DATA_HOME={}", self.sandbox.path("data").display());
        let is_here = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|word| word == here.as_bytes())
        };
        let all = std::fs::read_dir("/proc").unwrap();
        all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_here).collect()
    }

    async fn activate(&self, name: &str) {
        let expect = self.store.activation(&tier()).await.unwrap().map(|now| now.generation);
        let flip = Flip {
            release: release(name),
            mode: Mode::Committed,
            confirm_within: None,
            fallback: None,
            deploy: None,
            guard: None,
            least: 0,
        };
        self.store.flip(&tier(), expect, flip, &ada()).await.unwrap();
    }

    /// Waits until the living workers are as they should be; answers them.
    async fn until(&self, what: &str, good: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let began = Instant::now();
        let mut wake = self.store.subscribe(&tier()).await.unwrap();
        loop {
            let mut workers = self.store.workers(&tier()).await.unwrap();
            workers.retain(|seen| lives(seen.presence.pid));
            if good(&workers) {
                return workers;
            }
            let told: Vec<_> = workers.iter().map(told).collect();
            assert!(began.elapsed() < PATIENCE, "{what}: {told:?}\n{}", self.logs());
            wake.woken(Duration::from_millis(50)).await;
        }
    }

    /// So many workers of a release are in a state, and no other one of it is there.
    async fn has(&self, name: &str, state: WorkerState, count: usize) -> Vec<Seen> {
        let of = release(name);
        let mine = |workers: &[Seen]| {
            let all = workers.iter().filter(|seen| seen.presence.release == of).count();
            let good =
                workers.iter().filter(|seen| seen.presence.release == of && seen.presence.state == state);
            all == count && good.count() == count
        };
        let mut workers = self.until(&format!("{count} of {name} are {state}"), mine).await;
        workers.retain(|seen| seen.presence.release == of);
        workers
    }

    fn logs(&self) -> String {
        let folder = self.sandbox.path("data/sluicegate/logs");
        let mut text = String::new();
        for release in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            for log in std::fs::read_dir(release.path()).into_iter().flatten().flatten() {
                text += &format!("--- {}\n", log.path().display());
                text += &std::fs::read_to_string(log.path()).unwrap_or_default();
            }
        }
        text
    }
}

fn told(seen: &Seen) -> (String, String, Option<String>) {
    let presence = &seen.presence;
    (presence.worker.to_string(), presence.state.to_string(), presence.reason.clone())
}

fn lives(pid: u32) -> bool {
    // A process that has ended and waits for its parent is still a folder.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
}

fn names(workers: &[Seen]) -> Vec<String> {
    workers.iter().map(|seen| seen.presence.worker.to_string()).collect()
}

fn pids(workers: &[Seen]) -> Vec<u32> {
    workers.iter().map(|seen| seen.presence.pid).collect()
}

async fn the_active_release_has_its_workers_and_a_killed_one_comes_back_under_its_name(engine: Engine) {
    let host = Host::new(engine).await;
    let supervisor = host.supervise(&["--workers", "2"]);
    host.activate("r1").await;
    let before = host.has("r1", WorkerState::Active, 2).await;
    assert!(names(&before)[0].ends_with("-r1-1") && names(&before)[1].ends_with("-r1-2"), "{before:?}");
    kill(before[0].presence.pid, "KILL");
    let mut after = host
        .until("the killed one is back", |workers| {
            let alive = |seen: &&Seen| seen.presence.state == WorkerState::Active;
            workers.iter().filter(alive).count() == 2 && pids(workers) != pids(&before)
        })
        .await;
    after.sort_by_key(|seen| seen.presence.worker.to_string());
    assert_eq!(names(&after), names(&before));
    assert_eq!(after[1].presence.pid, before[1].presence.pid, "the other one was not touched");
    assert!(host.logs().contains("worker started"), "{}", host.logs());

    supervisor.signal("TERM");
    supervisor.ended().exits(0);
    assert_eq!(host.processes(), Vec::<u32>::new(), "its workers end before it does");
    assert!(host.store.workers(&tier()).await.unwrap().is_empty(), "and said goodbye");
}

async fn workers_outlive_a_killed_supervisor_and_the_next_one_adopts_them(engine: Engine) {
    let host = Host::new(engine).await;
    let first = host.supervise(&["--workers", "2"]);
    host.activate("r1").await;
    let before = host.has("r1", WorkerState::Active, 2).await;
    first.signal("KILL");
    first.ended();
    let next = host.supervise(&["--workers", "3", "--leave"]);
    let after = host.has("r1", WorkerState::Active, 3).await;
    assert_eq!(pids(&after)[..2], pids(&before)[..], "no second copy");
    assert_eq!(host.processes().len(), 4, "three workers and their supervisor");

    // An adopted one is kept, too.
    kill(after[0].presence.pid, "KILL");
    let again = host
        .until("an adopted one is back", |workers| {
            workers.iter().filter(|seen| seen.presence.state == WorkerState::Active).count() == 3
                && !pids(workers).contains(&after[0].presence.pid)
        })
        .await;
    assert_eq!(names(&again), names(&after));
    next.signal("TERM");
    next.ended().exits(0).says("leaves its workers running");
    assert_eq!(host.processes().len(), 3);
}

async fn a_second_supervisor_is_refused_and_told_of_the_first(engine: Engine) {
    let host = Host::new(engine).await;
    let first = host.supervise(&[]);
    host.activate("r1").await;
    host.has("r1", WorkerState::Active, 1).await;
    let second = host.sandbox.run(&["supervise"]);
    second
        .exits(9)
        .says(&format!("tier `default` has a supervisor on this host already: process {}", first.pid()));
    host.has("r1", WorkerState::Active, 1).await;
}

async fn a_program_that_is_not_what_was_registered_is_not_started_and_told_once(engine: Engine) {
    let host = Host::new(engine).await;
    tamper(&shelf(&host.sandbox).join("r1/bin/sluicegate"));
    host.activate("r1").await;
    let supervisor = host.supervise(&["--workers", "3"]);
    let began = Instant::now();
    let mut wake = host.store.subscribe(&tier()).await.unwrap();
    while events(&*host.store, "release.not_started").await.is_empty() {
        assert!(began.elapsed() < PATIENCE);
        wake.woken(Duration::from_millis(50)).await;
    }
    let shown: Run = host.sandbox.run(&["tier", "show"]).exits(0);
    assert!(shown.out.contains("DAMAGED") && shown.out.contains("another content"), "{shown:?}");
    supervisor.signal("KILL");
    supervisor.ended().says("DAMAGED");
    assert_eq!(host.processes(), Vec::<u32>::new());
    // Another supervisor finds the same, and has nothing new to tell.
    let next = host.supervise(&["--workers", "3"]);
    host.register("r2");
    host.activate("r2").await;
    host.has("r2", WorkerState::Active, 3).await;
    let told = events(&*host.store, "release.not_started").await;
    assert_eq!(told.len(), 1, "{:?}", host.sandbox.run(&["events"]));
    next.signal("TERM");
    next.ended().exits(0);
}

fn tamper(program: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut bytes = std::fs::read(program).unwrap();
    bytes.push(0);
    std::fs::write(program, bytes).unwrap();
}

async fn a_whole_deploy_and_the_way_back_with_no_worker_started_by_hand(engine: Engine) {
    let host = Host::new(engine).await;
    host.register("r2");
    host.sandbox.run(&["tier", "set", "--workers", "2", "--standby", "1"]).exits(0);
    let supervisor = host.supervise(&[]);
    let first = ["deploy", "r1", "--first", "--workers", "2", "--verify", "1s"];
    host.sandbox.run(&first).exits(0).tells("committed");
    // Nobody but the supervisor advances this one.
    host.sandbox.run(&["deploy", "r2", "--workers", "2", "--verify", "1s", "--detach"]).exits(0);
    host.sandbox.run(&["deploy", "wait"]).exits(0).tells("committed");
    host.has("r2", WorkerState::Active, 2).await;
    let warm = host.has("r1", WorkerState::Inactive, 1).await;
    host.sandbox.run(&["rollback"]).exits(0).tells("r1 is active again");
    let raised = host.has("r1", WorkerState::Active, 2).await;
    assert!(pids(&raised).contains(&warm[0].presence.pid), "what was warm was not restarted");
    host.has("r2", WorkerState::Inactive, 1).await;
    supervisor.signal("TERM");
    supervisor.ended().exits(0);
    assert_eq!(host.processes(), Vec::<u32>::new());
}

on_both! {
    #[tokio::test(flavor = "multi_thread")] async:
        the_active_release_has_its_workers_and_a_killed_one_comes_back_under_its_name
        workers_outlive_a_killed_supervisor_and_the_next_one_adopts_them
        a_second_supervisor_is_refused_and_told_of_the_first
        a_program_that_is_not_what_was_registered_is_not_started_and_told_once
        a_whole_deploy_and_the_way_back_with_no_worker_started_by_hand;
}
