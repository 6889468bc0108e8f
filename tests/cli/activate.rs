//! `activate` and `events`: a tier is switched by hand.

use std::sync::Arc;

use serde_json::json;
use sluicegate::activation::WorkerState as W;
use sluicegate::health::tier::ledger_tail;
use sluicegate::names::Tier;
use sluicegate::store::Actor;

use super::hands::{Hand, flip, store};
use super::sandbox::Sandbox;
use crate::both::Engine;

async fn it_waits_until_a_worker_is_active_and_says_how_long_that_took(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let mut one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    let mut activate = sandbox.start(&["activate", "r1", "--reason", "first release"]);
    activate.line("tier default: nothing → r1, generation 1, committed");
    one.becomes(W::Active).await;
    let line = activate.line("✔ w-1 is active on r1 after");
    assert!(line.contains("s"), "{line}");
    activate.ended().exits(0).says("gate check --release r1");
    // A worker that became active under an earlier activation is none of this one.
    one.says.generation = 1;
    one.beat().await;
    let _other = Hand::join(&store, "w-2", "r2", W::Inactive).await;
    let none = sandbox.run(&["activate", "r2", "--timeout", "200ms"]).exits(124);
    assert!(
        none.err.contains("no worker of it has taken over within 200 ms")
            && none.err.contains("activate r1`"),
        "{none:?}"
    );
    let back = sandbox.run(&["activate", "r1", "--timeout", "200ms"]).exits(124);
    assert!(back.out.contains("r2 → r1, generation 3"), "{back:?}");
    one.says.generation = 3;
    one.beat().await;
    let same = sandbox.run(&["activate", "r1"]).exits(0).says("warning: release `r1` is active already");
    assert!(same.out.contains("unchanged"), "{same:?}");
    assert_eq!(store.activation(&Tier::default()).await.unwrap().unwrap().generation, 3);
}

async fn what_nobody_proved_is_refused_and_nothing_is_changed(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let refused = sandbox.run(&["activate", "r1"]).exits(3);
    assert!(
        refused.err.contains("nothing was changed: no living, proven worker of release `r1`"),
        "{refused:?}"
    );
    assert!(
        refused.err.contains("none was ever seen") && refused.err.contains("work --release r1"),
        "{refused:?}"
    );
    let mut one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    one.hook_fails().await;
    sandbox.run(&["activate", "r1"]).exits(3).says("w-1 is ACTIVATION_HOOK_FAILED: bin/register: exit 127");
    (one.says.fault, one.says.canary_age) = (None, None);
    one.beat().await;
    sandbox.run(&["activate", "r1"]).exits(3).says("no canary of it has returned yet");
    assert_eq!(store.activation(&Tier::default()).await.unwrap(), None);
    sandbox
        .run(&["activate", "r1", "--force", "--no-wait"])
        .exits(0)
        .says("warning: no living, proven worker");
    assert_eq!(store.activation(&Tier::default()).await.unwrap().unwrap().release.as_str(), "r1");
    sandbox.run(&["activate", "UPPER"]).exits(2).says("bad release name");
    sandbox.run(&["activate", "r1", "--provisional", "0"]).exits(2).says("at least 1s");
}

async fn a_script_names_the_generation_it_expects(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let _one = Hand::join(&store, "w-1", "r1", W::Active).await;
    let first = ["activate", "r1", "--expect-generation", "0", "--json"];
    let dry = sandbox.run(&[&first[..], &["--dry-run"]].concat()).exits(0).json();
    assert_eq!(store.activation(&Tier::default()).await.unwrap(), None, "a dry run touches nothing");
    let done = sandbox.run(&first).exits(0).json();
    assert_eq!((&dry["dry_run"], &done["dry_run"]), (&json!(true), &json!(false)));
    assert_eq!(done["active"]["worker"], "w-1", "{done}");
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&dry), keys(&done));
    assert_eq!((&dry["to"]["generation"], &dry["action"]), (&json!(1), &json!("activate")));
    flip(&*store, Some(1), "r2").await;
    let raced = sandbox.run(&first).exits(9);
    assert!(
        raced.err.contains(
            "generation 0 was expected, release `r2` is committed at generation 2, by ada@here (a test)"
        ),
        "{raced:?}"
    );
}

