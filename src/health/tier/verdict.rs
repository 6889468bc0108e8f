//! The verdict on a tier, as a value: the body of `/v1/gate`, and lines for people.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::activation::Mode;
use crate::clock::Timestamp;
use crate::health::Status;
use crate::names::{Release, Tier};
use crate::store::{ErrorKind, StoreError};

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Leave it alone with the work.
    Pass,
    /// Not decided yet, or no evidence.
    Pending,
    /// Do not.
    Fail,
    /// Another activation replaced it.
    Superseded,
    /// No such release.
    Unknown,
}

impl Decision {
    /// The word, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Pending => "pending",
            Self::Fail => "fail",
            Self::Superseded => "superseded",
            Self::Unknown => "unknown",
        }
    }

    /// Of several tiers the worst counts: greater is worse. What is known to be wrong outweighs what is not known.
    pub(super) const fn severity(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Pending => 1,
            Self::Unknown => 2,
            Self::Superseded => 3,
            Self::Fail => 4,
        }
    }
}

/// How one check came out. Ordered: worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    Pass,
    Warn,
    /// May still come by itself.
    Pending,
    /// Trouble that may heal: a worker that comes back, a store that takes writes again.
    Fail,
    /// Trouble that waiting does not heal.
    Final,
}

/// The finding of one rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TierCheck {
    #[serde(skip)]
    pub(super) key: &'static str,
    #[serde(skip)]
    pub(super) mark: Mark,
    /// What it is about: `worker/w-1`, `queue/mail`, `kind/notify.email`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_id: Option<String>,
    /// What was seen.
    pub observed_value: Value,
    /// In which unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_unit: Option<&'static str>,
    /// How much of it is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<Value>,
    /// Above this it is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Value>,
    /// Workers of the release by state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_state: Option<BTreeMap<&'static str, u64>>,
    /// How it is. What is not decided yet is `fail` too: nothing passes without evidence.
    pub status: Status,
    /// Whether it is merely not decided yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// When it was looked at (store time).
    pub time: Timestamp,
    /// Since when it is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When this was last proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Timestamp>,
    /// Which step failed, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What is wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// What to do, as a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl TierCheck {
    /// All is well.
    pub(super) fn pass(key: &'static str, now: Timestamp, observed: impl Into<Value>) -> Self {
        Self {
            key,
            mark: Mark::Pass,
            component_id: None,
            observed_value: observed.into(),
            observed_unit: None,
            required: None,
            limit: None,
            by_state: None,
            status: Status::Pass,
            pending: false,
            time: now,
            since: None,
            verified_at: None,
            code: None,
            output: None,
            hint: None,
        }
    }

    pub(super) fn unit(mut self, unit: &'static str) -> Self {
        self.observed_unit = Some(unit);
        self
    }

    pub(super) fn of(mut self, component: String) -> Self {
        self.component_id = Some(component);
        self
    }

    /// It came out like this, and here is why and what to do.
    pub(super) fn bad(mut self, mark: Mark, output: impl Into<String>, hint: impl Into<String>) -> Self {
        self.mark = mark;
        self.status = match mark {
            Mark::Pass => Status::Pass,
            Mark::Warn => Status::Warn,
            Mark::Pending | Mark::Fail | Mark::Final => Status::Fail,
        };
        self.pending = mark == Mark::Pending;
        let hint = hint.into();
        (self.output, self.hint) = (Some(output.into()), (!hint.is_empty()).then_some(hint));
        self
    }

    /// The key in `checks`.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        self.key
    }

    /// `+` fine, `!` a warning, `~` not decided yet, `-` failed.
    #[must_use]
    pub const fn sign(&self) -> char {
        match self.mark {
            Mark::Pass => '+',
            Mark::Warn => '!',
            Mark::Pending => '~',
            Mark::Fail | Mark::Final => '-',
        }
    }
}

