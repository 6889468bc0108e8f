//! Looking at jobs, deciding what becomes of them, and committing that: each move only if its job is still where and what was
//! seen. A job that is held by a lease can be moved by nobody else, and a record that changed has another revision.

use std::time::Duration;

use deadpool_redis::redis::Value;
use serde_json::json;

use super::link::Lane;
use super::record::{Completed, Found, Lease, Stored, Story, read};
use super::scripts::{Args, Script};
use super::value::{Values, damaged, int};
use super::{RedisStore, prefix};
use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::record::Attempt;
use crate::job::{Parked, State};
use crate::names::Tier;
use crate::store::StoreError;

/// Most moves of one script: it stays below 5 ms.
const MAX_MOVES: usize = 100;

/// A job as one moment saw it.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) id: JobId,
    pub(super) found: Option<Found>,
    pub(super) completed: Option<Completed>,
    /// It stands in a list, so it can be claimed.
    pub(super) stands: bool,
    /// Somebody wants it cancelled.
    pub(super) wish: bool,
}

impl Sight {
    pub(super) fn job(&self) -> Option<&Stored> {
        match &self.found {
            Some(Found::Job(job)) => Some(job),
            _ => None,
        }
    }

    /// Where it is.
    pub(super) fn state(&self) -> Option<State> {
        let written = self.job()?.written_state();
        Some(match written {
            State::Available if self.completed.is_some() => State::Completed,
            State::Available if !self.stands => State::Running,
            other => other,
        })
    }
}

/// What a look told.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) now: Timestamp,
    /// The lease that was asked for, without what it holds.
    pub(super) lease: Option<Lease>,
    pub(super) sights: Vec<Sight>,
}

/// Where a job comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Held by a lease; and whether its cancellation was wanted when that was seen.
    Held(Nonce, Option<bool>),
    /// In a list.
    Available,
    /// In none; the sorted set it is in.
    Elsewhere(String),
}

/// Where a job goes.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Due(Timestamp),
    Final,
    /// Done outside of any worker; how long it ran, and whether keys are to be remembered. Its record says available.
    Completed {
        ran: Duration,
        keyed: bool,
    },
    /// With the key under which it can be un-parked by itself.
    Parked(Option<String>),
    Tail,
    /// Back to its place.
    Back,
    /// Among the suspects; see [`Story::turn`].
    Suspect,
}

/// One move.
#[derive(Debug)]
pub(super) struct Move {
    id: JobId,
    prefix: Vec<u8>,
    record: Vec<u8>,
    source: Source,
    target: (&'static str, String),
    expiry: &'static str,
    counts: String,
    unique: String,
    place: bool,
}

impl Move {
    /// A job with a new story, from a state to another. `total` is a counter that rises.
    pub(super) fn new(
        sight: &Sight,
        story: &Story,
        source: Source,
        target: Target,
        from: State,
        total: Option<u8>,
        now: Timestamp,
    ) -> Option<Self> {
        let job = sight.job()?;
        let to = match target {
            Target::Completed { .. } => State::Completed,
            _ => story.state.unwrap_or(State::Available),
        };
        let place = matches!(target, Target::Tail);
        let target = match target {
            Target::Due(at) => ("D", at.ms().to_string()),
            Target::Final => ("E", now.ms().to_string()),
            Target::Completed { ran, keyed } => ("C", format!("{}:{}", ran.as_micros(), u8::from(keyed))),
            Target::Parked(key) => ("P", key.unwrap_or_default()),
            Target::Tail => ("T", String::new()),
            Target::Back => ("B", String::new()),
            Target::Suspect => ("S", story.turn().to_string()),
        };
        Some(Self {
            id: sight.id,
            prefix: job.prefix.clone(),
            record: job.write(story),
            source,
            target,
            expiry: if to.is_final() && job.expires_at.is_some() { "-" } else { "" },
            counts: format!(
                "{}:{}:{}",
                from.code(),
                to.code(),
                total.map_or(String::new(), |code| code.to_string())
            ),
            unique: String::new(),
            place,
        })
    }

    /// It takes its unique key again, if that is still what was seen.
    pub(super) fn holding(mut self, key: &str, expected: &str) -> Self {
        self.unique = json!([key, expected, hex(self.id)]).to_string();
        self
    }
}

/// An id as the entries of `unique` hold it.
pub(super) fn hex(id: JobId) -> String {
    format!("{:032x}", u128::from_be_bytes(*id.as_bytes()))
}

/// The sorted set that a parked job waits in for a worker that can run it; people decide about the others.
pub(super) fn parked_key(sid: u16, story: &Story) -> Option<String> {
    match story.parked? {
        Parked::UnknownKind => Some(format!("parked:unknown:{sid}")),
        Parked::Undecodable => {
            Some(format!("parked:undecodable:{sid}:{}", story.parked_by.as_deref().unwrap_or_default()))
        }
        Parked::Uncertain | Parked::Asked => None,
    }
}

/// Where a job that does not run and is not in a list is kept.
pub(super) fn elsewhere(sid: u16, story: &Story) -> Source {
    Source::Elsewhere(match story.state {
        Some(State::Scheduled | State::Retryable) => "due".into(),
        Some(State::Parked) => parked_key(sid, story).unwrap_or_default(),
        _ => "final".into(),
    })
}

/// Ends a job that nobody holds.
pub(super) fn end_waiting(story: &mut Story, to: State, now: Timestamp) {
    story.tell(Attempt::outside(now, to.as_str(), None));
    (story.state, story.finished_at) = (Some(to), Some(now.ms()));
    (story.parked, story.parked_by) = (None, None);
}

impl RedisStore {
    /// Looks at jobs, and at a lease, as of one moment.
    pub(super) async fn look(
        &self,
        tier: &Tier,
        lease: Option<Nonce>,
        ids: &[JobId],
    ) -> Result<Looked, StoreError> {
        self.look_at(tier, lease, ids, true).await
    }

