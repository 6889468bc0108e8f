//! A program is asked what it runs.

use super::kit::{description, names, register, script, shelf, source, write};
use crate::cli::sandbox::{Sandbox, binary};

#[test]
fn a_program_that_does_not_tell_is_refused_unless_its_kinds_are_declared() {
    let sandbox = Sandbox::new();
    for (index, (program, wanted)) in [
        ("#!/bin/sh\necho 'no such command' >&2; exit 64\n".to_owned(), "exit 64: no such command"),
        ("#!/bin/sh\nkill -9 $$\n".to_owned(), "killed by signal 9"),
        (
            "#!/bin/sh\necho hello\n".to_owned(),
            "its answer cannot be read (expected value at line 1 column 1): `hello`",
        ),
        ("#!/bin/sh\n".to_owned(), "cannot be read"),
        ("#!/nowhere/at/all\n".to_owned(), "No such file"),
        (script("", "{\"format\":1,\"kinds\":[]}"), "it runs no kind of job"),
        (script("", "{\"format\":2,\"kinds\":[]}"), "its format is 2, this program reads 1"),
        (script("", &description().replace("greet", "../x")), "bad kind name"),
        (script("", &description().replace("greet", "\\u001b[2J")), "bad kind name"),
        ("#!/bin/sh\nhead -c 300000 /dev/zero\n".to_owned(), "its answer is longer than 262144 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = source(&sandbox, &format!("app-{index}"), "one");
        write(&folder.join("bin/app"), &program, 0o755);
        let refused = register(&sandbox, &folder, "r1").exits(2).says(wanted);
        assert!(refused.err.contains("declare its kinds in release.toml"), "{refused:?}");
        assert!(!refused.err.contains('\x1b'), "{refused:?}");
        assert!(names(&shelf(&sandbox)).is_empty(), "{program}");
        let id = format!("declared-{index}");
        write(&folder.join("release.toml"), "[[kinds]]\nname = \"thumb\"\nqueue = \"images\"\n", 0o644);
        register(&sandbox, &folder, &id).exits(0);
        sandbox.run(&["release", "show", &id]).exits(0).tells("thumb v1 in images");
        sandbox.run(&["release", "prune", "--keep", "0"]).exits(0);
    }
}

/// It has nothing to lean on but what is in its own folder.
#[test]
fn a_program_is_asked_in_its_own_folder_and_without_an_environment() {
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    let nosy = "[ -z \"$HOME$USER$SLUICEGATE_STORE$SLUICEGATE__WORKER__SLOTS\" ] && [ -f ./flavour ] || exit 9\nread x && exit 8";
    write(&folder.join("bin/app"), script(nosy, &description()), 0o755);
    let args = ["release", "register", folder.to_str().unwrap(), "--id", "r1"];
    sandbox.run_with(&args, &[("SLUICEGATE__WORKER__SLOTS", "3")], "input").exits(0);
}

/// The real program reads the release's part of the configuration, and refuses what it would refuse at its start.
#[test]
fn the_configuration_of_a_release_is_checked_by_its_own_program() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("app");
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    std::fs::copy(binary(), folder.join("bin/app")).unwrap();
    write(&folder.join("release.toml"), "config = \"etc/app.toml\"\n", 0o644);
    // The configuration of the host is none of the release's.
    write(&sandbox.path("config/sluicegate/sluicegate.toml"), "[worker]\nqueues = [\"host\"]\n", 0o644);
    for (text, wanted) in [
        ("[worker]\nslost = 3\n", "unknown key `worker.slost`"),
        ("[handlers.nothing]\nx = 1\n", "no kind `nothing` in this program"),
    ] {
        write(&folder.join("etc/app.toml"), text, 0o644);
        register(&sandbox, &folder, "r1").exits(2).says(wanted);
        assert!(names(&shelf(&sandbox)).is_empty());
    }
    write(&folder.join("etc/app.toml"), "[worker]\nqueues = [\"mail\", \"default\"]\n", 0o644);
    register(&sandbox, &folder, "r1").exits(0);
    let shown = sandbox.run(&["release", "show", "r1", "--json"]).exits(0).json();
    assert_eq!(shown["record"]["description"]["queues"], serde_json::json!(["default", "mail"]));
    assert!(shown["record"]["config"].as_str().is_some_and(|digest| digest.len() == 64), "{shown}");
}
