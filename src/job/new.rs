//! A job that is to be inserted: everything a caller may ask for, and the limits of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::args::{Args, InvalidArgs};
use super::bypass::Bypass;
use super::define::Job;
use super::state::State;
use crate::clock::{MAX_DURATION, Timestamp};
use crate::ids::JobId;
use crate::names::{BadName, Kind, Queue, Tier, WorkerName, shown};
use crate::retry::{MAX_ATTEMPTS, RetryPolicy};

/// Most tags of one job.
pub const MAX_TAGS: usize = 32;
/// Longest value of a tag, in bytes.
pub const MAX_TAG_VALUE: usize = 256;
/// Longest idempotency, unique or limit key, in bytes.
pub const MAX_KEY: usize = 255;
/// Priorities go from minus this to plus this.
pub const MAX_PRIORITY: i8 = 9;
/// Longest time-out of one attempt.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// When a job may first run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// At once.
    #[default]
    Now,
    /// So long after the insert, by the store's clock.
    After(Duration),
    /// At this time, by the store's clock; at once when it has passed.
    At(Timestamp),
}

/// When a job becomes too late to be useful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// So long after the insert, by the store's clock.
    After(Duration),
    /// At this time, by the store's clock.
    At(Timestamp),
}

impl Expiry {
    /// When a job that is inserted now becomes too late.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::After(span) => now.plus(span),
            Self::At(time) => time,
        }
    }
}

/// A key that at most one job may hold at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unique {
    /// The key, unique within the tier.
    pub key: String,
    /// How long it is held, in seconds, counted from the insert; without it, as long as the job has not ended. A job
    /// that has ended holds it only within this window.
    #[serde(
        default,
        rename = "for",
        with = "crate::clock::secs::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub window: Option<Duration>,
    /// The states that hold it; without it, those of a job that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<State>>,
}

impl Unique {
    /// States that hold a key unless others are named.
    pub const DEFAULT_STATES: [State; 5] =
        [State::Available, State::Scheduled, State::Running, State::Retryable, State::Parked];

    /// Whether a job in this state, inserted at `inserted`, holds the key at `now`.
    #[must_use]
    pub fn held_by(&self, state: State, inserted: Timestamp, now: Timestamp) -> bool {
        let named = match &self.states {
            Some(states) => states.contains(&state),
            None => {
                Self::DEFAULT_STATES.contains(&state) || self.window.is_some() && state == State::Completed
            }
        };
        let in_window = self.window.is_none_or(|window| now < inserted.plus(window));
        // An ended job holds its key only for a window that was asked for.
        named && in_window && (!state.is_final() || self.window.is_some())
    }
}

/// What a job carries beyond its arguments. Most jobs carry none of it, and stores keep it apart for that reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// For a canary job: the one worker that may take it. It comes first, where the engines look for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<WorkerName>,
    /// Attempts and delays, when they differ from the kind's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Time-out of one attempt, when it differs from the kind's; in seconds.
    #[serde(with = "crate::clock::secs::option", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The idempotency key that the id was derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The unique key it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<Unique>,
    /// The account whose limits it counts against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<String>,
    /// Labels to find it by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The producer's W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Extras {
    /// Nothing beyond the defaults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A job to be inserted. Build it from a typed job with [`NewJob::of`], or from an [`EnqueueBody`](super::EnqueueBody); every setter checks
/// its limit, so that a `NewJob` that exists can be stored.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its identity. The same id and content inserted again is the same job.
    pub id: JobId,
    /// What it is.
    pub kind: Kind,
    /// Where it waits.
    pub queue: Queue,
    /// Its arguments.
    pub args: Args,
    /// The version of the arguments.
    pub version: u32,
    /// Higher goes first, -9 to 9. Each priority is a lane of its own.
    pub priority: i8,
    /// When it may first run.
    pub when: When,
    /// When it is too late.
    pub expiry: Option<Expiry>,
    /// Whether its caller runs it; `None`: as its kind says. It is for the caller, and not stored.
    pub bypass: Option<Bypass>,
    /// Whether it wakes nobody, and waits for its worker to look. For the insert, and not stored.
    pub silent: bool,
    /// Everything rare.
    pub extras: Extras,
}

