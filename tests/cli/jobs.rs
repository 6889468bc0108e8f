//! Enqueueing and looking after jobs, without a worker.

use serde_json::json;

use super::sandbox::Sandbox;

fn enqueue(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut all = vec!["job", "enqueue", "-o", "name"];
    all.extend(args);
    sandbox.run(&all).exits(0).out.trim().to_owned()
}

#[test]
fn a_job_is_enqueued_shown_listed_cancelled_and_retried() {
    let sandbox = Sandbox::new();
    let run = sandbox
        .run(&[
            "job",
            "enqueue",
            "echo",
            r#"{"a":1}"#,
            "--queue",
            "mail",
            "--tag",
            "incident=4711",
            "--priority",
            "-3",
        ])
        .exits(0);
    assert!(
        run.out.contains("available") && run.out.contains("stored(disk)") && run.err.contains("job show"),
        "{run:?}"
    );
    let id = run.out.split_whitespace().next().expect("an id").to_owned();
    let shown = sandbox.run(&["job", "show", &id, "--json"]).exits(0).json();
    assert_eq!(
        (&shown["args"], &shown["queue"], &shown["priority"], &shown["tags"]),
        (&json!({ "a": 1 }), &json!("mail"), &json!(-3), &json!({ "incident": "4711" }))
    );
    assert!(sandbox.run(&["job", "show", &id]).exits(0).out.contains("mail (priority -3)"));
    assert!(sandbox.run(&["job", "ls", "--tag", "incident=4711"]).exits(0).out.contains(&id));
    assert_eq!(sandbox.run(&["job", "list", "--queue", "other", "-o", "name"]).exits(0).out, "");
    assert!(sandbox.run(&["job", "cancel", &id, "--dry-run"]).exits(0).out.contains("dry run"));
    assert!(sandbox.run(&["job", "cancel", &id, "--reason", "test"]).exits(0).out.contains("cancelled"));
    assert_eq!(sandbox.run(&["job", "show", &id, "--json"]).json()["state"], "cancelled");
    assert!(sandbox.run(&["job", "retry", &id]).exits(0).out.contains("available"));
    let queues = sandbox.run(&["queue", "list", "--json"]).exits(0).json();
    assert_eq!(queues["queues"][0]["states"]["available"], 1);
    assert!(sandbox.run(&["queue", "show", "mail"]).exits(0).out.contains("echo"));
    sandbox.run(&["queue", "show", "nosuch"]).exits(10);
}

#[test]
fn unknown_jobs_are_not_found_and_some_of_several_is_partial() {
    let sandbox = Sandbox::new();
    let id = enqueue(&sandbox, &["echo"]);
    let ghost = "job_01h455vb4pex5vsknk084sn02q";
    sandbox.run(&["job", "show", ghost]).exits(10).says("no job");
    sandbox.run(&["job", "wait", ghost]).exits(10);
    sandbox.run(&["job", "cancel", ghost]).exits(10);
    sandbox.run(&["job", "cancel", &id, ghost]).exits(11);
    sandbox.run(&["job", "show", "../x"]).exits(2).says("is not a job id");
}

#[test]
fn a_wait_without_a_worker_times_out() {
    let sandbox = Sandbox::new();
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "50ms"]).exits(124).says("status");
    let id = enqueue(&sandbox, &["echo"]);
    sandbox.run(&["job", "wait", &id, "--timeout", "50ms"]).exits(124);
}

#[test]
fn the_same_key_is_the_same_job_and_other_content_a_conflict() {
    let sandbox = Sandbox::new();
    let key = ["job", "enqueue", "echo", "--idempotency-key", "inc-4711/ada", "--json"];
    let first = sandbox.run(&key).exits(0).json();
    let again = sandbox.run(&key).exits(0).json();
    assert_eq!((&again["id"], &again["replayed"]), (&first["id"], &json!(true)));
    sandbox
        .run(&["job", "enqueue", "echo", "[1]", "--idempotency-key", "inc-4711/ada"])
        .exits(9)
        .says("other content");
    enqueue(&sandbox, &["echo", "--unique", "10m"]);
    sandbox.run(&["job", "enqueue", "echo", "--unique", "10m"]).exits(9).says("unique key is held");
    enqueue(&sandbox, &["echo", "[2]", "--unique", "10m"]);
    enqueue(&sandbox, &["echo", "--unique-key", "k"]);
    sandbox.run(&["job", "enqueue", "other", "--unique-key", "k"]).exits(9);
}

