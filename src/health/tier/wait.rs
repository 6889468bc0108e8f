//! When a verdict ends a wait. A verdict is about one moment; a pipeline that started its workers a second ago must not
//! be failed by that second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::all::AllVerdict;
use super::verdict::{Decision, TierVerdict};
use crate::names::Tier;

/// A failure that waiting does not heal (a hook that ended with an error, jobs that fail, a worker that stays inactive)
/// ends a wait when it has stood for so long. One that may heal never does: workers still come, stores come back.
///
/// Longer than one beat and one look: a process that was stopped and goes on says once, of the time that it did not see, that
/// nothing ticked; the next beat takes that back.
pub const SETTLE: Duration = Duration::from_secs(5);

/// What a wait has heard so far.
#[derive(Debug, Default)]
pub struct Patience {
    failing_since: Option<Instant>,
}

impl Patience {
    /// Whether this verdict, heard now, ends the wait.
    pub fn ends(&mut self, verdict: &TierVerdict, now: Instant) -> bool {
        let lasting = verdict.decision == Decision::Fail && verdict.terminal;
        let since = lasting.then(|| self.failing_since.unwrap_or(now));
        self.failing_since = since;
        match verdict.decision {
            Decision::Pass | Decision::Superseded => true,
            Decision::Fail => since.is_some_and(|since| now.saturating_duration_since(since) >= SETTLE),
            // A release that nobody knows may be one whose first worker is still being started.
            Decision::Pending | Decision::Unknown => false,
        }
    }
}

/// The same for a wait over all tiers.
#[derive(Debug, Default)]
pub struct PatienceOverAll(BTreeMap<Tier, Patience>);

impl PatienceOverAll {
    /// Whether this verdict, heard now, ends the wait: all tiers pass, or one of them will not any more.
    pub fn ends(&mut self, verdict: &AllVerdict, now: Instant) -> bool {
        let mut lost = false;
        for tier in &verdict.tiers {
            let ends = self.0.entry(tier.tier.clone()).or_default().ends(tier, now);
            lost |= ends && tier.decision != Decision::Pass;
        }
        lost || verdict.decision == Decision::Pass
    }
}