/// A job that was refused before it reached a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJob {
    /// A name breaks the rule.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The arguments are refused.
    #[error(transparent)]
    Args(#[from] InvalidArgs),
    /// A value is outside its range.
    #[error("{field} `{given}` is out of range: {limit}")]
    Range {
        /// Which field.
        field: &'static str,
        /// What was given, escaped.
        given: String,
        /// What is allowed.
        limit: String,
    },
    /// Fields that exclude each other.
    #[error("{0}")]
    Clash(&'static str),
    /// The body is not an object of the known fields.
    #[error("bad enqueue body: {0}")]
    Body(String),
}

pub(super) fn range(
    field: &'static str,
    given: impl std::fmt::Display,
    limit: impl Into<String>,
) -> InvalidJob {
    InvalidJob::Range { field, given: shown(&given.to_string()), limit: limit.into() }
}

fn check_key(field: &'static str, key: &str) -> Result<(), InvalidJob> {
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control) {
        return Err(range(field, key, format!("1 to {MAX_KEY} bytes without control characters")));
    }
    Ok(())
}

fn check_span(
    field: &'static str,
    span: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), InvalidJob> {
    if span < least || span > most {
        return Err(range(
            field,
            format!("{}s", span.as_secs_f64()),
            format!("{}s to {}s", least.as_secs_f64(), most.as_secs()),
        ));
    }
    Ok(())
}

fn check_time(field: &'static str, time: Timestamp) -> Result<(), InvalidJob> {
    // 2000-01-01 to 2200-01-01: outside it is a unit mistake, not a wish.
    if !(946_684_800_000..=7_258_118_400_000).contains(&time.ms()) {
        return Err(range(field, time, "2000-01-01 to 2200-01-01"));
    }
    Ok(())
}

impl NewJob {
    /// A typed job with its kind's defaults.
    ///
    /// # Errors
    /// When its names or arguments are refused.
    pub fn of<J: Job>(job: &J) -> Result<Self, InvalidJob> {
        let mut new = Self::raw(Kind::new(J::KIND)?, Args::of(job)?);
        new.queue = Queue::new(J::QUEUE)?;
        new.version = J::VERSION;
        new.priority = J::PRIORITY;
        new.expiry = J::expires().map(Expiry::After);
        // Also where nobody has its handler: then the answer says so.
        new.bypass = Some(J::bypass());
        new.check()
    }

    /// A job by kind name and JSON arguments, on the default queue.
    #[must_use]
    pub fn raw(kind: Kind, args: Args) -> Self {
        Self {
            id: JobId::new(),
            kind,
            queue: Queue::default(),
            args,
            version: 1,
            priority: 0,
            when: When::Now,
            expiry: None,
            bypass: None,
            silent: false,
            extras: Extras::default(),
        }
    }

    /// A canary job: it goes to one worker through the real path, whatever the activation says, to prove that the worker
    /// claims, runs and settles. It has one attempt, and expires so long after the insert if it has not ended by then.
    #[must_use]
    pub fn canary(kind: Kind, args: Args, worker: &WorkerName, expires: Duration) -> Self {
        let mut new = Self::raw(kind, args).expires_in(expires);
        new.queue = Queue::canaries();
        new.extras.retry = Some(RetryPolicy { max_attempts: 1, ..RetryPolicy::default() });
        new.extras.canary = Some(worker.clone());
        new
    }

    /// Another queue.
    ///
    /// # Errors
    /// When the name is refused.
    pub fn queue(mut self, queue: &str) -> Result<Self, InvalidJob> {
        self.queue = Queue::new(queue)?;
        Ok(self)
    }

