//! Workers that exist in the store only: what they say of themselves is up to the test.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::activation::{Activation, Mode, WorkerState};
use sluicegate::clock::wall;
use sluicegate::ids::Nonce;
use sluicegate::names::{Release, Tier, WorkerName};
use sluicegate::store::{Actor, Fault, FaultCode, Flip, Flipped, Presence, Store};

use super::sandbox::Sandbox;

pub(super) fn release(name: &str) -> Release {
    Release::new(name).unwrap()
}

/// The store of a sandbox, from the test's own process.
pub(super) async fn store(sandbox: &Sandbox) -> Arc<dyn Store> {
    std::fs::create_dir_all(sandbox.path("data/sluicegate")).unwrap();
    sluicegate::store::open(&sandbox.url().parse().unwrap()).await.unwrap()
}

/// A worker that has long been in its state, and has just proved itself.
pub(crate) struct Hand {
    store: Arc<dyn Store>,
    tier: Tier,
    pub(super) says: Presence,
}

impl Hand {
    pub(crate) async fn join(store: &Arc<dyn Store>, name: &str, of: &str, state: WorkerState) -> Self {
        Self::join_in(store, &Tier::default(), name, of, state).await
    }

    pub(super) async fn join_in(
        store: &Arc<dyn Store>,
        tier: &Tier,
        name: &str,
        of: &str,
        state: WorkerState,
    ) -> Self {
        let says = Presence {
            joining: true,
            state,
            state_age: Duration::from_secs(30),
            generation: 99,
            claim_age: Some(Duration::from_secs(1)),
            canary_age: Some(Duration::from_secs(1)),
            clock: wall(),
            ..Presence::new(WorkerName::new(name).unwrap(), Nonce::new(), release(of))
        };
        let mut hand = Self { store: Arc::clone(store), tier: tier.clone(), says };
        hand.beat().await;
        hand.says.joining = false;
        hand
    }

    pub(super) async fn beat(&self) {
        self.store.beat(&self.tier, &self.says).await.unwrap();
    }

    pub(super) async fn becomes(&mut self, state: WorkerState) {
        self.says.state = state;
        self.beat().await;
    }

    /// Its activation hook ended with an error.
    pub(super) async fn hook_fails(&mut self) {
        let detail = "bin/register: exit 127".to_owned();
        self.says.fault = Some(Fault { code: FaultCode::ActivationHookFailed, detail, at: wall() });
        self.becomes(WorkerState::Inactive).await;
    }
}

/// Switches by hand, past the program.
pub(super) async fn flip(store: &dyn Store, expect: Option<u64>, to: &str) -> Activation {
    flip_in(store, &Tier::default(), expect, to).await
}

pub(super) async fn flip_in(store: &dyn Store, tier: &Tier, expect: Option<u64>, to: &str) -> Activation {
    let next = Flip {
        release: release(to),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
        guard: None,
        least: 0,
    };
    let by = Actor { who: "ada@here".into(), reason: Some("a test".into()) };
    match store.flip(tier, expect, next, &by).await.unwrap() {
        Flipped::Now(activation) => activation,
        other => panic!("{other:?}"),
    }
}