    /// The same for a sweep: a damaged job is as one that is not there, since it must not hold all others up. Whoever asks for
    /// it is told.
    pub(super) async fn look_past_damage(&self, tier: &Tier, ids: &[JobId]) -> Result<Looked, StoreError> {
        self.look_at(tier, None, ids, false).await
    }

    async fn look_at(
        &self,
        tier: &Tier,
        lease: Option<Nonce>,
        ids: &[JobId],
        strict: bool,
    ) -> Result<Looked, StoreError> {
        let mut args = Args::new().arg(lease.map_or(Vec::new(), |nonce| nonce.as_bytes().to_vec()));
        ids.iter().for_each(|id| args.push(*id.as_bytes()));
        let (op, place) = (Script::Look.op(), self.link.place());
        let answer = self.link.script(Script::Look, &prefix(tier), Lane::Rest, args).await?;
        let mut values = Values::of(answer, op, place)?;
        let now = values.time()?;
        if let Some(identity) = values.bytes()? {
            self.streams.heard(tier, &identity);
        }
        let wrong = |error| damaged(op, place, &error);
        let lease = values.bytes()?.map(|bytes| Lease::read(&bytes)).transpose().map_err(wrong)?;
        let mut sights = Vec::with_capacity(ids.len());
        for id in ids {
            let found = values.bytes()?.map(|bytes| read(&bytes)).transpose();
            let completed = values.bytes()?.map(|bytes| Completed::read(&bytes)).transpose();
            let (found, completed) = match (found, completed) {
                (Ok(found), Ok(completed)) => (found, completed),
                (Err(error), _) | (_, Err(error)) if strict => return Err(wrong(error)),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::debug!(%id, %error, "a job is damaged: it is left as it is");
                    (None, None)
                }
            };
            sights.push(Sight {
                id: *id,
                found,
                completed,
                stands: values.bytes()?.is_some_and(|list| !list.is_empty()),
                wish: values.int()? == 1,
            });
        }
        Ok(Looked { now, lease, sights })
    }

    /// Commits moves; for each whether it was done.
    pub(super) async fn commit(&self, tier: &Tier, moves: Vec<Move>) -> Result<Vec<bool>, StoreError> {
        let mut answers = Vec::with_capacity(moves.len());
        let prefix = prefix(tier);
        let mut moves = moves.into_iter().peekable();
        while moves.peek().is_some() {
            let some: Vec<Move> = moves.by_ref().take(MAX_MOVES).collect();
            let mut args = Args::new().number(some.iter().filter(|one| one.place).count());
            for one in some {
                let (source, key, wish) = match one.source {
                    Source::Held(nonce, wish) => {
                        let wish = wish.map_or("", |wish| if wish { "1" } else { "0" });
                        ("L", nonce.as_bytes().to_vec(), wish)
                    }
                    Source::Available => ("A", Vec::new(), ""),
                    Source::Elsewhere(key) => ("C", key.into_bytes(), ""),
                };
                let (target, score) = one.target;
                for arg in
                    [one.id.as_bytes().to_vec(), one.prefix, one.record, source.into(), key, target.into()]
                {
                    args.push(arg);
                }
                for arg in [score, one.expiry.into(), one.counts, wish.into(), one.unique] {
                    args.push(arg);
                }
            }
            let answer = self.link.script(Script::Commit, &prefix, Lane::Rest, args).await?;
            let mut values = Values::of(answer, Script::Commit.op(), self.link.place())?;
            while let Some(value) = values.next() {
                answers.push(int(&value) == Some(1));
            }
        }
        Ok(answers)
    }

    /// Values of a hash, one for each field.
    pub(super) async fn fields(
        &self,
        op: &'static str,
        key: String,
        fields: &[&str],
    ) -> Result<Vec<Option<String>>, StoreError> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = deadpool_redis::redis::cmd("HMGET");
        command.arg(key);
        fields.iter().for_each(|field| {
            command.arg(*field);
        });
        let answer: Value = self.link.command(op, Lane::Rest, &command).await?;
        let mut values = Values::of(answer, op, self.link.place())?;
        fields.iter().map(|_| values.text()).collect()
    }
}