async fn a_provisional_one_shows_how_it_stands_and_is_committed_at_its_generation(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    flip(&*store, None, "r1").await;
    let _one = Hand::join(&store, "w-1", "r1", W::Inactive).await;
    let _two = Hand::join(&store, "w-2", "r2", W::Active).await;
    sandbox
        .run(&["activate", "r2", "--confirm"])
        .exits(9)
        .says("nothing to confirm: release `r1` is committed");
    let run = sandbox.run(&["activate", "r2", "--provisional", "5m", "--reason", "try it"]).exits(0);
    assert!(
        run.out.contains("r1 → r2, generation 2, provisional: reverts to r1 at ")
            && run.err.contains("activate r2 --confirm"),
        "{run:?}"
    );
    assert!(!run.err.contains("warning"), "its way back is warm: {run:?}");
    let status = sandbox.run(&["status"]).exits(0).out;
    assert!(
        status.contains("generation 2, provisional, reverts to r1 in ")
            && status.contains("unless it is committed"),
        "{status}"
    );
    sandbox.run(&["status"]).exits(0).tells("✔ tier default   ok, provisional").says("activate r2 --confirm");
    assert_eq!(sandbox.run(&["status", "--json"]).json()["activation"]["fallback"], "r1");
    sandbox.run(&["gate", "check", "--release", "r2"]).exits(8);
    sandbox.run(&["gate", "check", "--release", "r2", "--allow-provisional"]).exits(0);
    sandbox.run(&["activate", "r2"]).exits(9).says("activate r2 --confirm");
    let run = sandbox.run(&["activate", "r2", "--confirm", "--reason", "it is good"]).exits(0);
    assert!(run.out.contains("r2 committed at generation 2"), "{run:?}");
    sandbox.run(&["gate", "check", "--release", "r2"]).exits(0);
    assert!(sandbox.run(&["status"]).exits(0).out.contains("generation 2, committed, since"));
    sandbox.run(&["activate", "r2", "--confirm"]).exits(0).says("is active already");
    let none = sandbox.run(&["activate", "r2", "--provisional", "30s", "--fallback", "r2"]).exits(7);
    assert!(none.err.contains("needs a way back"), "{none:?}");

    let events = sandbox.run(&["events"]).exits(0).out;
    let lines: Vec<&str> = events.lines().collect();
    assert_eq!(lines.len(), 3, "{events}");
    assert!(
        lines[1].contains("r1 → r2, generation 2, provisional   by tester@") && lines[1].contains("(try it)"),
        "{events}"
    );
    assert!(lines[2].contains("activation.committed") && lines[2].contains("(it is good)"), "{events}");
    let json = sandbox.run(&["events", "--limit", "1", "--json"]).exits(0).json();
    assert_eq!((&json[0]["seq"], &json[0]["detail"]["to"]["mode"]), (&json!(3), &json!("committed")));
    let mut followed = sandbox.start(&["events", "-f", "--limit", "1"]);
    followed.line("activation.committed");
    flip(&*store, Some(2), "r1").await;
    followed.line("r2 → r1, generation 3");
}

/// It was silent until the end, and then told of somebody else's activation.
async fn a_wait_says_what_it_waits_for_and_that_it_reverted_by_itself(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    flip(&*store, None, "r1").await;
    let _one = Hand::join(&store, "w-a", "r1", W::Active).await;
    let mut two = Hand::join(&store, "w-b", "r2", W::Inactive).await;
    two.hook_fails().await;
    let mut activate = sandbox.start(&["activate", "r2", "--force", "--provisional", "1s"]);
    activate.line("generation 2, provisional");
    // Claims of the way back are what revert it; there is none but this one.
    let _back = sandbox.work(&["--name", "w-c", "--release", "r1"]);
    let run = activate.ended().exits(9);
    let fault = "w-b: ACTIVATION_HOOK_FAILED: bin/register: exit 127";
    assert_eq!(run.err.matches(&format!("waiting for a worker of r2: {fault}")).count(), 1, "{run:?}");
    assert!(
        run.err.contains(&format!("reverted to r1 by itself: not confirmed in time; {fault}")),
        "{run:?}"
    );
}

/// However long the ledger is, its end is read, and no more.
async fn the_end_of_a_long_ledger_is_found(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let (store, tier) = (store(&sandbox).await, Tier::default());
    let by = Actor { who: "ada@here".into(), reason: None };
    let mut length = 0;
    for wanted in [0_u64, 1, 2, 499, 500, 501, 1_000, 1_203] {
        let mut appends = tokio::task::JoinSet::new();
        for _ in length..wanted {
            let (store, tier, by) = (Arc::clone(&store), tier.clone(), by.clone());
            appends.spawn(async move { store.append(&tier, "note", &by, "text").await.map(drop) });
        }
        appends.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
        length = wanted;
        for most in [1_u64, 3, 700] {
            let seqs: Vec<u64> =
                ledger_tail(&*store, &tier, most).await.unwrap().iter().map(|entry| entry.seq).collect();
            let expected: Vec<u64> = (wanted.saturating_sub(most) + 1..=wanted).collect();
            assert_eq!(seqs, expected, "{most} of {wanted}");
        }
    }
    let json = sandbox.run(&["events", "--limit", "2", "-o", "jsonl"]).exits(0);
    assert_eq!(json.out.lines().count(), 2, "{json:?}");
    assert!(json.out.contains("\"seq\":1203"), "{json:?}");
}

