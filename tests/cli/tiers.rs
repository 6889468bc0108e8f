//! All tiers at once: one dead tier beside a healthy one is red, wherever it is asked.

use std::sync::Arc;

use serde_json::json;
use sluicegate::activation::WorkerState as W;
use sluicegate::names::Tier;
use sluicegate::store::Store;

use super::hands::{Hand, flip_in, store};
use super::sandbox::Sandbox;
use crate::both::Engine;

const CHECK: [&str; 5] = ["gate", "check", "--all-tiers", "--release", "r1"];
const WAIT: [&str; 7] = ["gate", "wait", "--all-tiers", "--release", "r1", "--timeout", "60s"];

fn tier(name: &str) -> Tier {
    Tier::new(name).unwrap()
}

/// A tier where the release is active and one worker of it does its work.
async fn healthy(store: &Arc<dyn Store>, name: &str, of: &str) -> Hand {
    let tier = tier(name);
    flip_in(&**store, &tier, None, of).await;
    Hand::join_in(store, &tier, &format!("{name}-1"), of, W::Active).await
}

async fn one_dead_tier_beside_a_healthy_one_is_red(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let none = sandbox.run(&CHECK).exits(8).tells("the store knows no tier yet");
    assert!(none.out.starts_with("✘ pending"), "no evidence is no pass: {none:?}");

    let web = healthy(&store, "web", "r1").await;
    sandbox.run(&CHECK).exits(0).tells("✔ pass  release r1, all tiers: 1 tier pass: web");
    let mut mail = healthy(&store, "mail", "r1").await;
    sandbox.run(&CHECK).exits(0).tells("2 tiers pass: mail, web");

    mail.hook_fails().await;
    web.beat().await;
    // Whichever tier is the usual one.
    for usual in ["web", "mail", "nowhere"] {
        let red = sandbox.run(&[&["--tier", usual][..], &CHECK].concat()).exits(3);
        for words in [
            "✘ fail  release r1, all tiers: 1 of 2: mail\n",
            "✘ fail        mail ",
            "    [-] hooks:integrity        mail-1: ACTIVATION_HOOK_FAILED: bin/register: exit 127",
            "✔ pass        web ",
        ] {
            assert!(red.out.contains(words), "{words}: {red:?}");
        }
        assert!(red.err.contains(" --tier mail ") && !red.err.contains("--tier nowhere"), "{red:?}");
    }
    let json = sandbox.run(&[&CHECK[..], &["--json"]].concat()).exits(3).json();
    assert_eq!(
        (
            &json["verdict"],
            &json["releaseId"],
            &json["tiers"]["web"]["verdict"],
            &json["tiers"]["mail"]["verdict"]
        ),
        (&json!("fail"), &json!("r1"), &json!("pass"), &json!("fail")),
    );
    assert_eq!(json["tiers"]["mail"]["checks"]["hooks:integrity"][0]["componentId"], "worker/mail-1");
    assert_eq!(sandbox.run(&[&CHECK[..], &["-o", "name"]].concat()).exits(3).out, "fail\n");
    let left_out = sandbox.run(&[&CHECK[..], &["--exclude", "mail,nowhere"]].concat()).exits(0);
    assert!(left_out.out.contains("- left out    mail"), "{left_out:?}");
    let nothing = sandbox.run(&[&CHECK[..], &["--exclude", "mail,web"]].concat()).exits(8);
    assert!(nothing.out.contains("every tier is left out: mail, web"), "{nothing:?}");
    sandbox.run(&[&CHECK[..], &["--exclude", "UPPER"]].concat()).exits(2).says("bad tier name");
    sandbox.run(&["gate", "check", "--release", "r1", "--exclude", "mail"]).exits(2).says("--all-tiers");
}

