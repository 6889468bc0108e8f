//! What may not stand on a shelf: refused with its cause, and nothing is left behind.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::kit::{names, register, script, shelf, source, write};
use crate::cli::sandbox::Sandbox;

type Spoil = fn(&Path);

fn recipe(folder: &Path, text: &str) {
    write(&folder.join("release.toml"), text, 0o644);
}

fn made(program: &str, args: &[&str], path: &Path) {
    let status = Command::new(program).arg(path).args(args).status().unwrap();
    assert!(status.success(), "{program}");
}

#[test]
fn a_folder_that_is_not_fit_is_refused_with_its_cause_and_nothing_is_left() {
    let cases: &[(&str, Spoil)] = &[
        ("`program`: `../../bin/ls` must be a plain path", |at| recipe(at, "program = \"../../bin/ls\"")),
        ("`program`: `/bin/ls` is an absolute path", |at| recipe(at, "program = \"/bin/ls\"")),
        ("`hook`: `/bin/sh` is an absolute path", |at| recipe(at, "hook = [\"/bin/sh\", \"-c\", \"id\"]")),
        ("`config`: `bin/../../x` must be a plain path", |at| recipe(at, "config = \"bin/../../x\"")),
        ("`config`: `no.toml` is not in the release", |at| recipe(at, "config = \"no.toml\"")),
        ("unknown field `programm`", |at| recipe(at, "programm = \"bin/app\"")),
        ("release.toml: it is larger than 65536 bytes", |at| recipe(at, &"#".repeat(65_537))),
        ("is a link to `/etc/passwd`, which is an absolute path", |at| {
            symlink("/etc/passwd", at.join("bin/passwd")).unwrap();
        }),
        ("is a link to `../../x`, which leads out", |at| symlink("../../x", at.join("bin/x")).unwrap()),
        ("is a link to `..`, which leads out", |at| symlink("..", at.join("x")).unwrap()),
        // The first one leads to the root, so that the second one would lead above it.
        ("is a link to `root/../x`, which goes down and up", |at| {
            symlink("..", at.join("bin/root")).unwrap();
            symlink("root/../x", at.join("bin/x")).unwrap();
        }),
        ("is setuid or setgid (mode 4755)", |at| write(&at.join("bin/su"), "x", 0o4755)),
        ("is setuid or setgid (mode 2755)", |at| write(&at.join("bin/su"), "x", 0o2755)),
        ("is a named pipe", |at| made("mkfifo", &[], &at.join("pipe"))),
        ("is a socket", |at| drop(std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap())),
        ("is not UTF-8", |at| std::fs::write(at.join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap()),
        ("has the name of a shelf's manifest, and is none", |at| {
            write(&at.join(".sluicegate.json"), "{}", 0o644)
        }),
        ("no executable file", |at| {
            std::fs::set_permissions(at.join("bin/app"), std::fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("2 files could be the program: `bin/app`, `tool`", |at| write(&at.join("tool"), "x", 0o755)),
        ("is too deep", |at| std::fs::create_dir_all(at.join("d/".repeat(70))).unwrap()),
    ];
    let sandbox = Sandbox::new();
    for (index, (wanted, spoil)) in cases.iter().enumerate() {
        let folder = source(&sandbox, &format!("app-{index}"), "one");
        spoil(&folder);
        register(&sandbox, &folder, "r1").exits(2).says(wanted);
        assert!(names(&shelf(&sandbox)).is_empty(), "{wanted}: {:?}", names(&shelf(&sandbox)));
    }
    sandbox.run(&["release", "show", "r1"]).exits(10);
    let good = source(&sandbox, "app", "one");
    register(&sandbox, &good, "r1").exits(0);
}

#[test]
fn a_device_is_refused_and_not_opened() {
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    // Needs root; where nobody may make one, nobody can register one either.
    let made = Command::new("mknod").arg(folder.join("null")).args(["c", "1", "3"]).status().unwrap();
    if !made.success() {
        assert!(std::env::var_os("CI").is_none(), "a skip is a failure in CI");
        println!("SKIPPED (needs root, to make a device)");
        return;
    }
    register(&sandbox, &folder, "r1").exits(2).says("is a device");
    register(&sandbox, &folder.join("null"), "r1").exits(2).says("neither a folder nor a file");
}

#[test]
fn more_than_a_hundred_thousand_files_are_refused() {
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    for half in ["a", "b"] {
        let first = folder.join(half).join("0");
        write(&first, "", 0o644);
        for n in 1..50_000 {
            // Linking is several times faster than making.
            std::fs::hard_link(&first, folder.join(half).join(n.to_string())).unwrap();
        }
    }
    register(&sandbox, &folder, "r1").exits(2).says("more than 100000 files");
    assert!(names(&shelf(&sandbox)).is_empty());
}

/// As somebody who may not read everything.
#[test]
fn a_file_that_cannot_be_read_is_refused() {
    use std::os::unix::process::CommandExt as _;
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    write(&folder.join("secret"), "x", 0o000);
    for open in [sandbox.dir.path(), &sandbox.path("")] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = sandbox.command(&crate::cli::sandbox::binary());
    command.args(["release", "register", folder.to_str().unwrap(), "--id", "r1"]);
    if std::fs::read(folder.join("secret")).is_ok() {
        command.uid(65_534);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot read") && said.contains("secret"), "{said}");
    assert!(names(&shelf(&sandbox)).is_empty());
}

#[test]
fn names_and_places_that_are_refused() {
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    register(&sandbox, &folder, "../x").exits(2).says("bad release name");
    register(&sandbox, &folder, "current").exits(2).says("is the link to the active one");
    register(&sandbox, &folder, "default").exits(2).says("workers that name no release");
    register(&sandbox, &sandbox.path("nothing"), "r1").exits(2).says("there is no");
    register(&sandbox, "/dev/null".as_ref(), "r1").exits(2).says("neither a folder nor a file");
    register(&sandbox, &folder.join("flavour"), "r1").exits(2).says("cannot be executed");
    write(&folder.join("bin/su"), "x", 0o4755);
    register(&sandbox, &folder.join("bin/su"), "r1").exits(2).says("setuid");
    assert!(names(&shelf(&sandbox)).is_empty());
    // A shelf within what is put on it.
    let inside = [("SLUICEGATE__RELEASES__ROOT", "app/releases")];
    std::fs::remove_file(folder.join("bin/su")).unwrap();
    let args = ["release", "register", "app", "--id", "r1"];
    sandbox.run_with(&args, &inside, "").exits(2).says("is the shelf itself");
    assert!(names(&folder.join("releases/default")).is_empty());
    // A shelf that anybody may write to.
    let root = sandbox.path("open");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
    let open = [("SLUICEGATE__RELEASES__ROOT", root.to_str().unwrap())];
    sandbox.run_with(&args, &open, "").exits(2).says("has mode 0777: anybody could put programs there");
    assert!(names(&root.join("default")).is_empty());
}

/// It is copied while somebody writes there: told so, and never on the shelf as a mix.
#[test]
fn a_source_that_changes_meanwhile_is_refused() {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = std::fs::OpenOptions::new().append(true).open(folder.join("flavour")).unwrap();
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
            }
        });
        // It is possible, and no harm, that the writer had no turn in a whole registration.
        let refused =
            (0..20).map(|n| register(&sandbox, &folder, &format!("r{n}"))).find(|run| run.code != 0);
        done.store(true, Ordering::Relaxed);
        refused
    });
    said.expect("one of them").exits(2).says("flavour` changed while it was copied");
    assert!(names(&shelf(&sandbox)).iter().all(|name| !name.to_string_lossy().starts_with('.')));
}

/// The copy is asked, so it could change: what is registered is what was copied.
#[test]
fn a_program_that_changes_its_own_folder_when_it_is_asked_is_refused() {
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    write(&folder.join("bin/app"), script("echo x > ./extra", &super::kit::description()), 0o755);
    register(&sandbox, &folder, "r1").exits(3).says("`extra` is extra");
    assert!(names(&shelf(&sandbox)).is_empty());
}
