//! The way back: one compare-and-set to a release that still runs. What is here can flip and look, and nothing else: it holds a
//! store and no shelf, so it cannot build, fetch, copy or start anything.

use std::time::Duration;

use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::{human, instant};
use crate::health::tier::rules::is_simulated;
use crate::names::{Release, Tier};
use crate::store::{Actor, Flip, Flipped, Guard, Seen, Store, StoreError};

/// A warm worker hears of a flip by the push that wakes an idle one; what takes longer than this does not work.
const WITHIN: Duration = Duration::from_secs(5);
/// Between looks; a wake-up makes it shorter.
const LOOK: Duration = Duration::from_millis(20);

/// Makes another release active, for good, if the activation is still of this generation.
///
/// # Errors
/// When the store could not answer.
pub async fn flip(
    store: &dyn Store,
    tier: &Tier,
    from: &Activation,
    to: &Release,
    guard: Option<Guard>,
    by: &Actor,
) -> Result<Flipped, StoreError> {
    let flip = Flip {
        release: to.clone(),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: from.deploy.clone(),
        guard,
    };
    store.flip(tier, Some(from.generation), flip, by).await
}

/// That it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Workers that the store told that they may claim, under this activation.
    pub active: usize,
    /// Living workers of the release.
    pub of: usize,
    /// Until the first of them was, since this began to look.
    pub after: Duration,
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{} workers active, the first after {}; nothing was built, copied or restarted",
            self.active,
            self.of,
            human(self.after)
        )
    }
}

/// Waits until the workers of what is active now are active, and says what is wrong when none is.
///
/// # Errors
/// When the store could not answer.
pub async fn proof(
    store: &dyn Store,
    tier: &Tier,
    now: &Activation,
) -> Result<Result<Proof, String>, StoreError> {
    let began = instant();
    let mut wake = store.subscribe(tier).await?;
    let mut first = None;
    loop {
        let workers = store.workers(tier).await?;
        let of: Vec<&Seen> = workers
            .iter()
            .filter(|seen| seen.presence.release == now.release && !seen.is_stale() && !is_simulated(seen))
            .collect();
        let serves = |seen: &&&Seen| {
            seen.presence.state == WorkerState::Active && seen.presence.generation >= now.generation
        };
        let active = of.iter().filter(serves).count();
        if active > 0 {
            let after = *first.get_or_insert_with(|| began.elapsed());
            if active == of.len() || began.elapsed() >= WITHIN {
                return Ok(Ok(Proof { active, of: of.len(), after }));
            }
        }
        if began.elapsed() >= WITHIN {
            let why = match of.first() {
                None => format!("no living worker of {} is there", now.release),
                Some(seen) => {
                    let presence = &seen.presence;
                    let why = presence.reason.clone().unwrap_or_default();
                    format!("{} is {} {why}", presence.worker, presence.state)
                }
            };
            return Ok(Err(format!("none of its workers is active after {}: {why}", human(WITHIN))));
        }
        wake.woken(LOOK).await;
    }
}
