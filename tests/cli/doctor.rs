//! `doctor`: why is nothing running, and watching one's own pipeline go red.

use std::time::Duration;

use serde_json::json;
use sluicegate::activation::WorkerState as W;
use sluicegate::names::{Queue, Tier};
use sluicegate::store::{Actor, Fault, FaultCode, Pause};

use super::hands::{Hand, flip, store};
use super::sandbox::Sandbox;
use crate::both::Engine;

async fn what_blocks_comes_first_with_the_command_that_helps(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    if engine == Engine::Sqlite {
        let none = sandbox.run(&["doctor"]).exits(13);
        assert!(none.out.contains("does not exist yet"), "{none:?}");
        assert!(!sandbox.path("data").exists(), "a doctor creates nothing");
    }
    let store = store(&sandbox).await;
    sandbox.run(&["job", "enqueue", "echo"]).exits(0);
    let ill = sandbox.run(&["doctor"]).exits(3);
    assert!(ill.out.starts_with("✘ tier default: nothing is active in tier `default`"), "{ill:?}");
    assert!(ill.err.contains("next: ") && ill.err.trim().ends_with(" work"), "{ill:?}");

    let mut one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    let ill = sandbox.run(&["doctor", "--json"]).exits(3).json();
    assert_eq!((&ill["healthy"], &ill["blocking"]["check"]), (&json!(false), &json!("activation")));
    assert_eq!(ill["blocking"]["fix"], "sluicegate activate r1");

    flip(&*store, None, "r1").await;
    one.hook_fails().await;
    let ill = sandbox.run(&["doctor"]).exits(3);
    assert!(ill.out.contains("[-] hooks:integrity") && ill.out.contains("bin/register: exit 127"), "{ill:?}");

    one.says.fault = None;
    one.says.kinds = vec![("echo".parse().unwrap(), 1)];
    one.becomes(W::Active).await;
    let well = sandbox.run(&["doctor"]).exits(0);
    assert!(well.out.starts_with("✔ tier default: nothing blocks it"), "{well:?}");
    assert!(well.out.contains("[+] clocks") && well.out.contains("[+] configuration"), "{well:?}");
    one.says.clock = one.says.clock.plus(Duration::from_secs(600));
    one.beat().await;
    assert!(sandbox.run(&["doctor"]).exits(0).out.contains("[!] clocks"));
}

/// Nothing is active yet, and the only worker cannot become so: another one beside it would be no help.
async fn a_worker_that_does_not_get_ready_is_red_before_anything_is_active(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let mut one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    sandbox.run(&["doctor"]).exits(0);
    for code in [FaultCode::ActivationHookFailed, FaultCode::SelfTestFailed] {
        one.says.fault = Some(Fault { code, detail: "exit 127".into(), at: sluicegate::clock::wall() });
        one.becomes(W::Starting).await;
        let cause = format!("✘ tier default: w-1: {}: exit 127", code.as_str());
        let ill = sandbox.run(&["doctor"]).exits(3).tells(&cause);
        assert!(ill.err.trim().ends_with(" worker show w-1"), "{ill:?}");
        assert!(!ill.out.contains(" work\n"), "no worker beside it: {ill:?}");
    }
}

async fn an_active_release_without_a_living_worker_is_red_before_a_job_waits(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    flip(&*store, None, "r1").await;
    let ill = sandbox.run(&["doctor"]).exits(3).tells("no worker of the active release `r1` lives");
    assert!(ill.err.trim().ends_with(" work --release r1"), "{ill:?}");
    sandbox.run(&["gate", "check", "--release", "r1"]).exits(8);
}

#[test]
fn a_store_that_cannot_be_asked_is_unreachable_and_not_ill() {
    let sandbox = Sandbox::new();
    for command in [&["doctor"][..], &["status"], &["gate", "check"]] {
        sandbox.run(&[&["--store", "redis://127.0.0.1:1/0"], command].concat()).exits(13);
    }
}

/// The reason was that of any worker: of a healthy standby, or of one that is quiet elsewhere.
async fn a_headline_tells_of_workers_of_the_active_release_only(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    flip(&*store, None, "r1").await;
    let mut standby = Hand::join(&store, "w-0", "r2", W::Inactive).await;
    standby.says.reason = Some("release `r1` is active".into());
    standby.beat().await;
    let none = "✘ tier default   no active worker, 0 jobs wait: no worker of the active release `r1` lives";
    sandbox.run(&["status"]).exits(0).tells(none).says("work --release r1");
    let mut one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    one.hook_fails().await;
    let cause = "0 jobs wait: w-1 is inactive, ACTIVATION_HOOK_FAILED: bin/register: exit 127";
    sandbox.run(&["status"]).exits(0).tells(cause);
}

