//! sidekiq #611 and #2713: workers were quieted for a deploy that then failed, and nobody told them to go on. Here a quieting
//! says by whom, why and until when, wherever the worker is shown, and it ends by itself.

use crate::both::Engine;
use crate::cli::sandbox::Sandbox;

fn a_quieted_worker_is_told_everywhere_and_goes_on_by_itself(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let _worker = sandbox.work(&["--name", "w-1"]);
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s"]).exits(0);
    sandbox.run(&["worker", "quiet", "--all", "--for", "12s", "--reason", "deploy d-117"]).exits(0);
    let id = sandbox.run(&["job", "enqueue", "echo", "-o", "name"]).exits(0).out.trim().to_owned();
    // The deploy failed, its script is gone, and nobody resumes anything.
    let status = sandbox.run(&["status"]).exits(0);
    assert!(status.out.contains("deploy d-117") && status.out.contains("quiet until"), "{status:?}");
    let doctor = sandbox.run(&["doctor"]).exits(3);
    assert!(doctor.out.contains("deploy d-117"), "{doctor:?}");
    let gate = sandbox.run(&["gate", "check"]);
    assert!(gate.code != 0 && !gate.out.contains("✔ pass"), "{gate:?}");
    sandbox.run(&["job", "wait", &id, "--timeout", "60s"]).exits(0);
    sandbox.run(&["gate", "wait", "--timeout", "60s"]).exits(0);
    sandbox.run(&["doctor"]).exits(0);
}

on_both! {
    #[test] fn:
        a_quieted_worker_is_told_everywhere_and_goes_on_by_itself;
}
