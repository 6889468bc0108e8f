//! The HTTP faces: the API for apps and operators, the probes, and the local inbox of `dev`. They translate and decide
//! nothing.
//!
//! - [`server`]: the connection layer and its limits; `seats` and `wire` are its parts
//! - `guard`: who may ask; `routes`: the table of paths; `body`: what may be sent; `problem`: every refusal
//! - `jobs`, `gate`, [`inbox`] and its page; `health`, `probes`, `metrics` (with `census`): what is answered
//!
//! | answer | when |
//! |---|---|
//! | 201, 200 + `Idempotent-Replayed: true` | stored now; the same job had been stored before |
//! | 400 | the request, its JSON or a value in it is refused |
//! | 401, 403, 421 | no valid token; from another site; a `Host` that is not ours |
//! | 408, 413, 415 | too slow; too large; not plain JSON |
//! | 409 | the id exists with other content; another job holds the unique key |
//! | 422 | the idempotency key was used for other content, and nothing else |
//! | 503 + `Retry-After` | the store is away: nothing was stored; `NEITHER_DONE_NOR_KEPT`: a job with a bypass failed here, too |
//! | 200, 503 + `Retry-After`, 412, 409, 404 | a gate: pass, pending, fail, superseded, unknown release; the worst of all tiers with `all_tiers=1` |
//! | 504 + `OUTCOME_UNKNOWN` | the store did not answer: send the same again, it cannot be stored twice |

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::names::Queue;

mod api;
mod body;
mod census;
mod exposition;
mod gate;
mod guard;
mod health;
#[cfg(feature = "handlers")]
pub mod inbox;
#[cfg(feature = "handlers")]
mod inbox_page;
mod jobs;
mod metrics;
mod probes;
mod problem;
mod reply;
mod routes;
mod seats;
pub mod server;
mod wire;

pub use guard::BadToken;
pub use health::{Health, HealthServer, serve_health};
pub use server::Limits;

use guard::{Guard, Token};

/// Whether a token can be required.
#[cfg(feature = "cli")]
pub(crate) fn check_token(token: &str) -> Result<(), BadToken> {
    Token::new(token).map(drop)
}

/// What the API serves, and to whom.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    token: Option<Token>,
    hosts: Vec<String>,
    limits: Limits,
    slos: BTreeMap<Queue, Duration>,
    #[cfg(feature = "handlers")]
    inbox: Option<Arc<inbox::FileInbox>>,
}

impl Api {
    /// The API of the client's tier.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            token: None,
            hosts: Vec::new(),
            limits: Limits::default(),
            slos: BTreeMap::new(),
            #[cfg(feature = "handlers")]
            inbox: None,
        }
    }

    /// Requires this token on every route. Surrounding white space is cut, so the content of a file can be passed.
    ///
    /// # Errors
    /// When it is shorter than 16 characters or has characters that a header cannot carry.
    pub fn token(mut self, token: &str) -> Result<Self, BadToken> {
        self.token = Some(Token::new(token)?);
        Ok(self)
    }

    /// Serves the local inbox under `/dev/inbox`.
    #[cfg(feature = "handlers")]
    #[must_use]
    pub fn inbox(mut self, inbox: Arc<inbox::FileInbox>) -> Self {
        self.inbox = Some(inbox);
        self
    }

    /// Accepts this `Host` too (a name, or a name and port). With a token, any host is accepted until one is named
    /// here.
    #[must_use]
    pub fn allow_host(mut self, host: &str) -> Self {
        self.hosts.push(host.to_ascii_lowercase());
        self
    }

    /// How long a job of these queues may wait, for a gate that is asked about latency.
    #[must_use]
    pub fn slos(mut self, slos: BTreeMap<Queue, Duration>) -> Self {
        self.slos = slos;
        self
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// Every route of the API, as (method, path): for tests that must not forget one.
pub fn api_routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    routes::API.iter().map(|(method, path, _)| (*method, *path))
}

/// Serves the API until `shutdown`, then lets what runs finish.
///
/// # Errors
/// When the listener cannot be used, or listens beyond loopback although no token is set
/// ([`io::ErrorKind::PermissionDenied`]).
pub async fn serve_api(listener: TcpListener, api: Api, shutdown: CancellationToken) -> io::Result<()> {
    let listen = listener.local_addr()?;
    if api.token.is_none() && !listen.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "cannot serve the API on `{listen}` without a token: set `api.token_file`, or listen on 127.0.0.1"
            ),
        ));
    }
    let guard = Guard { listen, token: api.token.clone(), hosts: api.hosts.clone(), probes: false };
    let limits = api.limits.clone();
    server::serve(listener, Arc::new(api::Served { api, guard }), limits, shutdown).await
}