#[test]
fn h02_h04_h17_h18_h21_hostile_input_is_refused_before_anything_is_stored() {
    let sandbox = Sandbox::new();
    let long = "q".repeat(65);
    let big = format!("\"{}\"", "x".repeat(256 * 1024));
    let file = sandbox.write("big.json", &big);
    for (args, wanted) in [
        (&["echo", "--queue", ""][..], "[a-z0-9]"),
        (&["echo", "--queue", &long], "[a-z0-9]"),
        (&["echo", "--queue", "../x"], "[a-z0-9]"),
        (&["echo", "--queue", "a{b}c"], "[a-z0-9]"),
        (&["../x"], "bad kind name"),
        (&["echo", "{\"a\":1,\"a\":2}"], "duplicate key"),
        (&["echo", "{"], "at byte"),
        (&["echo", "--in", "99999999d"], "366d"),
        (&["echo", "--in", "NaN"], "366d"),
        (&["echo", "--in=-1s"], "366d"),
        (&["echo", "--at", "9999-01-01T00:00:00Z"], "2200"),
        (&["echo", "--at", "yesterday"], "RFC 3339"),
        (&["echo", "--expires-in", "0s"], "expires_in"),
        (&["echo", "--priority", "10"], "-9 to 9"),
        (&["echo", "--priority", "1000"], "-9 to 9"),
        (&["echo", "--retry", "0"], "1 to 1000"),
        (&["echo", "--retry", "1000000000"], "1 to 1000"),
        (&["echo", "--job-timeout", "1e309"], "duration"),
        (&["echo", "--tag", "novalue"], "KEY=VALUE"),
        (&["echo", "--id", "job_{}"], "is not a job id"),
        (&["echo", "--idempotency-key", ""], "1 to 255"),
        (
            &["echo", "--id", "job_01h455vb4pex5vsknk084sn02q", "--idempotency-key", "k"],
            "cannot be used with",
        ),
        (&["echo", "--in", "1m", "--at", "2027-01-01T00:00:00Z"], "cannot be used with"),
    ] {
        let mut all = vec!["job", "enqueue"];
        all.extend(args);
        let run = sandbox.run(&all).exits(2).says(wanted);
        assert!(!run.err.contains("panicked"), "{run:?}");
    }
    let too_big = std::fs::read_to_string(file).expect("the file");
    sandbox
        .run_with(&["job", "enqueue", "echo", "-"], &[], &too_big)
        .exits(2)
        .says("over the limit of 262144 bytes");
    assert!(!sandbox.store().exists(), "nothing was opened");
}

#[test]
fn h03_control_characters_never_reach_the_terminal() {
    let sandbox = Sandbox::new();
    let id = enqueue(&sandbox, &["echo", "{\"x\":\"\\u001b[2J\\u0007\"}", "--tag", "t=a\u{1b}[31m"]);
    for args in [&["job", "show", &id][..], &["job", "list", "-o", "wide"], &["job", "show", &id, "--json"]] {
        let run = sandbox.run(args).exits(0);
        assert!(!run.out.contains('\u{1b}') && !run.out.contains('\u{7}'), "{run:?}");
    }
}

