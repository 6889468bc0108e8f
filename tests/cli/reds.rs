//! What must turn a tier red within ten seconds, with its cause, and green within fifteen after the cause has ended: with
//! real workers and a real store. (No active worker, hooks, silence, a wrong queue: in `tests/postmortems` and `gate`.)

use std::time::{Duration, Instant};

use super::sandbox::{Run, Running, Sandbox};
use crate::both::Engine;
use crate::chaos::kit::program;

const RED: Duration = Duration::from_secs(10);
const GREEN: Duration = Duration::from_secs(15);

/// A tier with one worker of a managed release, that passes.
struct Tier {
    sandbox: Sandbox,
    probes: String,
    _worker: Running,
}

impl Tier {
    fn on(engine: Engine) -> Self {
        let sandbox = Sandbox::on(engine);
        let args =
            ["work", "--name", "w-1", "--release", "r1", "--slots", "8", "--health-listen", "127.0.0.1:0"];
        let worker = sandbox.start_with(&program("unwell"), &args, &[]);
        let known = |_: &u32| sandbox.run(&["gate", "check", "--release", "r1"]).code == 8;
        (0..3_000).find(known).expect("it is proven");
        sandbox.run(&["activate", "r1", "--force"]).exits(0);
        sandbox.run(&["gate", "wait", "--release", "r1", "--timeout", "60s"]).exits(0);
        let seen = sandbox.run(&["worker", "list", "--json"]).exits(0).json();
        let probes = format!("http://{}", seen[0]["health"].as_str().unwrap());
        Self { sandbox, probes, _worker: worker }
    }

    fn check(&self) -> Run {
        self.sandbox.run(&["gate", "check", "--release", "r1"])
    }

    /// Eight jobs of a kind that end when a file is there; fills the worker.
    fn eight(&self, kind: &str) -> std::path::PathBuf {
        let until = self.sandbox.path("well");
        let line = serde_json::json!({ "kind": kind, "args": { "until": until } }).to_string() + "\n";
        self.sandbox.run_with(&["job", "enqueue", "--from-file", "-"], &[], &line.repeat(8)).exits(0);
        until
    }

    /// Waits until it is red, and says why and since when that could be so.
    fn red(&self, began: Instant, cause: &str) {
        let red = std::iter::repeat_with(|| self.check()).find(|run| !matches!(run.code, 0 | 8)).unwrap();
        let after = began.elapsed();
        println!("red after {after:?}: {}{}", red.out, red.err);
        assert!(matches!(red.code, 3 | 13), "{red:?}");
        assert!(red.out.contains(cause) || red.err.contains(cause), "`{cause}` is not in {red:?}");
        assert!(after < RED, "red after {after:?}");
    }

    /// The same by the worker's own probes, which heard of it by their own calls of the store.
    fn worker_is_red(&self, began: Instant, cause: &str) {
        let probe = || self.sandbox.run(&["health", "deploy", "--verbose", "--url", &self.probes]);
        let red = std::iter::repeat_with(probe).find(|run| run.code != 0).unwrap().exits(3);
        let after = began.elapsed();
        println!("its worker after {after:?}: {}", red.out);
        assert!(red.out.contains(cause), "`{cause}` is not in {red:?}");
        assert!(after < RED, "red after {after:?}");
    }

    fn green(&self) {
        let ended = Instant::now();
        std::iter::repeat_with(|| self.check()).find(|run| run.code == 0).unwrap();
        println!("green after {:?}", ended.elapsed());
        assert!(ended.elapsed() < GREEN, "green after {:?}", ended.elapsed());
    }
}

fn a_job_runtime_that_is_blocked(engine: Engine) {
    let tier = Tier::on(engine);
    let well = tier.eight("unwell.block");
    tier.red(Instant::now(), "w-1: its job runtime does not tick: something blocks it");
    std::fs::write(well, "").unwrap();
    tier.green();
}

/// One handler that blocks its thread takes neither the claims nor the other jobs with it.
fn a_handler_that_blocks_one_thread_holds_up_nobody_else(engine: Engine) {
    let tier = Tier::on(engine);
    let well = tier.sandbox.path("well");
    let args = serde_json::json!({ "until": well }).to_string();
    tier.sandbox.run(&["job", "enqueue", "unwell.block", &args]).exits(0);
    let busy = |_: &u32| tier.sandbox.run(&["worker", "list", "--json"]).json()[0]["busy"] == 1;
    (0..3_000).find(busy).expect("it is blocked");
    for _ in 0..6 {
        tier.sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "20s"]).exits(0);
    }
    tier.check().exits(0);
    std::fs::write(well, "").unwrap();
}

fn slots_that_are_all_stuck(engine: Engine) {
    let tier = Tier::on(engine);
    let well = tier.eight("unwell.deaf");
    tier.red(Instant::now(), "w-1: all of its slots hold jobs that ignore their cancellation");
    std::fs::write(well, "").unwrap();
    tier.green();
}

/// A store that changes under a worker: the command that makes it so, the one that ends it, and what is told.
async fn redis(ill: &[&str], well: &[&str], cause: &str, of_worker: &str) {
    let tier = tokio::task::block_in_place(|| Tier::on(Engine::Redis));
    let server = tier.sandbox.server.as_ref().unwrap();
    server.cli(ill).await;
    tokio::task::block_in_place(|| {
        let began = Instant::now();
        tier.red(began, cause);
        tier.worker_is_red(began, of_worker);
    });
    server.cli(well).await;
    tokio::task::block_in_place(|| tier.green());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_room() {
    redis(
        &["CONFIG", "SET", "maxmemory", "1"],
        &["CONFIG", "SET", "maxmemory", "0"],
        "maxmemory",
        "maxmemory",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts() {
    let policy = |policy| ["CONFIG", "SET", "maxmemory-policy", policy];
    redis(&policy("allkeys-lru"), &policy("noeviction"), "allkeys-lru", "allkeys-lru").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_no_writes() {
    let replicas = |n| ["CONFIG", "SET", "min-replicas-to-write", n];
    redis(&replicas("1"), &replicas("0"), "NOREPLICAS", "NOREPLICAS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_became_a_replica() {
    redis(
        &["REPLICAOF", "127.0.0.1", "1"],
        &["REPLICAOF", "NO", "ONE"],
        "`role` is slave",
        "read only replica",
    )
    .await;
}

/// Another process keeps the file to itself.
#[test]
fn a_file_that_is_locked() {
    let tier = Tier::on(Engine::Sqlite);
    let lock = rusqlite::Connection::open(tier.sandbox.path("data/sluicegate/jobs.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    tier.red(Instant::now(), "locked");
    lock.execute_batch("ROLLBACK").unwrap();
    tier.green();
}

on_both! {
    #[test] fn:
        a_job_runtime_that_is_blocked
        a_handler_that_blocks_one_thread_holds_up_nobody_else
        slots_that_are_all_stuck;
}
