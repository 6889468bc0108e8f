//! `gate` as pipelines meet it: lines, exit codes, and what CI shows of a verdict.

use std::time::Duration;

use serde_json::json;
use sluicegate::activation::WorkerState as W;

use super::hands::{Hand, flip, store};
use super::sandbox::Sandbox;
use crate::both::Engine;
use crate::redis::proxy::Proxy;

const CHECK: [&str; 4] = ["gate", "check", "--release", "r1"];

async fn each_verdict_has_its_exit_code(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    if engine == Engine::Sqlite {
        sandbox.run(&CHECK).exits(13).says("does not exist yet");
    }
    let store = store(&sandbox).await;
    assert!(sandbox.run(&CHECK).exits(10).out.contains("unknown"));
    sandbox.run(&["gate", "check"]).exits(8); // unmanaged: `default` goes without saying

    let mut one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    let pending = sandbox.run(&CHECK).exits(8);
    assert!(pending.out.contains("1/1 inactive and proven on r1"), "{pending:?}");
    assert!(pending.err.contains("activate r1"), "the next command: {pending:?}");

    flip(&*store, None, "r1").await;
    one.becomes(W::Active).await;
    let pass = sandbox.run(&CHECK).exits(0);
    assert!(pass.out.contains("committed at generation 1 · 1/1 active on r1"), "{pass:?}");
    sandbox.run(&["gate", "check"]).exits(2).says("`--release` is needed").says("--release r1");
    let json =
        sandbox.run(&["gate", "check", "--release", "r1", "--queues", "mail", "--json"]).exits(0).json();
    assert_eq!(
        (&json["verdict"], &json["checks"]["queues:served"][0]["componentId"]),
        (&json!("pass"), &json!("queue/mail"))
    );
    sandbox.run(&["gate", "check", "--release", "r1", "--min-active", "2"]).exits(8);
    sandbox.run(&["gate", "check", "--release", "r1", "--min-active", "0"]).exits(2).says("80%");

    one.says.canary_error = Some("timed out".into());
    one.beat().await;
    let fail = sandbox.run(&CHECK).exits(3);
    assert!(
        fail.out.contains("✘ fail") && fail.out.contains("w-1: its canary failed: timed out"),
        "{fail:?}"
    );
    assert!(fail.err.contains("next: ") && fail.err.contains("doctor"), "{fail:?}");

    flip(&*store, Some(1), "r2").await;
    let superseded = sandbox.run(&CHECK).exits(9);
    assert!(superseded.out.contains("was replaced by `r2` at generation 2"), "{superseded:?}");
}

async fn a_wait_begun_before_the_workers_ends_with_a_pass(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    // Nothing is there yet: not even the file.
    let mut wait = sandbox.start(&["gate", "wait", "--release", "r1", "--timeout", "60s"]);
    wait.line(if engine == Engine::Sqlite { "does not exist yet" } else { "unknown" });
    let store = store(&sandbox).await;
    let mut one = Hand::join(&store, "w-1", "r1", W::Starting).await;
    wait.line("nothing is active in tier `default` yet · 0/1 inactive");
    one.becomes(W::Inactive).await;
    wait.line("1/1 inactive and proven on r1");
    flip(&*store, None, "r1").await;
    one.becomes(W::Active).await;
    let line = wait.line("pass");
    assert!(line.contains("committed at generation 1 · 1/1 active on r1"), "{line}");
    wait.ended().exits(0);
}

async fn a_hook_that_fails_ends_a_wait_and_so_does_another_activation(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let mut one = Hand::join(&store, "w-1", "r1", W::Starting).await;
    one.says.state_age = Duration::ZERO;
    one.beat().await;
    flip(&*store, None, "r1").await;
    let wait = || sandbox.start(&["gate", "wait", "--release", "r1", "--timeout", "60s"]);
    let (mut failed, mut replaced) = (wait(), wait());
    failed.line("0/1 active on r1, 1 starting");
    replaced.line("0/1 active on r1, 1 starting");
    one.hook_fails().await;
    failed.line("fail");
    let run = failed.ended().exits(3);
    assert!(run.out.contains("w-1: ACTIVATION_HOOK_FAILED: bin/register: exit 127"), "{run:?}");
    // The other one heard of it too; a wait that begins now hears of what comes next.
    replaced.ended().exits(3);
    one.says.fault = None;
    one.becomes(W::Starting).await;
    let mut replaced = wait();
    replaced.line("1 starting");
    flip(&*store, Some(1), "r2").await;
    replaced.line("superseded");
    replaced.ended().exits(9);
}

