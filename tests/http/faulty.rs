//! A store that answers what a test wants. What a test did not foresee panics, which is a test of its own.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate::JobId;
use sluicegate::activation::Activation;
use sluicegate::clock::Timestamp;
use sluicegate::job::{JobRecord, NewJob};
use sluicegate::names::{Queue, Tier};
use sluicegate::store::*;

#[derive(Debug)]
pub(crate) struct Faulty(Mutex<Option<StoreError>>);

impl Faulty {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Mutex::new(Some(StoreError::new("insert", "fake:", kind, "as the test wants").hint("wait"))))
    }

    fn error(&self) -> StoreError {
        self.0.lock().unwrap().clone().unwrap()
    }
}

#[async_trait]
impl Store for Faulty {
    fn about(&self) -> About {
        let durability = Durability::Disk;
        About { engine: "fake", location: "fake:".into(), detail: String::new(), durability }
    }
    async fn insert(&self, _: &Tier, _: Vec<NewJob>) -> Result<Vec<Insert>, StoreError> {
        Err(self.error())
    }
    async fn claim(&self, _: ClaimAsk) -> Result<Claim, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn settle(&self, _: &Tier, _: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn renew(
        &self,
        _: &Tier,
        _: Vec<sluicegate::ids::Nonce>,
        _: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn sweep(&self, _: SweepAsk) -> Result<Swept, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn subscribe(&self, _: &Tier) -> Result<Box<dyn Wake>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn get(&self, _: &Tier, _: JobId) -> Result<Option<JobRecord>, StoreError> {
        unreachable!("a bug, as far as the server is concerned")
    }
    async fn page(&self, _: &Tier, _: PageAsk) -> Result<Page, StoreError> {
        Err(self.error())
    }
    async fn bulk(&self, _: &Tier, _: Vec<JobId>, _: Action, _: &Actor) -> Result<Vec<Acted>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn census(&self, _: &Tier) -> Result<Census, StoreError> {
        std::future::pending().await
    }
    async fn tiers(&self) -> Result<Vec<Tier>, StoreError> {
        Err(self.error())
    }
    async fn activation(&self, _: &Tier) -> Result<Option<Activation>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn flip(&self, _: &Tier, _: Option<u64>, _: Flip, _: &Actor) -> Result<Flipped, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn commit(&self, _: &Tier, _: u64, _: Option<&Guard>, _: &Actor) -> Result<Flipped, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn extend(
        &self,
        _: &Tier,
        _: &Activation,
        _: Duration,
        _: Option<&Guard>,
    ) -> Result<Flipped, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn record(&self, _: &Tier, _: Space, _: &str) -> Result<Option<Record>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn put(
        &self,
        _: &Tier,
        _: Space,
        _: &str,
        _: u64,
        _: &str,
        _: Option<Duration>,
    ) -> Result<Put, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn records(
        &self,
        _: &Tier,
        _: Space,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<Record>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn pause(
        &self,
        _: &Tier,
        _: &Queue,
        _: Option<Pause>,
        _: &Actor,
    ) -> Result<Option<Paused>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn pauses(&self, _: &Tier) -> Result<Vec<Paused>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn append(&self, _: &Tier, _: &str, _: &Actor, _: &str) -> Result<u64, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn ledger(&self, _: &Tier, _: u64, _: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn ledger_end(&self, _: &Tier) -> Result<u64, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn beat(&self, _: &Tier, _: &Presence) -> Result<Beat, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn workers(&self, _: &Tier) -> Result<Vec<Seen>, StoreError> {
        unreachable!("not used by these tests")
    }
    async fn probe(&self, _: &Tier) -> Result<Timestamp, StoreError> {
        Err(self.error())
    }
}
