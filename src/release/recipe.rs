//! `release.toml`: what a release says of itself, beside its files. All of it is optional.
//!
//! ```toml
//! program = "bin/app"            # without it: the one executable in the folder or in bin/
//! args = ["--slots", "50"]       # for `work`
//! config = "sluicegate.toml"     # the release's part of the configuration
//! hook = ["bin/register"]        # the activation hook, and its arguments
//!
//! [[kinds]]                      # only for a program that cannot tell them itself
//! name = "thumbnail"
//! version = 1
//! queue = "images"
//! ```

use serde::Deserialize;

use super::description::{self, DescribedKind, Description};
use super::error::ShelfError;
use super::manifest::{Entry, What, inside};
use crate::names::{Kind, Queue, escaped, shown};

/// Its name.
pub(super) const FILE: &str = "release.toml";
/// No such file is larger, in bytes.
pub(super) const MAX_FILE: u64 = 64 * 1024;

/// What it says; paths are known to be inside, and to be files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) config: Option<String>,
    pub(super) hook: Vec<String>,
    /// What it declares to run; `None`: its program is asked.
    pub(super) declares: Option<Description>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Written {
    program: Option<String>,
    args: Vec<String>,
    config: Option<String>,
    hook: Vec<String>,
    kinds: Vec<WrittenKind>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKind {
    name: Kind,
    #[serde(default = "first")]
    version: u32,
    #[serde(default)]
    queue: Queue,
}

fn first() -> u32 {
    1
}

impl Recipe {
    /// From the file's text, if there is one, for a release of these files.
    pub(super) fn read(text: Option<&[u8]>, files: &[Entry]) -> Result<Self, ShelfError> {
        let written = text.map(parse).transpose()?.unwrap_or_default();
        let program = match written.program {
            Some(program) => program,
            None => the_one_program(files)?,
        };
        check("program", &program, true, files)?;
        if let Some(config) = &written.config {
            check("config", config, false, files)?;
        }
        if let Some(hook) = written.hook.first() {
            check("hook", hook, true, files)?;
        }
        if let Some(bad) = written.args.iter().chain(&written.hook).find(|word| word.contains('\0')) {
            return Err(refused(format!("argument `{}` has a NUL byte", shown(bad))));
        }
        let declares = (!written.kinds.is_empty()).then(|| Description {
            format: description::FORMAT,
            kinds: written
                .kinds
                .into_iter()
                .map(|WrittenKind { name, version, queue }| DescribedKind {
                    name,
                    version,
                    queue,
                    canary: false,
                })
                .collect(),
            queues: None,
            schedules: Vec::new(),
        });
        let declares = declares.map(Description::checked).transpose().map_err(refused)?;
        Ok(Self { program, args: written.args, config: written.config, hook: written.hook, declares })
    }
}

fn refused(why: impl std::fmt::Display) -> ShelfError {
    ShelfError::refused(format!("{FILE}: {why}"))
}

fn parse(text: &[u8]) -> Result<Written, ShelfError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| refused(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        refused(format!("line {line}, column {column}: {}", escaped(error.message().trim()))).hint(
            "it takes `program`, `args`, `config`, `hook`, and `[[kinds]]` with `name`, `version`, `queue`",
        )
    })
}

/// A path in it must be that of a file of the release.
fn check(key: &str, path: &str, runs: bool, files: &[Entry]) -> Result<(), ShelfError> {
    let given = shown(path);
    inside(path).map_err(|why| refused(format!("`{key}`: `{given}` {why}")))?;
    let what = files.iter().find(|entry| entry.path == path).map(|entry| &entry.what);
    let why = match what {
        Some(What::File { executable: false, .. }) if runs => "cannot be executed",
        Some(What::File { .. }) => return Ok(()),
        Some(What::Folder) => "is a folder",
        Some(What::Link { .. }) => "is a link: name the file itself",
        None => "is not in the release",
    };
    let error = refused(format!("`{key}`: `{given}` {why}"));
    Err(if why == "cannot be executed" { error.hint(format!("chmod +x {given}")) } else { error })
}

