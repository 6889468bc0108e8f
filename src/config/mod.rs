//! Configuration: defaults < file < environment < flags, with the origin of every key kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::location::StoreUrl;
use crate::names::{Queue, Release, Tier, WorkerName};

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `store.url`
    pub store: StoreUrl,
    /// `tier`
    pub tier: Tier,
    /// `worker.name`; `None`: made from the host and the process id
    pub worker_name: Option<WorkerName>,
    /// `worker.release`
    pub release: Option<Release>,
    /// `worker.queues`; `None` for all
    pub queues: Option<Vec<Queue>>,
    /// `worker.slots`
    pub slots: usize,
    /// `worker.shutdown_timeout`
    pub shutdown_timeout: Duration,
    /// `api.listen`
    pub api_listen: SocketAddr,
    /// `api.token_file`: required for every `/v1` route when set, and needed to listen beyond loopback
    pub api_token_file: Option<PathBuf>,
    /// `health.listen`
    pub health_listen: SocketAddr,
    /// `dev.inbox`: in `dev`, what jobs send lands in the local inbox
    pub dev_inbox: bool,
    /// `handlers.<kind>`: settings of the kinds, as JSON
    pub handlers: BTreeMap<String, serde_json::Value>,
}
