//! The enqueue body: a job as JSON, from HTTP and from files.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::args::Args;
use super::bypass::Bypass;
use super::new::{Expiry, InvalidJob, MAX_PRIORITY, NewJob, Unique, When, range};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::names::{Kind, Tier};
use crate::retry::RetryPolicy;

/// The body of `POST /v1/jobs`, and a line of `job enqueue --from-file`: durations in seconds or as `10m`, times in
/// RFC 3339. Unknown fields are errors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnqueueBody {
    /// The kind; the only field that must be there.
    pub kind: String,
    /// The arguments; `{}` without it.
    #[serde(default)]
    pub args: Option<Args>,
    /// A job id of the caller's (excludes `idempotency_key`).
    #[serde(default)]
    pub id: Option<JobId>,
    /// A key that the id is derived from.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// The queue.
    #[serde(default)]
    pub queue: Option<String>,
    /// The version of the arguments.
    #[serde(default)]
    pub version: Option<u32>,
    /// Delay before the first attempt (excludes `run_at`).
    #[serde(default, with = "crate::clock::secs::option")]
    pub delay: Option<Duration>,
    /// Time of the first attempt.
    #[serde(default)]
    pub run_at: Option<Timestamp>,
    /// Expiry counted from the insert (excludes `expires_at`).
    #[serde(default, with = "crate::clock::secs::option")]
    pub expires_in: Option<Duration>,
    /// Time of expiry.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Priority, -9 to 9.
    #[serde(default)]
    pub priority: Option<i64>,
    /// Attempts and delays.
    #[serde(default)]
    pub retry: Option<RetryPolicy>,
    /// Time-out of one attempt.
    #[serde(default, with = "crate::clock::secs::option")]
    pub timeout: Option<Duration>,
    /// Whether whoever takes this body runs the job itself.
    #[serde(default)]
    pub bypass: Option<Bypass>,
    /// Unique key.
    #[serde(default)]
    pub unique: Option<Unique>,
    /// Whose limits it counts against.
    #[serde(default)]
    pub limit_key: Option<String>,
    /// Labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Trace context.
    #[serde(default)]
    pub meta: Meta,
}

/// What travels with a job and is not for its handler.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// W3C trace context of the producer. A malformed one is dropped, not refused.
    #[serde(default)]
    pub traceparent: Option<String>,
}

impl EnqueueBody {
    /// Reads a body: strict JSON (see [`super::args::check_json`]), known fields only.
    ///
    /// # Errors
    /// Names the first fault.
    pub fn read(text: &[u8]) -> Result<Self, InvalidJob> {
        super::args::check_json(text, super::args::MAX_DEPTH + 1)?;
        serde_json::from_slice(text)
            .map_err(|error| InvalidJob::Body(crate::names::escaped(&error.to_string())))
    }

    /// Turns it into a job for a tier.
    ///
    /// # Errors
    /// Names the field, what was given, and the limit.
    pub fn into_job(self, tier: &Tier) -> Result<NewJob, InvalidJob> {
        let mut job = NewJob::raw(Kind::new(&self.kind)?, self.args.unwrap_or_default());
        if let Some(queue) = &self.queue {
            job = job.queue(queue)?;
        }
        match (self.id, &self.idempotency_key) {
            (Some(_), Some(_)) => {
                return Err(InvalidJob::Clash(
                    "`id` and `idempotency_key` exclude each other: the key derives the id",
                ));
            }
            (Some(id), None) => job.id = id,
            (None, Some(key)) => job = job.idempotency_key(tier, key),
            (None, None) => {}
        }
        job.when = match (self.delay, self.run_at) {
            (Some(_), Some(_)) => return Err(InvalidJob::Clash("`delay` and `run_at` exclude each other")),
            (Some(delay), None) if delay.is_zero() => When::Now,
            (Some(delay), None) => When::After(delay),
            (None, Some(time)) => When::At(time),
            (None, None) => When::Now,
        };
        job.expiry = match (self.expires_in, self.expires_at) {
            (Some(_), Some(_)) => {
                return Err(InvalidJob::Clash("`expires_in` and `expires_at` exclude each other"));
            }
            (Some(span), None) => Some(Expiry::After(span)),
            (None, Some(time)) => Some(Expiry::At(time)),
            (None, None) => None,
        };
        if let Some(priority) = self.priority {
            job.priority = i8::try_from(priority)
                .map_err(|_| range("priority", priority, format!("-{MAX_PRIORITY} to {MAX_PRIORITY}")))?;
        }
        if let Some(version) = self.version {
            job.version = version;
        }
        job.bypass = self.bypass;
        job.extras.retry = self.retry;
        job.extras.timeout = self.timeout;
        job.extras.unique = self.unique;
        job.extras.limit_key = self.limit_key;
        job.extras.tags = self.tags;
        job.extras.traceparent = self.meta.traceparent.filter(|text| is_traceparent(text));
        job.check()
    }
}

