//! The same from the command line and over HTTP.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use sluicegate::Bypass;

use super::kit::{FRESH, Site, bust};
use crate::both::Engine;
use crate::chaos::kit::program;
use crate::cli::sandbox::{Run, Sandbox};
use crate::http::kit::Server;
use crate::redis::server::Server as Redis;

/// An app of its own, with `page.bust`.
fn app(sandbox: &Sandbox, args: &[&str]) -> Run {
    let mut command = sandbox.command(&program("page"));
    let output = command.args(args).stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Run { code: output.status.code().expect("a code"), out: text(output.stdout), err: text(output.stderr) }
}

fn bust_args(page: &Path, fail: Option<&str>) -> String {
    json!({ "page": page, "fail": fail }).to_string()
}

fn made(page: &Path) -> usize {
    let text = std::fs::read_to_string(page).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("done")).count()
}

fn the_command_line_runs_it_and_says_so(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let page = sandbox.path("page");
    let enqueue = |fail, more: &[&str]| {
        let args = bust_args(&page, fail);
        let mut all = vec!["job", "enqueue", "page.bust", &args];
        all.extend(more);
        app(&sandbox, &all)
    };
    let json = enqueue(None, &["-o", "json"]).exits(0).json();
    assert_eq!((&json["way"], &json["state"], made(&page)), (&json!("inline"), &json!("completed"), 1));
    assert!(json["took"].as_f64().unwrap() < FRESH.as_secs_f64(), "{json}");
    let shown = app(&sandbox, &["job", "show", json["id"].as_str().unwrap()]).exits(0).out;
    assert!(shown.contains("completed") && shown.contains("inline"), "{shown}");
    assert!(enqueue(None, &[]).exits(0).out.contains("completed  ran here in "));
    assert!(enqueue(None, &["--wait"]).exits(0).out.contains("completed"));
    let json = enqueue(None, &["--bypass", "never", "-o", "json"]).exits(0).json();
    assert_eq!((&json["way"], json.get("why"), made(&page)), (&json!("queued"), None, 3));
    let json = enqueue(None, &["--in", "1h", "-o", "json"]).exits(0).json();
    assert_eq!((&json["way"], &json["why"]), (&json!("queued"), &json!("it is to run later")));
    let json = enqueue(Some("the cache says no"), &["-o", "json"]).exits(0).json();
    let after = (&json["way"], &json["error"], &json["state"]);
    assert_eq!(after, (&json!("queued_after_inline"), &json!("the cache says no"), &json!("available")));
    assert!(enqueue(Some("no"), &[]).exits(0).out.contains("failed here: no"));
    let bad = enqueue(None, &["--bypass", "last"]).exits(2);
    assert!(bad.err.contains("expected `never`, `when-inactive` or `first`"), "{bad:?}");
    // Our own program has no such kind, and says so; a built-in one it has.
    let run = sandbox.run(&["job", "enqueue", "page.bust", "--bypass", "first"]).exits(0);
    assert!(run.out.contains("not run here: no handler here"), "{run:?}");
    let run = sandbox.run(&["job", "enqueue", "echo", "--bypass", "when-inactive", "-o", "json"]).exits(0);
    assert_eq!(run.json()["way"], "inline");
}

fn lines_of_a_file_run_here_too(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let page = sandbox.path("page");
    let line = |bypass: &str| json!({ "kind": "page.bust", "args": { "page": page }, "bypass": bypass });
    let lines = format!("{}\n{}\n{}\n", line("first"), line("never"), line("first"));
    std::fs::write(sandbox.path("jobs"), lines).unwrap();
    let file = sandbox.path("jobs").display().to_string();
    let json = app(&sandbox, &["job", "enqueue", "--from-file", &file, "-o", "json"]).exits(0).json();
    assert_eq!(json, json!({ "enqueued": 1, "replayed": 0, "inline": 2, "refused": 0 }));
    assert_eq!(made(&page), 2);
}

/// Redis is dead before the program starts: it has nothing to open, and the page is fresh all the same.
#[test]
fn the_command_line_needs_no_store_for_it() {
    let mut redis = Redis::start();
    let sandbox = Sandbox::new();
    let (page, url) = (sandbox.path("page"), redis.url());
    redis.kill();
    let enqueue = |fail, more: &[&str]| {
        let args = bust_args(&page, fail);
        let mut all = vec!["job", "enqueue", "page.bust", &args, "--store", &url];
        all.extend(more);
        app(&sandbox, &all)
    };
    let begun = std::time::Instant::now();
    let json = enqueue(None, &["-o", "json", "--wait"]).exits(0).json();
    println!("the whole program took {:?}", begun.elapsed());
    assert!(begun.elapsed() < FRESH, "{:?}", begun.elapsed());
    assert_eq!(
        (&json["way"], &json["may_repeat"], made(&page)),
        (&json!("inline_unrecorded"), &json!(false), 1)
    );
    assert!(enqueue(None, &[]).exits(0).out.contains("not recorded: cannot open"));
    let refused = enqueue(Some("the cache says no"), &[]).exits(13);
    assert!(refused.err.contains("the cache says no") && refused.err.contains(&url), "{refused:?}");
    assert!(refused.err.contains("not done and not kept"), "{refused:?}");
    enqueue(None, &["--bypass", "never"]).exits(13);
    assert_eq!(made(&page), 2);
}

