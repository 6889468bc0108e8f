//! Jobs from the command line: what is enqueued, refused, listed, shown and waited for.

use serde_json::{Value, json};

use super::kit::Home;
use crate::both::Engine;

/// Refused as bad usage, with this in the error, and nothing stored.
fn refused(home: &Home, args: &[&str], wanted: &str) {
    let mut all = vec!["job", "enqueue"];
    all.extend(args);
    let ran = home.run(&all);
    assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    assert!(ran.err.contains(wanted), "{args:?}: {ran:?}");
    assert!(!ran.err.contains("panicked") && ran.out.is_empty(), "{args:?}: {ran:?}");
    let listed = home.run(&["job", "list", "--json"]);
    let none = listed.code == 13 && listed.err.contains("does not exist yet");
    assert!(none || listed.out.contains("\"jobs\": []"), "{args:?}: {listed:?}");
}

#[test]
fn h02_bad_names_are_refused_with_the_pattern() {
    let home = Home::new();
    let long = "q".repeat(65);
    for bad in ["", &long, "../x", "a{b}c", "a:b", "✉", "%00", "UPPER", "a b", "a\nb"] {
        refused(&home, &["echo", "--queue", bad], "bad queue name");
        refused(&home, &["echo", "--queue", bad], "[a-z0-9][a-z0-9._-]{0,63}");
        refused(&home, &[bad], "bad kind name");
        for args in
            [&["job", "list", "--queue", bad][..], &["queue", "show", bad], &["job", "list", "--kind", bad]]
        {
            let ran = home.run(args);
            assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
            assert!(ran.err.contains("it must match"), "{args:?}: {ran:?}");
        }
    }
    refused(&home, &["echo", "--queue=-leading"], "bad queue name");
    refused(&home, &["echo", "--tier", "a:b"], "bad tier name");
    refused(&home, &["process::exit"], "bad kind name");
    let ran = home.run(&["work", "--queues", "mail,../x"]);
    assert_eq!((ran.code, ran.err.contains("bad queue name")), (2, true), "{ran:?}");
}

#[test]
fn h04_h21_what_is_out_of_range_is_refused_with_the_range() {
    let home = Home::new();
    for span in ["99999999d", "-5s", "NaN", "1e309", "9223372036854775808s", "367d", "", "5 parsecs", "inf"] {
        for flag in ["--in", "--expires-in", "--unique", "--job-timeout"] {
            refused(&home, &["echo", &format!("{flag}={span}")], "from 0 to 366d");
        }
        for args in [
            vec!["job".to_owned(), "list".into(), format!("--older-than={span}")],
            vec!["job".into(), "wait".into(), "job_01kxyz".into(), format!("--timeout={span}")],
        ] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            assert_eq!(home.run(&args).code, 2, "{args:?}");
        }
    }
    for at in [
        "-001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "9223372036854775808",
        "NaN",
        "tomorrow",
        "2026-02-30T00:00:00Z",
    ] {
        for flag in ["--at", "--expires-at"] {
            refused(&home, &["echo", &format!("{flag}={at}")], "error: ");
        }
    }
    for priority in ["10", "-10", "127", "128", "9223372036854775807"] {
        refused(&home, &["echo", "--priority", priority], "-9 to 9");
    }
    refused(&home, &["echo", "--priority", "99999999999999999999"], "--priority");
    for retry in ["0", "1000000000", "4294967296", "-1"] {
        refused(&home, &["echo", &format!("--retry={retry}")], "error: ");
    }
    refused(&home, &["echo", "--job-timeout", "0s"], "timeout");
    refused(&home, &["echo", "--expires-in", "0s"], "expire");
    refused(&home, &["echo", "--in", "5m", "--at", "2026-01-10T09:00:00Z"], "cannot be used with");
    for limit in ["0", "501", "-1", "many"] {
        assert_eq!(home.run(&["job", "list", &format!("--limit={limit}")]).code, 2);
    }
}

