//! `notify.webhook`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::handlers::Webhook;
use sluicegate::job::Outcome;

use super::peer::{Bench, Kept, Peer, SECRET};

const OTHER: &str = "whsec_b3RoZXIgc2VjcmV0IG9mIGFub3RoZXIgdGVuYW50";

fn receiver() -> (Peer, Bench) {
    let peer = Peer::start("receiver.py", SECRET);
    let bench = Bench::new(json!({ "secret": SECRET, "allow": [format!("127.0.0.1:{}", peer.port)] }));
    (peer, bench)
}

fn to(peer: &Peer, path: &str) -> Value {
    json!({ "url": format!("http://127.0.0.1:{}{path}", peer.port), "type": "incident.created", "data": { "id": 4711 } })
}

#[tokio::test]
async fn the_specifications_own_library_verifies_what_arrives() {
    let (mut peer, bench) = receiver();
    assert_eq!(bench.run::<Webhook>(&to(&peer, "/ok")).await.expect("sent"), Outcome::Done);
    let got = peer.received();
    assert_eq!(got["verified"], true, "{got}");
    assert_eq!(got["id"], bench.id.to_string());
    assert_eq!(
        got["body"],
        json!({ "type": "incident.created", "timestamp": "2026-01-10T09:14:05.123Z", "data": { "id": 4711 } })
    );
}

#[tokio::test]
async fn every_secret_signs_so_that_receivers_can_rotate_and_a_wrong_one_does_not_verify() {
    let (mut peer, _) = receiver();
    let allow = [format!("127.0.0.1:{}", peer.port)];
    for (settings, verified) in [
        (json!({ "secrets": [OTHER, SECRET], "allow": allow }), true),
        (json!({ "secrets": [OTHER], "allow": allow }), false),
    ] {
        Bench::new(settings).run::<Webhook>(&to(&peer, "/ok")).await.expect("sent");
        assert_eq!(peer.received()["verified"], verified);
    }
}

#[tokio::test]
async fn each_answer_has_its_meaning() {
    let (peer, bench) = receiver();
    let run = async |path: &str| bench.run::<Webhook>(&to(&peer, path)).await;
    assert!(matches!(run("/gone").await, Ok(Outcome::Dead(why)) if why.contains("410")));
    assert!(
        matches!(run("/busy").await, Ok(Outcome::RetryIn(after, _)) if after == Duration::from_secs(120))
    );
    assert!(run("/error").await.expect_err("failed").to_string().contains("500"));
    let redirected = run("/redirect").await.expect_err("failed").to_string();
    assert!(redirected.contains("302") && redirected.contains("not followed"), "{redirected}");
}