/// `activate r1` would have taken production back to what was just replaced.
async fn a_wait_for_what_was_replaced_before_says_so_and_advises_no_way_back(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let _one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    flip(&*store, None, "r1").await;
    flip(&*store, Some(1), "r2").await;
    let run = sandbox.run(&["gate", "wait", "--release", "r1", "--timeout", "200ms"]).exits(124);
    assert!(run.out.contains("replaced by `r2` at generation 2"), "{run:?}");
    assert!(!run.err.contains("activate"), "{run:?}");
}

async fn a_wait_ends_with_124_when_nothing_is_decided_and_with_3_when_it_is_bad(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let wait = ["gate", "wait", "--release", "r1", "--timeout", "200ms"];
    sandbox.run(&wait).exits(10); // still unknown
    let _one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    sandbox.run(&wait).exits(124).says("no verdict within");
    flip(&*store, None, "r1").await;
    let mut none = Hand::join(&store, "w-1", "r1", W::Quiet).await;
    none.says.quiet = None;
    let json = sandbox.run(&[&wait[..], &["--json"]].concat()).exits(3).json();
    assert_eq!((&json["verdict"], &json["terminal"]), (&json!("fail"), &json!(false)), "{json}");
    assert!(json["deadline"].is_string(), "{json}");
}

/// Nobody tells of a process that was stopped or killed: it says nothing for three beats.
async fn a_worker_that_falls_silent_is_red_within_ten_seconds_until_it_goes_on(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    flip(&*store, None, "r1").await;
    let one = Hand::join(&store, "w-1", "r1", W::Active).await;
    let said = std::time::Instant::now();
    sandbox.run(&CHECK).exits(0);
    let red = std::iter::repeat_with(|| sandbox.run(&CHECK)).find(|run| run.code != 0).unwrap().exits(3);
    let after = said.elapsed();
    assert!(red.out.contains("w-1: vanished while active and did not say goodbye"), "{red:?}");
    assert!(after > Duration::from_secs(8) && after < Duration::from_secs(11), "{after:?}");
    one.beat().await;
    sandbox.run(&CHECK).exits(0);
}

/// The same with real workers: a wait that began before them passes by what they prove, a stopped process is red in time,
/// and green again when it goes on.
fn real_workers_pass_and_a_stopped_one_is_red_until_it_goes_on(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    sandbox.run(&["job", "enqueue", "echo"]).exits(0); // makes the store
    let first = sandbox.work(&["--name", "w-1", "--release", "r1"]);
    let _second = sandbox.work(&["--name", "w-2", "--release", "r1"]);
    let wait = ["gate", "wait", "--release", "r1", "--expect", "2", "--timeout", "60s"];
    let mut waiting = sandbox.start(&wait);
    waiting.line("2/2 inactive and proven on r1");
    let run = sandbox.run(&["activate", "r1", "--timeout", "60s"]).exits(0);
    assert!(run.out.contains("is active on r1 after") && !run.err.contains("warning"), "{run:?}");
    waiting.line("committed at generation 1 · 2/2 active on r1");
    waiting.ended().exits(0);
    first.signal("STOP");
    let stopped = std::time::Instant::now();
    let red = std::iter::repeat_with(|| sandbox.run(&CHECK)).find(|run| run.code != 0).unwrap().exits(3);
    let after = stopped.elapsed();
    assert!(red.out.contains("w-1: vanished while active"), "{red:?}");
    assert!(after < Duration::from_secs(10), "{after:?}");
    first.signal("CONT");
    // It says nothing of the time in which it stood still: from silence it goes to green, with no other colour between.
    let next = || sandbox.run(&CHECK);
    let other = std::iter::repeat_with(next).find(|run| !run.out.contains("vanished while active")).unwrap();
    other.exits(0);
    sandbox.run(&wait).exits(0);
}