#[test]
fn bad_arguments_are_refused() {
    let home = Home::new();
    refused(&home, &["echo", "{"], "hint: quote JSON for the shell");
    refused(&home, &["echo", "{\"a\":1,\"a\":2}"], "error: ");
    refused(&home, &["echo", "{\"a\":1} x"], "error: ");
    refused(&home, &["echo", "--tag", "novalue"], "expected KEY=VALUE");
    refused(&home, &["echo", "--id", "job_nope"], "error: ");
    refused(&home, &["echo", "--id", "job_nope", "--idempotency-key", "k"], "cannot be used with");
    refused(&home, &["--wait"], "required");
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    refused(&home, &["echo", &deep], "error: ");
    let ran = home.run_fed(&["job", "enqueue", "echo", "-"], &vec![b' '; 3 * 1024 * 1024]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let ran = home.run_fed(&["job", "enqueue", "echo", "-"], b"{\"a\":\"\xff\"}");
    assert_eq!(ran.code, 2, "{ran:?}");
}

fn what_was_asked_for_is_stored(engine: Engine) {
    let home = Home::on(engine);
    let id = home.enqueue(&[
        "echo",
        "{\"hello\":\"world\"}",
        "--queue",
        "mail",
        "--in",
        "10m",
        "--expires-in",
        "1h",
        "--priority",
        "-3",
        "--retry",
        "4",
        "--job-timeout",
        "30s",
        "--tag",
        "tenant=acme",
        "--tag",
        "empty=",
    ]);
    let job = home.json(&["job", "show", &id]);
    for (field, value) in [
        ("state", json!("scheduled")),
        ("queue", json!("mail")),
        ("priority", json!(-3)),
        ("kind", json!("echo")),
    ] {
        assert_eq!(job[field], value, "{job}");
    }
    assert_eq!(job["args"], json!({"hello": "world"}));
    let told = home.ok(&["job", "show", &id]);
    for text in ["mail (priority -3)", "at most 4", "30.0 s", "tenant=acme", "in 9m"] {
        assert!(told.contains(text), "no `{text}` in {told}");
    }
    let ran = home.run_fed(&["job", "enqueue", "echo", "-", "-o", "name"], b"{\"from\":\"stdin\"}");
    assert_eq!(home.json(&["job", "show", ran.out.trim()])["args"], json!({"from": "stdin"}));
    assert_eq!(home.ok(&["job", "list", "-o", "name", "--tag", "tenant=acme"]).trim(), id);
    assert_eq!(home.ok(&["job", "list", "-o", "name", "--state", "scheduled", "--queue", "mail"]).trim(), id);
    assert_eq!(home.ok(&["job", "list", "-o", "name", "--older-than", "1h"]), "");
    assert_eq!(home.json(&["queue", "show", "mail"])["inserted_total"], 1);
    for unknown in [&["queue", "show", "none"][..], &["job", "show", "job_00000000000000000000000000"]] {
        assert_eq!(home.run(unknown).code, 10, "{unknown:?}");
    }
}

fn pages_hold_every_job_once(engine: Engine) {
    let home = Home::on(engine);
    let jobs: String = (0..25).map(|n| format!("{{\"kind\":\"echo\",\"args\":{{\"n\":{n}}}}}\n")).collect();
    assert_eq!(home.run_fed(&["job", "enqueue", "--from-file", "-"], jobs.as_bytes()).code, 0);
    let (mut seen, mut token) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["job", "list", "--limit", "10"];
        if let Some(token) = &token {
            args.extend(["--page-token", token]);
        }
        let page = home.json(&args);
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["args"]["n"].as_u64().unwrap()));
        token = page["next"].as_str().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).rev().collect::<Vec<_>>());
    let ran = home.run(&["job", "list", "--page-token", "garbage"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

fn the_same_key_is_the_same_job_and_other_content_is_a_conflict(engine: Engine) {
    let home = Home::on(engine);
    let args = ["job", "enqueue", "echo", "{\"n\":1}", "--idempotency-key", "inc-4711/ada", "--json"];
    let first: Value = serde_json::from_str(&home.ok(&args)).unwrap();
    let again: Value = serde_json::from_str(&home.ok(&args)).unwrap();
    assert_eq!((&first["replayed"], &again["replayed"]), (&json!(false), &json!(true)));
    assert_eq!(first["id"], again["id"]);
    let ran = home.run(&["job", "enqueue", "echo", "{\"n\":2}", "--idempotency-key", "inc-4711/ada"]);
    assert_eq!(ran.code, 9, "{ran:?}");
    let id = first["id"].as_str().unwrap();
    assert!(ran.err.contains(&format!("job show {id}")), "{ran:?}");
    let ran = home.run(&["job", "enqueue", "echo", "--id", id]);
    assert_eq!(ran.code, 9, "{ran:?}");
}

fn a_unique_job_is_refused_while_another_is_there(engine: Engine) {
    let home = Home::on(engine);
    let id = home.enqueue(&["echo", "{\"n\":1}", "--unique", "10m"]);
    let ran = home.run(&["job", "enqueue", "echo", "{\"n\":1}", "--unique", "10m"]);
    assert_eq!((ran.code, ran.err.contains(&id)), (9, true), "{ran:?}");
    home.enqueue(&["echo", "{\"n\":2}", "--unique", "10m"]);
    let key = home.enqueue(&["echo", "--unique-key", "nightly"]);
    let ran = home.run(&["job", "enqueue", "echo", "{\"n\":3}", "--unique-key", "nightly"]);
    assert_eq!((ran.code, ran.err.contains(&key)), (9, true), "{ran:?}");
    home.ok(&["job", "cancel", &key]);
    home.enqueue(&["echo", "--unique-key", "nightly"]);
}

fn exits_of_retry_and_cancel(engine: Engine) {
    let home = Home::on(engine);
    let id = home.enqueue(&["echo", "--in", "1h"]);
    let none = "job_00000000000000000000000000";
    let dry = home.run(&["job", "cancel", &id, "--dry-run", "--json"]);
    assert_eq!(dry.code, 0);
    let dry: Value = serde_json::from_str(&dry.out).unwrap();
    assert_eq!((&dry["dry_run"], home.state(&id).as_str()), (&json!(true), "scheduled"));
    assert_eq!(home.run(&["job", "cancel", &id, none]).code, 11);
    assert_eq!(home.state(&id), "cancelled");
    assert_eq!(home.run(&["job", "cancel", none]).code, 10);
    assert_eq!(home.run(&["job", "retry", none, "--dry-run"]).code, 10);
    assert_eq!(home.run(&["job", "retry", &id]).code, 0);
    assert_eq!(home.state(&id), "available");
    assert_eq!(home.run(&["job", "retry", "nonsense"]).code, 2);
    assert_eq!(home.run(&["job", "retry"]).code, 2);
}

fn waiting_ends_with_the_verdict_or_with_124(engine: Engine) {
    let home = Home::on(engine);
    let id = home.enqueue(&["echo"]);
    for args in [
        &["job", "wait", &id, "--timeout", "0s"][..],
        &["job", "enqueue", "echo", "--wait", "--timeout", "0s"],
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, 124, "{ran:?}");
        assert!(ran.err.contains("hint: "), "{ran:?}");
    }
    home.ok(&["job", "cancel", &id]);
    assert_eq!(home.run(&["job", "wait", &id]).code, 3);
    assert_eq!(home.run(&["job", "wait", "job_00000000000000000000000000"]).code, 10);
    assert_eq!(home.run(&["job", "wait", "nonsense"]).code, 2);
}

fn h03_stored_control_characters_are_escaped(engine: Engine) {
    let home = Home::on(engine);
    let hostile = "{\"a\":\"\\u001b[2J\\u0007\\r\u{202e}\u{9b}\"}";
    let id = home.enqueue(&["echo", hostile, "--tag", "t=x\u{1b}[31my"]);
    for args in [
        &["job", "show", &id][..],
        &["job", "show", &id, "--json"],
        &["job", "list", "-o", "wide"],
        &["job", "list", "--json"],
        &["job", "list", "-o", "jsonl"],
        &["job", "wait", &id, "--timeout", "0s"],
        &["queue", "list"],
        &["status"],
    ] {
        let ran = home.run(args);
        for raw in ['\x1b', '\x07', '\r', '\u{9b}', '\u{202e}'] {
            assert!(!ran.out.contains(raw) && !ran.err.contains(raw), "{args:?}: {raw:?} in {ran:?}");
        }
    }
    assert!(home.ok(&["job", "show", &id]).contains("t=x\\x1b[31my"));
}

on_both! {
    #[test] fn:
        what_was_asked_for_is_stored
        pages_hold_every_job_once
        the_same_key_is_the_same_job_and_other_content_is_a_conflict
        a_unique_job_is_refused_while_another_is_there
        exits_of_retry_and_cancel
        waiting_ends_with_the_verdict_or_with_124
        h03_stored_control_characters_are_escaped;
}