/// A newcomer's terminal showed `\x1b[31m✘`: the mark went through the escaper with what came from the store.
async fn marks_keep_their_colour_and_what_a_store_says_does_not(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let mut one = Hand::join(&store, "w-1", "r1", W::Active).await;
    let _two = Hand::join(&store, "w-2", "r2", W::Active).await;
    let commands: [(&[&str], i32); 6] = [
        (&["activate", "r1"], 0),
        (&["status"], 0),
        (&["doctor"], 3),
        (&["gate", "check", "--release", "r1"], 3),
        (&["gate", "check", "--release", "r1", "--all-tiers"], 3),
        (&["rollback", "--to", "r2"], 0),
    ];
    for (command, code) in commands {
        let run = sandbox.run(&[command, &["--color", "always"]].concat()).exits(code);
        assert!(run.out.contains("\x1b[3") && run.out.contains("m✔\x1b[0m") || code != 0, "{run:?}");
        assert!(code == 0 || run.out.contains("\x1b[31m✘\x1b[0m"), "{run:?}");
        assert!(!run.out.contains("\\x1b[3"), "the mark was escaped: {run:?}");
        if command.first() == Some(&"status") {
            one.says.canary_error = Some("\u{1b}[2J wiped".into());
            one.beat().await;
        }
        assert!(!run.out.contains("\x1b[2J"), "what a worker says was not escaped: {run:?}");
    }
}

async fn a_paused_queue_is_told_with_who_why_and_until_when(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let (store, tier) = (store(&sandbox).await, Tier::default());
    let mut one = Hand::join(&store, "w-1", "r1", W::Active).await;
    one.says.kinds = vec![("echo".parse().unwrap(), 1)];
    one.beat().await;
    flip(&*store, None, "r1").await;
    sandbox.run(&["job", "enqueue", "echo"]).exits(0);
    let by = Actor { who: "ada@here".into(), reason: Some("INC-4711".into()) };
    let until = |for_| Some(Pause { for_ });
    store.pause(&tier, &Queue::default(), until(None), &by).await.unwrap();
    let ill = sandbox.run(&["doctor"]).exits(3);
    let told =
        "queue `default` is paused by ada@here (INC-4711), until somebody resumes it; 1 jobs wait in it";
    assert!(ill.out.contains(told), "{ill:?}");
    store.pause(&tier, &Queue::default(), until(Some(Duration::from_secs(600))), &by).await.unwrap();
    let well = sandbox.run(&["doctor"]).exits(0);
    assert!(well.out.contains("[!] pauses") && well.out.contains("until 20"), "an end is in sight: {well:?}");
}

async fn a_simulated_illness_turns_the_gate_red_and_leaves_nothing_behind(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    sandbox.run(&["doctor", "--simulate", "stuck"]).exits(10).says("nothing is active");
    let one = Hand::join(&store, "w-1", "r1", W::Active).await;
    flip(&*store, None, "r1").await;
    let gate = ["gate", "check", "--release", "r1", "--min-active", "1"];
    for illness in ["inactive", "stuck", "no-claims"] {
        one.beat().await;
        sandbox.run(&gate).exits(0);
        let mut simulation = sandbox.start(&["doctor", "--simulate", illness, "--for", "10m"]);
        simulation.line(&format!("simulated-{illness} pretends to be a worker of r1"));
        one.beat().await;
        let status = sandbox.run(&["status"]).exits(0).tells("✘ tier default   ").tells("gate       fail: ");
        assert!(status.out.matches(&format!("simulated-{illness}")).count() > 2, "one story: {status:?}");
        let red = sandbox.run(&gate).exits(3);
        assert!(red.out.contains(&format!("simulated-{illness}")), "{red:?}");
        simulation.signal("INT");
        simulation.ended().exits(130);
        assert_eq!(store.workers(&Tier::default()).await.unwrap().len(), 1);
    }
    one.beat().await;
    sandbox.run(&gate).exits(0);
    let run = sandbox.run(&["doctor", "--simulate", "inactive", "--for", "100ms"]).exits(0);
    assert!(run.out.contains("simulated-inactive is gone"), "{run:?}");
    // Another one of the same takes it over.
    let mut first = sandbox.start(&["doctor", "--simulate", "inactive", "--for", "10m"]);
    first.line("pretends");
    let mut second = sandbox.start(&["doctor", "--simulate", "inactive", "--for", "10m"]);
    second.line("pretends");
    first.ended().exits(9);
    second.signal("TERM");
    second.ended().exits(143);
}

on_both! {
    #[tokio::test] async:
        what_blocks_comes_first_with_the_command_that_helps
        a_worker_that_does_not_get_ready_is_red_before_anything_is_active
        an_active_release_without_a_living_worker_is_red_before_a_job_waits
        a_headline_tells_of_workers_of_the_active_release_only
        marks_keep_their_colour_and_what_a_store_says_does_not
        a_paused_queue_is_told_with_who_why_and_until_when
        a_simulated_illness_turns_the_gate_red_and_leaves_nothing_behind;
}
