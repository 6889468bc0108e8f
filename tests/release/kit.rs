//! Releases made up for a test: a folder with a program that tells what it runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use sluicegate::names::{Release, Tier};
use sluicegate::store::{Actor, Store};

use crate::cli::sandbox::{Run, Sandbox};

pub(super) fn release(name: &str) -> Release {
    Release::new(name).unwrap()
}

pub(super) fn tier() -> Tier {
    Tier::default()
}

pub(super) fn ada() -> Actor {
    Actor { who: "ada@here".into(), reason: None }
}

/// What the program of a made-up release says that it runs.
pub(super) fn description() -> String {
    json!({ "format": 1, "kinds": [{ "name": "greet", "version": 2, "queue": "mail", "canary": true }] })
        .to_string()
}

/// A script that answers this when it is asked what it runs, after it did something.
pub(super) fn script(first: &str, answer: &str) -> String {
    format!(
        "#!/bin/sh\n[ \"$1 $2 $3\" = 'release describe --json' ] || exit 64\n{first}\ncat <<'END'\n{answer}\nEND\n"
    )
}

pub(super) fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The folder of a release that can be registered; `flavour` makes its content another one.
pub(super) fn source(sandbox: &Sandbox, name: &str, flavour: &str) -> PathBuf {
    let folder = sandbox.path(name);
    write(&folder.join("bin/app"), script("", &description()), 0o755);
    write(&folder.join("flavour"), flavour, 0o644);
    folder
}

/// This host's shelf.
pub(super) fn shelf(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("data/sluicegate/releases/default")
}

/// What is in a folder, whatever it is called; nothing when there is no such folder.
pub(super) fn names(folder: &Path) -> Vec<OsString> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Every path below a folder, with mode and content.
pub(super) fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let content = match (meta.is_dir(), meta.is_symlink()) {
            (true, _) => {
                found.extend(tree(&path));
                Vec::new()
            }
            (_, true) => std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            _ => std::fs::read(&path).unwrap(),
        };
        found.insert(path, (meta.permissions().mode() & 0o7777, content));
    }
    found
}

pub(super) fn register(sandbox: &Sandbox, source: &Path, id: &str) -> Run {
    sandbox.run(&["release", "register", source.to_str().unwrap(), "--id", id])
}

/// The store of a sandbox, from the test's own process.
pub(super) async fn store(sandbox: &Sandbox) -> Arc<dyn Store> {
    std::fs::create_dir_all(sandbox.path("data/sluicegate")).unwrap();
    sluicegate::store::open(&sandbox.url().parse().unwrap()).await.unwrap()
}

/// The events of the ledger that begin so.
pub(super) async fn events(store: &dyn Store, prefix: &str) -> Vec<String> {
    let entries = store.ledger(&tier(), 0, 500).await.unwrap();
    entries.into_iter().map(|entry| entry.event).filter(|event| event.starts_with(prefix)).collect()
}
