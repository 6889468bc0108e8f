//! The checks of a gate that look at how jobs end: from the crew and the facts to findings.

use std::collections::BTreeMap;

use serde_json::json;

use super::crew::Crew;
use super::facts::Unread;
use super::verdict::{Mark, TierCheck};
use crate::names::{Kind, shown_long};
use crate::store::Trend;
use crate::worker::baseline::fail_together;

/// So many jobs that cannot be read, and none that was done since, are no single bad job: as many as it takes failures of
/// a kind that is hardly known.
const UNREADABLE: u64 = 3;

/// Jobs that all fail are no progress: whatever the number of workers, this is the release.
pub(super) fn outcomes(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = super::checks::OUTCOMES;
    let now = crew.facts.now;
    let mut kinds: BTreeMap<&Kind, (u64, u64, &crate::store::Failing)> = BTreeMap::new();
    for failing in crew.here().flat_map(|member| &member.presence().failing) {
        let entry = kinds.entry(&failing.kind).or_insert((0, 0, failing));
        (entry.0, entry.1) = (entry.0 + failing.failed, entry.1 + failing.attempts);
        if failing.since < entry.2.since {
            entry.2 = failing;
        }
    }
    let mut together = together(crew, |kind| kinds.contains_key(kind));
    if kinds.is_empty() && together.is_empty() {
        return vec![TierCheck::pass(KEY, now, 0).unit("kinds")];
    }
    let check = |(kind, (failed, attempts, first)): (&Kind, (u64, u64, &crate::store::Failing))| {
        let mut check =
            TierCheck::pass(KEY, now, share(failed, attempts)).unit("ratio").of(format!("kind/{kind}"));
        (check.limit, check.since) = (Some(json!(first.baseline)), Some(first.since));
        let output = format!(
            "jobs of kind `{kind}` fail on {} since {}: {}",
            crew.ask.release, first.since, first.error
        );
        check.bad(Mark::Final, output, format!("sluicegate job list --kind {kind} --state retryable"))
    };
    let mut checks: Vec<TierCheck> = kinds.into_iter().map(check).collect();
    checks.append(&mut together);
    checks
}

/// Kinds that fail all over the crew, while no worker has seen enough of it alone.
fn together(crew: &Crew<'_>, told: impl Fn(&Kind) -> bool) -> Vec<TierCheck> {
    const KEY: &str = super::checks::OUTCOMES;
    let mut kinds: BTreeMap<&Kind, (Vec<Trend>, Option<&str>)> = BTreeMap::new();
    for tallies in crew.here().filter_map(|member| member.presence().tallies.as_ref()) {
        for (kind, tally) in tallies.kinds.iter().filter(|(kind, _)| !told(kind)) {
            let (trends, error) = kinds.entry(kind).or_default();
            trends.push(tally.trend);
            *error = error.or(tallies.errors.get(kind).map(String::as_str));
        }
    }
    let check = |(kind, (trends, error)): (&Kind, (Vec<Trend>, Option<&str>))| {
        let failing: Vec<&Trend> = trends.iter().filter(|trend| trend.score > 0).collect();
        let sum = |of: fn(&Trend) -> u64| failing.iter().map(|trend| of(trend)).sum::<u64>();
        let (failed, attempts) = (sum(|trend| trend.failed), sum(|trend| trend.attempts));
        let output = format!(
            "jobs of kind `{kind}` fail on {}, {failed} of {attempts} first attempts at {} workers: {}",
            crew.ask.release,
            failing.len(),
            error.unwrap_or("its workers name no error")
        );
        TierCheck::pass(KEY, crew.facts.now, share(failed, attempts))
            .unit("ratio")
            .of(format!("kind/{kind}"))
            .bad(Mark::Final, output, format!("sluicegate job list --kind {kind} --state retryable"))
    };
    kinds.into_iter().filter(|(_, (trends, _))| fail_together(trends)).map(check).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Every kind that the release claims to know is one whose jobs it can read. What another release parked is tried again by
/// this one; what is not known at all is told by `kinds:known`.
pub(super) fn readable(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "kinds:readable";
    let (now, release) = (crew.facts.now, &crew.ask.release);
    let known =
        |kind: &Kind| crew.here().flat_map(|member| &member.presence().kinds).any(|(other, _)| other == kind);
    let check = |unread: &Unread| {
        let Unread { kind, jobs, reason, .. } = unread;
        let alive = unread.completed.is_some_and(|at| at > unread.last);
        let (mark, since) = match alive || *jobs < UNREADABLE {
            true => (Mark::Warn, ""),
            false => (Mark::Final, ", and none was done since"),
        };
        let output = format!(
            "{jobs} jobs of kind `{kind}` are parked, {release} cannot read them{since}: {}",
            shown_long(reason)
        );
        let mut check = TierCheck::pass(KEY, now, *jobs).unit("jobs").of(format!("kind/{kind}"));
        check.since = Some(unread.last);
        check.bad(mark, output, format!("sluicegate job list --kind {kind} --state parked"))
    };
    let mine = crew.facts.unread.iter().filter(|unread| unread.release == *release && known(&unread.kind));
    let checks: Vec<TierCheck> = mine.map(check).collect();
    if checks.is_empty() { vec![TierCheck::pass(KEY, now, 0).unit("jobs")] } else { checks }
}
