//! The listener of one worker's probes and metrics, on a thread and a runtime of its own: blocked job threads cannot
//! silence it.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::census::Counted;
use super::guard::Guard;
use super::probes::Probes;
use super::server::{self, Limits};
use crate::client::Client;
use crate::health::{Memory, Probe, Source, Thresholds};
use crate::names::{Queue, Tier};
use crate::store::Store;
use crate::store::observed::Observed;

/// What the probes of one worker answer with.
pub struct Health {
    source: Arc<dyn Source>,
    store: Option<(Arc<dyn Store>, Tier)>,
    slos: BTreeMap<Queue, Duration>,
    client: Option<Client>,
    observed: Option<Arc<Observed>>,
    healthz: Option<Probe>,
    limits: Thresholds,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tier = self.store.as_ref().map(|(_, tier)| tier);
        f.debug_struct("Health").field("tier", &tier).field("slos", &self.slos).finish_non_exhaustive()
    }
}

impl Health {
    /// The probes of this worker.
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            store: None,
            slos: BTreeMap::new(),
            client: None,
            observed: None,
            healthz: None,
            limits: Thresholds::default(),
        }
    }

    /// Where the queues of its tier are counted, for metrics and for latency.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>, tier: Tier) -> Self {
        self.store = Some((store, tier));
        self
    }

    /// How long a job may wait in each queue before the probes warn of it.
    #[must_use]
    pub fn slos(mut self, slos: BTreeMap<Queue, Duration>) -> Self {
        self.slos = slos;
        self
    }

    /// Whose jobs are the ones that this process enqueues, for metrics; it must be [counting](Client::counting).
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// What measures the calls of this process to its store, for metrics.
    #[must_use]
    pub fn observed(mut self, observed: Arc<Observed>) -> Self {
        self.observed = Some(observed);
        self
    }

    /// Which question `/healthz` asks; without it, none.
    #[must_use]
    pub fn healthz(mut self, probe: Option<Probe>) -> Self {
        self.healthz = probe;
        self
    }

    /// Where "late" begins.
    #[must_use]
    pub fn limits(mut self, limits: Thresholds) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until `shutdown`. The probes need no token: they tell no payload, and on loopback they answer only to a
    /// local `Host`.
    ///
    /// # Errors
    /// When the listener cannot be used or the thread cannot be started.
    pub fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<HealthServer> {
        let listen = listener.local_addr()?;
        let guard = Guard { listen, token: None, hosts: Vec::new(), probes: true };
        let tier = self.store.as_ref().map(|(_, tier)| tier.clone());
        let probes = Arc::new(Probes {
            source: self.source,
            memory: Memory::new(tier, self.slos),
            guard,
            counted: self.store.map(|(store, tier)| Counted::new(store, tier)),
            client: self.client,
            observed: self.observed,
            healthz: self.healthz,
            limits: self.limits,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tell, ended) = oneshot::channel();
        std::thread::Builder::new().name("health".to_owned()).spawn(move || {
            let served = runtime.block_on(async {
                let (looking, counting) = (Arc::clone(&probes), Arc::clone(&probes));
                let look = tokio::spawn(async move { looking.look().await });
                let count = tokio::spawn(async move { counting.count().await });
                let served = server::serve(listener, probes, Limits::default(), shutdown).await;
                look.abort();
                count.abort();
                served
            });
            if let Err(Err(error)) = tell.send(served) {
                tracing::error!(%error, "the probes ended");
            }
        })?;
        Ok(HealthServer { address: listen, ended })
    }
}

/// The running probes.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl HealthServer {
    /// Where they listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until they have stopped, after their `shutdown`.
    ///
    /// # Errors
    /// When they ended for another reason.
    pub async fn stopped(self) -> io::Result<()> {
        self.ended.await.unwrap_or_else(|_| Err(io::Error::other("the thread of the probes died")))
    }
}

/// The probes of a worker, with nothing that is not known by itself.
///
/// # Errors
/// As [`Health::serve`].
pub fn serve_health(
    listener: TcpListener,
    source: Arc<dyn Source>,
    shutdown: CancellationToken,
) -> io::Result<HealthServer> {
    Health::new(source).serve(listener, shutdown)
}
