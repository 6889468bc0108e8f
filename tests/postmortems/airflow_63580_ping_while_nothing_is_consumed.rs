//! airflow #63580: workers answered ping for 14 hours and consumed nothing, 302 tasks waited. Here the worker is there, its
//! process is fine, and it looks at the wrong queue: the jobs that wait make the tier red, with the cause.

use crate::both::Engine;
use crate::cli::sandbox::Sandbox;

fn a_worker_that_consumes_nothing_is_red_with_the_cause(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = sandbox.work(&["--name", "w-1", "--queues", "mial"]);
    let active = |_: &u32| {
        let seen = sandbox.run(&["worker", "list", "--json"]);
        seen.code == 0 && seen.json()[0]["state"] == "active"
    };
    (0..3_000).find(active).expect("it is active");
    for _ in 0..3 {
        sandbox.run(&["job", "enqueue", "echo", "--queue", "mail"]).exits(0);
    }
    let red = |_: &u32| sandbox.run(&["gate", "check"]).code == 3;
    (0..3_000).find(red).expect("red");
    let gate = sandbox.run(&["gate", "check"]).exits(3);
    assert!(gate.out.contains("mail"), "{gate:?}");
    let doctor = sandbox.run(&["doctor"]).exits(3);
    assert!(doctor.out.contains("mail"), "{doctor:?}");
    worker.signal("TERM");
    worker.ended().exits(0);
    let _right = sandbox.work(&["--name", "w-1"]);
    sandbox.run(&["gate", "wait", "--timeout", "60s"]).exits(0);
    sandbox.run(&["doctor"]).exits(0);
}

on_both! {
    #[test] fn:
        a_worker_that_consumes_nothing_is_red_with_the_cause;
}