/// Each answer of the store is lost once, from the first greeting on: a wait goes on.
#[tokio::test]
async fn a_wait_outlasts_every_lost_answer() {
    let sandbox = Sandbox::on(Engine::Redis);
    let (store, proxy) = (store(&sandbox).await, Proxy::before(sandbox.server.as_ref().unwrap()));
    let one = Hand::join(&store, "w-1", "r1", W::Active).await;
    flip(&*store, None, "r1").await;
    for nth in 1.. {
        one.beat().await;
        let before = proxy.counts().dropped;
        proxy.drop_replies(nth);
        let args = ["gate", "wait", "--release", "r1", "--timeout", "60s", "--store", &proxy.url()];
        let wait = sandbox.start(&args);
        let mut ended = tokio::task::spawn_blocking(|| wait.ended());
        let run = tokio::select! {
            _ = proxy.until(|now| now.dropped > before) => None,
            run = &mut ended => Some(run.unwrap()),
        };
        proxy.heal();
        let Some(run) = run else {
            ended.await.unwrap().exits(0);
            continue;
        };
        run.exits(0); // it needs fewer answers than that
        assert!(nth > 8, "a wait of {nth} answers");
        return;
    }
}

async fn what_ci_shows(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let mut one = Hand::join(&store, "w-1", "r1", W::Active).await;
    flip(&*store, None, "r1").await;
    let (summary, junit) = (sandbox.path("summary.md"), sandbox.path("gate.xml"));
    let env = [("GITHUB_ACTIONS", "true"), ("GITHUB_STEP_SUMMARY", summary.to_str().unwrap())];
    std::fs::write(&summary, "before\n").unwrap();
    let pass = sandbox.run_with(&CHECK, &env, "").exits(0);
    assert!(!pass.err.contains("::error"), "{pass:?}");

    one.says.canary_error = Some("<b>100%</b>\n::error::|x".into());
    one.beat().await;
    let args = [&CHECK[..], &["--junit", junit.to_str().unwrap()]].concat();
    let fail = sandbox.run_with(&args, &env, "").exits(3);
    let annotated =
        fail.err.lines().find(|line| line.starts_with("::error title=gate fail for r1::")).unwrap();
    assert!(annotated.contains("100%25"), "{annotated}");
    assert_eq!(fail.err.lines().filter(|line| line.starts_with("::")).count(), 1, "{fail:?}");
    let text = std::fs::read_to_string(&summary).unwrap();
    assert!(
        text.starts_with("before\n### ✅ gate pass") && text.contains("### ❌ gate fail: release `r1`"),
        "{text}"
    );
    assert!(text.contains("&lt;b>100%&lt;/b>") && text.contains("\\|x"), "{text}");
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("<failure type=\"fail\" message=\"w-1: its canary failed: &lt;b&gt;100%"), "{xml}");

    std::fs::remove_file(&summary).unwrap();
    let off = sandbox.run_with(&[&CHECK[..], &["--ci", "off"]].concat(), &env, "").exits(3);
    assert!(!summary.exists() && !off.err.contains("::error"), "{off:?}");
}

async fn an_explanation_lists_members_thresholds_and_values(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let _one = Hand::join(&store, "w-1", "r1", W::Active).await;
    let _other = Hand::join(&store, "o-1", "r0", W::Inactive).await;
    flip(&*store, None, "r1").await;
    let text = sandbox.run(&["gate", "explain"]).exits(0).out;
    for word in
        ["at least 100% of its workers", "[+]", "tier:active", "w-1", "canary", "35.0 s", "verdict pass"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let json = sandbox.run(&["gate", "explain", "default", "--release", "r1", "--json"]).exits(0).json();
    assert_eq!(json["members"].as_array().unwrap().len(), 1);
    assert_eq!((&json["thresholds"]["canary"], &json["verdict"]["verdict"]), (&json!(35.0), &json!("pass")));
    sandbox.run(&["gate", "explain", "other"]).exits(10);
}

on_both! {
    #[tokio::test] async:
        each_verdict_has_its_exit_code
        a_wait_begun_before_the_workers_ends_with_a_pass
        a_hook_that_fails_ends_a_wait_and_so_does_another_activation
        a_wait_for_what_was_replaced_before_says_so_and_advises_no_way_back
        a_wait_ends_with_124_when_nothing_is_decided_and_with_3_when_it_is_bad
        a_worker_that_falls_silent_is_red_within_ten_seconds_until_it_goes_on
        what_ci_shows
        an_explanation_lists_members_thresholds_and_values;
    #[test] fn:
        real_workers_pass_and_a_stopped_one_is_red_until_it_goes_on;
}