#[tokio::test]
async fn an_endless_answer_costs_nothing() {
    let (peer, bench) = receiver();
    assert_eq!(bench.run::<Webhook>(&to(&peer, "/endless")).await.expect("sent"), Outcome::Done);
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_a_failed_attempt() {
    let (peer, bench) = receiver();
    let args = to(&peer, "/ok");
    drop(peer);
    let error = bench.run::<Webhook>(&args).await.expect_err("failed").to_string();
    assert!(
        error.contains("cannot send to `127.0.0.1`") && error.to_lowercase().contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn h38_a_private_receiver_is_refused_unless_it_is_allowed() {
    let peer = Peer::start("receiver.py", SECRET);
    let bench = Bench::new(json!({ "secret": SECRET }));
    for url in [
        format!("https://127.0.0.1:{}/ok", peer.port),
        "https://169.254.169.254/".into(),
        "https://localhost/".into(),
        "https://[::ffff:10.0.0.1]/".into(),
    ] {
        match bench.run::<Webhook>(&json!({ "url": url })).await {
            Ok(Outcome::Dead(why)) => assert!(why.contains("refused") && why.contains("allow"), "{why}"),
            other => panic!("{url}: {other:?}"),
        }
    }
    assert_eq!(peer.rest(), 0, "nothing was sent");
}

#[tokio::test]
async fn without_a_secret_nothing_is_sent_and_the_setting_is_named() {
    let peer = Peer::start("receiver.py", SECRET);
    let bench = Bench::new(json!({ "allow": [format!("127.0.0.1:{}", peer.port)] }));
    let error = bench.run::<Webhook>(&to(&peer, "/ok")).await.expect_err("failed").to_string();
    assert!(error.contains("secret_file"), "{error}");
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn a_named_endpoint_has_its_own_secret_and_an_unknown_one_is_an_error() {
    let (mut peer, _) = receiver();
    let url = format!("http://127.0.0.1:{}/ok", peer.port);
    let bench = Bench::new(
        json!({ "secret": OTHER, "allow": ["127.0.0.1"], "endpoints": { "pager": { "url": url, "secret": SECRET } } }),
    );
    assert_eq!(bench.run::<Webhook>(&json!({ "endpoint": "pager" })).await.expect("sent"), Outcome::Done);
    assert_eq!(peer.received()["verified"], true);
    assert!(
        bench
            .run::<Webhook>(&json!({ "endpoint": "nobody" }))
            .await
            .expect_err("failed")
            .to_string()
            .contains("`nobody`")
    );
    assert!(bench.run::<Webhook>(&json!({})).await.is_err());
}

#[tokio::test]
async fn h23_a_secret_is_in_no_error() {
    let settings = json!({ "secret": "whsec_not-base64-s3cret", "allow": ["127.0.0.1"] });
    let error = Bench::new(settings)
        .run::<Webhook>(&json!({ "url": "http://127.0.0.1:9/" }))
        .await
        .expect_err("failed");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
}

#[tokio::test]
async fn in_dev_it_lands_signed_in_the_inbox_unless_its_host_is_allowed() {
    let (mut peer, _) = receiver();
    let inbox = Arc::new(Kept::default());
    let bench = Bench::new(json!({})).with_inbox(&inbox);
    for url in ["https://example.com/hook", "http://127.0.0.1:1/hook"] {
        assert_eq!(bench.run::<Webhook>(&json!({ "url": url })).await.expect("kept"), Outcome::Done);
    }
    let kept = inbox.0.lock().expect("a lock").clone();
    assert_eq!(
        kept.iter().map(|message| message.to.as_str()).collect::<Vec<_>>(),
        ["https://example.com/hook", "http://127.0.0.1:1/hook"]
    );
    assert!(
        kept[0].headers.iter().any(|(name, value)| name == "webhook-signature" && value.starts_with("v1,"))
    );
    let bench = Bench::new(json!({ "secret": SECRET, "allow": [format!("127.0.0.1:{}", peer.port)] }))
        .with_inbox(&inbox);
    assert_eq!(bench.run::<Webhook>(&to(&peer, "/ok")).await.expect("sent"), Outcome::Done);
    assert_eq!(peer.received()["verified"], true);
    assert_eq!(inbox.0.lock().expect("a lock").len(), 2);
}

#[tokio::test]
async fn a_wish_to_come_back_later_is_heeded_but_not_for_longer_than_a_day() {
    let (peer, bench) = receiver();
    match bench.run::<Webhook>(&to(&peer, "/down")).await.expect("an outcome") {
        Outcome::RetryIn(after, why) => {
            assert_eq!(after, Duration::from_secs(24 * 3600));
            assert!(why.contains("503"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_of_1_mb_costs_nothing_and_the_next_one_arrives() {
    let (mut peer, bench) = receiver();
    for path in ["/big", "/ok", "/big", "/ok"] {
        assert_eq!(bench.run::<Webhook>(&to(&peer, path)).await.expect("sent"), Outcome::Done);
        assert_eq!(peer.received()["path"], path);
    }
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_a_failed_attempt_at_the_deadline() {
    let (mut peer, bench) = receiver();
    let bench = bench.within(Duration::from_millis(300));
    let error = bench.run::<Webhook>(&to(&peer, "/silent")).await.expect_err("failed").to_string();
    assert!(error.contains("no answer within 300 ms"), "{error}");
    peer.received();
}

#[tokio::test]
async fn an_answer_whose_body_never_ends_is_still_an_answer() {
    let (peer, bench) = receiver();
    let bench = bench.within(Duration::from_millis(300));
    assert_eq!(bench.run::<Webhook>(&to(&peer, "/drip")).await.expect("sent"), Outcome::Done);
}

#[tokio::test]
async fn a_receiver_that_hangs_up_is_a_failed_attempt() {
    let (mut peer, bench) = receiver();
    let error = bench.run::<Webhook>(&to(&peer, "/hang-up")).await.expect_err("failed").to_string();
    assert!(error.contains("cannot send to `127.0.0.1`"), "{error}");
    peer.received();
    assert_eq!(peer.rest(), 0, "the worker decides when to try again, not the connection pool");
}

#[tokio::test]
async fn every_attempt_has_the_same_id_and_the_same_bytes() {
    let (mut peer, bench) = receiver();
    let mut seen = Vec::new();
    for path in ["/error", "/ok"] {
        let args = json!({ "url": format!("http://127.0.0.1:{}{path}", peer.port), "data": { "b": 1.0, "a": "\u{2028}ü" } });
        drop(bench.run::<Webhook>(&args).await);
        let got = peer.received();
        assert_eq!(got["verified"], true, "{got}");
        seen.push((got["id"].clone(), got["raw"].clone()));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].0.as_str().expect("an id").starts_with("job_"), "{seen:?}");
}

#[tokio::test]
async fn a_misspelt_setting_of_an_endpoint_is_refused_and_does_not_fall_back_to_another_secret() {
    let settings = json!({ "secret": SECRET, "endpoints": { "pager": { "url": "https://example.com/", "secert_file": "/x" } } });
    let error = sluicegate::handlers::check_settings("notify.webhook", &settings).expect_err("refused");
    assert!(error.contains("secert_file") && error.contains("pager"), "{error}");
}
