//! What a mail is made of when the server has it, byte for byte.

use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate::handlers::Email;
use sluicegate::job::Outcome;

use super::peer::{Bench, Kept, Peer};

fn server(habit: &str) -> (Peer, Bench) {
    let peer = Peer::start("mailbox.py", habit);
    let smtp = format!("smtp://127.0.0.1:{}", peer.port);
    let bench = Bench::new(json!({ "smtp": smtp, "from": "Status <status@example.com>" }));
    (peer, bench)
}

fn mail(text: &str) -> Value {
    json!({ "to": "ada@example.org", "subject": "Incident 4711", "text": text })
}

/// The last 400 bytes of a mail.
fn bytes(got: &Value) -> Vec<u8> {
    serde_json::from_value(got["bytes"].clone()).expect("bytes")
}

#[tokio::test]
async fn h41_every_sort_of_line_end_arrives_as_the_one_of_mail() {
    let (mut peer, bench) = server("take");
    for (text, wanted) in [
        ("a\nb\r\nc\n", &b"a\r\nb\r\nc"[..]),
        ("a\r.\rb", b"a\r\n.\r\nb"),
        ("a\r\n.\rb", b"a\r\n.\r\nb"),
        ("..two\n...three", b"..two\r\n...three"),
        (".", b"\r\n\r\n."),
        ("a\0b", b""),
        ("\r", b""),
    ] {
        assert_eq!(bench.another().run::<Email>(&mail(text)).await.expect("sent"), Outcome::Done);
        let got = bytes(&peer.received());
        for (at, byte) in got.iter().enumerate() {
            let alone = match byte {
                b'\r' => got.get(at + 1) != Some(&b'\n'),
                b'\n' => at == 0 || got[at - 1] != b'\r',
                0 => true,
                _ => false,
            };
            assert!(!alone, "{text:?}: {byte:#04x} alone in {}", got.escape_ascii());
        }
        assert!(got.trim_ascii_end().ends_with(wanted), "{text:?}: {}", got.escape_ascii());
    }
    assert_eq!(peer.rest(), 0, "no text begins a mail of its own");
}

#[tokio::test]
async fn h41_one_endless_line_or_nothing_but_line_ends_arrive_in_time() {
    let (mut peer, bench) = server("take");
    for text in ["long ".repeat(50_000), "\n".repeat(120_000)] {
        assert_eq!(bench.another().run::<Email>(&mail(&text)).await.expect("sent"), Outcome::Done);
        let got = peer.received();
        let content = got["content"].as_str().expect("text");
        assert!(content.lines().all(|line| line.len() <= 998), "lines as mail allows them");
        let whole = content.replace("=\r\n", "");
        assert_eq!(whole.matches("long").count(), text.matches("long").count());
        assert!(whole.matches("\r\n").count() >= text.matches('\n').count());
    }
}

#[tokio::test]
async fn a_451_lets_the_next_attempt_send_the_same_mail() {
    let (mut peer, bench) = server("once");
    let error = bench.run::<Email>(&mail("t")).await.expect_err("failed").to_string();
    assert!(error.contains("451"), "{error}");
    assert_eq!(bench.effects.state(), None);
    assert_eq!(bench.run::<Email>(&mail("t")).await.expect("sent"), Outcome::Done);
    let got = peer.received();
    let head = got["content"].as_str().expect("text");
    assert!(head.contains(&format!("Message-ID: <{}@example.com>\r\n", bench.id)), "{head}");
    assert_eq!(bench.effects.state(), Some("sent"));
    assert_eq!(peer.rest(), 0);
}

#[tokio::test]
async fn h41_names_and_subjects_of_any_letters_stay_one_header_each() {
    let (mut peer, bench) = server("take");
    let mut args = mail("t");
    args["to"] = json!(["\"Lovelace, Ada\" <ada@example.org>", "Jürgen Müller <j@example.org>"]);
    args["subject"] = json!(format!("Störung {} =?utf-8?q?x?=", "lang ".repeat(60)));
    assert_eq!(bench.run::<Email>(&args).await.expect("sent"), Outcome::Done);
    let got = peer.received();
    assert_eq!(got["to"], json!(["ada@example.org", "j@example.org"]));
    let (head, _) = got["content"].as_str().expect("text").split_once("\r\n\r\n").expect("a head");
    for name in ["To: ", "Subject: ", "From: ", "Message-ID: ", "Date: "] {
        assert_eq!(head.lines().filter(|line| line.starts_with(name)).count(), 1, "{name}{head}");
    }
    assert!(head.is_ascii() && head.lines().all(|line| line.len() <= 998), "{head}");
}

#[tokio::test]
async fn the_inbox_shows_a_text_as_it_is_read() {
    let inbox = Arc::new(Kept::default());
    let bench = Bench::new(json!({})).with_inbox(&inbox);
    let text = format!("Grüße\n.\n{}", "lang ".repeat(300));
    assert_eq!(bench.run::<Email>(&mail(&text)).await.expect("kept"), Outcome::Done);
    assert_eq!(inbox.0.lock().expect("a lock").pop().expect("a message").body, text);
}
