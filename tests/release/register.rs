//! A release comes onto the shelf and into the store.

use serde_json::json;
use sluicegate::release::records;

use super::kit::{self, events, names, register, release, shelf, source, store, tier, tree, write};
use crate::both::Engine;
use crate::cli::sandbox::{Sandbox, binary};

async fn a_release_is_registered_once_and_read_only(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let folder = source(&sandbox, "app", "one");
    std::os::unix::fs::symlink("app", folder.join("bin/also")).unwrap();
    std::os::unix::fs::symlink("../bin", folder.join("bin/up")).unwrap();
    std::fs::create_dir(folder.join("empty")).unwrap();
    let unknown = sandbox.run(&["release", "register", folder.to_str().unwrap(), "--id", "r1", "--json"]);
    let first = unknown.exits(0).json();
    assert_eq!((&first["new_here"], &first["new_in_store"]), (&json!(true), &json!(true)));
    assert_eq!(
        first["description"]["kinds"],
        json!([{ "name": "greet", "version": 2, "queue": "mail", "canary": true }])
    );
    let at = shelf(&sandbox).join("r1");
    let there = tree(&at);
    for (path, (mode, content)) in &tree(&folder) {
        let (now, copied) = &there[&at.join(path.strip_prefix(&folder).unwrap())];
        assert_eq!(content, copied, "{}", path.display());
        let wanted = match mode {
            0o777 => 0o777, // a link
            mode if mode & 0o111 == 0 => 0o444,
            _ => 0o555,
        };
        assert_eq!(*now, wanted, "{}", path.display());
    }
    assert_eq!(there.len(), tree(&folder).len() + 1, "and its manifest");

    register(&sandbox, &folder, "r1").exits(0).tells("there already, with the same content");
    assert_eq!(tree(&at), there);
    sandbox.run(&["release", "verify", "r1"]).exits(0).tells("is what was registered");
    let list = sandbox.run(&["release", "list", "--json"]).exits(0).json();
    assert_eq!((&list[0]["release"], &list[0]["state"]), (&json!("r1"), &json!("registered")));
    assert_eq!((&list[0]["here"], &list[0]["kinds"]), (&json!(true), &json!(1)));
    sandbox.run(&["release", "show", "r1"]).exits(0).tells("greet v2 in mail, with a canary");
    let store = store(&sandbox).await;
    assert_eq!(events(&*store, "release.").await, ["release.registered"]);
    let record = records::read(&*store, &tier(), &release("r1")).await.unwrap().unwrap();
    assert_eq!(json!(record.digest), first["digest"]);
    assert_eq!(record.registered.unwrap().by.who.split('@').next(), Some("tester"));
}

fn the_same_name_with_other_content_is_a_conflict_and_leaves_nothing(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let folder = source(&sandbox, "app", "one");
    register(&sandbox, &folder, "r1").exits(0);
    let there = tree(&shelf(&sandbox));
    write(&folder.join("flavour"), "two", 0o644);
    register(&sandbox, &folder, "r1").exits(9).says("registered already, with other content");
    assert_eq!(tree(&shelf(&sandbox)), there);
    register(&sandbox, &folder, "r2").exits(0);
    assert_eq!(names(&shelf(&sandbox)), ["r1", "r2"]);
}

/// Two hosts: two folders of data, one store.
async fn another_host_registers_the_same_and_nothing_else(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let folder = source(&sandbox, "app", "one");
    let folder = folder.to_str().unwrap();
    let url = sandbox.url();
    let root = sandbox.path("other");
    let other = [("SLUICEGATE__RELEASES__ROOT", root.to_str().unwrap()), ("SLUICEGATE_STORE", &url)];
    register(&sandbox, folder.as_ref(), "r1").exits(0);
    sandbox.run_with(&["release", "list"], &other, "").exits(0).tells("no");
    sandbox.run_with(&["release", "verify", "r1"], &other, "").exits(10).says("not on this host's shelf");
    let again = sandbox.run_with(&["release", "register", folder, "--id", "r1", "--json"], &other, "");
    let again = again.exits(0).json();
    assert_eq!((&again["new_here"], &again["new_in_store"]), (&json!(true), &json!(false)));
    let pruned = ["release", "prune", "--keep", "0"];
    sandbox.run_with(&pruned, &other, "").exits(0).tells("removed");
    assert!(names(&root.join("default")).is_empty());
    write(&sandbox.path("app/flavour"), "two", 0o644);
    let conflict = sandbox.run_with(&["release", "register", folder, "--id", "r1"], &other, "");
    conflict.exits(9).says("registered already, with other content");
    assert!(names(&root.join("default")).is_empty(), "nothing may stand there under that name");
    assert_eq!(events(&*store(&sandbox).await, "release.registered").await.len(), 1);
}

