//! What is typed wrong, and what is asked for help.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;

use super::sandbox::{Sandbox, binary};

/// The contract with scripts; it changes with nobody's consent but theirs.
const CODES: &[(u8, &str)] = &[
    (0, "ok"),
    (1, "error"),
    (2, "usage"),
    (3, "unhealthy"),
    (4, "auth"),
    (5, "rolled_back"),
    (6, "rollback_failed"),
    (7, "no_rollback_target"),
    (8, "pending"),
    (9, "conflict"),
    (10, "not_found"),
    (11, "partial"),
    (12, "breaker"),
    (13, "unreachable"),
    (14, "environment"),
    (75, "retry_later"),
    (124, "timeout"),
    (130, "interrupted"),
    (141, "pipe"),
    (143, "terminated"),
];

#[test]
fn exit_codes_are_those_of_the_contract() {
    let sandbox = Sandbox::new();
    let table = sandbox.run(&["help", "exit-codes", "-o", "json"]).exits(0).json();
    let table: Vec<(u64, &str)> = table
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["code"].as_u64().expect("a code"), row["name"].as_str().expect("a name")))
        .collect();
    let wanted: Vec<(u64, &str)> = CODES.iter().map(|(code, name)| (u64::from(*code), *name)).collect();
    assert_eq!(table, wanted);
    assert!(sandbox.run(&["help", "exit-codes"]).exits(0).out.contains("unreachable"));
}

#[test]
fn h01_a_misspelt_command_or_flag_names_its_neighbour() {
    let sandbox = Sandbox::new();
    sandbox.run(&["stauts"]).exits(2).says("status");
    sandbox.run(&["job", "enqueue", "echo", "--queu", "a"]).exits(2).says("--queue");
    sandbox.run(&["job", "list", "--limit", "0"]).exits(2).says("1..=500");
    sandbox.run(&["help", "nonsense"]).exits(2).says("exit-codes");
    sandbox.run::<&str>(&[]).exits(2);
}

#[test]
fn help_touches_nothing() {
    let sandbox = Sandbox::new();
    for args in [
        &["--help"][..],
        &["help"],
        &["job", "enqueue", "--help"],
        &["help", "work"],
        &["help", "states"],
        &["help", "environment"],
        &["--version"],
        &["version"],
    ] {
        sandbox.run_with(args, &[("SLUICEGATE_CONFIG", "/nonexistent")], "").exits(0);
    }
    assert_eq!(std::fs::read_dir(sandbox.dir.path()).expect("a folder").count(), 0);
}

#[test]
fn help_lists_every_command() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["--help"]).exits(0).out;
    for command in
        ["dev", "work", "serve", "status", "job", "queue", "config", "completion", "version", "help"]
    {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {help}");
    }
}

#[test]
fn completion_knows_every_shell() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(sandbox.run(&["completion", shell]).exits(0).out.contains("enqueue"), "{shell}");
    }
}

#[test]
fn version_is_told_to_people_and_programs() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(&["version"]).exits(0).out.starts_with("sluicegate "));
    assert_eq!(sandbox.run(&["version", "--json"]).exits(0).json()["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn h08_arguments_that_are_not_utf8_are_refused_without_a_panic() {
    let sandbox = Sandbox::new();
    let bad = || OsString::from_vec(vec![b'a', 0xff]);
    for args in [
        vec![bad()],
        vec!["job".into(), "enqueue".into(), bad()],
        vec!["--store".into(), bad(), "status".into()],
    ] {
        let run = sandbox.run(&args);
        assert!(run.code == 2 && !run.err.contains("panicked"), "{run:?}");
    }
}

#[test]
fn h06_a_reader_that_goes_away_ends_it_quietly() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&binary())
        .args(["config", "docs"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
