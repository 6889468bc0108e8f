//! Deploys through the real program, with real workers: what commits, what is rejected with nothing changed, and what is rolled
//! back.

use sluicegate::release::records::ReleaseState;

use super::shop::Shop;
use crate::both::Engine;

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
    flow.is_whole(&shop).await;
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
    flow.is_whole(&shop).await;
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
    flow.is_whole(&shop).await;
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

on_both! {
    #[tokio::test] async:
        a_first_release_says_so_and_a_good_one_follows_while_jobs_flow
        failing_canaries_reject_a_release_and_nothing_changes
        what_fails_only_after_the_switch_is_rolled_back
        a_hook_that_fails_or_hangs_rejects_a_release
        without_a_warm_way_back_there_is_no_deploy;
}
