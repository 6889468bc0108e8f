//! The verdict on a tier and a release: *may this release be left alone with the work?* Asked by pipelines
//! (`gate check`, `GET /v1/gate`), by `gate wait`, and by whoever is woken.
//!
//! [`ask`] is the question. [`facts`] are gathered from the store, so the tier is judged by what its workers told and did and not by one of their
//! probes; [`rules`] judge them purely; a [`verdict`] is a value; [`wait`] says when a verdict ends a wait; [`doctor`]
//! answers "why is nothing running?" from the same facts; [`all`] puts the verdicts on all tiers of a store together.
//!
//! | verdict | when |
//! |---|---|
//! | pass | the release is active and committed, as many workers as required are active, and each of them proved it |
//! | pending | not decided, or no evidence: not activated yet, provisional, workers still coming, canaries not back yet |
//! | fail | evidence of trouble that the workers at hand cannot make up for |
//! | superseded | it was active, and another activation replaced it |
//! | unknown | nobody registered it, no worker of it lives, it was never active |
//!
//! Only the *required* number of workers matters: trouble of a worker beyond it is a warning. Without a number, all that
//! are there are required, stale ones too, until others take their place ([`rules::LOST`]). So a killed worker is red
//! within three beats, and a crashed container that comes back under another name does not keep its tier red.

mod absence;
pub mod all;
pub mod ask;
pub(crate) mod checks;
mod crew;
pub mod doctor;
pub mod facts;
mod outcomes;
pub mod rules;
pub mod simulate;
#[cfg(test)]
mod tests;
pub mod verdict;
pub mod wait;

pub use all::{AllAsk, AllVerdict, look_all};
pub use ask::{GateAsk, MinActive};
pub use facts::{Change, Gone, TierFacts, Unread, ledger_tail};
pub use rules::judge;
pub use verdict::{Decision, TierCheck, TierVerdict};

use crate::activation::Activation;
use crate::names::{Release, Tier};
use crate::store::Store;

/// Asks a gate: gathers and judges. A store that cannot be read is an answer too.
pub async fn look(store: &dyn Store, tier: &Tier, ask: &GateAsk) -> TierVerdict {
    match TierFacts::gather(store, tier, Some(&ask.release)).await {
        Ok(facts) => judge(ask, &facts),
        Err(error) => TierVerdict::unreadable(tier, &ask.release, &error),
    }
}

/// The release that is meant when none is named: only an unmanaged tier has one. In a managed tier it would be "the
/// latest", and a pipeline that asks so passes on the release that it was to replace.
#[must_use]
pub fn implied(activation: Option<&Activation>) -> Option<Release> {
    match activation {
        None => Some(Release::default()),
        Some(current) => current.release.is_implicit().then(Release::default),
    }
}
