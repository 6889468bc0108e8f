//! A verdict: a value, in the shape of `application/health+json`
//! (draft-inadarei-api-health-check), or as lines for people.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::clock::Timestamp;

/// How something is. Ordered: worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Pass,
    /// Somebody should look at it; nothing should be done by a machine.
    Warn,
    /// The answer to the probe's question is no.
    Fail,
}

impl Status {
    /// The name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// `+` fine, `!` a warning, `-` failed.
    #[must_use]
    pub const fn sign(self) -> char {
        match self {
            Self::Pass => '+',
            Self::Warn => '!',
            Self::Fail => '-',
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Pass => "ok",
            Self::Warn => "warn",
            Self::Fail => "failed",
        }
    }
}

/// A span as checks show it: seconds, to the millisecond.
pub(super) fn secs(duration: Duration) -> Value {
    json!(duration.as_millis() as f64 / 1e3)
}

/// The finding of one rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The short name, for lines.
    #[serde(skip)]
    pub name: &'static str,
    /// The key in `checks`.
    #[serde(skip)]
    pub key: &'static str,
    /// The worker.
    pub component_id: String,
    /// What was measured.
    pub observed_value: Value,
    /// In which unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_unit: Option<&'static str>,
    /// Above this it is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Value>,
    /// How it is.
    pub status: Status,
    /// When it was measured (host time).
    pub time: Timestamp,
    /// What is wrong, for programs; absent when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Since when it is so (host time).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What is wrong, in words; absent when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Cow<'static, str>>,
    /// Whatever else was looked at.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The answer to one probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The path, without its slash: `livez`, `readyz/staged`.
    pub probe: Cow<'static, str>,
    /// What it asks, in words.
    pub question: &'static str,
    /// The worst of the checks.
    pub status: Status,
    /// The worst finding in words; empty when all is well.
    pub output: String,
    /// The tier, when it is known.
    pub tier: Option<String>,
    /// The worker, when it is known.
    pub worker: Option<String>,
    /// Its release, when it is known.
    pub release: Option<String>,
    /// What was looked at.
    pub checks: Vec<Check>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    status: Status,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    release_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_id: Option<String>,
    description: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    output: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    checks: BTreeMap<&'static str, Vec<&'a Check>>,
    links: BTreeMap<&'static str, String>,
}

impl Verdict {
    /// Whether the answer to the probe's question is yes. A warning is a yes.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        self.status != Status::Fail
    }

    /// The same answer without what it was found from: for those who may not see that.
    #[must_use]
    pub fn without_checks(mut self) -> Self {
        self.checks.clear();
        (self.tier, self.worker, self.release) = (None, None, None);
        self
    }

    fn tier(&self) -> String {
        self.tier.as_ref().map(|tier| format!("{tier}/")).unwrap_or_default()
    }

    /// As `application/health+json`.
    ///
    /// # Errors
    /// Never in practice: every part of it is representable.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let mut checks: BTreeMap<&'static str, Vec<&Check>> = BTreeMap::new();
        for check in &self.checks {
            checks.entry(check.key).or_default().push(check);
        }
        serde_json::to_string_pretty(&Body {
            status: self.status,
            version: "1",
            release_id: self.release.as_deref(),
            service_id: self.worker.as_ref().map(|worker| format!("worker/{}{worker}", self.tier())),
            description: format!("sluicegate worker: {}", self.question),
            output: &self.output,
            checks,
            links: BTreeMap::from([("self", format!("/{}", self.probe)), ("about", "/health".to_owned())]),
        })
    }

    /// As lines for people: `ok` when all is well, every check when it is not, or when `verbose` asks for them.
    #[must_use]
    pub fn to_text(&self, verbose: bool) -> String {
        if self.status == Status::Pass && !verbose {
            return "ok\n".to_owned();
        }
        let mut text = String::new();
        for check in &self.checks {
            let (sign, word) = (check.status.sign(), check.status.word());
            let why = check.output.as_ref().map(|why| format!(": {}", crate::names::escaped(why)));
            // Writing to a `String` cannot fail.
            let _ok = writeln!(text, "[{sign}]{} {word}{}", check.name, why.unwrap_or_default());
        }
        if self.checks.is_empty() {
            let (sign, word) = (self.status.sign(), self.status.word());
            let _ok = writeln!(text, "[{sign}]worker {word}: {}", crate::names::escaped(&self.output));
        }
        let end = if self.is_yes() { "passed" } else { "failed" };
        let _ok = writeln!(text, "{} check {end}", self.probe);
        text
    }
}
