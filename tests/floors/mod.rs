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
    ("histogram", 0),
    ("location", 0),
    ("retry", 0),
    ("job", 0),
    ("activation", 0),
    ("config", 1),
    ("https", 1),
    ("child", 1),
    ("store", 2),
    ("client", 3),
    ("worker", 3),
    ("handlers", 4),
    ("health", 4),
    ("release", 5),
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

/// A source without its comments and with its strings emptied; line breaks stay, so that places stay true.
fn code(text: &str) -> String {
    let (mut code, mut depth, mut rest) = (String::with_capacity(text.len()), 0_u32, text);
    while let Some(first) = rest.chars().next() {
        let mut skip = first.len_utf8();
        if rest.starts_with("/*") {
            (depth, skip) = (depth + 1, 2);
        } else if depth > 0 && rest.starts_with("*/") {
            (depth, skip) = (depth - 1, 2);
        } else if depth == 0 && rest.starts_with("//") {
            skip = rest.find('\n').unwrap_or(rest.len());
        } else if depth == 0
            && let Some(length) = literal(rest)
        {
            skip = length;
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        } else if depth == 0 || first == '\n' {
            code.push(first);
        }
        rest = &rest[skip..];
    }
    code
}

/// The length of the string or character literal that a text begins with.
fn literal(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let body = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(hashes + 2 + body.find(&end)? + end.len());
    }
    if text.starts_with("'\"'") {
        return Some(3);
    }
    let body = text.strip_prefix('"')?;
    let mut escaped = false;
    for (index, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(index + 2),
            _ => {}
        }
    }
    None
}

/// The top modules that code names after `crate::`, with their lines; groups may nest and go over several lines.
fn named(code: &str) -> Vec<(usize, String)> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules = Vec::new();
    for (start, path) in code.match_indices("crate::") {
        let line = |at: usize| code[..at].matches('\n').count() + 1;
        let begin = start + path.len();
        let rest = &code[begin..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.push((line(begin), word(rest)));
            continue;
        };
        let (mut depth, mut expected) = (1_u32, true);
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => expected = true,
                c if expected && !c.is_whitespace() => {
                    modules.push((line(begin + 1 + index), word(&group[index..])));
                    expected = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    modules
}

/// Imports of a source text that point up, or sideways to another room of the same floor.
fn upward(module: &str, text: &str) -> Vec<(usize, String)> {
    let own = floor(module).unwrap_or_else(|| panic!("`{module}` has no floor in tests/floors"));
    let up = |to: &str| floor(to).is_some_and(|other| other > own || other == own && own > 0);
    named(&code(text)).into_iter().filter(|(_, to)| to != module && up(to)).collect()
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
            bad.push(format!("src/{}:{line}: from `{module}` to `{to}`", relative.display()));
        }
    }
    assert!(bad.is_empty(), "imports must point down:\n{}", bad.join("\n"));
}

#[test]
fn an_import_that_points_up_is_found() {
    let found = |module: &str, text: &str| -> Vec<String> {
        upward(module, text).into_iter().map(|(line, to)| format!("{line} {to}")).collect()
    };
    assert_eq!(found("store", "use crate::worker::Worker;"), ["1 worker"]);
    assert_eq!(found("client", "\nuse crate::{names, worker::Facts};"), ["2 worker"]);
    assert_eq!(found("worker", "let x = crate::http::serve();"), ["1 http"]);
    let grouped = "use crate::{\n    names::{Tier, Queue},\n    http,\n    job::{\n        Job,\n    },\n    cli::App,\n};";
    assert_eq!(found("worker", grouped), ["3 http", "7 cli"]);
    assert_eq!(found("store", "/* a\n b */ use crate::cli; // crate::http"), ["2 cli"]);
    assert_eq!(found("store", "let a = \"\\\"\n\"; let b = '\"'; crate::cli::run()"), ["2 cli"]);
    assert_eq!(found("health", "use crate::handlers::echo;"), ["1 handlers"], "sideways");
    let fine = "use crate::store::Store; // crate::cli\n/// [`crate::http`]\n/* crate::cli */ let x = \"crate::cli\";";
    assert!(found("worker", fine).is_empty());
    assert!(
        found("store", "use crate::{ids, clock::{self, Timestamp}}; fn health() { r#\"crate::cli\"# }")
            .is_empty()
    );
}

/// The table in `lib.rs` is what people read; the one here is what holds.
#[test]
fn the_floors_are_those_that_lib_rs_shows() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("a text");
    let mut shown = BTreeSet::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some(floor) = row.split([' ', '|']).next().and_then(|text| text.parse::<u8>().ok()) else {
            continue;
        };
        for name in row.split('`').skip(1).step_by(2) {
            shown.insert((name.to_owned(), floor));
        }
    }
    let held: BTreeSet<_> = FLOORS.iter().map(|(name, floor)| ((*name).to_owned(), *floor)).collect();
    assert_eq!(shown, held);
    let declared: BTreeSet<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(declared, FLOORS.iter().map(|(name, _)| *name).collect(), "every room has a floor");
}

/// What a rollback's code may name: the store, and what is read from it. With no shelf, no child process and no file it has no
/// ability to build, fetch, copy or start anything.
fn beyond_a_flip(text: &str) -> Vec<String> {
    let allowed = ["activation", "clock", "health", "names", "store"];
    let code = code(text);
    let mut bad: Vec<String> =
        named(&code).into_iter().map(|(_, to)| to).filter(|to| !allowed.contains(&to.as_str())).collect();
    let of_release = code.match_indices("super::").map(|(at, word)| &code[at + word.len()..]);
    bad.extend(of_release.filter(|to| !to.starts_with("records")).map(|to| to.chars().take(20).collect()));
    let outside = ["std::fs", "std::process", "std::net", "std::os", "std::env", "tokio::", "reqwest"];
    bad.extend(outside.into_iter().filter(|word| code.contains(word)).map(str::to_owned));
    bad
}

#[test]
fn a_rollback_can_flip_and_look_and_nothing_else() {
    let text = fs::read_to_string(root().join("src/release/rollback.rs")).expect("a text");
    assert_eq!(beyond_a_flip(&text), [""; 0]);
    assert_eq!(beyond_a_flip("use crate::{child, store}; // crate::config"), ["child"]);
    assert_eq!(beyond_a_flip("use super::shelf::Shelf;").len(), 1);
    assert_eq!(beyond_a_flip("std::process::Command::new(a)"), ["std::process"]);
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
    for store in ["sqlite", "redis"] {
        let crates = tree(&["--no-default-features", "--features", &format!("client,{store}")]);
        println!("{store}: {} crates", crates.len());
        for heavy in ["hyper ", "clap ", "lettre ", "rustls ", "backoff "] {
            assert!(!crates.iter().any(|name| name.starts_with(heavy)), "{heavy} in {crates:?}");
        }
    }
}
