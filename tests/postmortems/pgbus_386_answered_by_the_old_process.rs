//! pgbus #386: after a restart the health check was answered by the process of the old release, and passed. Here a question is
//! bound to a release: neither a probe nor a gate that is asked for the new one is ever satisfied by the old one.

use crate::both::Engine;
use crate::cli::sandbox::Sandbox;

fn the_old_release_never_answers_for_the_new_one(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let _old = sandbox.work(&["--name", "w-1", "--release", "r-1"]);
    let staged = |_: &u32| {
        let seen = sandbox.run(&["worker", "list", "--json"]);
        seen.code == 0 && seen.json()[0]["state"] == "inactive"
    };
    (0..3_000).find(staged).expect("it stands by");
    sandbox.run(&["activate", "r-1"]).exits(0);
    sandbox.run(&["gate", "wait", "--release", "r-1", "--timeout", "30s"]).exits(0);
    let seen = sandbox.run(&["worker", "list", "--json"]).exits(0).json()[0].clone();
    let readyz = format!("http://{}/readyz", seen["health"].as_str().expect("an address"));
    let curl = |url: &str| {
        let output = std::process::Command::new("curl").args(["-s", "-f", url]).output().expect("curl runs");
        output.status.code().expect("a code")
    };
    assert_eq!(curl(&readyz), 0);
    assert_eq!(curl(&format!("{readyz}?release=r-1")), 0);
    assert_eq!(curl(&format!("{readyz}?release=r-2")), 22);
    sandbox.run(&["gate", "check", "--release", "r-2"]).exits(10);
}

on_both! {
    #[test] fn:
        the_old_release_never_answers_for_the_new_one;
}
