//! What became of an attempt, as a verdict for the store. Pure.

use std::time::Duration;

use super::lease::Cause;
use crate::clock::{self, Timestamp};
use crate::job::handler::JobError;
pub(super) use crate::job::handler::{chain, panic_message};
use crate::job::record::MAX_ERROR;
use crate::job::{JobResult, Outcome, Parked};
use crate::retry::RetryPolicy;
use crate::store::Verdict;

/// How an attempt ended.
pub(super) enum End {
    /// The handler returned.
    Returned(JobResult),
    /// It panicked; the message.
    Panicked(String),
    /// It went on after its cancellation and was dropped.
    Dropped,
}

/// What the verdict depends on beside the end.
pub(super) struct Attempt<'a> {
    pub(super) cause: Cause,
    pub(super) failures: u32,
    pub(super) retry: &'a RetryPolicy,
    pub(super) timeout: Duration,
    pub(super) now: Timestamp,
}

impl Attempt<'_> {
    /// What a handler says it did stands, cancelled or not: work that was done is not undone. Otherwise the cause of the
    /// cancellation decides.
    pub(super) fn verdict(&self, end: End) -> Verdict {
        let error = match end {
            End::Returned(Ok(Outcome::Done)) => return Verdict::Completed,
            _ if self.cause == Cause::Asked => return Verdict::Cancelled,
            End::Returned(Ok(outcome)) => return self.asked(outcome),
            _ if self.cause == Cause::Stop => return Verdict::Return,
            _ if self.cause == Cause::TimedOut => format!("timed out after {}", span(self.timeout)),
            End::Returned(Err(error)) => chain(&error),
            End::Panicked(message) => format!("panicked: {message}"),
            End::Dropped => "dropped by its worker".to_owned(),
        };
        self.failed(error, None)
    }

    fn asked(&self, outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Done => Verdict::Completed,
            Outcome::RetryIn(delay, error) => self.failed(error, Some(delay)),
            Outcome::RetryAt(at, error) => self.failed(error, Some(at.since(self.now))),
            Outcome::Snooze(delay) => Verdict::Snooze { delay },
            Outcome::Dead(error) => Verdict::Dead { error: cut(error) },
            Outcome::Park(reason) => Verdict::Park { why: Parked::Asked, reason: cut(reason) },
            Outcome::Uncertain(reason) => Verdict::Park { why: Parked::Uncertain, reason: cut(reason) },
        }
    }

    fn failed(&self, error: String, delay: Option<Duration>) -> Verdict {
        let (failures, error) = (self.failures.saturating_add(1), cut(error));
        if failures >= self.retry.max_attempts {
            return Verdict::Dead { error };
        }
        Verdict::Retry { delay: delay.unwrap_or_else(|| self.retry.delay(failures)), error }
    }
}

/// A job that this worker cannot run.
pub(super) fn unknown(kind: &str) -> Verdict {
    let reason = format!("no handler of this worker is for kind `{kind}`");
    Verdict::Park { why: Parked::UnknownKind, reason }
}

/// Arguments written by newer code.
pub(super) fn newer(given: u32, known: u32) -> Verdict {
    let reason = format!("args are version {given}, and this release reads up to version {known}");
    Verdict::Park { why: Parked::Undecodable, reason }
}

/// Arguments of another shape.
pub(super) fn undecodable(error: &JobError) -> Verdict {
    Verdict::Park { why: Parked::Undecodable, reason: cut(chain(error)) }
}

/// Bounds what waits for the store.
fn cut(mut text: String) -> String {
    if text.len() > MAX_ERROR {
        let end = (0..=MAX_ERROR).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn span(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 { format!("{} s", duration.as_secs()) } else { clock::human(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(cause: Cause, failures: u32, retry: &RetryPolicy) -> Attempt<'_> {
        let now = Timestamp::from_ms(1_000);
        Attempt { cause, failures, retry, timeout: Duration::from_secs(30), now }
    }

    fn failing() -> End {
        End::Returned(Err("no".into()))
    }

    #[test]
    fn the_last_attempt_is_dead_and_the_others_are_retried() {
        let retry = RetryPolicy::attempts(3);
        for failures in 0..2 {
            let verdict = attempt(Cause::None, failures, &retry).verdict(failing());
            assert!(matches!(verdict, Verdict::Retry { .. }), "{failures}: {verdict:?}");
        }
        assert_eq!(attempt(Cause::None, 2, &retry).verdict(failing()), Verdict::Dead { error: "no".into() });
        let later = Outcome::RetryAt(Timestamp::from_ms(6_000), "busy".into());
        assert_eq!(
            attempt(Cause::None, 0, &retry).verdict(End::Returned(Ok(later))),
            Verdict::Retry { delay: Duration::from_secs(5), error: "busy".into() }
        );
    }

    #[test]
    fn work_that_was_done_stands_whatever_cancelled_it() {
        let retry = RetryPolicy::default();
        for cause in [Cause::None, Cause::TimedOut, Cause::Asked, Cause::Stop] {
            let verdict = attempt(cause, 0, &retry).verdict(End::Returned(Ok(Outcome::Done)));
            assert_eq!(verdict, Verdict::Completed, "{cause:?}");
        }
    }

    #[test]
    fn the_cause_of_a_cancellation_decides() {
        let retry = RetryPolicy::default();
        for end in [failing, || End::Dropped, || End::Panicked("x".into())] {
            assert_eq!(attempt(Cause::Asked, 0, &retry).verdict(end()), Verdict::Cancelled);
            assert_eq!(attempt(Cause::Stop, 0, &retry).verdict(end()), Verdict::Return);
            match attempt(Cause::TimedOut, 0, &retry).verdict(end()) {
                Verdict::Retry { error, .. } => assert_eq!(error, "timed out after 30 s"),
                other => unreachable!("{other:?}"),
            }
        }
    }

    #[test]
    fn errors_tell_their_causes_within_bounds() {
        let error: JobError = Box::new(std::io::Error::other("disk"));
        assert_eq!(chain(&error), "disk");
        assert!(cut("é".repeat(5_000)).len() <= MAX_ERROR + 3);
    }
}
