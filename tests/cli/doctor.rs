//! `doctor`: why is nothing running, and watching one's own pipeline go red.

use std::time::Duration;

use serde_json::json;
use sluicegate::activation::WorkerState as W;
use sluicegate::names::{Queue, Tier};
use sluicegate::store::{Actor, Pause};

use super::hands::{Hand, flip, store};
use super::sandbox::Sandbox;
use crate::both::Engine;

async fn what_blocks_comes_first_with_the_command_that_helps(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    if engine == Engine::Sqlite {
        let none = sandbox.run(&["doctor"]).exits(3);
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
        a_paused_queue_is_told_with_who_why_and_until_when
        a_simulated_illness_turns_the_gate_red_and_leaves_nothing_behind;
}
