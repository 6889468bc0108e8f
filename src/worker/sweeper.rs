//! Promotes what is due, rescues what lost its worker, expires, un-parks and trims: at the start, when the next job is
//! due, when something new came that may be due earlier, and two or three times in a lease.

use std::sync::Arc;
use std::time::Duration;

use super::outage::RECONNECT;
use super::state::Core;
use crate::activation::WorkerState;
use crate::retry::Reconnect;
use crate::store::{SweepAsk, Wake};

/// Wake-ups come with every enqueue; sweeps for them no more often than this.
const BETWEEN: Duration = Duration::from_millis(50);

pub(super) async fn sweep(core: Arc<Core>) {
    let every = (core.options.lease * 2 / 5).max(BETWEEN);
    let mut reconnect = Reconnect::new(Duration::from_millis(200), RECONNECT);
    let mut wake: Option<Box<dyn Wake>> = None;
    loop {
        if wake.is_none() {
            wake = core.subscribed("sweeper", core.store.subscribe(&core.options.tier).await);
        }
        let swept = match wake {
            Some(_) => core.heard("sweeper", core.store.sweep(ask(&core)).await),
            None => None,
        };
        let pause = match swept {
            Some(swept) if swept.more => Duration::ZERO,
            Some(swept) => swept.next_due.unwrap_or(every).min(every),
            None => {
                wake = None;
                reconnect.next_delay()
            }
        };
        if swept.is_some() {
            reconnect.reset();
        }
        if core.over.is_cancelled() || rest(&core, wake.as_deref_mut(), pause).await {
            return;
        }
    }
}

fn ask(core: &Core) -> SweepAsk {
    // Only a worker that may claim un-parks: another one would hand jobs to releases that cannot run them.
    let active = core.state_now() == WorkerState::Active;
    SweepAsk {
        tier: core.options.tier.clone(),
        capability: core.capability.clone(),
        kinds: if active { core.versions.iter().map(|(kind, _)| kind.clone()).collect() } else { Vec::new() },
        lease: core.options.lease,
    }
}

/// Waits until the next sweep; `true` when the worker is over.
async fn rest(core: &Core, wake: Option<&mut (dyn Wake + '_)>, pause: Duration) -> bool {
    if pause.is_zero() {
        tokio::task::yield_now().await;
        return false;
    }
    let woken = async {
        match wake {
            Some(wake) => while !wake.woken(Duration::from_secs(3600)).await {},
            None => std::future::pending().await,
        }
    };
    let early = async {
        tokio::select! { () = woken => {} () = core.wake_sweeper.notified() => {} }
        tokio::time::sleep(BETWEEN).await;
    };
    tokio::select! {
        () = tokio::time::sleep(pause) => false,
        () = early => false,
        () = core.over.cancelled() => true,
    }
}
