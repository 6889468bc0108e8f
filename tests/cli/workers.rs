//! `worker`: see workers, and tell them what to do.

use serde_json::Value;

use super::running::ready;
use super::sandbox::Sandbox;
use crate::both::Engine;

/// The only worker, as `worker list` tells it.
fn worker(sandbox: &Sandbox) -> Value {
    sandbox.run(&["worker", "list", "--json"]).exits(0).json()[0].clone()
}

fn until(sandbox: &Sandbox, state: &str) -> Value {
    (0..3_000)
        .map(|_| worker(sandbox))
        .find(|worker| worker["state"] == state)
        .unwrap_or_else(|| panic!("never {state}"))
}

fn a_worker_is_shown_quieted_resumed_dumped_and_stopped(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let running = sandbox.work(&["--name", "w-1"]);
    ready(&sandbox);
    let seen = until(&sandbox, "active");
    assert!(seen["health"].as_str().unwrap().starts_with("127.0.0.1:"), "{seen}");
    assert_eq!(sandbox.run(&["worker", "list", "-o", "name"]).exits(0).out, "w-1\n");
    let shown = sandbox.run(&["worker", "show", "w-1"]).exits(0);
    for part in ["active for", "canary     passed", "release    default", "kinds      echo v1", "/readyz"] {
        assert!(shown.out.contains(part), "{part}: {}", shown.out);
    }
    sandbox
        .run(&["worker", "quiet", "w-1", "--dry-run"])
        .exits(0)
        .tells("would quiet worker w-1 for 30m 00s");
    assert_eq!(worker(&sandbox)["state"], "active");
    let quiet = sandbox.run(&["worker", "quiet", "w-1", "--for", "10m", "--reason", "INC-4711"]).exits(0);
    assert!(quiet.out.contains("1 of 1 living workers are"), "{}", quiet.out);
    let seen = worker(&sandbox);
    assert_eq!((&seen["state"], &seen["quiet"]["reason"]), (&"quiet".into(), &"INC-4711".into()), "{seen}");
    assert!(seen["quiet"]["until"].is_string() && seen["quiet"]["owner"].is_string(), "{seen}");
    sandbox.run(&["status"]).exits(0).tells("INC-4711");
    sandbox.run(&["worker", "resume", "w-1"]).exits(0).tells("worker w-1 may claim again");
    until(&sandbox, "active");
    sandbox.run(&["worker", "dump", "w-1"]).exits(0).says("0 jobs run now");
    sandbox.run(&["worker", "stop", "w-1", "--reason", "moving"]).exits(0).tells("has stopped");
    running.ended().exits(0);
}

fn slips_are_told_and_change_nothing(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let _running = sandbox.work(&["--name", "w-1"]);
    ready(&sandbox);
    sandbox.run(&["worker", "quiet", "w-2"]).exits(10).says("there is no worker `w-2`");
    sandbox.run(&["worker", "show", "W 2"]).exits(2).says("bad worker name");
    sandbox.run(&["worker", "quiet"]).exits(2).says("name one worker, or `--release R`, or `--all`");
    sandbox.run(&["worker", "quiet", "w-1", "--all"]).exits(2);
    sandbox.run(&["worker", "quiet", "w-1", "--for", "soon"]).exits(2).says("soon");
    assert_eq!(worker(&sandbox)["state"], "active");
}

on_both! {
    #[test] fn:
        a_worker_is_shown_quieted_resumed_dumped_and_stopped
        slips_are_told_and_change_nothing;
}