/// An app's release spans its tiers.
async fn a_tier_with_another_release_is_red_until_it_is_left_out(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let (_web, mut mail) = (healthy(&store, "web", "r1").await, healthy(&store, "mail", "r0").await);
    let unknown = sandbox.run(&CHECK).exits(10).says("left out by name: `--exclude mail`");
    assert!(
        unknown.out.contains("✘ unknown     mail             release `r1` is unknown in tier `mail`"),
        "{unknown:?}"
    );
    sandbox.run(&[&CHECK[..], &["--exclude", "mail"]].concat()).exits(0);
    let by = |args: &[&str]| sandbox.run(&[&["gate", "check", "--all-tiers"], args].concat()).exits(2);
    let refused =
        by(&[]).says("`--release` is needed: tiers are managed, active is `r0` in `mail`, `r1` in `web`");
    assert_eq!(refused.out, "");
    // Its worker stands by: that is to come, and no reason to go red.
    let standby = Hand::join_in(&store, &tier("mail"), "mail-2", "r1", W::Inactive).await;
    sandbox
        .run(&CHECK)
        .exits(8)
        .tells("✘ pending     mail             release `r0` is active (generation 1)");
    flip_in(&*store, &tier("mail"), Some(1), "r1").await;
    flip_in(&*store, &tier("mail"), Some(2), "r0").await;
    mail.becomes(W::Active).await;
    standby.beat().await;
    sandbox.run(&CHECK).exits(9).tells("✘ superseded  mail             release `r1` was replaced by `r0`");
}

/// What was never active, and where nobody is and nothing waits, is no tier that could be dead.
async fn a_tier_of_which_only_a_name_is_left_does_not_count(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let job = sandbox.run(&["--tier", "typo", "job", "enqueue", "echo", "-o", "name"]).exits(0).out;
    let web = healthy(&store, "web", "r1").await;
    sandbox.run(&CHECK).exits(10).tells("✘ unknown     typo");
    sandbox.run(&["--tier", "typo", "job", "cancel", job.trim()]).exits(0);
    web.beat().await;
    let pass = sandbox.run(&CHECK).exits(0).tells("1 tier pass: web").tells("- idle        typo");
    assert!(!pass.out.contains("unknown"), "{pass:?}");
    let json = sandbox.run(&[&CHECK[..], &["--json"]].concat()).exits(0).json();
    assert_eq!((&json["idle"], &json["tiers"]["typo"]), (&json!(["typo"]), &json!(null)));
    // Once active, a tier of which nobody lives is the outage that nobody noticed.
    flip_in(&*store, &tier("typo"), None, "r1").await;
    let dead = sandbox.run(&CHECK);
    assert!(dead.code == 3 || dead.code == 8, "{dead:?}");
    assert!(dead.out.contains("1 of 2: typo") && dead.out.contains("0/1 active on r1"), "{dead:?}");
}

async fn tiers_that_are_unmanaged_need_no_release(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let _hands = (healthy(&store, "web", "default").await, healthy(&store, "mail", "default").await);
    let json = sandbox.run(&["gate", "check", "--all-tiers", "--json"]).exits(0).json();
    assert_eq!((&json["tiers"]["mail"]["releaseId"], &json["releaseId"]), (&json!("default"), &json!(null)));
}

async fn a_wait_over_all_tiers_ends_when_the_last_one_passes_or_one_is_lost(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let mut wait = sandbox.start(&WAIT);
    wait.line("pending     the store knows no tier yet");
    let mail = tier("mail");
    let mut late = Hand::join_in(&store, &mail, "mail-1", "r1", W::Starting).await;
    wait.line("1 of 1 tier: tier mail pending");
    let web = healthy(&store, "web", "r1").await;
    wait.line("1 of 2 tiers: tier mail pending");
    flip_in(&*store, &mail, None, "r1").await;
    late.becomes(W::Active).await;
    web.beat().await;
    wait.line("pass        2 tiers pass: mail, web");
    wait.ended().exits(0);

    late.becomes(W::Starting).await;
    web.beat().await;
    let mut lost = sandbox.start(&WAIT);
    lost.line("tier mail pending");
    flip_in(&*store, &mail, Some(1), "r2").await;
    lost.line("superseded  1 of 2 tiers: tier mail superseded");
    lost.ended().exits(9);
    // What was replaced before it began is no news: the release may be activated again.
    late.becomes(W::Inactive).await;
    web.beat().await;
    let short = [&WAIT[..6], &["200ms"]].concat();
    sandbox.run(&short).exits(124).says("no verdict within");
}

