//! `/v1/gate`: the verdict on a tier, for pipelines that have curl and nothing else.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluicegate::activation::{Mode, WorkerState};
use sluicegate::ids::Nonce;
use sluicegate::names::{Release, Tier, WorkerName};
use sluicegate::store::{Actor, ErrorKind, Fault, FaultCode, Flip, Flipped, Presence, Store};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::faulty::Faulty;
use super::kit::Server;
use crate::both::Engine;

fn release(name: &str) -> Release {
    Release::new(name).unwrap()
}

async fn flip(store: &dyn Store, expect: Option<u64>, to: &str, mode: Mode) {
    let next = Flip {
        release: release(to),
        mode,
        confirm_within: Some(Duration::from_secs(300)),
        fallback: None,
        deploy: None,
        guard: None,
        least: 0,
    };
    let by = Actor { who: "ada@here".into(), reason: Some("a test".into()) };
    let flipped = store.flip(&Tier::default(), expect, next, &by).await.unwrap();
    assert!(matches!(flipped, Flipped::Now(_)), "{flipped:?}");
}

/// A worker that has just proved itself.
fn worker(name: &str, of: &str, state: WorkerState) -> Presence {
    Presence {
        joining: true,
        state,
        state_age: Duration::from_secs(60),
        generation: 9,
        claim_age: Some(Duration::from_secs(1)),
        canary_age: Some(Duration::from_secs(1)),
        ..Presence::new(WorkerName::new(name).unwrap(), Nonce::new(), release(of))
    }
}

async fn beat(store: &dyn Store, presence: &Presence) {
    store.beat(&Tier::default(), presence).await.unwrap();
}

async fn a_gate_tells_each_verdict_by_its_status(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let store = &**server.client.store();
    let ask = async |query: &str| server.get(&format!("/v1/gate?{query}")).await;

    let unknown = ask("release=r1").await;
    assert_eq!((unknown.status, &unknown.json()["verdict"]), (404, &json!("unknown")), "{unknown:?}");

    let mut first = worker("w-1", "r1", WorkerState::Inactive);
    beat(store, &first).await;
    let pending = ask("release=r1").await;
    assert_eq!((pending.status, pending.header("retry-after")), (503, Some("5")), "{pending:?}");
    assert!(pending.json()["output"].as_str().unwrap().contains("1/1 inactive and proven"), "{pending:?}");

    flip(store, None, "r1", Mode::Committed).await;
    (first.state, first.joining) = (WorkerState::Active, false);
    beat(store, &first).await;
    let pass = ask("release=r1&min_active=1&queues=mail,default").await;
    assert_eq!((pass.status, pass.header("retry-after")), (200, None), "{pass:?}");
    let body = pass.json();
    assert_eq!(
        (&body["verdict"], &body["generation"], &body["mode"]),
        (&json!("pass"), &json!(1), &json!("committed"))
    );
    assert_eq!(body["checks"]["tier:active"][0]["observedValue"], 1);
    assert_eq!(body["checks"]["queues:served"].as_array().unwrap().len(), 2);
    assert_eq!(ask("release=r1&min_active=2").await.status, 503, "another one may come");

    let at = sluicegate::clock::wall();
    let detail = "bin/register: exit 127".into();
    first.fault = Some(Fault { code: FaultCode::ActivationHookFailed, detail, at });
    first.state = WorkerState::Inactive;
    beat(store, &first).await;
    let fail = ask("release=r1").await;
    assert_eq!((fail.status, fail.header("retry-after")), (412, None), "{fail:?}");
    let hooks = &fail.json()["checks"]["hooks:integrity"][0];
    assert_eq!(
        (&hooks["code"], &hooks["componentId"]),
        (&json!("ACTIVATION_HOOK_FAILED"), &json!("worker/w-1"))
    );

    let mut second = worker("w-2", "r2", WorkerState::Inactive);
    beat(store, &second).await;
    flip(store, Some(1), "r2", Mode::Provisional).await;
    let superseded = ask("release=r1").await;
    assert_eq!((superseded.status, &superseded.json()["terminal"]), (409, &json!(true)), "{superseded:?}");
    assert!(superseded.json()["output"].as_str().unwrap().contains("by ada@here (a test)"), "{superseded:?}");
    assert_eq!(
        ask("release=r1&generation=2").await.status,
        412,
        "that is known: it is judged as standing by"
    );

    (second.state, second.joining) = (WorkerState::Active, false);
    beat(store, &second).await;
    let provisional = ask("release=r2").await;
    assert_eq!(
        (provisional.status, &provisional.json()["mode"]),
        (503, &json!("provisional")),
        "{provisional:?}"
    );
    assert_eq!(ask("release=r2&allow_provisional=1").await.status, 200);
}

async fn only_an_unmanaged_tier_needs_no_release(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let store = &**server.client.store();
    assert_eq!(server.get("/v1/gate").await.json()["releaseId"], "default");
    flip(store, None, "r1", Mode::Committed).await;
    let refused = server.get("/v1/gate").await.problem(400, "RELEASE_NEEDED");
    assert_eq!(refused["active"], "r1");
    // Another tier is asked by its name.
    assert_eq!(server.get("/v1/gate?tier=web").await.json()["tier"], "web");
    for bad in [
        "release=UPPER",
        "min_active=0",
        "min_active=101%25",
        "queues=../x",
        "slo=soon",
        "expect=x",
        "typo=1",
    ] {
        let answer =
            server.get(&format!("/v1/gate?release=r1&{bad}").replace("release=r1&release", "release")).await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
    }
}

