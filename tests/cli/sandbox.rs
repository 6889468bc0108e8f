//! A machine of its own for each test: folders, and no environment but what it sets.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::both::Engine;
use crate::redis::server::Server;

/// A line that is not said within this is not said at all: a test must fail, and not hang.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sluicegate"))
}

pub(crate) struct Sandbox {
    pub(crate) dir: TempDir,
    pub(crate) server: Option<Server>,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The exit code, or a panic that shows everything.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// What standard output must say.
    pub(crate) fn tells(self, text: &str) -> Self {
        assert!(self.out.contains(text), "`{text}` is not in {self:?}");
        self
    }

    /// What standard error must say.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{text}` is not in {self:?}");
        self
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self::on(Engine::Sqlite)
    }

    /// With a store that every process of it uses: SQLite's usual file, or a Redis server.
    pub(crate) fn on(engine: Engine) -> Self {
        Self { dir: TempDir::new().expect("a folder"), server: engine.server() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the store is unless a test says otherwise.
    pub(crate) fn url(&self) -> String {
        match &self.server {
            Some(server) => server.url(),
            None => format!("sqlite:{}", self.path("data/sluicegate/jobs.db").display()),
        }
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.dir.path());
        command
            .env("HOME", self.path("home"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("USER", "tester");
        if let Some(server) = &self.server {
            command.env("SLUICEGATE_STORE", server.url());
        }
        command
    }

    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Run {
        self.run_with(args, &[], "")
    }

    pub(crate) fn run_with<A: AsRef<OsStr>>(&self, args: &[A], env: &[(&str, &str)], input: &str) -> Run {
        let mut command = self.command(&binary());
        command.args(args).envs(env.iter().copied());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(input.as_bytes()); // it may not want to read
        });
        let output = child.wait_with_output().expect("ended");
        writer.join().expect("written");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Run { code: code(output.status), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Starts something that goes on.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_with(&binary(), args, &[])
    }

    pub(crate) fn start_with(&self, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Running {
        let mut command = self.command(program);
        command
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let mut from = BufReader::new(child.stdout.take().expect("a pipe"));
        let (said, lines) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while from.read_line(&mut line).expect("text") > 0 && said.send(std::mem::take(&mut line)).is_ok()
            {
            }
        });
        Running { child, lines, seen: String::new() }
    }

    /// `dev` on ports of its own.
    pub(crate) fn dev(&self) -> Running {
        self.start(&["dev", "--api-listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"])
    }

    /// A worker on ports of its own, once it is active.
    pub(crate) fn work(&self, args: &[&str]) -> Running {
        let mut all = vec!["work", "--health-listen", "127.0.0.1:0"];
        all.extend(args);
        self.start(&all)
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A process that goes on; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Running {
    /// The first line on standard output with this text.
    pub(crate) fn line(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                let _ = self.child.kill(); // it may still run, and say nothing more
                let mut err = String::new();
                self.child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
                panic!("`{text}` was not said in time; said: {}\n{err}", self.seen);
            };
            self.seen += &line;
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The address in the first line with this text.
    pub(crate) fn address(&mut self, text: &str) -> String {
        let line = self.line(text);
        let start = line.find("127.0.0.1:").unwrap_or_else(|| panic!("no address in {line}"));
        line[start..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for its end: exit code, the rest of standard output, standard error.
    pub(crate) fn ended(mut self) -> Run {
        let mut out = std::mem::take(&mut self.seen);
        out.extend(self.lines.iter());
        let mut err = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
        Run { code: code(self.child.wait().expect("ended")), out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
