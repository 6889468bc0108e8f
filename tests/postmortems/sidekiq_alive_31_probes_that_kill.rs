//! sidekiq_alive #31: a backlog and long jobs made the liveness probe fail, and the pods that worked were killed. Here neither a
//! full worker, nor a job of hours, nor a backlog, nor a quiet or stopping worker fails `livez`.

use crate::both::Engine;
use crate::cli::sandbox::Sandbox;

fn busy_backlogged_and_quiet_workers_are_live(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = sandbox.work(&["--name", "w-1", "--slots", "2"]);
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s"]).exits(0);
    let seen = sandbox.run(&["worker", "list", "--json"]).exits(0).json()[0].clone();
    let url = format!("http://{}", seen["health"].as_str().expect("an address"));
    let health = |group: &str| sandbox.run(&["health", group, "--url", &url]);
    // Two jobs of hours fill the worker, and more wait behind them.
    for _ in 0..20 {
        sandbox.run(&["job", "enqueue", "echo", r#"{"sleep":7200}"#, "--job-timeout", "3h"]).exits(0);
    }
    let busy = |_: &u32| sandbox.run(&["worker", "list", "--json"]).json()[0]["busy"] == 2;
    (0..3_000).find(busy).expect("both slots are busy");
    health("live").exits(0);
    health("ready").exits(0);
    sandbox.run(&["worker", "quiet", "w-1"]).exits(0);
    health("live").exits(0);
    health("ready").exits(3);
    sandbox.run(&["worker", "resume", "w-1"]).exits(0);
    worker.signal("TERM");
    let stopping = |_: &u32| sandbox.run(&["worker", "list", "--json"]).json()[0]["state"] == "stopping";
    (0..3_000).find(stopping).expect("it stops");
    health("live").exits(0);
    worker.signal("TERM");
    worker.ended().exits(0);
}

on_both! {
    #[test] fn:
        busy_backlogged_and_quiet_workers_are_live;
}
