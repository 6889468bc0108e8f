//! The house: imports only point down, no test file is forgotten, the crate stays lean, and it stands alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module's floor; the order within `lib.rs`.
const FLOORS: &[(&str, u8)] = &[
    ("ids", 0),
    ("clock", 0),
    ("names", 0),
    ("location", 0),
    ("retry", 0),
    ("job", 0),
    ("activation", 0),
    ("config", 1),
    ("store", 2),
    ("client", 3),
    ("worker", 3),
    ("handlers", 4),
    ("health", 4),
    ("http", 6),
    ("telemetry", 6),
    ("cli", 7),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(files(&entry, ending));
        } else if entry.to_string_lossy().ends_with(ending) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The top modules that a line of code names after `crate::`.
fn named(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let word =
            |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            Some(group) => {
                modules.extend(group.split('}').next().unwrap_or("").split(',').map(|part| word(part.trim())))
            }
            None => modules.push(word(rest)),
        }
    }
    modules
}

/// Imports of a source text that point up, or sideways to another room of the same floor.
fn upward(module: &str, text: &str) -> Vec<(usize, String)> {
    let own = floor(module).unwrap_or_else(|| panic!("`{module}` has no floor in tests/floors"));
    let mut bad = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        for to in named(code) {
            let Some(other) = floor(&to) else { continue };
            if to != module && (other > own || other == own && own > 0) {
                bad.push((index + 1, to));
            }
        }
    }
    bad
}

#[test]
fn imports_only_point_down() {
    let src = root().join("src");
    let mut bad = Vec::new();
    for file in files(&src, ".rs") {
        let relative = file.strip_prefix(&src).expect("below src");
        let first =
            relative.components().next().expect("a component").as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a text");
        for (line, to) in upward(module, &text) {
            bad.push(format!("src/{}:{line}: `{module}` imports `{to}`", relative.display()));
        }
    }
    assert!(bad.is_empty(), "imports must point down:\n{}", bad.join("\n"));
}

#[test]
fn an_import_that_points_up_is_found() {
    assert_eq!(upward("store", "use crate::worker::Worker;"), [(1, "worker".to_owned())]);
    assert_eq!(upward("client", "\nuse crate::{names, worker::Facts};"), [(2, "worker".to_owned())]);
    assert_eq!(upward("worker", "let x = crate::http::serve();"), [(1, "http".to_owned())]);
    assert!(upward("worker", "use crate::store::Store; // crate docs\n/// [`crate::http`]").is_empty());
}

#[test]
fn no_test_file_is_forgotten() {
    let tests = root().join("tests");
    let mut forgotten = Vec::new();
    for file in files(&tests, ".rs") {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let folder = file.parent().expect("a folder");
        let (declares, module) = match name.as_str() {
            "main" => continue,
            "mod" => (
                folder.parent().expect("a folder"),
                folder.file_name().expect("a name").to_string_lossy().into_owned(),
            ),
            _ => (folder, name),
        };
        let declared =
            ["mod.rs", "main.rs"].iter().filter_map(|file| fs::read_to_string(declares.join(file)).ok());
        if !declared.into_iter().any(|text| {
            text.lines().any(|line| {
                line.trim_start_matches("pub ").trim_start_matches("pub(crate) ") == format!("mod {module};")
            })
        }) {
            forgotten.push(file);
        }
    }
    assert!(forgotten.is_empty(), "no `mod` line for {forgotten:?}");
}

#[test]
fn the_project_stands_alone_and_is_finished() {
    let top = ["src", "tests", "examples", "scripts", "ops"];
    for folder in top.iter().map(|folder| root().join(folder)) {
        for file in files(&folder, "") {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            if file.ends_with("tests/floors/mod.rs") {
                continue;
            }
            for word in ["../shared", "/work/", "todo!(", "unimplemented!(", "#[ignore"] {
                assert!(!text.contains(word), "{} has `{word}`", file.display());
            }
        }
    }
}

fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--edges", "no-dev"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn a_build_needs_at_most_250_crates() {
    let crates = tree(&[]);
    println!("{} crates", crates.len());
    assert!(crates.len() <= 250, "{} crates", crates.len());
}

#[test]
fn an_app_that_only_enqueues_stays_slim() {
    let crates = tree(&["--no-default-features", "--features", "client,sqlite"]);
    println!("{} crates", crates.len());
    for heavy in ["hyper ", "clap ", "lettre ", "rustls ", "backoff ", "tokio-util "] {
        assert!(!crates.iter().any(|name| name.starts_with(heavy)), "{heavy} in {crates:?}");
    }
}
