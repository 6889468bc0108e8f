//! The way to the server. Connections live on a thread of their own, so that a job runtime that is blocked by its handlers
//! cannot cost a lease. They come from a deadpool; each lane holds one and shares it, since a checkout per call would cost
//! a round trip of its own (deadpool tests a connection whenever it hands it out).
//!
//! A connection that fails in any way that could come from the server's role or state is thrown away: a demoted master
//! still answers PING.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_redis::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo as _, RedisError, RedisResult, Value,
    aio::MultiplexedConnection,
};
use deadpool_redis::{Manager, Pool, Runtime};
use tokio::sync::oneshot;

use super::errors::spoils;
use super::greeting::greet;
use super::scripts::{Args, Script, evaluate};
use crate::clock::instant;
use crate::location::RedisUrl;
use crate::store::{ErrorKind, StoreError};

/// A call is answered within this, or nobody knows what became of it.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
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
    lanes: [Line; LANES],
    client: redis::Client,
    place: String,
}

/// A lane: its connection, and who makes the next one.
#[derive(Default)]
struct Line {
    held: Mutex<Option<Held>>,
    /// One at a time, with how the last one failed: whoever waited meanwhile need not try again.
    connecting: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
}

impl Line {
    fn held(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> Option<(MultiplexedConnection, u64)> {
        self.held().as_ref().map(|held| ((**held.object).clone(), held.number))
    }
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

    fn lane(&self, lane: Lane) -> &Line {
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
        let line = self.lane(lane);
        if let Some(connection) = line.connection() {
            return Ok(connection);
        }
        let asked = instant();
        let Ok(mut failed) = tokio::time::timeout(CONNECT, line.connecting.lock()).await else {
            return Err(self.no_connection(op));
        };
        if let Some(connection) = line.connection() {
            return Ok(connection);
        }
        if let Some((at, error)) = &*failed
            && *at >= asked
        {
            return Err(StoreError { op, ..error.clone() });
        }
        match self.connect(op).await {
            Ok(object) => {
                *failed = None;
                let new = Held { object: Arc::new(object), number: fastrand::u64(1..) };
                let connection = ((**new.object).clone(), new.number);
                *line.held() = Some(new);
                Ok(connection)
            }
            Err(error) => {
                *failed = Some((instant(), error.clone()));
                Err(error)
            }
        }
    }

    /// Connections must be driven by the thread, whoever asks for them.
    async fn connect(&self, op: &'static str) -> Result<deadpool_redis::Connection, StoreError> {
        let (pool, address) = (self.pool.clone(), self.client.get_connection_info().addr().clone());
        let got = self.io.spawn(async move {
            match tokio::time::timeout(CONNECT, greet(&address)).await {
                Ok(Ok(())) => Ok(pool.get().await),
                Ok(Err(stranger)) => Err(Some(stranger)),
                Err(_) => Err(None),
            }
        });
        match got.await {
            Ok(Ok(Ok(object))) => Ok(object),
            Ok(Ok(Err(error))) => Err(self.unreachable(op, &error)),
            Ok(Err(Some(stranger))) => Err(stranger.error(op, &self.place)),
            Ok(Err(None)) => Err(self.no_connection(op)),
            Err(error) => Err(self.error(op, ErrorKind::Unavailable, error)),
        }
    }

    /// Throws a connection away, unless another took its place. What ended it has ended those of the other lanes, or they
    /// reach the same wrong server: what is on its way on them goes on, and the next call makes a new one.
    fn discard(&self, lane: Lane, number: u64) {
        if self.lane(lane).held().as_ref().is_none_or(|held| held.number != number) {
            return;
        }
        for line in &self.lanes {
            if let Some(Held { object, .. }) = line.held().take()
                && let Ok(object) = Arc::try_unwrap(object)
            {
                drop(deadpool_redis::Connection::take(object));
            }
        }
    }

    /// What became of a call on a connection.
    fn heard<T>(
        &self,
        op: &'static str,
        lane: Lane,
        number: u64,
        answer: RedisResult<T>,
    ) -> Result<T, StoreError> {
        answer.map_err(|error| {
            if spoils(&error) {
                self.discard(lane, number);
            }
            self.explain(op, &error)
        })
    }

    /// Runs a command.
    pub(super) async fn command(
        &self,
        op: &'static str,
        lane: Lane,
        command: &redis::Cmd,
    ) -> Result<Value, StoreError> {
        let (mut connection, number) = self.connection(op, lane).await?;
        let answer = connection.send_packed_command(command).await.and_then(Value::extract_error);
        self.heard(op, lane, number, answer)
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
        let answers = answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect());
        self.heard(op, lane, number, answers)
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
        let answer = evaluate(&mut connection, script, prefix, &args).await;
        self.heard(op, lane, number, answer)
    }

    /// The same, and then waits until so many replicas have it, or for a second; says how many have. On the same connection:
    /// on another one `WAIT` would wait for nothing.
    pub(super) async fn script_on_replicas(
        &self,
        script: Script,
        prefix: &str,
        lane: Lane,
        args: Args,
        replicas: u32,
    ) -> Result<(Value, u32), StoreError> {
        let op = script.op();
        let (mut connection, number) = self.connection(op, lane).await?;
        let both = async {
            let answer = evaluate(&mut connection, script, prefix, &args).await?;
            let wait = redis::cmd("WAIT").arg(replicas).arg(1_000).to_owned();
            let got = connection.send_packed_command(&wait).await.and_then(Value::extract_error)?;
            let got = super::value::int(&got).and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
            Ok((answer, got))
        };
        let answer = both.await;
        self.heard(op, lane, number, answer)
    }

    pub(super) fn error(
        &self,
        op: &'static str,
        kind: ErrorKind,
        detail: impl std::fmt::Display,
    ) -> StoreError {
        StoreError::new(op, &self.place, kind, detail)
    }

    pub(super) fn no_connection(&self, op: &'static str) -> StoreError {
        self.error(op, ErrorKind::Unavailable, format!("no connection within {} s", CONNECT.as_secs()))
            .hint("check that Redis runs there and that nothing drops the packets")
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
