//! StatusPage, 11 July 2017: the program that activates the worker tier was broken by an upgrade. The workers came up, stayed
//! inactive and processed nothing; no health check accounted for it, and a person found out. Replayed with real processes: the
//! activation hook calls a program that is not there. Everything that anybody asks tells the same story, with the exit code that a
//! pipeline needs; once the program is installed, all of it turns green by itself.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::both::Engine;
use crate::cli::sandbox::{Running, Sandbox};

const WHY: &str = "register: not found";

fn curl(args: &[&str]) -> (i32, String) {
    let output =
        Command::new("curl").args(["-s", "--max-time", "60"]).args(args).output().expect("curl runs");
    (output.status.code().expect("a code"), String::from_utf8(output.stdout).expect("text"))
}

struct Outage {
    sandbox: Sandbox,
    _worker: Running,
    _api: Running,
    readyz: String,
    metrics: String,
    gate: String,
}

impl Outage {
    /// The release is activated by hand, over the warning that nobody of it is proven: that was the pipeline of 2017.
    fn begin(engine: Engine) -> Self {
        let sandbox = Sandbox::on(engine);
        let program = sandbox.path("register");
        let hook = [("SLUICEGATE__WORKER__ACTIVATION_HOOK", program.to_str().expect("UTF-8"))];
        let work = ["work", "--health-listen", "127.0.0.1:0", "--name", "w-1", "--release", "r-2031"];
        let worker = sandbox.start_with(&crate::cli::sandbox::binary(), &work, &hook);
        let seen = until(&sandbox, |worker| worker["fault"]["code"] == "ACTIVATION_HOOK_FAILED");
        let health = seen["health"].as_str().expect("an address").to_owned();
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let api = sandbox.start(&["serve", "--api-listen", &format!("127.0.0.1:{port}")]);
        sandbox
            .run(&["activate", "r-2031", "--no-wait"])
            .exits(3)
            .says("nothing was changed")
            .says("register: not found");
        sandbox
            .run(&["activate", "r-2031", "--no-wait", "--force", "--reason", "the deploy was validated"])
            .exits(0);
        Self {
            sandbox,
            _worker: worker,
            _api: api,
            readyz: format!("http://{health}/readyz"),
            metrics: format!("http://{health}/metrics"),
            gate: format!("http://127.0.0.1:{port}/v1/gate?release=r-2031"),
        }
    }

    fn fault(&self) -> String {
        let all = curl(&[&self.metrics]).1;
        let of = |line: &&str| {
            line.starts_with("sluicegate_worker_fault") && line.contains("ACTIVATION_HOOK_FAILED")
        };
        all.lines().find(of).and_then(|line| line.rsplit(' ').next()).expect("a value").to_owned()
    }
}

/// Looks at the only worker until it is so.
fn until(sandbox: &Sandbox, so: impl Fn(&Value) -> bool) -> Value {
    let look = |_| {
        let seen = sandbox.run(&["worker", "list", "--json"]);
        if seen.code == 0 { seen.json()[0].clone() } else { Value::Null }
    };
    (0..3_000).map(look).find(so).expect("it never came to that")
}

fn everybody_tells_the_same_story_and_all_turn_green_by_themselves(engine: Engine) {
    let outage = Outage::begin(engine);
    let sandbox = &outage.sandbox;
    let id = sandbox.run(&["job", "enqueue", "echo", "-o", "name"]).exits(0).out.trim().to_owned();

    let wait = sandbox.run(&["gate", "wait", "--release", "r-2031", "--timeout", "60s"]).exits(3);
    assert!(wait.out.contains(WHY), "{wait:?}");
    // A pipeline with nothing but curl: 412 is final, so it does not try again, and it prints the body.
    let (code, body) = curl(&["--fail-with-body", "--retry", "10", &outage.gate]);
    assert!(code == 22 && body.contains(WHY) && body.contains("\"verdict\":\"fail\""), "{code} {body}");
    let (code, body) = curl(&["--fail-with-body", "-H", "accept: application/health+json", &outage.readyz]);
    assert!(code == 22 && body.contains(WHY) && body.contains("ACTIVATION_HOOK_FAILED"), "{code} {body}");
    assert_eq!(outage.fault(), "1");
    let status = sandbox.run(&["status"]).exits(0);
    assert!(status.out.contains('✘') && status.out.contains(WHY), "{status:?}");
    let doctor = sandbox.run(&["doctor"]).exits(3);
    assert!(doctor.out.contains(WHY), "{doctor:?}");
    let livez = outage.readyz.replace("readyz", "livez");
    assert_eq!(curl(&["-f", &livez]).0, 0, "a restart would not help");
    assert_eq!(sandbox.run(&["job", "show", &id, "--json"]).exits(0).json()["state"], "available");

    install(&sandbox.path("register"));
    sandbox.run(&["job", "wait", &id, "--timeout", "60s"]).exits(0);
    let wait = sandbox.run(&["gate", "wait", "--release", "r-2031", "--timeout", "60s"]).exits(0);
    assert!(wait.out.contains("1/1 active on r-2031"), "{wait:?}");
    let (code, body) = curl(&["--fail-with-body", "--retry", "10", &outage.gate]);
    assert!(code == 0 && body.contains("\"verdict\":\"pass\""), "{code} {body}");
    assert_eq!(curl(&["-f", &outage.readyz]).0, 0);
    assert_eq!(outage.fault(), "0");
    let status = sandbox.run(&["status"]).exits(0);
    assert!(!status.out.contains('✘') && !status.out.contains(WHY), "{status:?}");
    sandbox.run(&["doctor"]).exits(0);
}

fn install(program: &Path) {
    let half = program.with_extension("half");
    fs::write(&half, "#!/bin/sh\nexit 0\n").expect("written");
    fs::set_permissions(&half, fs::Permissions::from_mode(0o755)).expect("executable");
    fs::rename(half, program).expect("there");
}

on_both! {
    #[test] fn:
        everybody_tells_the_same_story_and_all_turn_green_by_themselves;
}
