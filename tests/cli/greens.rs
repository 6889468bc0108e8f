//! Tiers that looked green and were not: each was found by attacking the verdict of a gate, with real workers or with hands.

use std::time::{Duration, Instant};

use super::sandbox::{Run, Sandbox};
use crate::both::Engine;

const CHECK: [&str; 2] = ["gate", "check"];

/// Asks until the gate fails for this cause.
fn red(sandbox: &Sandbox, cause: &str) -> Run {
    let checks = std::iter::repeat_with(|| sandbox.run(&CHECK)).take(1_500);
    let mut last = None;
    for run in checks {
        if run.code == 3 && run.out.contains(cause) {
            return run;
        }
        last = Some(run);
    }
    panic!("`{cause}` was never told: {last:?}");
}

/// A payload was renamed by its producers: the worker is well, nothing waits, nothing fails, and nothing is done.
fn a_release_that_cannot_read_its_jobs(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let _worker = sandbox.work(&["--name", "w-1"]);
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s"]).exits(0);
    sandbox.run(&["gate", "wait", "--timeout", "30s"]).exits(0);
    let line = "{\"kind\":\"notify.webhook\",\"args\":{\"wrong\":1}}\n";
    sandbox.run_with(&["job", "enqueue", "--from-file", "-"], &[], &line.repeat(6)).exits(0);
    let cause =
        "jobs of kind `notify.webhook` are parked, default cannot read them, and none was done since: ";
    let gate = red(&sandbox, cause);
    assert!(gate.out.contains("url"), "why: {gate:?}");
    assert!(sandbox.run(&["doctor"]).exits(3).out.contains(cause));
}

/// Each worker has seen one failure, or two: none of them calls it failing.
fn failures_that_are_spread_over_workers(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let names = ["w-1", "w-2", "w-3"];
    let workers = names.map(|name| sandbox.work(&["--name", name, "--slots", "1", "--queues", name]));
    sandbox.run(&["gate", "wait", "--expect", "3", "--timeout", "60s"]).exits(0);
    for name in names {
        let args = ["job", "enqueue", "echo", r#"{"fail":"undefined method"}"#, "--queue", name];
        sandbox.run(&args).exits(0);
    }
    red(
        &sandbox,
        "jobs of kind `echo` fail on default, 3 of 3 first attempts at 3 workers: undefined method",
    );
    drop(workers);
}

/// A container that is started again each time it is killed: it is young, and what is young is waited for.
fn a_crash_loop(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let restarts = |n: u64| {
        let seen = |_: &u32| {
            let list = sandbox.run(&["worker", "list", "--json"]);
            list.code == 0 && list.json()[0]["restarts"] == n
        };
        (0..1_500).find(seen).expect("it registered");
    };
    let mut worker = sandbox.work(&["--name", "w-1"]);
    sandbox.run(&["gate", "wait", "--timeout", "30s"]).exits(0);
    for n in 1..=3 {
        worker.signal("KILL");
        worker.ended();
        worker = sandbox.work(&["--name", "w-1"]);
        restarts(n);
    }
    red(&sandbox, "w-1: its process was replaced 3 times or more within 10m 00s");
    assert!(sandbox.run(&["doctor"]).exits(3).out.contains("worker:restarts"));
}

/// The tier is empty, and so is its queue: nobody would have noticed before the first job waited.
fn a_worker_that_stopped_while_nothing_waits(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = sandbox.work(&["--name", "w-1"]);
    sandbox.run(&["gate", "wait", "--timeout", "30s"]).exits(0);
    sandbox.run(&["worker", "stop", "w-1", "--reason", "INC-4711"]).exits(0);
    worker.ended();
    let ended = Instant::now();
    sandbox.run(&CHECK).exits(8); // it may come back
    red(&sandbox, "0/1 active on default: no worker of it lives: w-1 stopped, told so by ");
    assert!(ended.elapsed() < Duration::from_secs(11), "{:?}", ended.elapsed());
    let doctor = sandbox.run(&["doctor"]).exits(3);
    assert!(
        doctor.out.contains("w-1 stopped, told so by ") && doctor.out.contains("(INC-4711)"),
        "{doctor:?}"
    );
    let _worker = sandbox.work(&["--name", "w-1"]);
    sandbox.run(&["gate", "wait", "--timeout", "30s"]).exits(0);
}

/// They wait for a worker like any other: it is workers who make them available.
fn jobs_that_are_due_and_nobody_lives(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    sandbox.run(&["job", "enqueue", "echo", "--in", "1s"]).exits(0);
    let ill = |_: &u32| sandbox.run(&["doctor"]).code == 3;
    (0..1_500).find(ill).expect("it was never ill");
    assert!(sandbox.run(&["doctor"]).out.contains("; 1 jobs wait"));
}

fn a_real_worker_by_the_name_of_a_made_up_one(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let refused = sandbox.run(&["work", "--name", "simulated-x", "--health-listen", "127.0.0.1:0"]).exits(2);
    assert!(refused.err.contains("simulated-") && refused.err.contains("--name"), "{refused:?}");
}

fn a_verdict_on_many_kinds_is_short(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let _worker = sandbox.work(&["--name", "w-1"]);
    let lines: String = (0..300).map(|n| format!("{{\"kind\":\"x.k{n}\",\"args\":{{}}}}\n")).collect();
    sandbox.run_with(&["job", "enqueue", "--from-file", "-"], &[], &lines).exits(0);
    let gate = red(&sandbox, "and 297 more of kinds:known");
    assert!(gate.out.len() < 4_000, "{} bytes", gate.out.len());
    let json = sandbox.run(&["gate", "check", "--json"]).exits(3).json();
    assert_eq!(json["leftOut"]["kinds:known"], 280);
    assert!(json.to_string().len() < 20_000);
}

on_both! {
    #[test] fn:
        a_release_that_cannot_read_its_jobs
        failures_that_are_spread_over_workers
        a_crash_loop
        a_worker_that_stopped_while_nothing_waits
        jobs_that_are_due_and_nobody_lives
        a_real_worker_by_the_name_of_a_made_up_one
        a_verdict_on_many_kinds_is_short;
}
