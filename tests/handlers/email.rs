//! `notify.email`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    let error = bench.run::<Email>(&mail()).await;
    let error = error.expect_err("failed").to_string();
    assert!(error.contains("STARTTLS is not supported"), "{error}");
    assert_eq!(bench.effects.state(), None);
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn tls_that_fails_is_not_done_without() {
    let (peer, mut bench) = server("tls");
    for (scheme, starttls) in [("smtp", "required"), ("smtp", "opportunistic"), ("smtps", "none")] {
        bench.settings["smtp"] = json!(format!("{scheme}://127.0.0.1:{}", peer.port));
        bench.settings["starttls"] = json!(starttls);
        let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
        assert!(error.contains("cannot reach the mail server"), "{error}");
        assert_eq!(bench.effects.state(), None);
    }
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

/// The mail as the server got it, byte for byte.
fn raw(got: &Value) -> Vec<u8> {
    STANDARD.decode(got["raw"].as_str().expect("base64")).expect("base64")
}

/// Head and body of a mail of one part, the body decoded.
fn parts(raw: &[u8]) -> (String, String) {
    let text = String::from_utf8(raw.to_vec()).expect("ASCII");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let body = if head.contains("Content-Transfer-Encoding: base64") {
        let joined: String = body.split("\r\n").collect();
        String::from_utf8(STANDARD.decode(joined).expect("base64")).expect("text")
    } else {
        body.to_owned()
    };
    (head.to_owned(), body)
}

#[tokio::test]
async fn a_451_lets_the_next_attempt_send_the_same_mail() {
    let (mut peer, bench) = server("once");
    let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
    assert!(error.contains("451"), "{error}");
    assert_eq!(bench.run::<Email>(&mail()).await.expect("sent"), Outcome::Done);
    let (head, _) = parts(&raw(&peer.received()));
    assert!(head.contains(&format!("Message-ID: <{}@example.com>", bench.id)), "{head}");
    assert_eq!(bench.effects.state(), Some("sent"));
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn one_bad_recipient_stops_the_mail_for_all_of_them() {
    let (peer, bench) = server("take");
    let mut args = mail();
    args["to"] = json!(["ada@example.org", "nobody@example.org"]);
    assert!(matches!(bench.run::<Email>(&args).await, Ok(Outcome::Dead(why)) if why.contains("550")));
    assert_eq!(bench.effects.state(), None);
    assert_eq!(peer.rest(), 0, "a retry after a correction sends it to nobody twice");
}

#[tokio::test]
async fn connections_are_used_again() {
    let (mut peer, bench) = server("take");
    let mut peers = Vec::new();
    for _ in 0..3 {
        assert_eq!(bench.next().run::<Email>(&mail()).await.expect("sent"), Outcome::Done);
        peers.push(peer.received()["peer"].clone());
    }
    peers.dedup();
    assert_eq!(peers.len(), 1, "{peers:?}");
}

#[tokio::test]
async fn an_attempt_that_was_cut_off_does_not_answer_for_the_next_mail() {
    let (mut peer, bench) = server("hold");
    let cut = bench.next();
    let args = mail();
    {
        let run = std::pin::pin!(cut.run::<Email>(&args));
        let (reading, got) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mail = peer.received();
            reading.send(()).expect("somebody waits");
            (peer, mail)
        });
        tokio::select! {
            outcome = run => panic!("{outcome:?}"),
            () = async { got.await.expect("the mail is there") } => {}
        }
        peer = thread.join().expect("a peer").0;
    }
    assert_eq!(cut.effects.state(), Some("begun"));
    peer.tell("go");
    // Read one answer too early, the refusal after the mail's content would be the go-ahead before it.
    let mut refused = mail();
    refused["to"] = json!("filter@example.org");
    for _ in 0..3 {
        let outcome = bench.next().run::<Email>(&refused).await;
        assert!(matches!(&outcome, Ok(Outcome::Dead(why)) if why.contains("554")), "{outcome:?}");
    }
    assert!(matches!(cut.run::<Email>(&args).await, Ok(Outcome::Uncertain(_))));
    assert_eq!(peer.rest(), 0, "the server has it once");
}

#[tokio::test]
async fn a_server_that_never_greets_has_certainly_not_got_the_mail() {
    let (_peer, bench) = server("mute");
    let bench = bench.within(Duration::from_millis(300));
    let error = bench.run::<Email>(&mail()).await.expect_err("failed").to_string();
    assert!(error.contains("within 300 ms"), "{error}");
    assert_eq!(bench.effects.state(), None);
}

#[tokio::test]
async fn a_server_that_never_confirms_makes_it_uncertain_at_the_deadline() {
    let (mut peer, bench) = server("hold");
    let bench = bench.within(Duration::from_millis(300));
    let outcome = bench.run::<Email>(&mail()).await;
    assert!(matches!(&outcome, Ok(Outcome::Uncertain(why)) if why.contains("within 300 ms")), "{outcome:?}");
    peer.received();
    assert_eq!(bench.effects.state(), Some("begun"));
    assert!(matches!(bench.run::<Email>(&mail()).await, Ok(Outcome::Uncertain(_))));
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_refuses_no_mail_for_good() {
    let (_peer, bench) = server("busy");
    let error = bench.run::<Email>(&mail()).await.expect_err("failed, and tried again").to_string();
    assert!(error.contains("554") && error.contains("no service here"), "{error}");
    assert_eq!(bench.effects.state(), None);
}

#[tokio::test]
async fn the_login_is_the_configured_one_and_a_wrong_one_is_a_failed_attempt() {
    let (mut peer, mut bench) = server("login");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "p@ss: wörd\n").expect("written");
    bench.settings["smtp"] = json!(format!("smtp://status%2Bbot%40example.com@127.0.0.1:{}", peer.port));
    bench.settings["password_file"] = json!(file);
    let error = bench.run::<Email>(&mail()).await.expect_err("failed, and tried again").to_string();
    assert!(error.contains("535") && !error.contains("p@ss"), "{error}");
    assert_eq!(peer.received(), json!({ "login": "status+bot@example.com", "password": "p@ss: wörd" }));
    assert_eq!(bench.effects.state(), None);
}

