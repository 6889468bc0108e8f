//! Deploys through the real program, with real workers: what commits, what is rejected with nothing changed, and what is rolled
//! back.

use sluicegate::activation::Mode;
use sluicegate::release::records::ReleaseState;

use super::kit::tier;
use super::shop::{Shop, enqueue};
use crate::both::Engine;
use crate::cli::sandbox::Running;

const KINDS: &[&str] = &["shop.order", "shop.mail"];

async fn a_first_release_says_so_and_a_good_one_follows_while_jobs_flow(engine: Engine) {
    let mut shop = Shop::closed(engine).await;
    shop.starts("r1", "").await;
    shop.deploy("r1", &[]).exits(7).says("nothing was changed").says("--first");
    shop.deploy("r1", &["--first"]).exits(0).tells("d-1 committed").tells("no way back");
    shop.starts("r2", "").await;
    let flow = shop.flow(KINDS);
    let run = shop.deploy("r2", &[]).exits(0).tells("d-2 committed");
    println!("{}", run.out);
    assert_eq!(shop.active().await, "r2");
    flow.lost_nothing(&shop).await;
    shop.has_one_flip_a_generation().await;
    assert_eq!(shop.record("r2").await.state, ReleaseState::Verified);
    shop.deploy("r2", &[]).exits(0).tells("no change");
    shop.sandbox.run(&["deploy", "show", "d-2"]).exits(0).tells("committed: r2 is active at generation 2");
}

async fn failing_canaries_reject_a_release_and_nothing_changes(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "mail=fail").await;
    let before = shop.activation().await;
    let flow = shop.flow(KINDS);
    let run = shop.deploy("r2", &[]).exits(3).tells("rejected before activation");
    println!("{}", run.out);
    assert!(run.out.contains("shop.mail") && run.out.contains("the mail desk is closed"), "{run:?}");
    assert_eq!(shop.activation().await, before, "nothing was changed");
    flow.lost_nothing(&shop).await;
    let record = shop.record("r2").await;
    assert_eq!((record.state, record.quarantine.is_some()), (ReleaseState::Rejected, true));
    // It failed by evidence: not again without a word.
    shop.deploy("r2", &[]).exits(3).says("failed before").says("--unquarantine");
    shop.deploy("r2", &["--unquarantine"]).exits(3).tells("rejected before activation");
    assert_eq!(shop.activation().await, before, "nothing was changed");
}

/// A kind without a canary: only real jobs can tell.
async fn what_fails_only_after_the_switch_is_rolled_back(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "label=fail").await;
    let flow = shop.flow(&["shop.order", "shop.mail", "shop.label"]);
    let run = shop.deploy("r2", &["--verify", "30s"]).exits(5).tells("rolled back to r1");
    println!("{}", run.out);
    assert!(run.out.contains("the label desk is closed"), "{run:?}");
    assert_eq!(shop.active().await, "r1");
    flow.lost_nothing(&shop).await;
    shop.has_one_flip_a_generation().await;
    let record = shop.record("r2").await;
    assert_eq!((record.state, record.quarantine.is_some()), (ReleaseState::RolledBack, true));
}

async fn a_hook_that_fails_or_hangs_rejects_a_release(engine: Engine) {
    let shop = Shop::open(engine).await;
    let before = shop.activation().await;
    for (name, hook) in [("r2", "false"), ("r3", "sleep 600")] {
        shop.register(name, "").await;
        let env = [
            ("SLUICEGATE__WORKER__ACTIVATION_HOOK", hook),
            ("SLUICEGATE__WORKER__ACTIVATION_HOOK_TIMEOUT", "1s"),
        ];
        let _worker = shop.worker(name, &env);
        let run = shop.deploy(name, &[]).exits(3).tells("rejected before activation");
        println!("{}", run.out);
        assert!(run.out.contains("activation hook"), "{run:?}");
        assert_eq!(shop.activation().await, before, "nothing was changed");
    }
    shop.works().await;
}

async fn without_a_warm_way_back_there_is_no_deploy(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    shop.stop(0);
    let before = shop.activation().await;
    shop.deploy("r2", &[]).exits(7).says("a rollback would not work");
    assert_eq!(shop.activation().await, before, "nothing was changed");
}

async fn without_what_waits_there_is_no_deploy(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.pause(true).await;
    let ids = enqueue(&*shop.store, &["shop.mail"]).await;
    shop.starts("r2", "mail=missing").await;
    let before = shop.activation().await;
    let run = shop.deploy("r2", &[]).exits(3);
    assert!(format!("{run:?}").contains("shop.mail"), "{run:?}");
    assert_eq!(shop.activation().await, before, "nothing was changed");
    // Who waives it is believed, and the jobs wait for a release that can.
    shop.deploy("r2", &["--waive", "shop.mail=retired", "--verify", "7s"]).exits(0);
    shop.pause(false).await;
    let orders = enqueue(&*shop.store, &["shop.order"]).await;
    shop.settles(&orders).await;
    shop.sandbox.run(&["rollback"]).exits(0);
    shop.settles(&ids).await;
}