fn the_gate_knows_a_registered_release(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    register(&sandbox, &source(&sandbox, "app", "one"), "r1").exits(0);
    sandbox.run(&["gate", "check", "--release", "r2"]).exits(10);
    let known = sandbox.run(&["gate", "check", "--release", "r1"]);
    assert_eq!(known.code, 8, "pending, for nobody is there: {known:?}");
}

/// A shelf and no record is what a store leaves that went away in between.
fn a_registration_that_lost_its_store_is_completed_by_the_next(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let folder = source(&sandbox, "app", "one");
    register(&sandbox, &folder, "r1").exits(0);
    let empty = format!("sqlite:{}", sandbox.path("empty.db").display());
    let args = ["release", "register", folder.to_str().unwrap(), "--id", "r1", "--store", &empty];
    sandbox.run(&args).exits(0).tells("on this host's shelf already, and now registered");
}

on_both! {
    #[tokio::test] async:
        a_release_is_registered_once_and_read_only
        another_host_registers_the_same_and_nothing_else;
    #[test] fn:
        the_same_name_with_other_content_is_a_conflict_and_leaves_nothing
        the_gate_knows_a_registered_release
        a_registration_that_lost_its_store_is_completed_by_the_next;
}

/// The real program, as one file, under the name that its content gives it.
#[test]
fn a_program_alone_is_a_release_and_tells_what_it_runs() {
    let sandbox = Sandbox::new();
    let name = sandbox.run(&["release", "register", binary().to_str().unwrap(), "-o", "name"]).exits(0).out;
    let name = name.trim();
    let shown = sandbox.run(&["release", "show", name, "--json"]).exits(0).json();
    assert_eq!(shown["record"]["digest"].as_str().unwrap()[..12], *name);
    assert_eq!(shown["manifest"]["program"], json!("bin/sluicegate"));
    let kinds: Vec<_> = shown["record"]["description"]["kinds"].as_array().unwrap().iter().collect();
    assert!(kinds.iter().any(|kind| kind["name"] == "echo" && kind["queue"] == "default"), "{kinds:?}");
    // Registered from one shelf, it is the same release on another: the manifest is not part of it.
    let from = shelf(&sandbox).join(name);
    let root = sandbox.path("other");
    let other = [("SLUICEGATE__RELEASES__ROOT", root.to_str().unwrap())];
    let again = sandbox.run_with(&["release", "register", from.to_str().unwrap(), "-o", "name"], &other, "");
    assert_eq!(again.exits(0).out.trim(), name);
}

#[test]
fn a_digest_is_what_it_always_was() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("app");
    write(&folder.join("bin/app"), "#!/bin/false\n", 0o755);
    let toml = "[[kinds]]\nname = \"greet\"\nversion = 2\nqueue = \"mail\"\n";
    write(&folder.join("release.toml"), toml, 0o644);
    std::os::unix::fs::symlink("bin/app", folder.join("run")).unwrap();
    let digest = |id: &str| {
        let shown = kit::register(&sandbox, &folder, id).exits(0);
        assert!(shown.out.contains("1 kinds"), "{shown:?}");
        sandbox.run(&["release", "show", id, "--json"]).exits(0).json()["record"]["digest"].clone()
    };
    let wanted = "714e78120cbe43ee5fe1bab371d96331ab9bedb7daf5b02d1b6ebc7a827a9c3b";
    assert_eq!(digest("r1"), json!(wanted), "hosts of two versions must agree on it");
    // Times, owners and the bits for others do not count.
    write(&folder.join("bin/app"), "#!/bin/false\n", 0o700);
    assert_eq!(digest("r2"), json!(wanted));
    write(&folder.join("release.toml"), format!("{toml}\n"), 0o644);
    assert_ne!(digest("r3"), json!(wanted));
}
