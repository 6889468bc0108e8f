//! The real binary in a home of its own: a temporary folder, a cleared environment, and output that can be waited for.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::both::Engine;
use crate::redis::server::Server;

/// Where one test lives.
pub(super) struct Home {
    dir: tempfile::TempDir,
    server: Option<Server>,
    pub(super) program: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Home {
    pub(super) fn new() -> Self {
        Self::on(Engine::Sqlite)
    }

    /// With a store that every process of it uses: SQLite's usual file, or a Redis server.
    pub(super) fn on(engine: Engine) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            server: engine.server(),
            program: env!("CARGO_BIN_EXE_sluicegate").into(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The configuration file that commands find by themselves.
    pub(super) fn config(&self, text: impl AsRef<[u8]>) -> PathBuf {
        self.write("config/sluicegate/sluicegate.toml", text)
    }

    pub(super) fn store(&self) -> PathBuf {
        self.path("data/sluicegate/jobs.db")
    }

    /// Everything under the home, for tests that want nothing to be touched.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.clone());
                if path.is_dir() {
                    walk(&path, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        found.sort();
        found
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            // A wait that goes wrong shall not hold the suite up for its five minutes.
            .env("SLUICEGATE_TIMEOUT", "60s")
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        if let Some(server) = &self.server {
            command.env("SLUICEGATE_STORE", server.url());
        }
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Ran {
        finish(&mut self.command(args), b"")
    }

    pub(super) fn run_in(&self, env: &[(&str, &str)], args: &[&str]) -> Ran {
        finish(self.command(args).envs(env.iter().copied()), b"")
    }

    pub(super) fn run_fed(&self, args: &[&str], input: &[u8]) -> Ran {
        finish(&mut self.command(args), input)
    }

    /// Runs it, wants success, and returns what it printed.
    pub(super) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:#?}");
        ran.out
    }

    /// The same as JSON.
    pub(super) fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// Enqueues a job and returns its id.
    pub(super) fn enqueue(&self, args: &[&str]) -> String {
        let mut all = vec!["job", "enqueue"];
        all.extend(args);
        self.json(&all)["id"].as_str().unwrap().to_owned()
    }

    /// Where a job is.
    pub(super) fn state(&self, id: &str) -> String {
        self.json(&["job", "show", id])["state"].as_str().unwrap().to_owned()
    }
}

/// Runs a command to its end with this input.
pub(super) fn finish(command: &mut Command, input: &[u8]) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    let feeder = child.stdin.take().map(|mut pipe| {
        let input = input.to_vec();
        // The program may refuse what it reads and close the pipe.
        std::thread::spawn(move || drop(pipe.write_all(&input)))
    });
    let output = child.wait_with_output().unwrap();
    feeder.map(std::thread::JoinHandle::join).transpose().unwrap();
    Ran {
        code: code(output.status),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// As a shell reports it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}
