//! Configuration: precedence, origins, and every fault with its place.

use std::os::unix::fs::PermissionsExt as _;

use super::sandbox::{Run, Sandbox};

fn show(sandbox: &Sandbox, args: &[&str], env: &[(&str, &str)]) -> serde_json::Value {
    let mut all = vec!["config", "show", "--json"];
    all.extend(args);
    sandbox.run_with(&all, env, "").exits(0).json()
}

#[test]
fn flags_beat_the_environment_beats_the_file_beats_defaults_and_the_origin_is_kept() {
    let sandbox = Sandbox::new();
    let tier = |args: &[&str], env: &[(&str, &str)]| {
        let shown = show(&sandbox, args, env);
        (
            shown["tier"]["value"].as_str().expect("a value").to_owned(),
            shown["tier"]["origin"].as_str().expect("an origin").to_owned(),
        )
    };
    assert_eq!(tier(&[], &[]), ("default".into(), "default".into()));
    let file = sandbox.write("config/sluicegate/sluicegate.toml", "tier = \"file\"\n[worker]\nslots = 7\n");
    assert_eq!(tier(&[], &[]), ("file".into(), format!("{file}:1:8")));
    let env = [("SLUICEGATE__TIER", "environment")];
    assert_eq!(tier(&[], &env), ("environment".into(), "environment SLUICEGATE__TIER".into()));
    assert_eq!(tier(&["--tier", "flag"], &env), ("flag".into(), "flag --tier".into()));
    assert_eq!(show(&sandbox, &[], &[])["worker.slots"]["value"], "7");
}

#[test]
fn h10_every_fault_of_a_file_has_its_line_and_column() {
    let sandbox = Sandbox::new();
    let deep = format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, place, wanted) in [
        ("tier = \"a\"\n[worker]\nslot = 3\n", ":3:1", "did you mean `worker.slots`"),
        ("[wroker]\nslots = 3\n", ":1:2", "did you mean `worker`"),
        ("tier = \"a\"\ntier = \"b\"\n", ":2:1", "duplicate"),
        ("[worker]\nslots = \"many\"\n", ":2:9", "a whole number from 1 to 100000, got string"),
        ("[worker]\nslots = 0\n", ":2:9", "got `0`"),
        ("[worker]\nlease = \"10y\"\n", ":2:9", "2s to 1h"),
        ("[worker]\nqueues = [\"mail\", \"../x\"]\n", ":2:10", "bad queue name"),
        ("[store]\nurl = \"mysql://x\"\n", ":2:7", "expected `sqlite:PATH`"),
        ("[handlers.notify.email]\nsmtp = \"x\"\n", ":1:11", "quotes"),
        ("tier = \n", ":1:8", ""),
        (deep.as_str(), ":1:", ""),
    ] {
        let file = sandbox.write("c.toml", text);
        let run = sandbox.run(&["--config", &file, "config", "validate"]).exits(2);
        let run = if text.starts_with("[handlers") { run } else { run.says(&format!("{file}{place}")) };
        if !text.starts_with("[handlers") {
            run.says(wanted);
        }
    }
}

#[test]
fn h10_odd_files_are_read_or_refused() {
    let sandbox = Sandbox::new();
    let validate = |bytes: &[u8]| -> Run {
        let file = sandbox.write("c.toml", bytes);
        sandbox.run(&["--config", &file, "config", "validate"])
    };
    validate(b"\xef\xbb\xbftier = \"a\"\r\n\r\n[worker]\r\n\tslots = 3\r\n").exits(0);
    validate(b"tier = \"\xff\"\n").exits(2).says("not UTF-8 at byte 8");
    validate(&vec![b'#'; 50 * 1024 * 1024]).exits(2).says("larger than 1048576 bytes");
    sandbox.run(&["--config", "/nonexistent/c.toml", "config", "validate"]).exits(2).says("cannot read");
}

#[test]
fn an_unknown_or_bad_variable_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox
        .run_with(&["config", "validate"], &[("SLUICEGATE__WORKER__SLOT", "3")], "")
        .exits(2)
        .says("SLUICEGATE__WORKER__SLOTS");
    sandbox
        .run_with(&["config", "validate"], &[("SLUICEGATE__WORKER__SLOTS", "three")], "")
        .exits(2)
        .says("got `three`");
    sandbox.run_with(&["config", "show", "--store", "x"], &[], "").exits(2).says("--store");
}

#[test]
fn h12_nobody_listens_beyond_loopback_without_a_token() {
    let sandbox = Sandbox::new();
    sandbox.run(&["serve", "--api-listen", "0.0.0.0:0"]).exits(2).says("api.token_file");
    assert!(!sandbox.store().exists());
}

#[test]
fn h13_a_token_that_others_can_read_is_refused() {
    let sandbox = Sandbox::new();
    let token = sandbox.write("token", "a token of more than sixteen characters");
    let file = sandbox.write("c.toml", format!("[api]\ntoken_file = \"{token}\"\n"));
    let mode = |mode| std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).expect("set");
    mode(0o644);
    sandbox.run(&["--config", &file, "config", "validate"]).exits(2).says("0644").says("chmod 0640");
    mode(0o640);
    sandbox.run(&["--config", &file, "config", "validate"]).exits(0);
}

#[test]
fn h14_passwords_are_never_shown() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&["--store", "redis://user:s3cret@host/0", "status"]).exits(2);
    assert!(!run.err.contains("s3cret"), "{run:?}");
    let file = sandbox
        .write("c.toml", "[handlers.\"notify.webhook\"]\nsecret = \"whsec_czNjcmV0IHMzY3JldCBzM2NyZXQ=\"\n");
    let run = sandbox.run(&["--config", &file, "config", "show", "--origin"]).exits(0);
    assert!(run.out.contains("***") && !run.out.contains("czNjcmV0"), "{run:?}");
}

#[test]
fn settings_of_kinds_are_checked_with_their_place() {
    let sandbox = Sandbox::new();
    let good = "[handlers.\"notify.email\"]\nsmtp = \"smtp://127.0.0.1:1025\"\nfrom = \"a@example.com\"\n";
    sandbox.run(&["--config", &sandbox.write("c.toml", good), "config", "validate"]).exits(0);
    for (text, wanted) in [
        ("[handlers.\"notify.email\"]\nsmpt = \"smtp://x\"\n", "smpt"),
        ("[handlers.\"notify.email\"]\nsmtp = \"http://x\"\n", "smtp://user@host"),
        ("[handlers.\"notify.webhook\"]\nsecret = \"abc\"\n", "whsec_"),
        ("[handlers.nosuch]\nx = 1\n", "no kind `nosuch`"),
    ] {
        let file = sandbox.write("c.toml", text);
        sandbox
            .run(&["--config", &file, "config", "validate"])
            .exits(2)
            .says(wanted)
            .says(&format!("{file}:1:"));
    }
}

#[test]
fn docs_and_path_tell_every_key_and_file() {
    let sandbox = Sandbox::new();
    let docs = sandbox.run(&["config", "docs"]).exits(0).out;
    for key in ["worker.slots", "SLUICEGATE__API__LISTEN", "[handlers.\"notify.email\"] smtp"] {
        assert!(docs.contains(key), "{key}");
    }
    assert!(
        sandbox.run(&["config", "docs", "worker"]).exits(0).out.lines().all(|line| !line.starts_with("api."))
    );
    sandbox.run(&["config", "docs", "nosuch"]).exits(10);
    assert!(sandbox.run(&["config", "path"]).exits(0).out.contains("/etc/sluicegate/sluicegate.toml"));
}