#[tokio::test]
async fn h41_line_ends_of_every_sort_and_dots_end_no_mail() {
    let (mut peer, bench) = server("take");
    for (text, wanted) in [
        (".", "."),
        ("a\n.\nb", "a\r\n.\r\nb"),
        ("a\r\n.\r\nMAIL FROM:<evil@example.org>", "a\r\n.\r\nMAIL FROM:<evil@example.org>"),
        ("a\n.\r\nMAIL FROM:<evil@example.org>", "a\r\n.\r\nMAIL FROM:<evil@example.org>"),
        ("..two\n...three", "..two\r\n...three"),
        ("Grüße\n.\n", "Grüße\r\n.\r\n"),
    ] {
        let mut args = mail();
        args["text"] = json!(text);
        assert_eq!(bench.next().run::<Email>(&args).await.expect("sent"), Outcome::Done);
        let raw = raw(&peer.received());
        assert!(bare_ends(&raw).is_empty(), "{text:?}: {raw:?}");
        let (_, body) = parts(&raw);
        assert_eq!(body.trim_end_matches("\r\n"), wanted.trim_end_matches("\r\n"), "{text:?}");
    }
    assert_eq!(peer.rest(), 0, "no text begins a mail of its own");
}

#[tokio::test]
async fn h41_a_bare_cr_or_a_nul_in_the_text_reaches_no_server_as_such() {
    let (mut peer, bench) = server("take");
    for text in ["a\r.\rb", "a\r\n.\rb", "a\0b", "\r"] {
        let mut args = mail();
        args["text"] = json!(text);
        match bench.next().run::<Email>(&args).await.expect("an outcome") {
            Outcome::Done => {
                let raw = raw(&peer.received());
                assert!(bare_ends(&raw).is_empty() && !raw.contains(&0), "{text:?}: {raw:?}");
            }
            Outcome::Dead(why) => assert!(why.contains("text"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(peer.rest(), 0);
}

/// Where there is a CR or an LF alone.
fn bare_ends(raw: &[u8]) -> Vec<usize> {
    let at = |index: usize| raw.get(index).copied();
    (0..raw.len())
        .filter(|&index| match raw[index] {
            b'\r' => at(index + 1) != Some(b'\n'),
            b'\n' => index == 0 || at(index - 1) != Some(b'\r'),
            _ => false,
        })
        .collect()
}

#[tokio::test]
async fn h41_a_line_of_2_mb_arrives_whole_in_lines_that_mail_allows() {
    let (mut peer, bench) = server("take");
    let mut args = mail();
    args["text"] = json!("long ".repeat(400_000));
    assert_eq!(bench.run::<Email>(&args).await.expect("sent"), Outcome::Done);
    let content = peer.received();
    let raw = raw(&content);
    assert!(raw.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
    let text = String::from_utf8(raw).expect("ASCII").replace("=\r\n", "");
    let (_, body) = parts(text.as_bytes());
    assert_eq!(body.matches("long").count(), 400_000);
}

#[tokio::test]
async fn h41_names_and_subjects_of_any_letters_stay_one_header_each() {
    let (mut peer, bench) = server("take");
    let mut args = mail();
    args["to"] = json!(["\"Lovelace, Ada\" <ada@example.org>", "Jürgen Müller <j@example.org>"]);
    args["subject"] = json!(format!("Störung {} =?utf-8?q?x?=", "lang ".repeat(60)));
    assert_eq!(bench.run::<Email>(&args).await.expect("sent"), Outcome::Done);
    let got = peer.received();
    assert_eq!(got["to"], json!(["ada@example.org", "j@example.org"]));
    let (head, _) = parts(&raw(&got));
    for name in ["To: ", "Subject: ", "From: ", "Message-ID: ", "Date: "] {
        assert_eq!(head.lines().filter(|line| line.starts_with(name)).count(), 1, "{name}{head}");
    }
    assert!(head.is_ascii() && head.lines().all(|line| line.len() <= 998), "{head}");
}

#[tokio::test]
async fn the_inbox_shows_every_header_whole() {
    let inbox = Arc::new(Kept::default());
    let bench = Bench::new(json!({})).with_inbox(&inbox);
    let to: Vec<String> = (0..8).map(|n| format!("somebody-with-a-long-name-{n}@example.org")).collect();
    let mut args = mail();
    args["to"] = json!(to);
    args["text"] = json!("Grüße\nEnd");
    assert_eq!(bench.run::<Email>(&args).await.expect("kept"), Outcome::Done);
    let kept = inbox.0.lock().expect("a lock").pop().expect("a message");
    let shown = &kept.headers.iter().find(|(name, _)| name == "To").expect("a header").1;
    assert_eq!(shown.split(", ").collect::<Vec<_>>(), to);
    assert_eq!(kept.body, "Grüße\nEnd");
}