/// Whether a text is a version-00 W3C traceparent.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    match parts.as_slice() {
        ["00", trace, span, flags] => {
            hex(trace, 32)
                && hex(span, 16)
                && hex(flags, 2)
                && trace.bytes().any(|b| b != b'0')
                && span.bytes().any(|b| b != b'0')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn job(body: &str) -> Result<NewJob, InvalidJob> {
        EnqueueBody::read(body.as_bytes())?.into_job(&Tier::default())
    }

    #[test]
    fn a_full_body_is_read() {
        let job = job(r#"{"kind":"notify.email","queue":"mail","args":{"to":"a@b.c"},"delay":0,"expires_in":3600,"priority":1,
            "retry":{"max_attempts":3,"backoff":"exponential","max_delay":60},"timeout":30,"unique":{"key":"k","for":86400,"states":["available"]},
            "limit_key":"smtp","tags":{"incident":"4711"},"meta":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}"#).unwrap();
        assert_eq!(job.queue.as_str(), "mail");
        assert_eq!(job.extras.retry.as_ref().unwrap().max_attempts, 3);
        assert!(job.extras.traceparent.is_some());
    }

    #[test]
    fn h21_values_out_of_range_are_refused_with_field_value_and_limit() {
        for (body, wanted) in [
            (r#"{"kind":"a","run_at":"-000001-01-01T00:00:00Z"}"#, "2000-01-01"),
            (r#"{"kind":"a","run_at":"9999-01-01T00:00:00Z"}"#, "2200-01-01"),
            (r#"{"kind":"a","delay":9223372036854775808}"#, "366d"),
            (r#"{"kind":"a","delay":-1}"#, "366d"),
            (r#"{"kind":"a","retry":{"max_attempts":1000000000}}"#, "1 to 1000"),
            (r#"{"kind":"a","retry":{"max_attempts":0}}"#, "1 to 1000"),
            (r#"{"kind":"a","priority":10}"#, "-9 to 9"),
            (r#"{"kind":"a","priority":300}"#, "-9 to 9"),
            (r#"{"kind":"a","expires_in":0}"#, "expires_in"),
            (r#"{"kind":"a","timeout":0}"#, "timeout"),
            (r#"{"kind":"a","id":"x","idempotency_key":"y"}"#, "not a job id"),
            (r#"{"kind":"a","bypass":"last"}"#, "expected one of `never`, `when-inactive`, `first`"),
            (r#"{"kind":"a","typo":1}"#, "unknown field `typo`"),
            (r#"{"kind":"../x"}"#, "bad kind name"),
            (r#"{"kind":"a","idempotency_key":""}"#, "1 to 255"),
        ] {
            let error = job(body).unwrap_err().to_string();
            assert!(error.contains(wanted), "{body}: {error}");
        }
    }

    #[test]
    fn h22_too_many_tags_or_a_huge_one_are_refused() {
        let many: Vec<String> = (0..33).map(|n| format!("\"t{n}\":\"\"")).collect();
        let error = job(&format!("{{\"kind\":\"a\",\"tags\":{{{}}}}}", many.join(","))).unwrap_err();
        assert!(error.to_string().contains("at most 32"), "{error}");
        let error = job(&format!("{{\"kind\":\"a\",\"tags\":{{\"t\":\"{}\"}}}}", "x".repeat(1 << 20)))
            .unwrap_err()
            .to_string();
        assert!(error.contains("at most 256 bytes") && error.len() < 300, "{error}");
    }

    #[test]
    fn h51_a_malformed_traceparent_is_dropped_not_refused() {
        let long = "x".repeat(1024);
        for bad in ["", "junk", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", &long] {
            let job = job(&format!("{{\"kind\":\"a\",\"meta\":{{\"traceparent\":\"{bad}\"}}}}")).unwrap();
            assert_eq!(job.extras.traceparent, None);
        }
    }
}
