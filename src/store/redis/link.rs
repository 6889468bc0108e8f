//! The way to the server. Connections live on a thread of their own, so that a job runtime that is blocked by its handlers
//! cannot cost a lease. They come from a deadpool; each lane holds one and shares it, since a checkout per call would cost
//! a round trip of its own (deadpool tests a connection whenever it hands it out).
//!
//! A connection that fails in any way that could come from the server's role or state is thrown away: a demoted master
//! still answers PING.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, ConnectionInfo, ErrorKind as Kind, IntoConnectionInfo as _, RedisError,
    ServerErrorKind, Value, aio::MultiplexedConnection,
};
use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use tokio::sync::{Mutex, oneshot};

use super::scripts::{SCRIPTS, Script};
use crate::location::RedisUrl;
use crate::store::{ErrorKind, StoreError};

/// A call is answered within this, or nobody knows what became of it.
const ANSWER: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);
/// Most calls on their way on one connection.
const IN_FLIGHT: usize = 4_096;

/// What a call is for; each has a connection, so that a large answer on one holds up no renewal on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Inserts.
    In,
    /// Claims and settles.
    Work,
    /// Renewals, presence, probes.
    Beat,
    /// Everything else.
    Rest,
}

const LANES: usize = 4;

/// The thread, the pool and the lanes.
pub(super) struct Link {
    io: tokio::runtime::Handle,
    /// Dropping it ends the thread.
    _alive: oneshot::Sender<()>,
    pool: Pool,
    lanes: [Mutex<Option<Held>>; LANES],
    client: redis::Client,
    place: String,
}

/// A connection of a lane; its number tells it from the one that took its place.
#[derive(Clone)]
struct Held {
    object: Arc<deadpool_redis::Connection>,
    number: u64,
}

