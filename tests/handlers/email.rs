//! `notify.email`.

use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate::handlers::Email;
use sluicegate::job::Outcome;

use super::peer::{Bench, Kept, Peer};

fn server(habit: &str) -> (Peer, Bench) {
    let peer = Peer::start("mailbox.py", habit);
    let bench = Bench::new(
        json!({ "smtp": format!("smtp://127.0.0.1:{}", peer.port), "from": "Status <status@example.com>" }),
    );
    (peer, bench)
}

fn mail() -> Value {
    json!({ "to": "ada@example.org", "subject": "Incident 4711", "text": "We are on it.\n.\n.dots\nEnd" })
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_written_once() {
    let (mut peer, bench) = server("take");
    assert_eq!(bench.run::<Email>(&mail()).await.expect("sent"), Outcome::Done);
    let got = peer.received();
    assert_eq!((&got["from"], &got["to"]), (&json!("status@example.com"), &json!(["ada@example.org"])));
    let content = got["content"].as_str().expect("text");
    assert!(content.contains(&format!("Message-ID: <{}@example.com>", bench.id)), "{content}");
    assert!(content.contains("We are on it.\r\n.\r\n.dots\r\nEnd"), "{content:?}");
    assert_eq!(bench.effects.state(), Some("sent"));
    // Whatever makes it run again (a lost worker, a rollback): it is not sent twice.
    assert_eq!(bench.run::<Email>(&mail()).await.expect("known"), Outcome::Done);
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn html_comes_beside_the_text_and_copies_get_it_too() {
    let (mut peer, bench) = server("take");
    let args = json!({ "to": ["a@example.org", "B <b@example.org>"], "cc": "c@example.org", "reply_to": "help@example.com", "subject": "Grüße", "text": "plain", "html": "<b>rich</b>" });
    assert_eq!(bench.run::<Email>(&args).await.expect("sent"), Outcome::Done);
    let got = peer.received();
    assert_eq!(got["to"], json!(["a@example.org", "b@example.org", "c@example.org"]));
    let content = got["content"].as_str().expect("text");
    for part in ["multipart/alternative", "plain", "<b>rich</b>", "Reply-To: help@example.com"] {
        assert!(content.contains(part), "{part}: {content}");
    }
}

#[tokio::test]
async fn later_is_a_failed_attempt_and_the_next_one_may_send() {
    let (peer, bench) = server("later");
    let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
    assert!(error.contains("451"), "{error}");
    assert_eq!(bench.effects.state(), None);
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn never_is_dead_with_the_servers_reason() {
    let (_peer, bench) = server("never");
    match bench.run::<Email>(&mail()).await.expect("an outcome") {
        Outcome::Dead(why) => assert!(why.contains("550") && why.contains("5.1.1"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_stores_and_drops_makes_it_uncertain_and_it_is_not_sent_again() {
    let (mut peer, bench) = server("drop");
    assert!(matches!(bench.run::<Email>(&mail()).await, Ok(Outcome::Uncertain(_))));
    peer.received();
    assert_eq!(bench.effects.state(), Some("begun"));
    assert!(matches!(bench.run::<Email>(&mail()).await, Ok(Outcome::Uncertain(_))));
    assert_eq!(peer.rest(), 0, "the server has it once");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failed_attempt() {
    let (peer, bench) = server("take");
    drop(peer);
    let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
    assert!(error.contains("cannot reach the mail server"), "{error}");
    assert_eq!(bench.effects.state(), None);
}

#[tokio::test]
async fn starttls_that_is_required_and_not_offered_sends_nothing() {
    let (peer, _) = server("take");
    let bench = Bench::new(
        json!({ "smtp": format!("smtp://127.0.0.1:{}", peer.port), "from": "a@example.com", "starttls": "required" }),
    );
    let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
    assert!(error.contains("STARTTLS"), "{error}");
    assert_eq!(bench.effects.state(), None);
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn h41_a_hostile_mail_is_dead_before_anything_is_sent() {
    let (peer, bench) = server("take");
    let many: Vec<String> = (0..51).map(|n| format!("u{n}@example.org")).collect();
    for (field, value, wanted) in [
        ("subject", json!("x\r\nBcc: evil@example.org"), "illegal character"),
        ("to", json!("a@b.example>,<c@d.example"), "not a mail address"),
        ("to", json!("a@b.example\nBcc: c@d.example"), "illegal character"),
        ("from", json!("-oQ/tmp/x@example.org"), "not a mail address"),
        ("to", json!(many), "51 recipients are over the limit of 50"),
        ("to", json!([]), "names nobody"),
        ("subject", json!("x".repeat(999)), "over the limit of 998"),
    ] {
        let mut args = mail();
        args[field] = value;
        match bench.run::<Email>(&args).await.expect("an outcome") {
            Outcome::Dead(why) => assert!(why.contains(wanted), "{field}: {why}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn in_dev_it_lands_in_the_inbox_unless_a_server_is_set() {
    let inbox = Arc::new(Kept::default());
    let bench = Bench::new(json!({})).with_inbox(&inbox);
    assert_eq!(bench.run::<Email>(&mail()).await.expect("kept"), Outcome::Done);
    let kept = inbox.0.lock().expect("a lock").pop().expect("a message");
    assert_eq!(
        (kept.subject.as_str(), kept.to.as_str(), kept.job),
        ("Incident 4711", "ada@example.org", bench.id)
    );
    let mut peer = Peer::start("mailbox.py", "take");
    let bench =
        Bench::new(json!({ "smtp": format!("smtp://127.0.0.1:{}", peer.port), "from": "a@example.com" }))
            .with_inbox(&inbox);
    assert_eq!(bench.run::<Email>(&mail()).await.expect("sent"), Outcome::Done);
    peer.received();
    assert!(inbox.0.lock().expect("a lock").is_empty());
}

#[tokio::test]
async fn the_inbox_shows_long_headers_whole() {
    let inbox = Arc::new(Kept::default());
    let to: Vec<String> = (0..20).map(|n| format!("someone-{n}@example.org")).collect();
    let args = json!({ "to": to, "subject": "Grüße ".repeat(50), "text": "t" });
    assert_eq!(
        Bench::new(json!({})).with_inbox(&inbox).run::<Email>(&args).await.expect("kept"),
        Outcome::Done
    );
    let kept = inbox.0.lock().expect("a lock").pop().expect("a message");
    let header = |wanted| &kept.headers.iter().find(|(name, _)| name == wanted).expect("a header").1;
    let (to, subject) = (header("To"), header("Subject"));
    assert!(to.contains("someone-0@") && to.contains("someone-19@"), "{to}");
    // Encoded as mail does it, every part of it.
    assert!(subject.matches("=?utf-8?b?").count() > 3, "{subject}");
}

#[tokio::test]
async fn a_sender_that_is_wrong_in_the_settings_is_not_the_mails_fault() {
    let bench = Bench::new(json!({ "smtp": "smtp://127.0.0.1:1", "from": "nobody at all" }));
    let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
    assert!(error.contains("nobody at all") && error.contains("handlers"), "{error}");
}
