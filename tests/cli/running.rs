//! Workers and servers as processes: signals, take-over, `dev`.

use std::process::Command;

use super::sandbox::{Running, Sandbox};
use crate::both::Engine;

fn enqueue(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut all = vec!["job", "enqueue", "-o", "name"];
    all.extend(args);
    sandbox.run(&all).exits(0).out.trim().to_owned()
}

pub(super) fn ready(sandbox: &Sandbox) {
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s"]).exits(0);
}

/// Waits until the job is in this state, as `job show` tells it.
fn until(sandbox: &Sandbox, id: &str, state: &str) -> serde_json::Value {
    for _ in 0..3_000 {
        let job = sandbox.run(&["job", "show", id, "--json"]).exits(0).json();
        if job["state"] == state {
            return job;
        }
    }
    panic!("{id} never became {state}");
}

fn a_worker_runs_jobs_and_sigterm_lets_them_finish(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = sandbox.work(&["--name", "w-1"]);
    ready(&sandbox);
    let id = enqueue(&sandbox, &["echo", r#"{"sleep":0.5}"#]);
    let job = until(&sandbox, &id, "running");
    assert_eq!(job["worker"], "w-1");
    worker.signal("TERM");
    let run = worker.ended().exits(0);
    assert!(run.err.contains("stopping") && run.err.contains("worker stopped"), "{run:?}");
    assert_eq!(until(&sandbox, &id, "completed")["failures"], 0);
    assert_eq!(sandbox.run(&["status", "--json"]).json()["workers"], serde_json::json!([]));
}

fn a_second_sigterm_gives_running_jobs_back_without_an_attempt(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = sandbox.work(&[]);
    let id = enqueue(&sandbox, &["echo", r#"{"sleep":600}"#]);
    until(&sandbox, &id, "running");
    worker.signal("TERM");
    worker.signal("INT");
    worker.ended().exits(0);
    let job = until(&sandbox, &id, "available");
    assert_eq!((&job["failures"], &job["crashes"]), (&serde_json::json!(0), &serde_json::json!(0)));
}

fn sigtstp_quiets_with_a_reason_and_sigcont_resumes(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = sandbox.work(&["--name", "w-1"]);
    ready(&sandbox);
    worker.signal("TSTP");
    let state = |sandbox: &Sandbox| sandbox.run(&["status", "--json"]).json()["workers"][0]["worker"].clone();
    let quiet = (0..3_000).map(|_| state(&sandbox)).find(|worker| worker["state"] == "quiet").expect("quiet");
    assert!(quiet["reason"].as_str().expect("a reason").contains("SIGTSTP"), "{quiet}");
    let id = enqueue(&sandbox, &["echo"]);
    sandbox.run(&["job", "wait", &id, "--timeout", "200ms"]).exits(124);
    worker.signal("CONT");
    sandbox.run(&["job", "wait", &id, "--timeout", "30s"]).exits(0);
}

fn sigttin_prints_what_runs(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = sandbox.work(&[]);
    let id = enqueue(&sandbox, &["echo", r#"{"sleep":600}"#]);
    until(&sandbox, &id, "running");
    worker.signal("TTIN");
    ready(&sandbox); // the signal is handled before or while this runs
    worker.signal("TERM");
    worker.signal("TERM");
    worker.ended().exits(0).says("1 jobs run now").says(&id);
}

fn the_same_name_again_takes_over_and_the_old_process_ends_with_conflict(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let old = sandbox.work(&["--name", "w-1"]);
    ready(&sandbox);
    let new = sandbox.work(&["--name", "w-1"]);
    old.ended().exits(9).says("took it over");
    ready(&sandbox);
    drop(new);
}

fn a_worker_of_another_release_stays_inactive_and_says_why(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let first = sandbox.work(&["--name", "w-1"]);
    ready(&sandbox);
    let _second = sandbox.work(&["--name", "w-2", "--release", "r-2"]);
    // It is inactive from its start on; the reason comes with the store's first answer.
    let find = || {
        let status = sandbox.run(&["status", "--json"]).json();
        let workers = status["workers"].as_array().expect("workers").clone();
        workers.into_iter().map(|seen| seen["worker"].clone()).find(|worker| {
            worker["worker"] == "w-2"
                && worker["state"] == "inactive"
                && worker["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains("release `default` is active"))
        })
    };
    (0..3_000).find_map(|_| find()).expect("inactive, with the reason");
    drop(first);
}

fn a_killed_worker_loses_nothing_and_the_next_of_its_name_goes_on_at_once(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = sandbox.work(&["--name", "w-1"]);
    let id = enqueue(&sandbox, &["echo", r#"{"sleep":1}"#]);
    until(&sandbox, &id, "running");
    worker.signal("KILL");
    assert_eq!(worker.ended().code, 137);
    let _next = sandbox.work(&["--name", "w-1"]);
    let job = until(&sandbox, &id, "completed");
    assert_eq!(
        (&job["failures"], &job["history"][0]["outcome"]),
        (&serde_json::json!(0), &serde_json::json!("crashed"))
    );
}

fn curl(args: &[&str]) -> (i32, String) {
    let output =
        Command::new("curl").args(["-s", "--max-time", "20"]).args(args).output().expect("curl runs");
    (output.status.code().expect("a code"), String::from_utf8(output.stdout).expect("text"))
}

fn started(sandbox: &Sandbox) -> (Running, String, String) {
    let mut dev = sandbox.dev();
    dev.line("✔ store");
    dev.line("✔ worker");
    dev.line("✔ canary");
    let api = dev.address("API");
    let health = dev.address("health");
    (dev, api, health)
}

fn dev_starts_everything_proves_it_and_refuses_a_second_one(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let (dev, api, health) = started(&sandbox);
    let body =
        r#"{"kind":"notify.webhook","args":{"url":"https://example.com/hook","type":"incident.created"}}"#;
    let (_, answer) =
        curl(&["-H", "content-type: application/json", "-d", body, &format!("http://{api}/v1/jobs")]);
    let id = serde_json::from_str::<serde_json::Value>(&answer).expect("JSON")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    sandbox.run(&["job", "wait", &id]).exits(0);
    assert!(curl(&[&format!("http://{api}/dev/inbox.json")]).1.contains(&id));
    assert_eq!(curl(&["-f", &format!("http://{health}/readyz")]).0, 0);
    assert_eq!(curl(&["-f", &format!("http://{health}/livez")]).0, 0);
    let metrics = curl(&[&format!("http://{health}/metrics")]).1;
    let told = |name: &str, labels: &str| {
        let series = format!("{name}{{tier=\"default\",{labels}}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no `{series}` in:\n{metrics}"))
    };
    let place = "queue=\"default\",kind=\"notify.webhook\",when=\"now\"";
    assert_eq!(told("sluicegate_jobs_enqueued_total", place), 1.0);
    assert!(told("sluicegate_store_operation_duration_seconds_count", "op=\"claim\"") > 0.0);
    sandbox.run(&["dev"]).exits(9).says("process ");
    dev.signal("INT");
    dev.ended().exits(0).says("the next start goes on");
}

fn what_waits_when_dev_stops_runs_when_it_starts_again(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let (dev, ..) = started(&sandbox);
    let long = enqueue(&sandbox, &["echo", r#"{"sleep":600}"#]);
    until(&sandbox, &long, "running");
    dev.signal("INT");
    dev.signal("INT");
    dev.ended().exits(0);
    let waiting = enqueue(&sandbox, &["echo"]);
    let (killed, ..) = started(&sandbox);
    sandbox.run(&["job", "wait", &waiting]).exits(0);
    until(&sandbox, &long, "running");
    killed.signal("KILL");
    killed.ended();
    let (_dev, ..) = started(&sandbox);
    until(&sandbox, &long, "running");
}

/// What a command says to do next works as it is printed, for whoever has no variable set.
fn hints_name_the_store_that_was_named(engine: Engine) {
    let (sandbox, elsewhere) = (Sandbox::on(engine), Sandbox::new());
    let url = sandbox.url();
    let run = elsewhere.run(&["job", "enqueue", "echo", "--store", &url]).exits(0);
    let next = run.err.trim().rsplit_once(" --store ").expect("a hint with the store").1.to_owned();
    let args: Vec<&str> = next.split_whitespace().collect();
    assert_eq!(args[..3], [url.as_str(), "job", "show"], "{run:?}");
    elsewhere.run(&["job", "show", args[3], "--store", args[0]]).exits(0);
    sandbox.run(&["job", "show", args[3]]).exits(0);
    elsewhere.run(&["job", "show", args[3]]).exits(13);
}

#[test]
fn a_port_in_use_names_the_flag() {
    let sandbox = Sandbox::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    sandbox.run(&["work", "--health-listen", &address]).exits(1).says("--health-listen");
    sandbox.run(&["dev", "--api-listen", &address]).exits(1).says("--api-listen");
}

fn an_app_of_its_own_has_the_same_commands_and_runs_its_own_kind(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let app = super::sandbox::binary().with_file_name("examples").join("app");
    assert!(app.exists(), "`cargo build --examples` builds {}", app.display());
    let help = sandbox.command(&app).arg("--help").output().expect("it runs");
    assert!(String::from_utf8_lossy(&help.stdout).contains("Usage: app"));
    let _worker = sandbox.start_with(&app, &["work", "--health-listen", "127.0.0.1:0"], &[]);
    let run = |args: &[&str]| sandbox.command(&app).args(args).output().expect("it runs");
    assert_eq!(run(&["job", "enqueue", "greet", r#"{"name":"Ada"}"#, "--wait"]).status.code(), Some(0));
    assert_eq!(run(&["job", "enqueue", "greet", r#"{"name":""}"#, "--wait"]).status.code(), Some(3));
    let id = enqueue(&sandbox, &["greet", r#"{"nom":"Ada"}"#]);
    assert_eq!(until(&sandbox, &id, "parked")["parked"], "undecodable");
    let client = app.with_file_name("enqueue");
    let out = sandbox.command(&client).arg(sandbox.url()).output().expect("it runs");
    let id = String::from_utf8_lossy(&out.stdout).split_whitespace().next().expect("an id").to_owned();
    until(&sandbox, &id, "completed");
}

on_both! {
    #[test] fn:
        a_worker_runs_jobs_and_sigterm_lets_them_finish
        a_second_sigterm_gives_running_jobs_back_without_an_attempt
        sigtstp_quiets_with_a_reason_and_sigcont_resumes
        sigttin_prints_what_runs
        the_same_name_again_takes_over_and_the_old_process_ends_with_conflict
        a_worker_of_another_release_stays_inactive_and_says_why
        hints_name_the_store_that_was_named
        a_killed_worker_loses_nothing_and_the_next_of_its_name_goes_on_at_once
        dev_starts_everything_proves_it_and_refuses_a_second_one
        what_waits_when_dev_stops_runs_when_it_starts_again
        an_app_of_its_own_has_the_same_commands_and_runs_its_own_kind;
}