/// The answer of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct TierVerdict {
    /// What was decided.
    pub decision: Decision,
    /// Whether waiting cannot change it.
    pub terminal: bool,
    /// Whether the store could not be asked, so that nothing is known.
    pub unreachable: bool,
    /// Which tier.
    pub tier: Tier,
    /// Which release.
    pub release: Release,
    /// The generation that is active, if any.
    pub generation: Option<u64>,
    /// Whether the activation stands, if the release is active.
    pub mode: Option<Mode>,
    /// When a provisional activation reverts.
    pub confirm_by: Option<Timestamp>,
    /// The deploy that activated it.
    pub deploy: Option<String>,
    /// The state in a line: what blocks it, or what carries it.
    pub output: String,
    /// The next useful command, beginning with `sluicegate `.
    pub next: Option<String>,
    /// When this was judged (store time).
    pub time: Timestamp,
    /// When a wait for it ends (store time).
    pub deadline: Option<Timestamp>,
    /// What was looked at: of each key the worst ones.
    pub checks: Vec<TierCheck>,
    /// How many more there are, by key.
    pub left_out: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    verdict: Decision,
    tier: &'a Tier,
    gate: &'static str,
    release_id: &'a Release,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm_by: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deploy: Option<&'a str>,
    terminal: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    output: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
    time: Timestamp,
    checks: BTreeMap<&'static str, Vec<&'a TierCheck>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    left_out: &'a BTreeMap<&'static str, usize>,
}

impl TierVerdict {
    /// A store that cannot be read. One that cannot be reached says nothing about the workers, so that is pending; one
    /// that is damaged or unsafe is trouble of the tier.
    #[must_use]
    pub fn unreadable(tier: &Tier, release: &Release, error: &StoreError) -> Self {
        let away = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Denied);
        let (decision, mark) =
            if away { (Decision::Pending, Mark::Pending) } else { (Decision::Fail, Mark::Fail) };
        let time = crate::clock::wall();
        let hint = error.hint.clone().unwrap_or_else(|| "sluicegate doctor".to_owned());
        let word = if away { "unreachable" } else { "unusable" };
        let check = TierCheck::pass("store:probe", time, word).bad(mark, error.to_string(), hint);
        Self {
            decision,
            terminal: false,
            unreachable: away,
            tier: tier.clone(),
            release: release.clone(),
            generation: None,
            mode: None,
            confirm_by: None,
            deploy: None,
            output: format!("nothing is known: {error}"),
            next: Some("sluicegate doctor".to_owned()),
            time,
            deadline: None,
            checks: vec![check],
            left_out: BTreeMap::new(),
        }
    }

    /// As the body of `/v1/gate`.
    ///
    /// # Errors
    /// Never in practice: every part of it is representable.
    pub fn to_value(&self) -> serde_json::Result<Value> {
        let mut checks: BTreeMap<&'static str, Vec<&TierCheck>> = BTreeMap::new();
        for check in &self.checks {
            checks.entry(check.key).or_default().push(check);
        }
        serde_json::to_value(Body {
            verdict: self.decision,
            tier: &self.tier,
            gate: "default",
            release_id: &self.release,
            generation: self.generation,
            mode: self.mode,
            confirm_by: self.confirm_by,
            deploy: self.deploy.as_deref(),
            terminal: self.terminal,
            unreachable: self.unreachable,
            deadline: self.deadline,
            output: &self.output,
            next: self.next.as_deref(),
            time: self.time,
            checks,
            left_out: &self.left_out,
        })
    }

    /// Takes the checks: of each key the worst, and no more than so many. Kinds and queues are up to whoever enqueues.
    pub(super) fn keep(&mut self, checks: Vec<TierCheck>) {
        const MOST: usize = 20;
        let mut worst: BTreeMap<&'static str, Vec<Mark>> = BTreeMap::new();
        for check in &checks {
            worst.entry(check.key).or_default().push(check.mark);
        }
        for marks in worst.values_mut() {
            marks.sort_by_key(|mark| std::cmp::Reverse(*mark));
            marks.truncate(MOST);
        }
        for check in checks {
            let Some(kept) = worst.get_mut(check.key) else { continue };
            // Struck off the list of those that are kept, once each.
            match kept.iter().position(|mark| *mark == check.mark) {
                Some(place) => {
                    kept.remove(place);
                    self.checks.push(check);
                }
                None => *self.left_out.entry(check.key).or_default() += 1,
            }
        }
    }

    /// What is not as it should be, worst first.
    #[must_use]
    pub fn troubles(&self) -> Vec<&TierCheck> {
        let mut troubles: Vec<&TierCheck> =
            self.checks.iter().filter(|check| check.mark > Mark::Pass).collect();
        troubles.sort_by_key(|check| std::cmp::Reverse(check.mark));
        troubles
    }
}