/// The same with real workers: nobody confirms, and the way back takes over by itself.
fn what_nobody_confirms_reverts_by_itself(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    sandbox.run(&["job", "enqueue", "echo"]).exits(0); // makes the store
    let _way_back = sandbox.work(&["--name", "w-1", "--release", "r1"]);
    sandbox.run(&["activate", "r1", "--force", "--timeout", "60s"]).exits(0);
    let _next = sandbox.work(&["--name", "w-2", "--release", "r2"]);
    let run = sandbox.run(&["activate", "r2", "--force", "--provisional", "2s", "--no-wait"]).exits(0);
    assert!(run.out.contains("generation 2, provisional: reverts to r1"), "{run:?}");
    let run = sandbox.run(&["gate", "wait", "--release", "r2", "--timeout", "60s"]).exits(9);
    assert!(run.out.contains("was not confirmed in time and reverted to `r1` at generation 3"), "{run:?}");
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s"]).exits(0);
    assert!(sandbox.run(&["events"]).out.contains("activation.reverted"));
}

/// Nobody who works is seen, so nothing is called done: neither again, nor committed, nor gone back to.
async fn nothing_is_done_before_it_was_seen(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let store = store(&sandbox).await;
    let mut old = Hand::join(&store, "w-1", "r1", W::Active).await;
    flip(&*store, None, "r1").await;
    let mut new = Hand::join(&store, "w-2", "r2", W::Inactive).await;
    sandbox.run(&["activate", "r2", "--provisional", "10m", "--timeout", "200ms"]).exits(124);
    let again = sandbox.run(&["activate", "r2", "--timeout", "200ms"]).exits(9);
    assert!(again.err.contains("active provisionally") && again.err.contains("--confirm"), "{again:?}");
    new.hook_fails().await;
    sandbox.run(&["activate", "r2", "--confirm"]).exits(3).says("w-2 is ACTIVATION_HOOK_FAILED");
    let standing = store.activation(&Tier::default()).await.unwrap().unwrap();
    assert_eq!(standing.mode, sluicegate::activation::Mode::Provisional);
    // What nobody has confirmed is no way back for the next one.
    let _third = Hand::join(&store, "w-3", "r3", W::Inactive).await;
    let next = sandbox.run(&["activate", "r3", "--provisional", "10m", "--no-wait"]).exits(0);
    assert!(next.out.contains("provisional: reverts to r1"), "{next:?}");
    old.becomes(W::Inactive).await;
    // The same again is not done because it was asked for before.
    sandbox.run(&["activate", "r1", "--no-wait"]).exits(0);
    sandbox.run(&["activate", "r1", "--timeout", "200ms"]).exits(124);
    old.becomes(W::Active).await;
    sandbox.run(&["activate", "r1"]).exits(0);
}

/// The store came back empty: what was in charge goes on, above every generation that was seen, and nobody else takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_tier_goes_on_when_its_redis_came_back_empty() {
    let sandbox = Sandbox::on(Engine::Redis);
    sandbox.run(&["job", "enqueue", "echo"]).exits(0);
    let _first = sandbox.work(&["--name", "w-1", "--release", "r1"]);
    sandbox.run(&["gate", "wait", "--release", "r1", "--timeout", "2s"]);
    for release in ["r1", "r2", "r1"] {
        sandbox.run(&["activate", release, "--force", "--no-wait"]).exits(0);
    }
    sandbox.run(&["gate", "wait", "--release", "r1", "--timeout", "60s"]).exits(0);
    let _nameless = sandbox.work(&["--name", "w-0"]);
    let joined = |_: &u32| sandbox.run(&["worker", "show", "w-0"]).out.contains("inactive");
    (0..3_000).find(joined).expect("it stands by");
    sandbox.server.as_ref().unwrap().cli(&["FLUSHALL"]).await;
    let back = |_: &u32| {
        let run = sandbox.run(&["gate", "check", "--release", "r1"]);
        run.code == 0 && run.out.contains("generation 4")
    };
    (0..3_000).find(back).expect("r1 is active again, at a generation that nobody has seen");
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s"]).exits(0);
    let jobs = sandbox.run(&["job", "list", "--json"]).exits(0);
    assert!(jobs.out.contains("w-1") && !jobs.out.contains("w-0"), "{jobs:?}");
    assert!(sandbox.run(&["events"]).exits(0).out.contains("has no activation any more"));
}

on_both! {
    #[tokio::test] async:
        nothing_is_done_before_it_was_seen
        it_waits_until_a_worker_is_active_and_says_how_long_that_took
        what_nobody_proved_is_refused_and_nothing_is_changed
        a_script_names_the_generation_it_expects
        a_provisional_one_shows_how_it_stands_and_is_committed_at_its_generation
        a_wait_says_what_it_waits_for_and_that_it_reverted_by_itself
        the_end_of_a_long_ledger_is_found;
    #[test] fn:
        what_nobody_confirms_reverts_by_itself;
}
