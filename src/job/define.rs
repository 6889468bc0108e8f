//! The `Job` trait: what an app writes once for each kind. It is all that a process needs which only enqueues.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bypass::{BYPASS_DEADLINE, Bypass};
use crate::retry::RetryPolicy;

/// One kind of job. The implementing type *is* the arguments.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// struct SendInvoice { invoice: u64 }
/// impl sluicegate::Job for SendInvoice {
///     const KIND: &'static str = "billing.send-invoice";
///     const QUEUE: &'static str = "mail";
/// }
/// ```
///
/// To run it, implement `Handler` for the same type (feature `worker`).
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// The name of the kind; it must match [`crate::names::PATTERN`].
    const KIND: &'static str;
    /// The queue it waits in unless the caller names another.
    const QUEUE: &'static str = crate::names::DEFAULT_QUEUE;
    /// The version of the arguments that this code writes. Raise it when older code could not read them: an older
    /// worker then parks such a job instead of failing it.
    const VERSION: u32 = 1;
    /// Higher goes first, from -9 to 9.
    const PRIORITY: i8 = 0;

    /// Attempts and the delays between them.
    #[must_use]
    fn retry() -> RetryPolicy {
        RetryPolicy::default()
    }

    /// After this long an attempt is cancelled and counts as failed.
    #[must_use]
    fn timeout() -> Duration {
        Duration::from_secs(300)
    }

    /// After this long since the enqueue the job is too late to be useful, and expires instead of running.
    #[must_use]
    fn expires() -> Option<Duration> {
        None
    }

    /// Whether its callers run it themselves and queue only what fails. Anything but [`Bypass::Never`] promises that the
    /// job is safe to repeat.
    #[must_use]
    fn bypass() -> Bypass {
        Bypass::Never
    }

    /// How long a caller that runs it waits for it, at most 10 s. After that the run is dropped, and it is queued.
    #[must_use]
    fn bypass_deadline() -> Duration {
        BYPASS_DEADLINE
    }
}
