//! A Redis server of its own for each test: a real process, that can be killed, stopped and moved in time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::clock::Clock;
use super::resp::{DEADLINE, Reply, Wire};

/// How a server is to be, before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    lines: String,
    password: Option<String>,
}

impl Setup {
    /// One more line of `redis.conf`.
    pub(crate) fn with(mut self, line: &str) -> Self {
        writeln!(self.lines, "{line}").expect("a text takes it");
        self
    }

    /// Writes every change to a file, and that to disk `always`, `everysec` or `no`.
    pub(crate) fn append_only(self, fsync: &str) -> Self {
        self.with("appendonly yes").with(&format!("appendfsync {fsync}"))
    }

    /// Holds at most so much (`2mb`), and then does what the policy says (`noeviction`).
    pub(crate) fn max_memory(self, size: &str, policy: &str) -> Self {
        self.with(&format!("maxmemory {size}")).with(&format!("maxmemory-policy {policy}"))
    }

    /// Asks for a password; `cli` and `info` give it.
    pub(crate) fn password(mut self, password: &str) -> Self {
        self.password = Some(password.into());
        self.with(&format!("requirepass {password}"))
    }

    /// One more user: `("ada", "on >secret ~jobs:* +@all")`.
    pub(crate) fn user(self, name: &str, rules: &str) -> Self {
        self.with(&format!("user {name} {rules}"))
    }

    /// Follows another server.
    pub(crate) fn replica_of(self, master: &Server) -> Self {
        let setup = self.with(&format!("replicaof 127.0.0.1 {}", master.port));
        match &master.password {
            Some(password) => setup.with(&format!("masterauth {password}")),
            None => setup,
        }
    }

    /// Starts it, and returns when it answers.
    pub(crate) fn start(self) -> Server {
        let (reserved, address) = reserve();
        let port = address.port();
        let folder = TempDir::new().expect("a folder");
        let own =
            format!("bind 127.0.0.1\nport {port}\nunixsocket {}\n", folder.path().join("socket").display());
        fs::write(folder.path().join("redis.conf"), own + &self.lines).expect("written");
        let clock = Clock::new(folder.path());
        let child = launch(&folder, &clock);
        let mut server = Server { folder, clock, port, child, password: self.password, _reserved: reserved };
        server.answers();
        server
    }
}

/// A running Redis. It is killed when it is dropped.
pub(crate) struct Server {
    folder: TempDir,
    clock: Clock,
    port: u16,
    child: Child,
    password: Option<String>,
    _reserved: TcpSocket,
}

impl Server {
    /// One that keeps nothing on disk.
    pub(crate) fn start() -> Server {
        Self::setup().start()
    }

    /// The same, to be changed before it starts.
    pub(crate) fn setup() -> Setup {
        // Time that is moved is no silence on the wire, so replication must not take it for one. A replica that gets
        // its first copy by way of a file does not wait for the next second to be counted.
        let lines = "save \"\"\nrepl-timeout 100000000\nrepl-diskless-sync no\n".into();
        Setup { lines, password: None }
    }

    /// `redis://127.0.0.1:PORT`, without a password.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port, the same after every start.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The process that runs now, or ran last.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL) and waits for its end. Port and folder stay.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Starts it again after `kill`, and returns when it has read its files and answers.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.try_wait().expect("a child").is_some(), "it still runs");
        self.child = launch(&self.folder, &self.clock);
        self.answers();
    }

    /// Stops it where it is (SIGSTOP), and returns when it stands still.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let status = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED).expect("a child");
        assert!(status.expect("a status").1.stopped(), "it ended");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }

    /// Moves its wall clock forward.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    /// One command, on a connection of its own.
    pub(crate) async fn cli(&self, command: &[&str]) -> Reply {
        let mut wire = Wire::to(self.port).await.expect("a connection");
        if let Some(password) = &self.password {
            wire.ask(&["AUTH", password]).await.expect("an answer");
        }
        wire.ask(command).await.expect("an answer")
    }

    /// A section of `INFO`.
    pub(crate) async fn info(&self, section: &str) -> BTreeMap<String, String> {
        let text = self.cli(&["INFO", section]).await.text();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// What it has written about itself, since its first start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it answers. Its own socket is asked: no other server can answer there.
    fn answers(&mut self) {
        let began = Instant::now();
        while !self.greets().unwrap_or(false) {
            let ended = self.child.try_wait().expect("a child");
            if ended.is_some() || began.elapsed() > DEADLINE {
                panic!("redis-server does not answer ({ended:?}):\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn greets(&self) -> std::io::Result<bool> {
        let mut socket = UnixStream::connect(self.folder.path().join("socket"))?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        socket.read_exact(&mut answer)?;
        // Whoever asks for a password is there; whoever reads its files says `-LOADING`.
        Ok(matches!(&answer, b"+PONG\r\n" | b"-NOAUTH"))
    }
}

/// A free port of loopback, that nobody else gets while the socket lives, also when nobody listens there: not between a
/// kill and the next start. It may be shared only once it is chosen, so that it was free.
pub(super) fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    socket.set_reuseaddr(true).expect("a socket");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

fn launch(folder: &TempDir, clock: &Clock) -> Child {
    let log = File::options().create(true).append(true).open(folder.path().join("log")).expect("a file");
    let mut command = Command::new("redis-server");
    clock.rule(&mut command);
    command.arg("redis.conf").current_dir(folder.path()).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a file")).stderr(log);
    command.spawn().expect("`redis-server` (Debian's package redis-server; `scripts/test` installs it)")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