impl Link {
    /// No I/O yet.
    pub(super) fn new(url: &RedisUrl) -> Result<Self, StoreError> {
        let place = url.to_string();
        let refused = |detail: String| StoreError::new("open", &place, ErrorKind::Unsupported, detail);
        if url.is_tls() {
            secure().map_err(|why| refused(why.to_owned()))?;
        }
        let info: ConnectionInfo =
            url.full().into_connection_info().map_err(|error| refused(error.to_string()))?;
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(
            TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5)),
        );
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(10));
        let info = info.set_tcp_settings(tcp);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_concurrency_limit(IN_FLIGHT)
            .set_pipeline_buffer_size(1_024);
        let failed = |error: RedisError| refused(error.to_string());
        let client = redis::Client::open(info.clone()).map_err(failed)?;
        let manager = Manager::new_with_config(info, config).map_err(failed)?;
        let pool = Pool::builder(manager)
            .max_size(LANES)
            .wait_timeout(Some(CONNECT))
            .create_timeout(Some(CONNECT))
            .recycle_timeout(Some(Duration::from_millis(500)))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let (alive, gone) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let io = runtime.handle().clone();
        std::thread::Builder::new()
            .name("redis-io".into())
            .spawn(move || drop(runtime.block_on(gone)))
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self { io, _alive: alive, pool, lanes: Default::default(), client, place })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Where connections live.
    pub(super) fn io(&self) -> &tokio::runtime::Handle {
        &self.io
    }

    /// For the connection that waits for wake-ups.
    pub(super) fn client(&self) -> &redis::Client {
        &self.client
    }

    fn lane(&self, lane: Lane) -> &Mutex<Option<Held>> {
        let [a, b, c, d] = &self.lanes;
        match lane {
            Lane::In => a,
            Lane::Work => b,
            Lane::Beat => c,
            Lane::Rest => d,
        }
    }

    async fn connection(
        &self,
        op: &'static str,
        lane: Lane,
    ) -> Result<(MultiplexedConnection, u64), StoreError> {
        let mut held = self.lane(lane).lock().await;
        if let Some(held) = &*held {
            return Ok(((**held.object).clone(), held.number));
        }
        let pool = self.pool.clone();
        // Connections must be driven by the thread, whoever asks for them.
        let got = self.io.spawn(async move { pool.get().await }).await;
        let object = match got {
            Ok(Ok(object)) => object,
            Ok(Err(error)) => return Err(self.unreachable(op, &error)),
            Err(error) => return Err(self.error(op, ErrorKind::Unavailable, error)),
        };
        let new = Held { object: Arc::new(object), number: fastrand::u64(1..) };
        let connection = (**new.object).clone();
        let number = new.number;
        *held = Some(new);
        Ok((connection, number))
    }

    /// Throws a connection away, unless another took its place.
    async fn discard(&self, lane: Lane, number: u64) {
        let mut held = self.lane(lane).lock().await;
        if held.as_ref().is_some_and(|held| held.number == number)
            && let Some(Held { object, .. }) = held.take()
            && let Ok(object) = Arc::try_unwrap(object)
        {
            drop(deadpool_redis::Connection::take(object));
        }
    }

    /// Runs a command.
    pub(super) async fn command(
        &self,
        op: &'static str,
        lane: Lane,
        command: &redis::Cmd,
    ) -> Result<Value, StoreError> {
        let (mut connection, number) = self.connection(op, lane).await?;
        match connection.send_packed_command(command).await.and_then(Value::extract_error) {
            Ok(value) => Ok(value),
            Err(error) => {
                if spoils(&error) {
                    self.discard(lane, number).await;
                }
                Err(self.explain(op, &error))
            }
        }
    }

    /// Runs commands one after the other, in one round trip.
    pub(super) async fn pipeline(
        &self,
        op: &'static str,
        lane: Lane,
        commands: &redis::Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        let (mut connection, number) = self.connection(op, lane).await?;
        let answers = connection.send_packed_commands(commands, 0, commands.len()).await;
        match answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect()) {
            Ok(answers) => Ok(answers),
            Err(error) => {
                if spoils(&error) {
                    self.discard(lane, number).await;
                }
                Err(self.explain(op, &error))
            }
        }
    }

    /// Runs a script; a server that does not know it is told all of them first.
    pub(super) async fn script(
        &self,
        script: Script,
        prefix: &str,
        lane: Lane,
        args: Args,
    ) -> Result<Value, StoreError> {
        let op = script.op();
        let (mut connection, number) = self.connection(op, lane).await?;
        let mut command = redis::Cmd::with_capacity(4 + args.0.len(), 256 + args.1);
        command.arg("EVALSHA").arg(SCRIPTS.hash(script)).arg(1).arg(prefix);
        for arg in &args.0 {
            command.arg(arg.as_slice());
        }
        let mut answer = connection.send_packed_command(&command).await.and_then(Value::extract_error);
        if let Err(error) = &answer
            && error.kind() == Kind::Server(ServerErrorKind::NoScript)
        {
            for text in SCRIPTS.texts() {
                let load = redis::cmd("SCRIPT").arg("LOAD").arg(text).to_owned();
                connection
                    .send_packed_command(&load)
                    .await
                    .and_then(Value::extract_error)
                    .map_err(|error| self.explain(op, &error))?;
            }
            answer = connection.send_packed_command(&command).await.and_then(Value::extract_error);
        }
        match answer {
            Ok(value) => Ok(value),
            Err(error) => {
                if spoils(&error) {
                    self.discard(lane, number).await;
                }
                Err(self.explain(op, &error))
            }
        }
    }

    pub(super) fn error(
        &self,
        op: &'static str,
        kind: ErrorKind,
        detail: impl std::fmt::Display,
    ) -> StoreError {
        StoreError::new(op, &self.place, kind, detail)
    }

    /// What it means when there is no connection: nothing happened.
    fn unreachable(&self, op: &'static str, error: &PoolError) -> StoreError {
        match error {
            PoolError::Backend(error) => match self.explain(op, error) {
                error if error.kind == ErrorKind::Timeout => {
                    StoreError { kind: ErrorKind::Unavailable, ..error }
                }
                error => error,
            },
            PoolError::Timeout(_) => self
                .error(op, ErrorKind::Unavailable, format!("no connection within {} s", CONNECT.as_secs()))
                .hint("check that Redis runs there and that nothing drops the packets"),
            other => self.error(op, ErrorKind::Unavailable, other),
        }
    }

    /// What an error of the server or of the connection means for a caller, with the way out.
    pub(super) fn explain(&self, op: &'static str, error: &RedisError) -> StoreError {
        let text = error.to_string();
        let code = error.code().unwrap_or_default();
        let (kind, hint) = match (error.kind(), code) {
            (Kind::Server(ServerErrorKind::ReadOnly), _) => (
                ErrorKind::ReadOnly,
                "this is a replica (or was demoted): name the master; after a failover everything resumes by itself",
            ),
            (_, "OOM") => (
                ErrorKind::Full,
                "Redis has reached `maxmemory`: workers go on and make room; raise the limit, or purge what nobody needs",
            ),
            (_, "MISCONF") => (
                ErrorKind::Full,
                "Redis cannot write to its disk and refuses writes: free space there, and see its log",
            ),
            (Kind::Server(ServerErrorKind::NoPerm), _) => (
                ErrorKind::Refused,
                "this Redis user lacks a permission: it needs `~sg:* &sg:* +@all -@admin -@dangerous +info +config|get`",
            ),
            (Kind::AuthenticationFailed, _) | (_, "NOAUTH" | "WRONGPASS") => (
                ErrorKind::Refused,
                "check the user and the password in `store.url` or `store.password_file`",
            ),
            (_, "BUSY") => (
                ErrorKind::Unavailable,
                "a script of another client keeps Redis busy: `redis-cli SCRIPT KILL`",
            ),
            (_, "NOREPLICAS") => {
                (ErrorKind::Unavailable, "Redis has fewer replicas than its `min-replicas-to-write` asks for")
            }
            (
                Kind::Server(
                    ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::TryAgain,
                ),
                _,
            ) => (ErrorKind::Unavailable, ""),
            (Kind::Io, _) if error.is_connection_refusal() => {
                (ErrorKind::Unavailable, "check that Redis runs there: `redis-cli -u URL ping`")
            }
            // It was sent, perhaps: nobody knows what became of it.
            (Kind::Io, _) => (ErrorKind::Timeout, ""),
            (Kind::Parse, _) => (ErrorKind::Unavailable, "what answers there does not speak Redis"),
            (Kind::InvalidClientConfig | Kind::RESP3NotSupported, _) => (ErrorKind::Unsupported, ""),
            _ => (ErrorKind::Corrupt, ""),
        };
        let answer = self.error(op, kind, crate::names::shown_long(&text));
        if hint.is_empty() { answer } else { answer.hint(hint) }
    }
}

/// The client library takes the process's default provider of cryptography, and would panic without one. An application that
/// chose its own keeps it.
#[cfg(feature = "tls")]
#[expect(clippy::unnecessary_wraps, reason = "the other build has an error to tell")]
fn secure() -> Result<(), &'static str> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may be first, with one that is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
    }
    Ok(())
}

#[cfg(not(feature = "tls"))]
const fn secure() -> Result<(), &'static str> {
    Err("built without the feature `tls`")
}

/// Whether the connection is of no use after this, or reaches the wrong server.
fn spoils(error: &RedisError) -> bool {
    !matches!(
        error.kind(),
        Kind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoScript | ServerErrorKind::NoPerm)
    ) && !matches!(error.code(), Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS"))
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

    pub(super) fn arg(mut self, arg: impl Into<Vec<u8>>) -> Self {
        self.push(arg);
        self
    }

    pub(super) fn number(self, n: impl std::fmt::Display) -> Self {
        self.arg(n.to_string())
    }
}
