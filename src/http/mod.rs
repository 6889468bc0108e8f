//! The HTTP faces: the API for apps and operators, the probes, and the local inbox of `dev`. They translate and decide
//! nothing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::health;

#[cfg(feature = "handlers")]
pub mod inbox;
pub mod server;

pub use server::Limits;

/// What the API serves, and to whom.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

/// A token that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad API token: {0}")]
pub struct BadToken(&'static str);

impl Api {
    /// The API of the client's tier.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Requires this token on every route. Surrounding white space is cut, so the content of a file can be passed.
    ///
    /// # Errors
    /// When it is shorter than 16 characters or has characters that a header cannot carry.
    pub fn token(self, token: &str) -> Result<Self, BadToken> {
        let _ = token;
        Ok(self)
    }

    /// Serves the local inbox under `/dev/inbox`.
    #[cfg(feature = "handlers")]
    #[must_use]
    pub fn inbox(self, inbox: Arc<inbox::FileInbox>) -> Self {
        let _ = inbox;
        self
    }

    /// Accepts this `Host` too (a name, or a name and port).
    #[must_use]
    pub fn allow_host(self, host: &str) -> Self {
        let _ = host;
        self
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        let _ = limits;
        self
    }
}

/// Serves the API until `shutdown`, then lets what runs finish.
///
/// # Errors
/// When the listener cannot be used, or listens beyond loopback although no token is set.
pub async fn serve_api(listener: TcpListener, api: Api, shutdown: CancellationToken) -> io::Result<()> {
    let _ = (listener, api.client);
    shutdown.cancelled().await;
    Ok(())
}

/// The running probes.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
}

impl HealthServer {
    /// Where they listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until they have stopped, after their `shutdown`.
    pub async fn stopped(self) {}
}

/// Serves the probes on a thread and a runtime of their own, so that blocked job threads cannot silence them.
///
/// # Errors
/// When the listener cannot be used or the thread cannot be started.
pub fn serve_health(
    listener: TcpListener,
    source: Arc<dyn health::Source>,
    shutdown: CancellationToken,
) -> io::Result<HealthServer> {
    let _ = (source, shutdown);
    Ok(HealthServer { address: listener.local_addr()? })
}
