//! A store that answers what a test wants. What a test did not foresee panics, which is a test of its own.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate::JobId;
use sluicegate::activation::Activation;
use sluicegate::clock::Timestamp;
use sluicegate::job::{JobRecord, NewJob};
use sluicegate::names::Tier;
use sluicegate::store::*;

#[derive(Debug)]
pub(super) struct Faulty(Mutex<Option<StoreError>>);

impl Faulty {
    pub(super) fn new(kind: ErrorKind) -> Self {
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
        unimplemented!()
    }
    async fn settle(&self, _: &Tier, _: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        unimplemented!()
    }
    async fn renew(
        &self,
        _: &Tier,
        _: Vec<sluicegate::ids::Nonce>,
        _: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        unimplemented!()
    }
    async fn sweep(&self, _: SweepAsk) -> Result<Swept, StoreError> {
        unimplemented!()
    }
    async fn subscribe(&self, _: &Tier) -> Result<Box<dyn Wake>, StoreError> {
        unimplemented!()
    }
    async fn get(&self, _: &Tier, _: JobId) -> Result<Option<JobRecord>, StoreError> {
        unimplemented!("a bug, as far as the server is concerned")
    }
    async fn page(&self, _: &Tier, _: PageAsk) -> Result<Page, StoreError> {
        Err(self.error())
    }
    async fn bulk(&self, _: &Tier, _: Vec<JobId>, _: Action, _: &Actor) -> Result<Vec<Acted>, StoreError> {
        unimplemented!()
    }
    async fn census(&self, _: &Tier) -> Result<Census, StoreError> {
        unimplemented!()
    }
    async fn activation(&self, _: &Tier) -> Result<Option<Activation>, StoreError> {
        unimplemented!()
    }
    async fn flip(&self, _: &Tier, _: Option<u64>, _: Flip, _: &Actor) -> Result<Flipped, StoreError> {
        unimplemented!()
    }
    async fn record(&self, _: &Tier, _: Space, _: &str) -> Result<Option<Record>, StoreError> {
        unimplemented!()
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
        unimplemented!()
    }
    async fn records(
        &self,
        _: &Tier,
        _: Space,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<Record>, StoreError> {
        unimplemented!()
    }
    async fn append(&self, _: &Tier, _: &str, _: &Actor, _: &str) -> Result<u64, StoreError> {
        unimplemented!()
    }
    async fn ledger(&self, _: &Tier, _: u64, _: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        unimplemented!()
    }
    async fn beat(&self, _: &Tier, _: &Presence) -> Result<Beat, StoreError> {
        unimplemented!()
    }
    async fn workers(&self, _: &Tier) -> Result<Vec<Seen>, StoreError> {
        unimplemented!()
    }
    async fn probe(&self, _: &Tier) -> Result<Timestamp, StoreError> {
        unimplemented!()
    }
}
