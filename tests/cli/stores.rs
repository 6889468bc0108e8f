//! Stores that cannot be used: what is said, and with which exit code.

use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;

use super::kit::Home;

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let home = Home::new();
    let path = home.write(
        "notes.db",
        "these are notes, and they are long enough to be looked at as a header.".repeat(20),
    );
    let before = std::fs::read(&path).unwrap();
    for command in [
        &["status"][..],
        &["job", "list"],
        &["job", "enqueue", "echo"],
        &["work", "--health-listen", "127.0.0.1:0"],
    ] {
        let mut args = command.to_vec();
        args.extend(["--store", path.to_str().unwrap()]);
        let ran = home.run(&args);
        assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
        assert!(ran.err.contains("not a database") && ran.err.contains("hint: "), "{ran:?}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_somebody_else_is_left_alone() {
    let home = Home::new();
    let path = home.path("other.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES (1);")
        .unwrap();
    let ran = home.run(&["job", "enqueue", "echo", "--store", path.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("not a sluicegate store"), "{ran:?}");
    let tables: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn h25_a_newer_store_is_refused_with_its_version() {
    let home = Home::new();
    home.enqueue(&["echo"]);
    let newer = Connection::open(home.store()).unwrap();
    newer.pragma_update(None, "user_version", 99_007).unwrap();
    drop(newer);
    for args in [&["status"][..], &["job", "enqueue", "echo"], &["work", "--health-listen", "127.0.0.1:0"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
        assert!(ran.err.contains("99.7") && ran.err.contains("newer program"), "{ran:?}");
    }
}

#[test]
fn a_store_that_cannot_be_reached_is_13() {
    let home = Home::new();
    home.write("file", "");
    for path in ["file/jobs.db", "/proc/none/jobs.db", "config.db"] {
        std::fs::create_dir_all(home.path("config.db")).unwrap();
        for args in [&["status"][..], &["job", "enqueue", "echo"], &["job", "enqueue", "--from-file", "-"]] {
            let mut args = args.to_vec();
            let url = format!("sqlite:{path}");
            args.extend(["--store", &url]);
            let ran = home.run_fed(&args, b"{\"kind\":\"echo\"}\n");
            assert_eq!(ran.code, 13, "{args:?}: {ran:?}");
            assert!(ran.err.starts_with("error: cannot ") && ran.err.contains(path), "{ran:?}");
        }
    }
}

#[test]
fn h07_a_locked_store_is_13_and_says_how_to_find_who() {
    let home = Home::new();
    home.enqueue(&["echo"]);
    let holder = Connection::open(home.store()).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let ran = home.run(&["job", "enqueue", "echo"]);
    assert_eq!(ran.code, 13, "{ran:?}");
    assert!(ran.err.contains("locked"), "{ran:?}");
    holder.execute_batch("ROLLBACK").unwrap();
    home.enqueue(&["echo"]);
}

#[test]
fn a_store_that_may_not_be_written_says_so() {
    use std::os::unix::process::CommandExt as _;
    let home = Home::new();
    home.enqueue(&["echo"]);
    let folder = home.store().parent().unwrap().to_owned();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.iter().for_each(|path| mode(path, 0o444));
    mode(&folder, 0o555);
    mode(&home.path(""), 0o755);
    mode(&home.path("data"), 0o755);
    let mut command = home.command(&["job", "enqueue", "echo"]);
    if rustix::process::geteuid().is_root() {
        // For root nothing is read-only; this is nobody.
        command.uid(65_534);
    }
    let ran = super::kit::finish(&mut command, b"");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("must be writable by this user"), "{ran:?}");
    mode(&folder, 0o755);
    files.iter().for_each(|path| mode(path, 0o644));
    home.enqueue(&["echo"]);
}

#[test]
fn every_directory_finds_the_same_store_and_tiers_are_apart() {
    let home = Home::new();
    let id = home.enqueue(&["echo"]);
    let ran = super::kit::finish(home.command(&["job", "list", "-o", "name"]).current_dir("/"), b"");
    assert_eq!(ran.out.trim(), id);
    assert_eq!(home.ok(&["job", "list", "-o", "name", "--tier", "web"]), "");
    let ran = home.run(&["job", "show", &id, "--tier", "web"]);
    assert_eq!((ran.code, ran.err.contains("tier `web`")), (10, true), "{ran:?}");
    let ran = home.run_in(&[("XDG_DATA_HOME", "")], &["job", "enqueue", "echo"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(home.path(".local/share/sluicegate/jobs.db").exists());
    let mut lost = home.command(&["status"]);
    let ran = super::kit::finish(lost.env_remove("HOME").env_remove("XDG_DATA_HOME"), b"");
    assert_eq!((ran.code, ran.err.contains("--store sqlite:PATH")), (2, true), "{ran:?}");
}

/// A slip in the path of a store: the commands that look said "0 jobs waiting", of a store that they had just created.
#[test]
fn commands_that_look_create_no_store() {
    let home = Home::new();
    for args in [
        &["status"][..],
        &["job", "list"],
        &["job", "show", "job_00000000000000000000000000"],
        &["job", "wait", "job_00000000000000000000000000"],
        &["job", "cancel", "job_00000000000000000000000000"],
        &["queue", "list"],
    ] {
        let ran = home.run(&[args, &["--store", "sqlite:slip/jobs.db"]].concat());
        assert_eq!(ran.code, 13, "{args:?}: {ran:?}");
        assert!(ran.err.contains("does not exist yet") && ran.err.contains("nothing was created"), "{ran:?}");
    }
    assert!(!home.path("slip").exists());
}

#[test]
fn hints_are_commands_that_work_as_they_are_printed() {
    let home = Home::new();
    let ran = home.run(&["job", "enqueue", "echo", "--store", "sqlite:my jobs.db", "--tier", "web"]);
    let next = ran.err.trim().strip_prefix("next: ").unwrap();
    assert!(next.contains(" --store 'sqlite:my jobs.db' --tier web job show job_"), "{next}");
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", next]).current_dir(home.path("")).env_clear();
    let shown = super::kit::finish(&mut shell, b"");
    assert_eq!(shown.code, 0, "{shown:?}");

    let next = |args: &[&str]| home.run(args).err.rsplit("sluicegate ").next().unwrap().trim().to_owned();
    home.enqueue(&["echo"]);
    assert_eq!(next(&["status"]), "work");
    assert_eq!(home.run(&["status", "--json"]).err, "");
    assert_eq!(home.run(&["-q", "status"]).err, "");
}
