//! SupportBee, 21 July 2016: a library of the app broke every job for 13 hours. The processes were up and busy, and jobs "ran".
//! Here outcomes count: the tier is red within a minute, with the kind, the error, since when and the release.

use crate::both::Engine;
use crate::cli::sandbox::Sandbox;

fn a_kind_whose_jobs_all_fail_turns_the_tier_red_with_its_error(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let _worker = sandbox.work(&["--name", "w-1"]);
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s"]).exits(0);
    sandbox.run(&["gate", "wait", "--timeout", "30s"]).exits(0);
    for _ in 0..12 {
        sandbox.run(&["job", "enqueue", "echo", r#"{"fail":"undefined method instrument"}"#]).exits(0);
    }
    let red = |_: &u32| sandbox.run(&["gate", "check"]).code == 3;
    (0..600).find(red).expect("red on outcomes");
    let gate = sandbox.run(&["gate", "check"]).exits(3);
    for part in ["echo", "undefined method instrument"] {
        assert!(gate.out.contains(part), "{part}: {gate:?}");
    }
    let doctor = sandbox.run(&["doctor"]).exits(3);
    assert!(doctor.out.contains("undefined method instrument"), "{doctor:?}");
    for _ in 0..15 {
        sandbox.run(&["job", "enqueue", "echo"]).exits(0);
    }
    sandbox.run(&["gate", "wait", "--timeout", "60s"]).exits(0);
}

on_both! {
    #[test] fn:
        a_kind_whose_jobs_all_fail_turns_the_tier_red_with_its_error;
}
