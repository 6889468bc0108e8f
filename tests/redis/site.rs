//! An engine behind a wire with faults: what every test of a fault begins with.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis;
use sluicegate::store::*;

use super::proxy::Proxy;
use super::server::{Server, Setup};
use crate::store::bench::*;

/// A server, a wire before it, and a client on that wire. Dereferences to the words of the suite.
pub(crate) struct Site {
    rig: Rig,
    pub(crate) proxy: Proxy,
    pub(crate) server: Server,
}

impl Deref for Site {
    type Target = Rig;
    fn deref(&self) -> &Rig {
        &self.rig
    }
}

/// Time passes by [`Site::pass`].
struct Wired(String);

#[async_trait]
impl Harness for Wired {
    async fn fresh() -> Self {
        unreachable!("a site makes its own")
    }
    async fn client(&self) -> Arc<dyn Store> {
        connect(&self.0).await
    }
    async fn pass(&self, _: Duration) {
        unreachable!("the site's server has the clock")
    }
    fn unit(&self) -> Duration {
        Duration::from_secs(10)
    }
    fn patience(&self) -> Duration {
        Duration::MAX
    }
}

impl Site {
    /// One that keeps nothing on disk, where release `r1` is active.
    pub(crate) async fn new() -> Self {
        Self::of(Server::setup()).await
    }

    /// The same on a server of this kind.
    pub(crate) async fn of(setup: Setup) -> Self {
        let server = setup.start();
        let proxy = Proxy::before(&server);
        let harness = Wired(proxy.url());
        let store = harness.client().await;
        let rig = Rig { harness: Box::new(harness), store, tier: sluicegate::names::Tier::default() };
        rig.flip(None, "r1").await;
        Self { rig, proxy, server }
    }

    /// Uses every connection once, and names the queue of `job`, so that the next reply on each is that of the next call.
    /// Leaves one job behind.
    pub(crate) async fn warm(&self) {
        self.rig.now().await;
        self.rig.census().await;
        self.rig.try_claim(&Hand::new("w-warm", "r1"), 0).await;
        self.rig.add(job(0)).await;
    }

    /// A client past the wire, which no fault reaches.
    pub(crate) async fn beside(&self) -> Rig {
        rig_at(&self.server.url()).await
    }

    pub(crate) fn pass_units(&self, units: u32) {
        self.server.pass(self.rig.units(units));
    }

    /// Lets every lease run out that is not renewed, while the fleet keeps sweeping: no outage.
    pub(crate) async fn leases_run_out(&self) -> u64 {
        let mut rescued = 0;
        for _ in 0..6 {
            rescued += self.rig.sweep().await.rescued;
            self.pass_units(1);
        }
        rescued + self.rig.sweep().await.rescued
    }

    /// The error of a call whose reply number `n` from now is lost.
    pub(crate) async fn losing<T: std::fmt::Debug>(
        &self,
        n: u32,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> StoreError {
        self.proxy.drop_replies(n);
        let answer = call.await;
        let counts = self.proxy.counts();
        self.proxy.heal();
        assert!(counts.dropped > 0, "no reply was lost: {counts:?}");
        answer.expect_err("its answer was lost")
    }
}

/// A client of a server, without a wire of ours.
pub(crate) async fn rig_at(url: &str) -> Rig {
    let harness = Wired(url.to_owned());
    let store = harness.client().await;
    Rig { harness: Box::new(harness), store, tier: sluicegate::names::Tier::default() }
}

/// Counts of one queue by state, as a census tells them; states without jobs are left out.
pub(crate) async fn states(rig: &Rig, queue: &str) -> Vec<(String, u64)> {
    let census = rig.census().await;
    let found = census.queues.iter().find(|found| found.queue.as_str() == queue);
    let states = found.iter().flat_map(|found| &found.states).filter(|(_, n)| **n > 0);
    states.map(|(state, n)| (state.to_string(), *n)).collect()
}

pub(crate) fn of_queue(queue: &str, kind: &str, n: u64) -> sluicegate::job::NewJob {
    let mut job = raw(kind, &format!("{{\"n\":{n}}}"));
    job.queue = sluicegate::names::Queue::new(queue).unwrap();
    job
}

impl Server {
    /// Any command, bytes and all, past the kit's texts.
    async fn raw(&self, command: &[&[u8]]) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut ask = redis::Cmd::new();
        for word in command {
            ask.arg(*word);
        }
        ask.query_async(&mut connection).await.unwrap()
    }

    /// The fields of a hash.
    pub(crate) async fn field_names(&self, key: &str) -> Vec<Vec<u8>> {
        let redis::Value::Array(fields) = self.raw(&[b"HKEYS", key.as_bytes()]).await else {
            panic!("no hash")
        };
        fields
            .into_iter()
            .map(|field| match field {
                redis::Value::BulkString(bytes) => bytes,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    pub(crate) async fn set_field(&self, key: &str, field: &[u8], value: &[u8]) {
        self.raw(&[b"HSET", key.as_bytes(), field, value]).await;
    }
}