fn the_one_program(files: &[Entry]) -> Result<String, ShelfError> {
    let near = |path: &str| !path.strip_prefix("bin/").unwrap_or(path).contains('/');
    let programs: Vec<&str> = files
        .iter()
        .filter(|entry| near(&entry.path) && matches!(entry.what, What::File { executable: true, .. }))
        .map(|entry| entry.path.as_str())
        .collect();
    match programs.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(ShelfError::refused(
            "there is no program: no executable file in the folder itself or in `bin/`",
        )
        .hint(format!("make it executable (`chmod +x`), or name it in {FILE}: `program = \"path/to/app\"`"))),
        many => {
            let named: Vec<String> = many.iter().take(5).map(|path| format!("`{}`", shown(path))).collect();
            Err(ShelfError::refused(format!(
                "{} files could be the program: {}{}",
                many.len(),
                named.join(", "),
                if many.len() > 5 { ", …" } else { "" }
            ))
            .hint(format!(
                "name it in {FILE}: `program = \"{}\"`",
                shown(many.first().unwrap_or(&"bin/app"))
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    fn file(path: &str, executable: bool) -> Entry {
        Entry { path: path.into(), what: What::File { size: 1, executable, sha256: String::new() } }
    }

    fn read(text: &str) -> Result<Recipe, String> {
        let link = Entry { path: "bin/link".into(), what: What::Link { target: "app".into() } };
        let files = [file("bin/app", true), file("bin/register", true), file("etc/a.toml", false), link];
        Recipe::read(Some(text.as_bytes()), &files).map_err(|error| error.to_string())
    }

    #[test]
    fn what_it_says_is_read_and_paths_stay_inside() {
        let text = "program = \"bin/app\"\nargs = [\"--slots\", \"3\"]\nconfig = \"etc/a.toml\"\n\
                    hook = [\"bin/register\", \"now\"]\n[[kinds]]\nname = \"thumb\"\nversion = 2\nqueue = \"images\"";
        let recipe = read(text).unwrap();
        assert_eq!((recipe.program.as_str(), recipe.hook.len()), ("bin/app", 2));
        assert_eq!(recipe.declares.unwrap().kinds.first().unwrap().version, 2);
        for (text, wanted) in [
            ("program = \"../../bin/ls\"", "`program`: `../../bin/ls` must be a plain path inside"),
            ("program = \"/bin/ls\"", "is an absolute path"),
            ("program = \"bin/nothing\"", "is not in the release"),
            ("program = \"bin/link\"", "is a link"),
            ("program = \"etc/a.toml\"", "cannot be executed"),
            (
                "program = \"bin/app\"\nhook = [\"/bin/sh\", \"-c\", \"id\"]",
                "`hook`: `/bin/sh` is an absolute",
            ),
            (
                "program = \"bin/app\"\nconfig = \"bin/../etc/a.toml\"",
                "`config`: `bin/../etc/a.toml` must be a",
            ),
            ("program = \"bin/app\"\nporgram = 1", "line 2, column 1: unknown field `porgram`"),
            ("program = ", "line 1"),
            ("program = \"bin/app\"\nargs = [\"\\u0000\"]", "NUL"),
            ("program = \"bin/app\"\n[[kinds]]\nname = \"../x\"", "bad kind name"),
            (
                "program = \"bin/app\"\n[[kinds]]\nname = \"a\"\n[[kinds]]\nname = \"a\"",
                "kind `a` is there twice",
            ),
            ("", "2 files could be the program: `bin/app`, `bin/register`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn without_it_the_one_program_is_found() {
        let files = [file("bin/app", true), file("lib/deep/tool", true), file("readme", false)];
        assert_eq!(Recipe::read(None, &files).unwrap().program, "bin/app");
        assert!(Recipe::read(None, &files[1..]).unwrap_err().to_string().contains("no program"));
    }
}
