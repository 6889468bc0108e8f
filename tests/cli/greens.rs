//! Tiers that looked green and were not: each was found by attacking the verdict of a gate, with real workers or with hands.

use super::sandbox::{Run, Sandbox};
use crate::both::Engine;

const CHECK: [&str; 2] = ["gate", "check"];

/// Asks until the gate fails, and says why.
fn red(sandbox: &Sandbox, cause: &str) -> Run {
    let check = |_: &u32| sandbox.run(&CHECK);
    let run = (0..1_500).map(|n| check(&n)).find(|run| run.code == 3).expect("it never was red");
    assert!(run.out.contains(cause), "`{cause}` is not in {run:?}");
    run
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

on_both! {
    #[test] fn:
        a_release_that_cannot_read_its_jobs;
}
