//! Receivers as child processes, and the context that a handler is given.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sluicegate::clock::Timestamp;
use sluicegate::handlers::{self, Delivery, Inbox, InboxMessage};
use sluicegate::ids::JobId;
use sluicegate::job::handler::{Effect, Effects, JobError, Shared};
use sluicegate::job::{Args, Context, Handler, JobResult};
use sluicegate::names::{Kind, Queue, Release, Tier, WorkerName};
use sluicegate::worker::Registry;
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Nothing here takes this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

/// A Python program that prints its port and then what it receives.
pub(crate) struct Peer {
    child: Child,
    lines: Receiver<String>,
    pub(crate) port: u16,
}

impl Peer {
    pub(crate) fn start(script: &str, argument: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let venv = std::env::var_os("SLUICEGATE_TEST_VENV")
            .map_or_else(|| root.join("target/test-venv"), PathBuf::from);
        let python = venv.join("bin/python");
        let mut child = Command::new(&python)
            .arg(root.join("tests/handlers").join(script))
            .arg(argument)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; `scripts/test` installs what is needed", python.display())
            });
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut port = String::new();
        lines.read_line(&mut port).expect("a port");
        let port = port
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{script} did not start; `scripts/test` installs what is needed"));
        // Read as it comes: a receiver must not wait for the test to read.
        let (said, heard) = channel();
        std::thread::spawn(move || lines.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines: heard, port }
    }

    /// The next thing it received.
    pub(crate) fn received(&mut self) -> Value {
        let line = self.lines.recv_timeout(LONG).expect("it receives something");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Ends it, and counts what it received beyond what was read.
    pub(crate) fn rest(mut self) -> usize {
        self.child.kill().expect("killed");
        self.lines.iter().count()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The record of effects, in memory.
#[derive(Default)]
pub(crate) struct Memory(Mutex<HashMap<String, &'static str>>);

impl Memory {
    pub(crate) fn state(&self) -> Option<&'static str> {
        self.0.lock().expect("a lock").values().next().copied()
    }
}

#[async_trait]
impl Effects for Memory {
    async fn begin(&self, job: JobId, key: &str) -> Result<Effect, JobError> {
        let mut map = self.0.lock().expect("a lock");
        Ok(match map.insert(format!("{job}/{key}"), "begun") {
            None => Effect::Fresh,
            Some("sent") => {
                map.insert(format!("{job}/{key}"), "sent");
                Effect::Sent
            }
            Some(_) => Effect::Unknown,
        })
    }
    async fn sent(&self, job: JobId, key: &str) -> Result<(), JobError> {
        self.0.lock().expect("a lock").insert(format!("{job}/{key}"), "sent");
        Ok(())
    }
    async fn not_sent(&self, job: JobId, key: &str) -> Result<(), JobError> {
        self.0.lock().expect("a lock").remove(&format!("{job}/{key}"));
        Ok(())
    }
}

/// An inbox in memory.
#[derive(Debug, Default)]
pub(crate) struct Kept(pub(crate) Mutex<Vec<InboxMessage>>);

impl Inbox for Kept {
    fn keep(&self, message: InboxMessage) -> std::io::Result<()> {
        self.0.lock().expect("a lock").push(message);
        Ok(())
    }
}

/// One job's attempts, outside of any worker. What the handlers share (pools) lasts as long as it does.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) id: JobId,
    pub(crate) effects: Arc<Memory>,
    pub(crate) cancel: CancellationToken,
    pub(crate) attempt: u32,
    settings: Value,
    shared: Shared,
}

fn shared(delivery: Delivery) -> Shared {
    let mut registry = Registry::new();
    handlers::register(&mut registry, delivery).expect("registered");
    registry.shared()
}

impl Bench {
    pub(crate) fn new(settings: Value) -> Self {
        Self {
            id: JobId::new(),
            effects: Arc::default(),
            cancel: CancellationToken::new(),
            attempt: 1,
            settings,
            shared: shared(Delivery::Real),
        }
    }

    pub(crate) fn with_inbox(mut self, inbox: &Arc<Kept>) -> Self {
        self.shared = shared(Delivery::Inbox(Arc::clone(inbox) as _));
        self
    }

    /// Another job in the same worker.
    pub(crate) fn another(&self) -> Self {
        Self { id: JobId::new(), effects: Arc::default(), ..self.clone() }
    }

    pub(crate) async fn run<H: Handler>(&self, args: &Value) -> JobResult {
        self.run_text::<H>(&args.to_string()).await
    }

    /// Runs it with arguments as they were written, byte for byte.
    pub(crate) async fn run_text<H: Handler>(&self, args: &str) -> JobResult {
        let job =
            H::decode(&Args::parse(args.as_bytes()).expect("arguments"), H::VERSION).expect("arguments");
        let context = Context {
            id: self.id,
            tier: Tier::default(),
            kind: Kind::new(H::KIND).expect("a kind"),
            queue: Queue::default(),
            attempt: self.attempt,
            max_attempts: 10,
            enqueued_at: Timestamp::from_ms(1_768_036_445_123),
            expires_at: None,
            extras: Arc::default(),
            worker: WorkerName::new("w").expect("a name"),
            release: Release::default(),
            cancel: self.cancel.clone(),
            settings: Arc::new(self.settings.clone()),
            shared: self.shared.clone(),
            canary: None,
            effects: Arc::clone(&self.effects) as _,
            span: tracing::Span::none(),
        };
        job.run(context).await
    }
}
