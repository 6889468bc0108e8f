//! Help, versions, misspellings, completion scripts, exit codes.

use super::kit::{Home, finish};
use crate::both::Engine;

/// The table that scripts rely on: code and name.
const CODES: [(u8, &str); 20] = [
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
fn the_table_of_exit_codes_is_the_contract() {
    let home = Home::new();
    let rows = home.json(&["help", "exit-codes"]);
    let printed: Vec<(u8, String)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let code = u8::try_from(row["code"].as_u64().unwrap()).unwrap();
            (code, row["name"].as_str().unwrap().to_owned())
        })
        .collect();
    let contract: Vec<(u8, String)> = CODES.iter().map(|(code, name)| (*code, (*name).to_owned())).collect();
    assert_eq!(printed, contract);
    let table = home.ok(&["help", "exit-codes"]);
    for (code, name) in CODES {
        let line = format!("{code} ");
        assert!(
            table.lines().any(|row| row.trim_start().starts_with(&line) && row.contains(name)),
            "{name}: {table}"
        );
    }
}

#[test]
fn the_help_is_what_it_was() {
    let home = Home::new();
    insta::assert_snapshot!("help", home.ok(&["--help"]));
    insta::assert_snapshot!("help_job_enqueue", home.ok(&["job", "enqueue", "-h"]));
    insta::assert_snapshot!("help_work", home.ok(&["work", "-h"]));
    insta::assert_snapshot!("help_activate", home.ok(&["activate", "-h"]));
    insta::assert_snapshot!("help_gate_wait", home.ok(&["gate", "wait", "-h"]));
    insta::assert_snapshot!("help_release", home.ok(&["release", "-h"]));
    insta::assert_snapshot!("help_release_register", home.ok(&["release", "register", "-h"]));
    insta::assert_snapshot!("help_doctor", home.ok(&["doctor", "-h"]));
}

#[test]
fn help_by_flag_by_command_and_alone_says_the_same() {
    let home = Home::new();
    let flag = home.ok(&["job", "enqueue", "--help"]);
    assert_eq!(flag, home.ok(&["help", "job", "enqueue"]));
    assert_eq!(home.ok(&["--help"]), home.ok(&["help"]));
    let alone = home.run(&[]);
    assert_eq!(alone.code, 2);
    assert!(alone.err.contains("Usage:"), "{alone:?}");
    let unknown = home.run(&["help", "exit-code"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("exit-codes"), "{unknown:?}");
}

#[test]
fn help_and_what_needs_no_store_touch_nothing() {
    let home = Home::new();
    for args in [
        &["--help"][..],
        &["help"],
        &["dev", "--help"],
        &["work", "--help"],
        &["serve", "--help"],
        &["status", "--help"],
        &["job", "--help"],
        &["job", "enqueue", "--help"],
        &["job", "cancel", "--help"],
        &["queue", "list", "--help"],
        &["activate", "--help"],
        &["gate", "check", "--help"],
        &["gate", "wait", "--help"],
        &["doctor", "--help"],
        &["events", "--help"],
        &["release", "--help"],
        &["release", "register", "--help"],
        &["release", "describe"],
        &["config", "show", "--help"],
        &["help", "exit-codes"],
        &["help", "environment"],
        &["help", "states"],
        &["version"],
        &["--version"],
        &["completion", "bash"],
        &["config", "show", "--origin"],
        &["config", "validate"],
        &["config", "docs"],
        &["config", "path"],
    ] {
        home.ok(args);
        assert_eq!(home.files(), Vec::<std::path::PathBuf>::new(), "{args:?}");
    }
}

#[test]
fn help_works_with_a_broken_configuration() {
    let home = Home::new();
    home.config("what = is this");
    home.ok(&["work", "--help"]);
    home.ok(&["help", "exit-codes"]);
    home.ok(&["version"]);
}

#[test]
fn h01_a_misspelt_word_is_refused_with_its_neighbour() {
    let home = Home::new();
    for (args, near) in [
        (&["jbo", "list"][..], "job"),
        (&["job", "lst"], "list"),
        (&["job", "enqeue", "echo"], "enqueue"),
        (&["statsu"], "status"),
        (&["job", "list", "--quue", "mail"], "--queue"),
        (&["work", "--slost", "3"], "--slots"),
        (&["status", "--jsno"], "--json"),
        (&["job", "list", "-o", "jsn"], "json"),
        (&["completion", "bahs"], "bash"),
        (&["job", "list", "--state", "runing"], "running"),
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.contains(near), "{args:?}: {ran:?}");
        assert!(ran.out.is_empty(), "{args:?}: {ran:?}");
    }
    assert!(home.files().is_empty());
}

#[test]
fn versions_for_people_and_programs() {
    let home = Home::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(home.ok(&["version"]), format!("sluicegate {version}\n"));
    assert_eq!(home.ok(&["--version"]), format!("sluicegate {version}\n"));
    assert_eq!(home.json(&["version"])["version"], version);
    assert_eq!(home.ok(&["-q", "version", "-o", "none"]), "");
}

#[test]
fn completion_scripts_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = home.ok(&["completion", shell]);
        for word in ["enqueue", "from-file", "sluicegate"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    let script = home.write("c.bash", home.ok(&["completion", "bash"]));
    let checked = std::process::Command::new("bash").arg("-n").arg(script).status().unwrap();
    assert!(checked.success());
}