async fn one_dead_tier_beside_a_healthy_one_is_red(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let store = &**server.client.store();
    let ask = async |query: &str| server.get(&format!("/v1/gate?all_tiers=1{query}")).await;
    let none = ask("&release=r1").await;
    assert_eq!((none.status, none.header("retry-after")), (503, Some("5")), "{none:?}");
    flip(store, None, "r1", Mode::Committed).await;
    beat(store, &worker("w-1", "r1", WorkerState::Active)).await;
    let pass = ask("&release=r1").await;
    assert_eq!((pass.status, &pass.json()["tiers"]["default"]["verdict"]), (200, &json!("pass")), "{pass:?}");

    let mail = Tier::new("mail").unwrap();
    let mut sick = worker("m-1", "r1", WorkerState::Active);
    sick.canary_error = Some("timed out".into());
    store.beat(&mail, &sick).await.unwrap();
    let by = Actor { who: "ada@here".into(), reason: None };
    let next = Flip {
        release: release("r1"),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
        guard: None,
        least: 0,
    };
    store.flip(&mail, None, next, &by).await.unwrap();
    let fail = ask("&release=r1").await;
    let body = fail.json();
    assert_eq!(
        (
            fail.status,
            &body["verdict"],
            &body["tiers"]["mail"]["verdict"],
            &body["tiers"]["default"]["verdict"]
        ),
        (412, &json!("fail"), &json!("fail"), &json!("pass")),
    );
    assert!(body["output"].as_str().unwrap().contains("m-1: its canary failed: timed out"), "{body}");
    assert_eq!(ask("&release=r1&exclude=mail").await.status, 200);
    assert_eq!(server.get("/v1/gate?release=r1").await.status, 200, "one tier is asked as before");
    let refused = ask("").await.problem(400, "RELEASE_NEEDED");
    assert_eq!(refused["active"], json!({ "default": "r1", "mail": "r1" }));
    for bad in ["&release=r1&tier=mail", "&release=r1&queues=a", "&release=r1&generation=1", "&exclude=UPPER"]
    {
        ask(bad).await.problem(400, "BAD_PARAMETER");
    }
    server.get("/v1/gate?release=r1&exclude=mail").await.problem(400, "BAD_PARAMETER");
}

#[tokio::test]
async fn a_store_that_is_away_is_pending_and_not_a_failure_of_the_tier() {
    let away = Server::over(Arc::new(Faulty::new(ErrorKind::Unavailable)), |api| api);
    let answer = away.get("/v1/gate?release=r1").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer:?}");
    let body = answer.json();
    assert_eq!((&body["verdict"], &body["unreachable"]), (&json!("pending"), &json!(true)));
    assert!(body["output"].as_str().unwrap().contains("nothing is known"), "{body}");
    let all = away.get("/v1/gate?all_tiers=1&release=r1").await;
    assert_eq!((all.status, &all.json()["unreachable"]), (503, &json!(true)), "{all:?}");
    let broken = Server::over(Arc::new(Faulty::new(ErrorKind::Corrupt)), |api| api);
    assert_eq!(broken.get("/v1/gate?release=r1").await.status, 412);
}

fn curl(url: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("curl");
    command.args(["--no-progress-meter", "--fail-with-body", "--retry", "10", "--retry-max-time", "60", url]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Pending is retried as `Retry-After` says, what is decided is not.
async fn plain_curl_waits_for_a_verdict_and_obeys_it(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let store = Arc::clone(server.client.store());
    flip(&*store, None, "r1", Mode::Committed).await;
    let mut one = worker("w-1", "r1", WorkerState::Starting);
    one.state_age = Duration::ZERO;
    beat(&*store, &one).await;
    let url = format!("http://{}/v1/gate?release=r1", server.address);
    let mut asked = curl(&url).spawn().expect("curl runs");
    let mut said = BufReader::new(asked.stderr.take().unwrap()).lines();
    loop {
        let line = said.next_line().await.unwrap().expect("it says that it will ask again");
        if line.contains("retry in 5 s") {
            break;
        }
    }
    (one.state, one.joining) = (WorkerState::Active, false);
    beat(&*store, &one).await;
    let ended = asked.wait_with_output().await.unwrap();
    let body = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{body}");
    // Both bodies are printed: the one that was to be waited for, and the verdict.
    assert!(body.ends_with("\n") && body.contains("\"verdict\":\"pass\""), "{body}");

    one.canary_error = Some("timed out".into());
    beat(&*store, &one).await;
    let ended = curl(&url).output().await.expect("curl runs");
    let (body, said) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    assert_eq!(ended.status.code(), Some(22), "{body}{said}");
    assert!(body.contains("its canary failed: timed out"), "the body is printed: {body}");
    assert!(!said.contains("retry"), "{said}");
}

on_both! {
    #[tokio::test] async:
        a_gate_tells_each_verdict_by_its_status
        only_an_unmanaged_tier_needs_no_release
        one_dead_tier_beside_a_healthy_one_is_red
        plain_curl_waits_for_a_verdict_and_obeys_it;
}
