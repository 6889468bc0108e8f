//! The states of a job and every legal move between them, in one table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a job is. It is in exactly one state from its acknowledged insert until its retention ends or it is purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Waiting in a ready list: any active worker may claim it now.
    Available = 0,
    /// Held by a worker under a lease.
    Running = 1,
    /// Waiting for its first time.
    Scheduled = 2,
    /// Failed, waiting for its next attempt.
    Retryable = 3,
    /// Waiting for a capable release, a recovered dependency or a decision; costs no attempt.
    Parked = 4,
    /// Done.
    Completed = 5,
    /// No attempts left, or given up by its handler, or quarantined after crashes.
    Dead = 6,
    /// Called off by a person or a program.
    Cancelled = 7,
    /// Too late to be useful; never ran, or never finished in time.
    Expired = 8,
}

impl State {
    /// All states, in the order in which people read them.
    pub const ALL: [Self; 9] = [
        Self::Available,
        Self::Running,
        Self::Scheduled,
        Self::Retryable,
        Self::Parked,
        Self::Completed,
        Self::Dead,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The stored code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// From the stored code.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| i64::from(state.code()) == code)
    }

    /// Ended: it will not run again unless a person says so.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Dead | Self::Cancelled | Self::Expired)
    }

    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Running => "running",
            Self::Scheduled => "scheduled",
            Self::Retryable => "retryable",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|state| state.as_str()).collect();
            format!(
                "`{}` is not a job state: expected one of {}",
                crate::names::shown(text),
                names.join(", ")
            )
        })
    }
}

/// What can happen to a job that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its time came, or a release that can run it is present.
    Promote,
    /// A worker took it under a lease.
    Claim,
    /// The worker says it is done.
    Complete,
    /// The attempt failed and there is another.
    FailRetry,
    /// The attempt failed for good, or the handler gave up.
    FailDead,
    /// The handler asks to be called later; costs no attempt.
    Snooze,
    /// The worker cannot run it now; costs no attempt.
    Park,
    /// The worker gives it back unrun, or unfinished at a stop.
    Return,
    /// Its lease ran out: the worker is lost.
    Rescue,
    /// It crashed too many workers.
    Quarantine,
    /// It is too late to be useful.
    Expire,
    /// A person or program calls it off.
    Cancel,
    /// A person or program wants it to run now.
    RunNow,
    /// Its caller ran it, and it is done.
    RanInline,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 14] = [
        Self::Promote,
        Self::Claim,
        Self::Complete,
        Self::FailRetry,
        Self::FailDead,
        Self::Snooze,
        Self::Park,
        Self::Return,
        Self::Rescue,
        Self::Quarantine,
        Self::Expire,
        Self::Cancel,
        Self::RunNow,
        Self::RanInline,
    ];
}

/// A move that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} cannot be changed by {event:?}")]
pub struct IllegalMove {
    /// The state it is in.
    pub from: State,
    /// What was tried.
    pub event: Event,
}

/// The one table: where an event takes a job.
///
/// # Errors
/// When the move is not legal.
pub const fn next(from: State, event: Event) -> Result<State, IllegalMove> {
    use Event as E;
    use State as S;
    Ok(match (from, event) {
        (S::Scheduled | S::Retryable | S::Parked, E::Promote | E::RunNow) => S::Available,
        (S::Available, E::Claim) => S::Running,
        (S::Running, E::Complete) => S::Completed,
        (S::Running, E::FailRetry) => S::Retryable,
        (S::Running, E::FailDead | E::Quarantine) => S::Dead,
        (S::Running, E::Snooze) => S::Scheduled,
        (S::Running, E::Park) => S::Parked,
        (S::Running, E::Return | E::Rescue) => S::Available,
        (S::Running | S::Available | S::Scheduled | S::Retryable | S::Parked, E::Expire) => S::Expired,
        (S::Running | S::Available | S::Scheduled | S::Retryable | S::Parked, E::Cancel) => S::Cancelled,
        (S::Available | S::Scheduled | S::Retryable | S::Parked, E::RanInline) => S::Completed,
        (S::Dead | S::Cancelled | S::Expired, E::RunNow) => S::Available,
        _ => return Err(IllegalMove { from, event }),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn codes_and_names_round_trip() {
        for state in State::ALL {
            assert_eq!(State::from_code(i64::from(state.code())), Some(state));
            assert_eq!(state.as_str().parse::<State>().unwrap(), state);
        }
        assert!("lost".parse::<State>().unwrap_err().contains("available"));
    }

    #[test]
    fn only_a_person_brings_an_ended_job_back_and_a_completed_one_never() {
        for state in State::ALL.into_iter().filter(|state| state.is_final()) {
            for event in Event::ALL {
                let moved = next(state, event);
                if event == Event::RunNow && state != State::Completed {
                    assert_eq!(moved, Ok(State::Available));
                } else {
                    assert!(moved.is_err(), "{state} {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_job_runs_only_by_being_claimed() {
        for state in State::ALL {
            for event in Event::ALL {
                if next(state, event) == Ok(State::Running) {
                    assert_eq!((state, event), (State::Available, Event::Claim));
                }
            }
        }
    }
}
