//! `notify.webhook`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::handlers::{Webhook, check_settings};
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
    let until = run("/busy-until").await;
    assert!(
        matches!(until, Ok(Outcome::RetryIn(after, _)) if (500..=601).contains(&after.as_secs())),
        "{until:?}"
    );
    // A receiver that says "at once" does not burn all attempts within a second.
    let now = run("/busy-now").await;
    assert!(matches!(now, Ok(Outcome::RetryIn(after, _)) if after >= Duration::from_secs(5)), "{now:?}");
    assert!(run("/error").await.expect_err("failed").to_string().contains("500"));
    let redirected = run("/redirect").await.expect_err("failed").to_string();
    assert!(redirected.contains("302") && redirected.contains("not followed"), "{redirected}");
}

#[tokio::test]
async fn an_answer_that_never_ends_is_still_an_answer() {
    let (peer, bench) = receiver();
    for path in ["/endless", "/stalls"] {
        assert_eq!(bench.run::<Webhook>(&to(&peer, path)).await.expect("sent"), Outcome::Done, "{path}");
    }
}

/// A receiver that always asks for three seconds had used every attempt up within 45 s.
#[tokio::test]
async fn a_short_retry_after_does_not_shorten_the_schedule() {
    let (peer, mut bench) = receiver();
    for (attempt, planned) in [(1, 5), (3, 1_800), (9, 86_400)] {
        bench.attempt = attempt;
        let answer = bench.run::<Webhook>(&to(&peer, "/busy-now")).await;
        let least = Duration::from_secs(planned).mul_f64(0.79);
        assert!(
            matches!(&answer, Ok(Outcome::RetryIn(after, _)) if *after >= least),
            "{attempt}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn without_a_receiver_it_is_dead_at_once() {
    for args in [json!({}), json!({ "url": "https://example.com", "endpoint": "x" })] {
        let answer = Bench::new(json!({})).run::<Webhook>(&args).await;
        assert!(matches!(&answer, Ok(Outcome::Dead(why)) if why.contains("either")), "{answer:?}");
    }
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
async fn data_arrives_as_it_was_written() {
    let (mut peer, bench) = receiver();
    let data = r#"{"z":12345678901234567890123,"a":1.10,"ä":"\u00e4"}"#;
    let args = format!(r#"{{"url":"http://127.0.0.1:{}/ok","data":{data}}}"#, peer.port);
    assert_eq!(bench.run_text::<Webhook>(&args).await.expect("sent"), Outcome::Done);
    let got = peer.received();
    assert_eq!(got["verified"], true);
    assert!(got["raw"].as_str().expect("text").contains(data), "{got}");
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_a_failed_attempt() {
    let peer = Peer::start("receiver.py", &format!("{SECRET} tls"));
    let bench = Bench::new(json!({ "secret": SECRET, "allow": ["localhost"] }));
    let url = format!("https://localhost:{}/ok", peer.port);
    let error = bench.run::<Webhook>(&json!({ "url": url })).await.expect_err("failed").to_string();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(peer.rest(), 0, "nothing was sent");
}

#[test]
fn settings_are_refused_before_a_worker_starts_and_show_no_secret() {
    for (bad, wanted) in [
        (json!({ "secrets": "whsec_s3cret" }), "secrets"),
        (json!({ "secret": ["whsec_s3cret"] }), "secret"),
        (
            json!({ "endpoints": { "a": { "url": "https://example.com/", "secret_flie": "x" } } }),
            "secret_flie",
        ),
        (
            json!({ "endpoints": { "a": { "url": "https://example.com/", "secrets": "whsec_s3cret" } } }),
            "secrets",
        ),
        (json!({ "allow": ["http://127.0.0.1:9000"] }), "host:port"),
        (json!({ "allow": [""] }), "host:port"),
    ] {
        let error = check_settings("notify.webhook", &bad).expect_err("refused");
        assert!(error.contains(wanted) && !error.contains("s3cret"), "{bad}: {error}");
    }
    for good in [json!(["127.0.0.1:9000"]), json!(["hooks.internal"]), json!(["[::1]:80", "[fd00::1]"])] {
        assert_eq!(check_settings("notify.webhook", &json!({ "allow": good })), Ok(()));
    }
}

#[tokio::test]
async fn h40_dev_refuses_what_production_would_never_send() {
    let inbox = Arc::new(Kept::default());
    let bench = Bench::new(json!({})).with_inbox(&inbox);
    for url in [
        "file:///etc/passwd",
        "https://u:p@example.com/",
        "https://example.com/\r\nX: y",
        "https://example.com/#x",
    ] {
        let outcome = bench.run::<Webhook>(&json!({ "url": url })).await;
        assert!(matches!(outcome, Ok(Outcome::Dead(_))), "{url}: {outcome:?}");
    }
    assert!(inbox.0.lock().expect("a lock").is_empty());
}