#[test]
fn a_file_of_jobs_is_streamed_and_bad_lines_are_named() {
    let sandbox = Sandbox::new();
    let good: String = (0..1_200)
        .map(|n| format!("{{\"kind\":\"echo\",\"args\":{{\"n\":{n}}},\"idempotency_key\":\"k{n}\"}}\n"))
        .collect();
    let file = sandbox.write("jobs.jsonl", &good);
    assert!(
        sandbox
            .run(&["job", "enqueue", "--from-file", &file])
            .exits(0)
            .out
            .contains("1200 enqueued, 0 enqueued before, 0 refused")
    );
    assert!(
        sandbox
            .run(&["job", "enqueue", "--from-file", &file])
            .exits(0)
            .out
            .contains("0 enqueued, 1200 enqueued before")
    );
    let huge = format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}", "x".repeat(2_000_000));
    let bad = format!(
        "{{\"kind\":\"echo\"}}\n\n{{\"kind\":\"../x\"}}\nnot json\n{huge}\n{{\"kind\":\"echo\",\"typo\":1}}\n{{\"kind\":\"echo\",\"idempotency_key\":\"k1\",\"args\":[]}}\n{{\"kind\":\"echo\"}}"
    );
    let run = sandbox.run_with(&["job", "enqueue", "--from-file", "-"], &[], &bad).exits(11);
    assert!(run.out.contains("2 enqueued, 0 enqueued before, 5 refused"), "{run:?}");
    let run = run
        .says("line 3 refused: bad kind name")
        .says("line 4 refused")
        .says("line 5 refused: longer than")
        .says("line 6 refused");
    let run = run.says("unknown field `typo`").says("line 7 refused: job");
    assert!(run.err.len() < 4_000);
    let run =
        sandbox.run_with(&["job", "enqueue", "--from-file", "-", "-o", "jsonl"], &[], "nonsense\n").exits(11);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(run.out.lines().next().expect("a line")).expect("JSON")["line"],
        1
    );
    sandbox.run(&["job", "enqueue", "--from-file", "/nonexistent"]).exits(2);
    assert_eq!(sandbox.run(&["queue", "list", "--json"]).json()["queues"][0]["inserted_total"], 1_202);
}

#[test]
fn a_store_that_cannot_be_used_says_why() {
    let sandbox = Sandbox::new();
    let text = sandbox.write("text.db", "this is a letter, and no database at all".repeat(200));
    sandbox
        .run(&["--store", &format!("sqlite:{text}"), "status"])
        .exits(1)
        .says("not a database")
        .says("hint:");
    sandbox
        .run(&["--store", "sqlite:/proc/nowhere/jobs.db", "status"])
        .says("cannot create the folder")
        .says("hint:");
    sandbox.run(&["--store", "sqlite::memory:", "status"]).exits(2).says("name a file");
    let file = sandbox.path("busy.db");
    let url = format!("sqlite:{}", file.display());
    sandbox.run(&["--store", &url, "job", "enqueue", "echo"]).exits(0);
    let held = rusqlite::Connection::open(&file).expect("the file");
    held.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    sandbox.run(&["--store", &url, "job", "enqueue", "echo"]).exits(13).says("another process");
    drop(held);
    let conn = rusqlite::Connection::open(&file).expect("the file");
    conn.pragma_update(None, "user_version", 7_000).expect("written");
    sandbox.run(&["--store", &url, "status"]).exits(1).says("version 7.0");
}

#[test]
fn t28_a_full_disk_refuses_with_its_cause_and_goes_on_when_there_is_room() {
    let sandbox = Sandbox::new();
    let mount = sandbox.path("small");
    std::fs::create_dir(&mount).expect("a folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=700k", "tmpfs"])
        .arg(&mount)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "a skip is a failure in CI");
        println!("SKIPPED (needs root, to mount a small file system)");
        return;
    }
    let url = format!("sqlite:{}", mount.join("jobs.db").display());
    let line = format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}\n", "x".repeat(4_000)).repeat(500);
    let full = sandbox.run_with(&["--store", &url, "job", "enqueue", "--from-file", "-"], &[], &line);
    let grown = std::process::Command::new("mount")
        .args(["-o", "remount,size=20m"])
        .arg(&mount)
        .status()
        .expect("mount runs");
    let after = sandbox.run(&["--store", &url, "job", "enqueue", "echo"]);
    let queues = sandbox.run(&["--store", &url, "queue", "list", "--json"]);
    let unmounted = std::process::Command::new("umount").arg(&mount).status().expect("umount runs");
    assert!(grown.success() && unmounted.success());
    let full = full.exits(1).says("full");
    assert!(full.err.contains("free space"), "{full:?}");
    after.exits(0);
    assert_eq!(
        queues.json()["queues"][0]["inserted_total"],
        1,
        "a batch that did not fit left nothing behind"
    );
}
