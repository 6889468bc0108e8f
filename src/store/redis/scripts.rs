//! The scripts. Each is `lua/common.lua` and a file of its own, whose head tells its keys, arguments and answer. What must
//! go on in a store that is full is flagged `allow-oom`; what only reads is flagged so.

use std::sync::LazyLock;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, ErrorKind as Kind, RedisResult, ServerErrorKind, Value};

use super::record::CHUNK;
use crate::store::KEEP_COMPLETED_PER_QUEUE;

/// Refused in a full store: that is the back-pressure.
const REFUSED_WHEN_FULL: &str = "#!lua\n";
const ALLOW_OOM: &str = "#!lua flags=allow-oom\n";
const NO_WRITES: &str = "#!lua flags=no-writes\n";

macro_rules! scripts {
    ($($name:ident $file:literal $flags:ident $op:literal;)+) => {
        /// One script.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Script { $($name,)+ }

        impl Script {
            /// What it does, for errors.
            pub(super) const fn op(self) -> &'static str {
                match self { $(Self::$name => $op,)+ }
            }
        }

        fn all() -> Vec<(String, String)> {
            vec![$({
                let text = [$flags, &constants(), include_str!("lua/common.lua"), include_str!(concat!("lua/", $file, ".lua"))].concat();
                let hash = redis::Script::new(&text).get_hash().to_owned();
                (hash, text)
            },)+]
        }
    };
}

scripts! {
    Insert "insert" REFUSED_WHEN_FULL "insert";
    Claim "claim" ALLOW_OOM "claim";
    Complete "complete" ALLOW_OOM "settle";
    Look "look" NO_WRITES "look at jobs";
    Commit "commit" ALLOW_OOM "move jobs";
    Forget "forget" ALLOW_OOM "trim";
    Renew "renew" ALLOW_OOM "renew";
    Seize "seize" ALLOW_OOM "rescue";
    Sweep "sweep" ALLOW_OOM "sweep";
    Census "census" NO_WRITES "count jobs";
    Stream "stream" ALLOW_OOM "name a queue";
    Enlist "enlist" ALLOW_OOM "list a tier";
    Flip "flip" ALLOW_OOM "flip";
    Append "append" ALLOW_OOM "append to the ledger";
    Put "put" ALLOW_OOM "write a record";
    Pause "pause" ALLOW_OOM "pause a queue";
    Records "records" NO_WRITES "read records";
    Beat "beat" ALLOW_OOM "beat";
    Probe "probe" ALLOW_OOM "probe";
    Room "probe" REFUSED_WHEN_FULL "probe";
    Wish "wish" ALLOW_OOM "cancel";
    Defer "defer" ALLOW_OOM "sweep";
}

/// What the scripts must know as the rest of the engine does.
fn constants() -> String {
    format!("local CHUNK, KEEP_COMPLETED = {CHUNK}, {KEEP_COMPLETED_PER_QUEUE}\n")
}

/// All of them, with their hashes.
pub(super) struct Scripts(Vec<(String, String)>);

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts(all()));

impl Scripts {
    pub(super) fn hash(&self, script: Script) -> &str {
        self.0.get(script as usize).map_or("", |(hash, _)| hash)
    }

    pub(super) fn text(&self, script: Script) -> &str {
        self.0.get(script as usize).map_or("", |(_, text)| text)
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, text)| text.as_str())
    }
}

/// `EVALSHA`. A server that came back does not know the scripts, so it is told all of them at once; if it forgot them again
/// by then, this one goes with its text.
pub(super) async fn evaluate(
    connection: &mut MultiplexedConnection,
    script: Script,
    prefix: &str,
    args: &Args,
) -> RedisResult<Value> {
    let unknown = |answer: &RedisResult<Value>| {
        answer.as_ref().is_err_and(|error| error.kind() == Kind::Server(ServerErrorKind::NoScript))
    };
    let known = args.command("EVALSHA", SCRIPTS.hash(script), prefix);
    let mut answer = connection.send_packed_command(&known).await.and_then(Value::extract_error);
    if unknown(&answer) {
        let mut load = redis::Pipeline::with_capacity(SCRIPTS.texts().count());
        SCRIPTS.texts().for_each(|text| {
            load.cmd("SCRIPT").arg("LOAD").arg(text);
        });
        connection.send_packed_commands(&load, 0, load.len()).await?;
        answer = connection.send_packed_command(&known).await.and_then(Value::extract_error);
    }
    if unknown(&answer) {
        let whole = args.command("EVAL", SCRIPTS.text(script), prefix);
        answer = connection.send_packed_command(&whole).await.and_then(Value::extract_error);
    }
    answer
}

/// The arguments of a script, and how long they are together.
#[derive(Debug, Default)]
pub(super) struct Args(Vec<Vec<u8>>, usize);

impl Args {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn push(&mut self, arg: impl Into<Vec<u8>>) {
        let arg = arg.into();
        self.1 += arg.len() + 16;
        self.0.push(arg);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn arg(mut self, arg: impl Into<Vec<u8>>) -> Self {
        self.push(arg);
        self
    }

    pub(super) fn number(self, n: impl std::fmt::Display) -> Self {
        self.arg(n.to_string())
    }

    fn command(&self, name: &str, script: &str, prefix: &str) -> redis::Cmd {
        let mut command = redis::Cmd::with_capacity(4 + self.0.len(), 256 + script.len() + self.1);
        command.arg(name).arg(script).arg(1).arg(prefix);
        for arg in &self.0 {
            command.arg(arg.as_slice());
        }
        command
    }
}
