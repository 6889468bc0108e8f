//! What happens on the connections to mail servers: which failures are certain, and that none spoils the next mail.

use serde_json::{Value, json};
use sluicegate::handlers::Email;
use sluicegate::job::Outcome;
use tempfile::TempDir;

use super::peer::{Bench, Peer};

fn server(habit: &str, more: &Value) -> (Peer, Bench) {
    let peer = Peer::start("mailbox.py", habit);
    let mut settings =
        json!({ "smtp": format!("smtp://127.0.0.1:{}", peer.port), "from": "Status <status@example.com>" });
    for (key, value) in more.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    (peer, Bench::new(settings))
}

/// The next mail that the server stored; waits for it beside the runtime.
async fn next(mut peer: Peer) -> (Peer, Value) {
    let waiting = tokio::task::spawn_blocking(move || {
        let got = peer.received();
        (peer, got)
    });
    waiting.await.expect("received")
}

fn mail() -> Value {
    json!({ "to": "ada@example.org", "subject": "Incident 4711", "text": "We are on it." })
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_mail() {
    let (mut peer, bench) = server("take", &json!({}));
    for _ in 0..3 {
        assert_eq!(bench.another().run::<Email>(&mail()).await.expect("sent"), Outcome::Done);
        assert_eq!(peer.received()["connections"], 1);
    }
}

#[tokio::test]
async fn a_mail_that_was_cut_off_does_not_lend_its_answer_to_the_next() {
    let (peer, bench) = server("slow", &json!({}));
    let first = bench.another();
    let effects = std::sync::Arc::clone(&first.effects);
    let running = tokio::spawn(async move { first.run::<Email>(&mail()).await });
    // The server has the content and has not said 250 yet: the job is dropped there, as at a time-out.
    let (peer, _) = next(peer).await;
    running.abort();
    running.await.expect_err("cut off");
    assert_eq!(effects.state(), Some("begun"), "nobody knows");
    match bench.run::<Email>(&mail()).await.expect("an outcome") {
        Outcome::Dead(why) => assert!(why.contains("5.7.1"), "{why}"),
        other => panic!("the server refused the second mail, the job says {other:?}"),
    }
    assert_eq!(bench.effects.state(), None);
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn a_server_that_does_not_let_us_in_costs_an_attempt_and_never_the_mail() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret\n").expect("written");
    for (habit, wanted) in
        [("hangup", "cannot reach the mail server"), ("closed", "554"), ("vanish", "broke"), ("auth", "535")]
    {
        let (mut peer, _) = server(habit, &json!({}));
        let smtp =
            if habit == "auth" { "smtp://ada%2Bbot%40example.com@127.0.0.1" } else { "smtp://127.0.0.1" };
        let mut settings = json!({ "smtp": format!("{smtp}:{}", peer.port), "from": "a@example.com" });
        if habit == "auth" {
            settings["password_file"] = json!(file);
        }
        let bench = Bench::new(settings);
        for _ in 0..2 {
            let outcome = bench.run::<Email>(&mail()).await;
            let error = outcome.expect_err(habit).to_string();
            assert!(error.contains(wanted) && !error.contains("s3cret"), "{habit}: {error}");
            assert_eq!(bench.effects.state(), None, "{habit}: it certainly has no mail");
            if habit == "auth" {
                assert_eq!(peer.received(), json!({ "login": "ada+bot@example.com", "password": "s3cret" }));
            }
        }
        assert_eq!(peer.rest(), 0);
    }
}

#[tokio::test]
async fn content_that_is_refused_is_dead_and_certain() {
    let (peer, bench) = server("refuse", &json!({}));
    match bench.run::<Email>(&mail()).await.expect("an outcome") {
        Outcome::Dead(why) => assert!(why.contains("550") && why.contains("5.7.1"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.effects.state(), None);
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn an_address_that_the_server_cannot_take_is_dead_before_it_is_sent() {
    let (peer, bench) = server("refuse", &json!({}));
    let mut args = mail();
    args["to"] = json!("grüße@example.org");
    match bench.run::<Email>(&args).await.expect("an outcome") {
        Outcome::Dead(why) => assert!(why.contains("SMTPUTF8"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.effects.state(), None);
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_gets_no_mail_and_no_password() {
    for starttls in ["required", "opportunistic"] {
        let (peer, bench) = server("tls", &json!({ "starttls": starttls }));
        let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
        assert!(error.contains("certificate"), "{starttls}: {error}");
        assert_eq!(bench.effects.state(), None);
        assert_eq!(peer.rest(), 0);
    }
}

#[tokio::test]
async fn a_password_is_not_sent_in_the_clear_because_somebody_hid_starttls() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret").expect("written");
    let peer = Peer::start("mailbox.py", "auth");
    let bench = Bench::new(
        json!({ "smtp": format!("smtp://ada@127.0.0.1:{}", peer.port), "from": "a@example.com", "starttls": "opportunistic", "password_file": file }),
    );
    let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
    assert!(error.contains("in the clear") && !error.contains("535"), "{error}");
}

#[tokio::test]
async fn h41_bare_line_ends_long_lines_and_lone_dots_stay_one_mail() {
    let (mut peer, bench) = server("take", &json!({}));
    for text in [
        "one\n.\nMAIL FROM:<evil@example.org>\nRCPT TO:<x@example.org>\nDATA\n",
        "one\r\n.\r\nMAIL FROM:<evil@example.org>\r\n",
        "one\r.\rMAIL FROM:<evil@example.org>\r",
        "one\n.\r\nMAIL FROM:<evil@example.org>\r\n",
        &"x".repeat(200_000),
    ] {
        let mut args = mail();
        args["text"] = json!(text);
        let another = bench.another();
        let (outcome, received) = tokio::join!(another.run::<Email>(&args), next(peer));
        let got;
        (peer, got) = received;
        assert_eq!(outcome.expect("sent"), Outcome::Done);
        assert_eq!(got["from"], "status@example.com");
        let content = got["content"].as_str().expect("text");
        assert!(content.lines().all(|line| line.len() <= 998), "lines as mail allows them");
    }
    assert_eq!(peer.rest(), 0, "five mails and not one more");
}