async fn what_ci_shows_of_all_tiers(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let (summary, junit) = (sandbox.path("summary.md"), sandbox.path("gate.xml"));
    let env = [("GITHUB_ACTIONS", "true"), ("GITHUB_STEP_SUMMARY", summary.to_str().unwrap())];
    let args = [&CHECK[..], &["--junit", junit.to_str().unwrap()]].concat();
    let none = sandbox.run_with(&args, &env, "").exits(8);
    assert!(
        none.err.contains("::warning title=gate pending for all tiers::the store knows no tier yet"),
        "{none:?}"
    );
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("<testsuite name=\"gate over all tiers\" tests=\"1\" failures=\"1\""), "{xml}");

    let (_web, mut mail) = (healthy(&store, "web", "r1").await, healthy(&store, "mail", "r1").await);
    mail.hook_fails().await;
    let red = sandbox.run_with(&args, &env, "").exits(3);
    assert!(red.err.contains("::error title=gate fail for r1 in tier mail::"), "{red:?}");
    assert_eq!(red.err.lines().filter(|line| line.starts_with("::")).count(), 1, "{red:?}");
    let text = std::fs::read_to_string(&summary).unwrap();
    for words in [
        "## ❌ gate fail: all tiers",
        "### ✅ gate pass: release `r1`, tier `web`",
        "### ❌ gate fail: release `r1`, tier `mail`",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(
        xml.contains("<testsuites>")
            && xml.contains("gate r1 in tier mail")
            && xml.contains("gate r1 in tier web"),
        "{xml}"
    );
}

async fn a_look_at_one_tier_tells_of_the_others_and_a_look_at_all_has_a_section_each(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let (_web, mut mail) = (healthy(&store, "web", "r1").await, healthy(&store, "mail", "r1").await);
    mail.hook_fails().await;
    let run = |args: &[&str], code| sandbox.run(args).exits(code);
    run(&["--tier", "web", "status"], 0).tells("1 other tier: mail: --all-tiers");
    run(&["--tier", "web", "doctor"], 0).tells("1 other tier: mail: --all-tiers");
    run(&["status"], 0).tells("2 other tiers: mail, web: --all-tiers");
    assert_eq!(run(&["--tier", "web", "status", "--json"], 0).json()["other_tiers"], json!(["mail"]));
    assert_eq!(run(&["--tier", "web", "doctor", "--json"], 0).json()["other_tiers"], json!(["mail"]));

    let status =
        run(&["status", "--all-tiers"], 0).tells("✔ tier web   ok").tells("✘ tier mail   no active worker");
    assert!(!status.out.contains("other tier"), "{status:?}");
    assert!(status.err.contains("--tier mail doctor"), "{status:?}");
    let json = run(&["status", "--all-tiers", "--json"], 0).json();
    assert_eq!(
        (&json["tiers"]["web"]["trouble"], &json["tiers"]["mail"]["verdict"]),
        (&json!(null), &json!("fail"))
    );
    let ill = run(&["--tier", "web", "doctor", "--all-tiers"], 3).tells("✔ tier web: nothing blocks it");
    assert!(ill.out.contains("✘ tier mail: ") && ill.out.contains("bin/register: exit 127"), "{ill:?}");
    assert_eq!(ill.out.matches("configuration").count(), 1, "{ill:?}");
    let json = run(&["doctor", "--all-tiers", "--json"], 3).json();
    assert_eq!(
        (&json["healthy"], &json["tiers"]["web"]["healthy"], &json["tiers"]["mail"]["healthy"]),
        (&json!(false), &json!(true), &json!(false))
    );
    let explained = run(&["gate", "explain", "--all-tiers"], 0);
    assert!(
        explained.out.contains("tier mail, at least") && explained.out.contains("tier web, at least"),
        "{explained:?}"
    );
    let json = run(&["gate", "explain", "--all-tiers", "--exclude", "web", "--json"], 0).json();
    assert_eq!(
        (&json["tiers"]["mail"]["verdict"]["verdict"], &json["tiers"]["web"]),
        (&json!("fail"), &json!(null))
    );
    mail.says.fault = None;
    mail.becomes(W::Active).await;
    run(&["doctor", "--all-tiers"], 0);
}

on_both! {
    #[tokio::test] async:
        one_dead_tier_beside_a_healthy_one_is_red
        a_tier_with_another_release_is_red_until_it_is_left_out
        a_tier_of_which_only_a_name_is_left_does_not_count
        tiers_that_are_unmanaged_need_no_release
        a_wait_over_all_tiers_ends_when_the_last_one_passes_or_one_is_lost
        what_ci_shows_of_all_tiers
        a_look_at_one_tier_tells_of_the_others_and_a_look_at_all_has_a_section_each;
}