/// What both need is down: going back would not help.
async fn what_fails_on_both_releases_is_held_and_not_rolled_back(engine: Engine) {
    let folder = tempfile::TempDir::new().unwrap();
    let down = folder.path().join("down");
    let faults = format!("mail=fail-while:{}", down.display());
    let mut shop = Shop::open_with(engine, &faults).await;
    // Before the switch: nothing changes.
    std::fs::write(&down, "").unwrap();
    shop.starts("r2", &faults).await;
    let before = shop.activation().await;
    let run = shop.deploy("r2", &[]).exits(14);
    println!("{}", run.out);
    assert_eq!(shop.activation().await, before, "nothing was changed");
    assert!(shop.record("r2").await.quarantine.is_none());
    // After it: it stands, and nobody calls it good.
    std::fs::remove_file(&down).unwrap();
    shop.starts("r3", &faults).await;
    let mut deploying = shop.deploying("r3", &["--timeout", "12s", "--verify", "8s"]);
    deploying.line("\"step\":\"verify\"");
    std::fs::write(&down, "").unwrap();
    let flow = shop.flow(&["shop.mail"]);
    println!("{}", deploying.ended().exits(14).out);
    assert_eq!((shop.active().await.as_str(), shop.activation().await.mode), ("r3", Mode::Committed));
    let record = shop.record("r3").await;
    assert!(record.quarantine.is_none() && record.verified_at.is_none(), "{record:?}");
    std::fs::remove_file(&down).unwrap();
    flow.lost_nothing(&shop).await;
    shop.has_one_flip_a_generation().await;
}

async fn too_little_evidence_reverts_or_is_held_as_asked(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    let short = ["--timeout", "6s", "--verify", "1s"];
    // The release is judged by two workers, and one of them goes after the switch.
    let args = [&short[..], &["--workers", "2"]].concat();
    let second = shop.another("r2");
    let mut deploying = shop.deploying("r2", &args);
    deploying.line("\"step\":\"activate\"");
    second.signal("TERM");
    let run = deploying.ended().exits(5);
    println!("{}", run.out);
    assert_eq!(shop.active().await, "r1");
    let record = shop.record("r2").await;
    assert!(record.quarantine.is_none(), "it was not proven bad");
    drop(second);
    let second = shop.another("r2");
    let mut deploying = shop.deploying("r2", &[&args[..], &["--on-inconclusive", "hold"]].concat());
    deploying.line("\"step\":\"activate\"");
    second.signal("TERM");
    let run = deploying.ended().exits(8);
    println!("{}", run.out);
    assert_eq!((shop.active().await.as_str(), shop.activation().await.mode), ("r2", Mode::Committed));
    let record = shop.record("r2").await;
    assert!(record.verified_at.is_none() && record.quarantine.is_none(), "held is not verified: {record:?}");
    shop.works().await;
    shop.has_one_flip_a_generation().await;
}

async fn a_person_rolls_back_or_aborts_under_a_deploy(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    let flow = shop.flow(KINDS);
    // Before the switch: two workers are expected, and one is there.
    let mut deploying = shop.deploying("r2", &["--workers", "2"]);
    deploying.line("\"step\":\"stage\"");
    let before = shop.activation().await;
    shop.sandbox.run(&["deploy", "abort", "--reason", "lunch"]).exits(3).tells("Nothing changed");
    assert!(deploying.ended().exits(3).out.contains("aborted by"));
    assert_eq!(shop.activation().await, before, "nothing was changed");
    shop.sandbox.run(&["deploy", "abort"]).exits(9).says("has ended already");
    // After it.
    let mut deploying = shop.deploying("r2", &["--verify", "30s"]);
    deploying.line("\"step\":\"verify\"");
    shop.sandbox.run(&["deploy", "abort"]).exits(5).tells("rolled back to r1");
    deploying.ended().exits(5);
    assert_eq!(shop.active().await, "r1");
    assert!(shop.record("r2").await.quarantine.is_none(), "nothing speaks against it");
    // By another way.
    let mut deploying = shop.deploying("r2", &["--verify", "30s"]);
    deploying.line("\"step\":\"verify\"");
    let run = shop.sandbox.run(&["rollback"]).exits(0).tells("r1 is active again");
    println!("{}", run.out);
    assert!(deploying.ended().exits(5).out.contains("rolled back to r1 by"));
    assert_eq!(shop.active().await, "r1");
    shop.deploy("r2", &[]).exits(0);
    flow.lost_nothing(&shop).await;
    shop.has_one_flip_a_generation().await;
}

