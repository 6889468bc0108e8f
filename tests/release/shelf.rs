//! What stands on the shelf stays what it was, or is not started; what was interrupted never stood there.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use sluicegate::release::records::{self, ReleaseRecord};
use sluicegate::release::{Shelf, ShelfErrorKind};

use super::kit::{self, description, names, register, release, script, shelf, source, store, tier, write};
use crate::cli::sandbox::Sandbox;

/// Past its protection, as root or its owner can.
fn change(path: &Path, change: impl FnOnce(&Path)) {
    let folder = path.parent().unwrap();
    for (of, mode) in [(folder, 0o755), (path, 0o644)] {
        if of.exists() {
            std::fs::set_permissions(of, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    change(path);
}

type Harm = fn(&Path);

#[test]
fn every_difference_is_found_and_named() {
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    std::os::unix::fs::symlink("flavour", folder.join("link")).unwrap();
    let cases: &[(&str, &str, Harm)] = &[
        ("flavour", "has another content", |at| change(at, |at| std::fs::write(at, "two").unwrap())),
        ("flavour", "is missing", |at| change(at, |at| std::fs::remove_file(at).unwrap())),
        ("bin/extra", "is extra", |at| change(at, |at| std::fs::write(at, "x").unwrap())),
        ("bin/app", "cannot be executed any more", |at| change(at, |_| {})),
        ("link", "leads elsewhere", |at| {
            std::fs::remove_file(at).unwrap();
            std::os::unix::fs::symlink("bin/app", at).unwrap();
        }),
        ("link", "which is an absolute path", |at| {
            std::fs::remove_file(at).unwrap();
            std::os::unix::fs::symlink("/bin/sh", at).unwrap();
        }),
        ("bin", "is something else", |at| {
            change(&at.join("app"), |_| std::fs::remove_dir_all(at).unwrap());
            std::fs::write(at, "x").unwrap();
        }),
        ("pipe", "is a named pipe", |at| {
            assert!(Command::new("mkfifo").arg(at).status().unwrap().success());
        }),
        (".sluicegate.json", "registered is", |at| {
            change(at, |at| {
                let text = std::fs::read_to_string(at).unwrap();
                std::fs::write(at, text.replace("\"args\":[]", "\"args\":[\"--slots\",\"1\"]")).unwrap();
            });
        }),
    ];
    for (index, (path, wanted, harm)) in cases.iter().enumerate() {
        let id = format!("r{index}");
        register(&sandbox, &folder, &id).exits(0);
        sandbox.run(&["release", "verify", &id]).exits(0);
        harm(&shelf(&sandbox).join(&id).join(path));
        let found = sandbox.run(&["release", "verify", &id]).exits(3).tells(wanted);
        assert!(found.out.contains(path), "{found:?}");
        let found = sandbox.run(&["release", "verify", &id, "--json"]).exits(3).json();
        assert_eq!(found["verified"], json!(false));
        // It does not pass as "there already" either.
        let again = register(&sandbox, &folder, &id);
        assert!(matches!(again.code, 3 | 9), "{again:?}");
    }
    let at = shelf(&sandbox).join("r0/.sluicegate.json");
    change(&at, |at| std::fs::write(at, "{\"format\":1").unwrap());
    sandbox.run(&["release", "verify", "r0"]).exits(3).says("the manifest of release `r0` cannot be read");
    change(&at, |at| std::fs::write(at, "{\"format\":7}").unwrap());
    sandbox.run(&["release", "verify", "r0"]).exits(2).says("has format 7, this program reads 1");
}

/// What a supervisor asks for before each start.
#[tokio::test]
async fn what_is_started_is_what_was_registered() {
    let sandbox = Sandbox::new();
    let folder = source(&sandbox, "app", "one");
    write(&folder.join("etc/app.toml"), "[worker]\nslots = 3\n", 0o644);
    write(&folder.join("bin/tell"), "#!/bin/sh\n", 0o755);
    let recipe = "program = \"bin/app\"\nargs = [\"--slots\", \"9\"]\nconfig = \"etc/app.toml\"\nhook = [\"bin/tell\", \"all\"]\n";
    write(&folder.join("release.toml"), recipe, 0o644);
    register(&sandbox, &folder, "r1").exits(0);
    let store = store(&sandbox).await;
    let record = records::read(&*store, &tier(), &release("r1")).await.unwrap().unwrap();
    let on = Shelf::at(&sandbox.path("data/sluicegate/releases"), &tier()).unwrap();
    assert_eq!(on.folder(), shelf(&sandbox));
    let staged = on.verified(&record).unwrap();
    let at = shelf(&sandbox).join("r1");
    assert_eq!((&staged.folder, &staged.program), (&at, &at.join("bin/app")));
    assert_eq!((staged.args.len(), staged.config), (2, Some(at.join("etc/app.toml"))));
    assert_eq!(staged.hook, [at.join("bin/tell").to_str().unwrap(), "all"]);
    assert_eq!(staged.manifest.digest(), record.digest);
    assert_eq!(Some(&staged.manifest.digests.program), record.program.as_ref());

    let other = ReleaseRecord { digest: "0".repeat(64), ..record.clone() };
    assert_eq!(on.verified(&other).unwrap_err().kind, ShelfErrorKind::Damaged);
    let none = ReleaseRecord { release: release("r2"), ..record.clone() };
    assert_eq!(on.verified(&none).unwrap_err().kind, ShelfErrorKind::Unknown);
    // A file that is none of these may differ: it is `verify` that reads everything.
    change(&at.join("flavour"), |at| std::fs::write(at, "two").unwrap());
    assert!(on.verified(&record).is_ok());
    assert_eq!(on.verify(&release("r1"), None, &AtomicBool::new(false)).unwrap().1.len(), 1);
    for path in ["bin/tell", "etc/app.toml", "bin/app"] {
        let before = std::fs::read(at.join(path)).unwrap();
        change(&at.join(path), |at| std::fs::write(at, "#!/bin/sh\nid\n").unwrap());
        let error = on.verified(&record).unwrap_err();
        assert_eq!(error.kind, ShelfErrorKind::Damaged);
        assert!(error.to_string().contains(path), "{error}");
        std::fs::write(at.join(path), before).unwrap();
    }
    // Nor through a link to what would be right.
    std::fs::rename(at.join("bin"), at.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", at.join("bin")).unwrap();
    assert!(on.verified(&record).unwrap_err().to_string().contains("`bin/app` cannot be read"));
}

#[test]
fn current_is_a_link_that_never_leads_nowhere() {
    let sandbox = Sandbox::new();
    let on = Shelf::at(&sandbox.path("data/sluicegate/releases"), &tier()).unwrap();
    assert_eq!(on.current().unwrap(), None);
    for id in ["r1", "r2"] {
        register(&sandbox, &source(&sandbox, "app", id), id).exits(0);
    }
    on.point(&release("r1")).unwrap();
    let link = shelf(&sandbox).join("current");
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("r1"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0_u32;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let flavour = std::fs::read_to_string(link.join("flavour")).unwrap();
                assert!(flavour == "r1" || flavour == "r2", "{flavour}");
                looks += 1;
            }
            looks
        });
        for n in 0..500 {
            on.point(&release(if n % 2 == 0 { "r2" } else { "r1" })).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(on.current().unwrap(), Some(release("r1")));
    assert_eq!(on.point(&release("r9")).unwrap_err().kind, ShelfErrorKind::Unknown);
    assert_eq!(names(&shelf(&sandbox)), ["current", "r1", "r2"]);
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir(&link).unwrap();
    assert!(on.point(&release("r1")).unwrap_err().to_string().contains("current"));
    assert_eq!(names(&shelf(&sandbox)), ["current", "r1", "r2"]);
}

/// A program that says through one pipe that it is being asked, answers when it is let by another one, and holds the first
/// one open as long as it lives.
fn slow(sandbox: &Sandbox) -> PathBuf {
    let folder = source(sandbox, "slow", "one");
    let [asked, go] = ["asked", "go"].map(|name| sandbox.path(name));
    for pipe in [&asked, &go] {
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    let first = format!("exec 3> '{}'; echo asked >&3; read x < '{}'", asked.display(), go.display());
    write(&folder.join("bin/app"), script(&first, &description()), 0o755);
    folder
}

/// Waits until it is asked; what comes back reads to its end when it has ended.
fn asked(sandbox: &Sandbox) -> BufReader<File> {
    let mut asked = BufReader::new(File::open(sandbox.path("asked")).unwrap());
    let mut line = String::new();
    asked.read_line(&mut line).unwrap();
    assert_eq!(line, "asked\n");
    asked
}

#[test]
fn what_a_killed_registration_left_is_never_a_release_and_goes_after_an_hour() {
    let sandbox = Sandbox::new();
    let folder = slow(&sandbox);
    let killed = sandbox.start(&["release", "register", folder.to_str().unwrap(), "--id", "r1"]);
    let mut program = asked(&sandbox);
    killed.signal("KILL");
    killed.ended().exits(137);
    std::fs::write(sandbox.path("go"), "\n").unwrap(); // its program is an orphan, which this ends
    program.read_to_string(&mut String::new()).unwrap();
    let left = names(&shelf(&sandbox));
    assert!(left.len() == 1 && left[0].to_string_lossy().starts_with(".incoming-"), "{left:?}");
    let list = sandbox.run(&["release", "list", "--json"]).exits(0).json();
    assert_eq!(list, json!([]));
    sandbox.run(&["release", "verify", "r1"]).exits(10);

    let good = source(&sandbox, "app", "one");
    register(&sandbox, &good, "r2").exits(0);
    assert_eq!(names(&shelf(&sandbox)).len(), 2, "it may be somebody who is slow");
    let at = shelf(&sandbox).join(&left[0]);
    let touch = |path: &Path| {
        assert!(
            Command::new("touch").args(["-h", "-d", "2 hours ago"]).arg(path).status().unwrap().success()
        );
    };
    touch(&at);
    let held = File::open(&at).unwrap();
    held.lock().unwrap();
    register(&sandbox, &good, "r3").exits(0);
    assert_eq!(names(&shelf(&sandbox)).len(), 3, "somebody still holds it");
    drop(held);
    let link = shelf(&sandbox).join(".current-0");
    std::os::unix::fs::symlink("r2", &link).unwrap();
    touch(&link);
    register(&sandbox, &good, "r4").exits(0);
    assert_eq!(names(&shelf(&sandbox)), ["r2", "r3", "r4"]);
}

#[test]
fn an_interrupted_registration_leaves_nothing_and_ends_what_it_asked() {
    let sandbox = Sandbox::new();
    let folder = slow(&sandbox);
    let interrupted = sandbox.start(&["release", "register", folder.to_str().unwrap(), "--id", "r1"]);
    let mut program = asked(&sandbox);
    interrupted.signal("INT");
    interrupted.ended().exits(130);
    program.read_to_string(&mut String::new()).unwrap();
    assert!(names(&shelf(&sandbox)).is_empty());
    sandbox.run(&["release", "show", "r1"]).exits(10);
}

/// Many at once, of the same and of other content: one of them is there, whole, and the others learn of it.
#[test]
fn many_register_the_same_name_at_once() {
    let sandbox = Sandbox::new();
    let folders: Vec<_> = (0..2).map(|n| source(&sandbox, &format!("app-{n}"), &format!("{n}"))).collect();
    sandbox.run(&["job", "enqueue", "echo"]).exits(0);
    let runs: Vec<(usize, i32)> = std::thread::scope(|scope| {
        let start = |n: usize| {
            let (sandbox, folder) = (&sandbox, &folders[n % 2]);
            scope.spawn(move || (n % 2, kit::register(sandbox, folder, "r1").code))
        };
        let running: Vec<_> = (0..8).map(start).collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let won = runs.iter().find(|(_, code)| *code == 0).expect("one of them").0;
    for (of, code) in &runs {
        assert_eq!(*code, if *of == won { 0 } else { 9 }, "{runs:?}");
    }
    assert_eq!(names(&shelf(&sandbox)), ["r1"]);
    sandbox.run(&["release", "verify", "r1"]).exits(0);
    assert_eq!(std::fs::read_to_string(shelf(&sandbox).join("r1/flavour")).unwrap(), won.to_string());
}