#[test]
fn states_and_variables_are_documented() {
    let home = Home::new();
    let states = home.ok(&["help", "states"]);
    for state in [
        "available",
        "running",
        "scheduled",
        "retryable",
        "parked",
        "completed",
        "dead",
        "cancelled",
        "expired",
    ] {
        assert!(states.contains(state), "{state}: {states}");
    }
    let variables = home.ok(&["help", "environment"]);
    for name in ["SLUICEGATE_STORE", "SLUICEGATE__WORKER__SLOTS", "NO_COLOR", "XDG_DATA_HOME"] {
        assert!(variables.contains(name), "{name}: {variables}");
    }
    // What is documented works.
    let shown =
        home.run_in(&[("SLUICEGATE_OUTPUT", "json"), ("SLUICEGATE_TIER", "web")], &["config", "show"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["tier"]["value"], "web");
}

#[test]
fn h08_arguments_that_are_not_utf8_are_refused_or_used_as_they_are() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let home = Home::new();
    let odd = OsStr::from_bytes(b"odd\xff\xfe");
    for before in [
        &[][..],
        &["job", "enqueue"],
        &["job", "enqueue", "echo"],
        &["job", "show"],
        &["job", "list", "--queue"],
        &["status", "--store"],
        &["work", "--name"],
        &["help"],
    ] {
        let ran = finish(home.command(before).arg(odd), b"");
        assert_eq!(ran.code, 2, "{before:?}: {ran:?}");
        assert!(!ran.err.contains("panicked"), "{ran:?}");
    }
    // A path may be any bytes.
    std::fs::write(home.path("").join(odd), "tier = 'web'\n").unwrap();
    let ran = finish(home.command(&["config", "show", "--config"]).arg(odd), b"");
    assert_eq!((ran.code, ran.out.contains("tier = web")), (0, true), "{ran:?}");
    std::fs::write(home.path("").join(odd), "{\"kind\":\"echo\"}\n").unwrap();
    let ran = finish(home.command(&["job", "enqueue", "--from-file"]).arg(odd), b"");
    assert_eq!(ran.code, 0, "{ran:?}");
    // Variables of others are theirs, ours must be text.
    let ran = finish(home.command(&["queue", "list"]).env("OTHER", odd), b"");
    assert_eq!(ran.code, 0, "{ran:?}");
    for name in ["SLUICEGATE__TIER", "SLUICEGATE_STORE"] {
        let ran = finish(home.command(&["queue", "list"]).env(name, odd), b"");
        assert_eq!(ran.code, 2, "{name}: {ran:?}");
    }
}

#[test]
fn h03_control_characters_of_the_command_line_do_not_come_back() {
    let home = Home::new();
    for args in [
        &["jo\x1b[2J\x07b"][..],
        &["job", "list", "--queue", "a\x1b[2J\r\x07"],
        &["job", "show", "job_\x1b[31m"],
        &["status", "--store", "x\x1b]0;t\x07"],
        &["job", "list", "--sta\x1b\x07te"],
        &["job", "enqueue", "echo", "{\x1b[2J"],
        &["job", "list", "-o", "j\x1b\x07"],
        &["help", "x\x1b[2J"],
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        for raw in ['\x1b', '\x07', '\r'] {
            assert!(!ran.err.contains(raw) && !ran.out.contains(raw), "{args:?}: {ran:?}");
        }
    }
}

fn h06_a_reader_that_goes_away_ends_it_quietly(engine: Engine) {
    let home = Home::on(engine);
    let jobs: String = (0..300).map(|n| format!("{{\"kind\":\"echo\",\"args\":{{\"n\":{n}}}}}\n")).collect();
    assert_eq!(home.run_fed(&["job", "enqueue", "--from-file", "-"], jobs.as_bytes()).code, 0);
    for args in [
        &["job", "list", "--limit", "300"][..],
        &["job", "list", "--json"],
        &["job", "enqueue", "echo"],
        &["status"],
        &["queue", "list"],
        &["config", "docs"],
        &["--help"],
        &["help", "work"],
        &["help", "exit-codes"],
        &["completion", "bash"],
        &["--version"],
        &["dev", "--api-listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.command(args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{args:?}: {output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
    }
    // Nor does it matter that nobody reads the messages.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = home.command(&["job", "enqueue", "echo"]).stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn h06_the_pipe_to_head() {
    let home = Home::new();
    let jobs: String = (0..300).map(|n| format!("{{\"kind\":\"echo\",\"args\":{{\"n\":{n}}}}}\n")).collect();
    assert_eq!(home.run_fed(&["job", "enqueue", "--from-file", "-"], jobs.as_bytes()).code, 0);
    // More than the pipe holds, so that the program must meet the end of its reader.
    let mut list = home.command(&["job", "list", "--limit", "300", "--json"]);
    let (reader, writer) = std::io::pipe().unwrap();
    let child = list.stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(list);
    let head = std::process::Command::new("head").arg("-1").stdin(reader).output().unwrap();
    assert_eq!(String::from_utf8(head.stdout).unwrap(), "{\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]));
}

on_both! {
    #[test] fn:
        h06_a_reader_that_goes_away_ends_it_quietly;
}
