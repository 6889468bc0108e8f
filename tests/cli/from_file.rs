//! Jobs from a file, or from standard input, a line each.

use serde_json::{Value, json};

use super::kit::{Home, Ran};
use crate::both::Engine;

fn from_file(home: &Home, name: &str, more: &[&str]) -> Ran {
    let path = home.path(name);
    let mut args = vec!["job", "enqueue", "--from-file", path.to_str().unwrap()];
    args.extend(more);
    home.run(&args)
}

fn a_file_of_good_lines_is_enqueued_and_a_second_time_replayed(engine: Engine) {
    let home = Home::on(engine);
    let lines: String = (0..2_500)
        .map(|n| format!("{{\"kind\":\"echo\",\"queue\":\"bulk\",\"args\":{{\"n\":{n}}},\"idempotency_key\":\"k{n}\"}}\r\n\n"))
        .collect();
    home.write("jobs.jsonl", lines.trim_end());
    let ran = from_file(&home, "jobs.jsonl", &[]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "2500 enqueued, 0 enqueued before, 0 refused\n"), "{ran:?}");
    assert_eq!(home.json(&["queue", "show", "bulk"])["states"]["available"], 2_500);
    let ran = from_file(&home, "jobs.jsonl", &["--json"]);
    let sums: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, sums), (0, json!({"enqueued": 0, "replayed": 2_500, "inline": 0, "refused": 0})));
    assert_eq!(home.json(&["queue", "show", "bulk"])["states"]["available"], 2_500);
}

fn bad_lines_are_named_and_hold_nobody_up(engine: Engine) {
    let home = Home::on(engine);
    let long = format!("{{\"kind\":\"echo\",\"args\":{{\"a\":\"{}\"}}}}", "x".repeat(5 * 1024 * 1024));
    let lines = [
        "{\"kind\":\"echo\"}",
        "not json",
        "{\"kind\":\"echo\",\"qeue\":\"x\"}",
        "{\"kind\":\"echo\",\"queue\":\"../x\"}",
        &long,
        "{\"kind\":\"echo\",\"priority\":99}",
        "{\"kind\":\"echo\\u001b[2J\"}",
        "[]",
        "{\"kind\":\"echo\",\"args\":{}}",
    ];
    home.write("jobs.jsonl", lines.join("\n"));
    let ran = from_file(&home, "jobs.jsonl", &[]);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (11, "2 enqueued, 0 enqueued before, 7 refused\n"),
        "{}",
        ran.err
    );
    for n in 2..=8 {
        assert!(ran.err.contains(&format!("line {n} refused: ")), "{n}: {}", ran.err);
    }
    assert!(ran.err.contains("longer than") && !ran.err.contains('\x1b'), "{}", ran.err);
    let ran = from_file(&home, "jobs.jsonl", &["-o", "jsonl"]);
    assert_eq!(ran.code, 11);
    let rows: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[0]["line"], 2);
    assert_eq!(rows[7], json!({"enqueued": 2, "replayed": 0, "inline": 0, "refused": 7}));
    assert!(!ran.out.contains('\x1b'));
}

fn a_conflict_within_a_file_is_a_refused_line(engine: Engine) {
    let home = Home::on(engine);
    home.write("jobs.jsonl", "{\"kind\":\"echo\",\"idempotency_key\":\"k\",\"args\":{\"n\":1}}\n{\"kind\":\"echo\",\"idempotency_key\":\"k\",\"args\":{\"n\":2}}\n");
    let ran = from_file(&home, "jobs.jsonl", &[]);
    assert_eq!((ran.code, ran.out.as_str()), (11, "1 enqueued, 0 enqueued before, 1 refused\n"), "{ran:?}");
    assert!(ran.err.contains("line 2 refused"), "{ran:?}");
}

fn a_huge_line_from_standard_input_is_skipped_in_bounded_memory(engine: Engine) {
    let home = Home::on(engine);
    let mut input = b"{\"kind\":\"echo\"}\n".to_vec();
    input.resize(input.len() + 64 * 1024 * 1024, b'x');
    input.extend(b"\n{\"kind\":\"echo\"}");
    // Half of the line would not fit.
    let script = "ulimit -v 262144; exec \"$0\" job enqueue --from-file -";
    let mut command = home.command(&[]);
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", script]).arg(&home.program).env_clear();
    for (name, value) in command.stdin(std::process::Stdio::null()).get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let ran = super::kit::finish(&mut shell, &input);
    assert_eq!((ran.code, ran.out.as_str()), (11, "2 enqueued, 0 enqueued before, 1 refused\n"), "{ran:?}");
    assert!(ran.err.contains("line 2 refused: longer than"), "{ran:?}");
}

#[test]
fn a_file_that_is_not_there_and_flags_that_would_be_ignored() {
    let home = Home::new();
    let ran = from_file(&home, "none.jsonl", &[]);
    assert_eq!((ran.code, ran.err.contains("cannot read")), (2, true), "{ran:?}");
    for more in [
        &["--queue", "x"][..],
        &["--wait"],
        &["--in", "5m"],
        &["--idempotency-key", "k"],
        &["--unique", "5m"],
    ] {
        assert_eq!(from_file(&home, "none.jsonl", more).code, 2, "{more:?}");
    }
    assert_eq!(home.run_fed(&["job", "enqueue", "--from-file", "-"], b"\n\n").code, 0);
}

on_both! {
    #[test] fn:
        a_file_of_good_lines_is_enqueued_and_a_second_time_replayed
        bad_lines_are_named_and_hold_nobody_up
        a_conflict_within_a_file_is_a_refused_line
        a_huge_line_from_standard_input_is_skipped_in_bounded_memory;
}