async fn what_was_agreed_to_must_still_be_so_and_one_deploys_at_a_time(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    let plan = |shop: &Shop| {
        let args = ["deploy", "plan", "r2", "--workers", "1", "--verify", "1s", "--timeout", "60s", "--json"];
        shop.sandbox.run(&args).exits(0).json()["hash"].as_str().unwrap().to_owned()
    };
    let agreed = plan(&shop);
    assert_eq!(plan(&shop), agreed, "nothing has changed");
    // Another window than was agreed to.
    let other = shop.deploy("r2", &["--plan", &agreed, "--verify", "3s"]);
    other.exits(9).says("the plan has changed").says("look again");
    shop.starts("r3", "").await;
    let racing = ["r2", "r3"].map(|to| shop.deploying(to, &["--verify", "3s"]));
    let ends = racing.map(Running::ended);
    let mut codes = ends.each_ref().map(|run| run.code);
    codes.sort_unstable();
    assert_eq!(codes, [0, 9], "{ends:?}");
    // What was agreed to was about another generation.
    let to = if shop.active().await == "r2" { "r3" } else { "r2" };
    shop.deploy(to, &["--plan", &agreed]).exits(9).says("the plan has changed");
    shop.has_one_flip_a_generation().await;
}

/// The three ways to be bad that canaries find before anybody is hurt, and one that does not even start.
async fn what_is_silent_dead_or_half_bad_never_becomes_active(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    let before = shop.activation().await;
    let bad = [
        ("r2", "mail=silent", "receipt"),
        ("r3", "mail=fail:60", "shop.mail"),
        ("r4", "boot=panic", "0/1 workers"),
    ];
    for (name, faults, why) in bad {
        shop.starts(name, faults).await;
        let run = shop.deploy(name, &["--timeout", "8s"]).exits(3);
        println!("{}", run.out);
        assert!(run.out.contains(why), "{run:?}");
        assert_eq!(shop.activation().await, before, "nothing was changed");
    }
    shop.works().await;
}

/// From the decision to the first job that the old release settles; with a backlog that does not end.
async fn a_rollback_is_one_flip_to_a_warm_release_and_loses_nothing(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.sandbox.run(&["rollback"]).exits(7).says("nothing to go back to");
    shop.starts("r2", "").await;
    shop.deploy("r2", &[]).exits(0);
    let before = shop.activation().await;
    shop.sandbox.run(&["rollback", "--dry-run"]).exits(0).tells("r2 → r1").tells("dry run");
    shop.sandbox.run(&["rollback", "--within", "0s"]).exits(9).says("longer than");
    shop.sandbox.run(&["rollback", "--to", "r9"]).exits(7).says("would stop the tier");
    assert_eq!(shop.activation().await, before, "nothing was changed");
    let flow = shop.flow(KINDS);
    let run = shop.sandbox.run(&["rollback"]).exits(0).tells("nothing was built, copied or restarted");
    print!("{}", run.out);
    let decided = shop.activation().await;
    let late = enqueue(&*shop.store, KINDS).await;
    shop.settles(&late).await;
    assert_eq!((decided.release.as_str(), decided.generation), ("r1", before.generation + 1));
    let ids = flow.lost_nothing(&shop).await;
    let mut first = None;
    for id in ids.into_iter().chain(late) {
        let job = shop.store.get(&tier(), id).await.unwrap().unwrap();
        let later = job.claimed_at.is_some_and(|at| at >= decided.since);
        if later && job.release.as_ref() == Some(&decided.release) {
            first = first.into_iter().chain(job.finished_at).min();
        }
    }
    println!("{engine:?}: first job settled {:?} after the decision", first.unwrap().since(decided.since));
    shop.has_one_flip_a_generation().await;
}

on_both! {
    #[tokio::test] async:
        a_first_release_says_so_and_a_good_one_follows_while_jobs_flow
        failing_canaries_reject_a_release_and_nothing_changes
        what_fails_only_after_the_switch_is_rolled_back
        a_hook_that_fails_or_hangs_rejects_a_release
        without_a_warm_way_back_there_is_no_deploy
        without_what_waits_there_is_no_deploy
        what_fails_on_both_releases_is_held_and_not_rolled_back
        too_little_evidence_reverts_or_is_held_as_asked
        a_person_rolls_back_or_aborts_under_a_deploy
        what_was_agreed_to_must_still_be_so_and_one_deploys_at_a_time
        a_rollback_is_one_flip_to_a_warm_release_and_loses_nothing
        what_is_silent_dead_or_half_bad_never_becomes_active;
}