    /// Runs no earlier than so long after the insert.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.when = When::After(delay);
        self
    }

    /// Runs no earlier than this time.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.when = When::At(time);
        self
    }

    /// Expires so long after the insert.
    #[must_use]
    pub fn expires_in(mut self, span: Duration) -> Self {
        self.expiry = Some(Expiry::After(span));
        self
    }

    /// Derives the id from a key of the caller's: enqueuing the same key and content again gives the same job, for as
    /// long as the job exists and for 24 h after it completed.
    #[must_use]
    pub fn idempotency_key(mut self, tier: &Tier, key: &str) -> Self {
        self.id = JobId::from_key(tier.as_str(), key);
        self.extras.idempotency_key = Some(key.to_owned());
        self
    }

    /// Whether its caller runs it, whatever its kind says.
    #[must_use]
    pub fn bypass(mut self, bypass: Bypass) -> Self {
        self.bypass = Some(bypass);
        self
    }

    /// Holds a unique key; see [`Unique`].
    #[must_use]
    pub fn unique(mut self, unique: Unique) -> Self {
        self.extras.unique = Some(unique);
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.extras.tags.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Why it is not to be stored, if it is not: no claim would ever take it, or the wrong one.
    pub(crate) fn stray(&self) -> Option<&'static str> {
        (self.queue.is_canaries() != self.extras.canary.is_some())
            .then_some("a canary job, and no other, names its worker and waits in `~canary`")
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// Names the field, what was given, and the limit.
    pub fn check(self) -> Result<Self, InvalidJob> {
        let short = Duration::from_millis(1);
        if !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&self.priority) {
            return Err(range("priority", self.priority, format!("-{MAX_PRIORITY} to {MAX_PRIORITY}")));
        }
        if self.version == 0 {
            return Err(range("version", self.version, "1 or more"));
        }
        match self.when {
            When::Now => {}
            When::After(delay) => check_span("delay", delay, Duration::ZERO, MAX_DURATION)?,
            When::At(time) => check_time("run_at", time)?,
        }
        match self.expiry {
            None => {}
            Some(Expiry::After(span)) => check_span("expires_in", span, short, MAX_DURATION)?,
            Some(Expiry::At(time)) => check_time("expires_at", time)?,
        }
        let extras = &self.extras;
        if let Some(why) = self.stray() {
            return Err(InvalidJob::Clash(why));
        }
        if extras.canary.is_some() && self.expiry.is_none() {
            return Err(InvalidJob::Clash("a canary job needs `expires_in`"));
        }
        if let Some(retry) = &extras.retry {
            if !(1..=MAX_ATTEMPTS).contains(&retry.max_attempts) {
                return Err(range("retry.max_attempts", retry.max_attempts, format!("1 to {MAX_ATTEMPTS}")));
            }
            if retry.schedule.len() > 100 {
                return Err(range("retry.schedule", retry.schedule.len(), "at most 100 delays"));
            }
        }
        if let Some(timeout) = extras.timeout {
            check_span("timeout", timeout, short, MAX_TIMEOUT)?;
        }
        if let Some(key) = &extras.idempotency_key {
            check_key("idempotency_key", key)?;
        }
        if let Some(unique) = &extras.unique {
            check_key("unique.key", &unique.key)?;
            if let Some(window) = unique.window {
                check_span("unique.for", window, short, MAX_DURATION)?;
            }
        }
        if let Some(key) = &extras.limit_key {
            check_key("limit_key", key)?;
        }
        if extras.tags.len() > MAX_TAGS {
            return Err(range("tags", extras.tags.len(), format!("at most {MAX_TAGS} tags")));
        }
        for (key, value) in &extras.tags {
            if crate::names::Queue::new(key).is_err() {
                return Err(range("tag name", key, crate::names::PATTERN));
            }
            if value.len() > MAX_TAG_VALUE {
                return Err(range("tag value", value, format!("at most {MAX_TAG_VALUE} bytes")));
            }
        }
        Ok(self)
    }

    /// The same work: what an id must agree on when it is inserted again. Times are not part of it, since a delay
    /// counted from "now" differs at every try.
    #[must_use]
    pub fn same_content(&self, kind: &Kind, queue: &Queue, args: &Args) -> bool {
        self.kind == *kind && self.queue == *queue && self.args.same_content(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_key_is_held_until_the_job_ends_or_its_window_does() {
        let (t0, day) = (Timestamp::from_ms(0), Duration::from_secs(86_400));
        let open = Unique { key: "k".into(), window: None, states: None };
        assert!(open.held_by(State::Running, t0, t0.plus(day)) && !open.held_by(State::Completed, t0, t0));
        let windowed = Unique { key: "k".into(), window: Some(day), states: None };
        assert!(
            windowed.held_by(State::Completed, t0, t0)
                && !windowed.held_by(State::Available, t0, t0.plus(day))
        );
    }
}