/// What an operator types beside a running `dev` lands where everything of it lands.
#[test]
fn beside_dev_the_command_line_leaves_it_to_dev() {
    let sandbox = Sandbox::new();
    let mut dev = sandbox.dev();
    dev.address("API");
    let run = sandbox.run(&["job", "enqueue", "echo", "--bypass", "first", "-o", "json"]).exits(0);
    assert_eq!((&run.json()["way"], &run.json()["why"]), (&json!("queued"), &json!("no handler here")));
}

/// `serve` and `dev` have the kinds of their program.
fn a_served_app_runs_it(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let page = sandbox.path("page");
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).unwrap().to_string();
    let posted = |address: &str| -> Value {
        let body = json!({ "kind": "page.bust", "args": { "page": page } }).to_string();
        let mut curl = sandbox.command(Path::new("curl"));
        curl.args(["-sS", "--fail-with-body", "--retry", "60", "--retry-connrefused", "--retry-delay", "0"]);
        curl.args([
            "-H",
            "content-type: application/json",
            "-d",
            &body,
            &format!("http://{address}/v1/jobs"),
        ]);
        let output = curl.output().expect("curl runs");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let serve = sandbox.start_with(&program("page"), &["serve", "--api-listen", &free], &[]);
    assert_eq!((&posted(&free)["way"], made(&page)), (&json!("inline"), 1));
    serve.signal("TERM");
    serve.ended().exits(0);
    let args = ["dev", "--api-listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"];
    let mut dev = sandbox.start_with(&program("page"), &args, &[]);
    let address = dev.address("API");
    assert_eq!((&posted(&address)["way"], made(&page)), (&json!("inline"), 2));
}

async fn the_api_runs_it_and_says_so(engine: Engine) {
    let site = Site::on(engine).await;
    let server = Server::of(site.client.clone());
    let post = async |body: Value| server.post("/v1/jobs", &body.to_string()).await;
    let body = |act: &str| json!({ "kind": "page.bust", "queue": "pages", "args": { "act": act } });
    let answer = post(body("")).await;
    assert_eq!((answer.status, &answer.json()["way"]), (201, &json!("inline")), "{answer:?}");
    assert!(answer.header("location").is_some());
    let with = |bypass: &str| {
        let mut body = body("");
        body["bypass"] = bypass.into();
        body
    };
    let answer = post(with("never")).await;
    assert_eq!((answer.status, &answer.json()["way"]), (201, &json!("queued")), "{answer:?}");
    let answer = post(json!({ "kind": "other", "bypass": "first" })).await;
    assert_eq!((answer.status, &answer.json()["why"]), (201, &json!("no handler here")), "{answer:?}");
    let answer = post(body("fail")).await;
    assert_eq!((answer.status, &answer.json()["way"]), (201, &json!("queued_after_inline")), "{answer:?}");
    assert_eq!(answer.json()["error"], "the cache says no");
    post(with("last")).await.problem(400, "BAD_BODY");
    let jobs: Vec<Value> = vec![body(""), with("never"), body("fail here"), json!({ "kind": "../x" })];
    let answer = server.post("/v1/jobs/batch", &json!({ "jobs": jobs }).to_string()).await;
    let results = answer.json()["results"].clone();
    let ways: Vec<&Value> = (0..3).map(|n| &results[n]["way"]).collect();
    assert_eq!(ways, [&json!("inline"), &json!("queued"), &json!("queued_after_inline")], "{results}");
    assert_eq!(results[3]["error"]["code"], "BAD_NAME");
    assert_eq!(site.page.made(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_needs_no_store_for_it() {
    let mut site = Site::on(Engine::Redis).await;
    let server = Server::of(site.client.clone());
    site.recorded("").await;
    site.place.server.as_mut().unwrap().kill();
    site.client.insert(bust("").bypass(Bypass::Never)).await.unwrap_err(); // it has noticed
    let post = async |act: &str| {
        let body = json!({ "kind": "page.bust", "queue": "pages", "args": { "act": act } });
        server.post("/v1/jobs", &body.to_string()).await
    };
    let begun = sluicegate::clock::instant();
    let answer = post("").await;
    assert!(begun.elapsed() < FRESH, "{:?}", begun.elapsed());
    assert_eq!((answer.status, &answer.json()["way"]), (200, &json!("inline_unrecorded")), "{answer:?}");
    assert_eq!((answer.header("location"), site.page.made()), (None, 2));
    let refused = post("fail").await;
    let problem = refused.problem(503, "NEITHER_DONE_NOR_KEPT");
    assert_eq!(problem["error"], "the cache says no");
    assert!(problem["detail"].as_str().unwrap().contains("redis://"), "{problem}");
    assert!(refused.header("retry-after").is_some());
    // One of a batch that ran here is told of, though the store took none of the others.
    let jobs =
        [json!({ "kind": "other" }), json!({ "kind": "page.bust", "queue": "pages", "args": { "act": "" } })];
    let answer = server.post("/v1/jobs/batch", &json!({ "jobs": jobs }).to_string()).await;
    let results = answer.json()["results"].clone();
    assert_eq!(answer.status, 200);
    assert_eq!(results[0]["error"]["code"], "STORE_UNAVAILABLE", "{results}");
    assert_eq!(results[1]["way"], "inline_unrecorded", "{results}");
}

on_both! {
    #[test] fn:
        the_command_line_runs_it_and_says_so
        lines_of_a_file_run_here_too
        a_served_app_runs_it;
    #[tokio::test(flavor = "multi_thread")] async:
        the_api_runs_it_and_says_so;
}
