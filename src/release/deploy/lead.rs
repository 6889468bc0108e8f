//! Who advances a deploy: one process at a time, by a lease in its record. Every write is a compare-and-set on that record, and
//! every change of the activation is guarded by it, so a process that lost the lease while it stood still changes nothing.

use std::time::{Duration, Instant};

use super::record::{Controller, Deploy, LATEST, Outcome, Read, Step, close, latest, text};
use super::trial::Trial;
use crate::clock::{Timestamp, instant};
use crate::health::tier::TierFacts;
use crate::ids::Nonce;
use crate::names::Tier;
use crate::release::records::{self, Mark, RecordError, ReleaseRecord, ReleaseState};
use crate::store::{Actor, Guard, Put, Space, Store, StoreError, Wake};

/// Its word is renewed so often within a lease.
const RENEWED: u32 = 5;
/// Between two looks at the tier. A wake-up of the store makes it shorter, and never shorter than [`PAUSE`].
const LOOK: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(100);

/// Why this process does not go on.
#[derive(Debug, Clone)]
pub enum Halt {
    /// Another process advances it now.
    Fenced(Box<Deploy>),
    /// The store could not answer.
    Store(StoreError),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What comes after a step.
#[derive(Debug)]
pub(super) enum Next {
    /// The next step; what this one showed.
    Step(Step, String),
    /// The end, and why.
    End(Outcome, String),
}

/// The lease on a deploy.
pub struct Lead<'s> {
    pub(super) store: &'s dyn Store,
    pub(super) deploy: Deploy,
    version: u64,
    me: Controller,
    renewed: Instant,
    /// The store's time at its last answer, and when that was.
    clock: (Timestamp, Instant),
    wake: Option<Box<dyn Wake>>,
    /// What the canaries before the switch showed: the watch after it goes on from there.
    pub(super) trial: Option<Trial>,
    /// Evidence spoke against the release: it is not to be activated again without a word.
    pub(super) guilty: bool,
    /// The end is written down, wherever it belongs.
    closed: bool,
}

impl std::fmt::Debug for Lead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lead").field("deploy", &self.deploy).field("me", &self.me).finish_non_exhaustive()
    }
}

impl<'s> Lead<'s> {
    /// Takes the lead of the tier's deploy, unless there is none, it has ended, or another process leads it.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn take(store: &'s dyn Store, tier: &Tier, name: &str) -> Result<Option<Self>, StoreError> {
        let Some(Read { deploy, version }) = latest(store, tier).await? else { return Ok(None) };
        if deploy.outcome.is_some() {
            return Ok(None);
        }
        let now = store.probe(tier).await?;
        if deploy.is_led(now) {
            return Ok(None);
        }
        let me = Controller {
            name: name.to_owned(),
            nonce: Nonce::new().to_string(),
            until: now.plus(deploy.pace.lease),
        };
        let before = deploy.controller.clone();
        let mut lead = Self {
            store,
            deploy,
            version,
            me,
            renewed: instant(),
            clock: (now, instant()),
            wake: None,
            trial: None,
            guilty: false,
            closed: false,
        };
        if let Some(before) = before {
            lead.deploy.epoch += 1;
            let text =
                format!("taken over by {name}: {} has said nothing since {}", before.name, before.until);
            lead.deploy.note(now, None, text);
        }
        loop {
            match lead.save().await {
                Ok(()) => return Ok(Some(lead)),
                Err(Halt::Fenced(_)) => return Ok(None), // another process was first
                // Perhaps only the answer is lost, and it leads already: given up, nobody could lead for one lease.
                Err(Halt::Store(error))
                    if error.is_transient() && lead.renewed.elapsed() < lead.deploy.pace.lease =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Halt::Store(error)) => return Err(error),
            }
        }
    }

    /// The lead of a deploy that this process has just begun.
    #[must_use]
    pub fn of(store: &'s dyn Store, begun: Read) -> Option<Self> {
        let (deploy, version) = (begun.deploy, begun.version);
        let (me, now) = (deploy.controller.clone()?, deploy.began);
        Some(Self {
            store,
            deploy,
            version,
            me,
            renewed: instant(),
            clock: (now, instant()),
            wake: None,
            trial: None,
            guilty: false,
            closed: false,
        })
    }

    /// The deploy as it was last written.
    #[must_use]
    pub fn deploy(&self) -> &Deploy {
        &self.deploy
    }

    /// What a change of the activation is guarded by.
    pub(super) fn guard(&self) -> Guard {
        Guard { space: Space::Deploy, key: LATEST.to_owned(), version: self.version }
    }

    /// Who acts when this process does something for the deploy.
    pub(super) fn actor(&self, reason: &str) -> Actor {
        let why = format!("deploy {}: {reason}", self.deploy.id);
        Actor { who: self.deploy.by.who.clone(), reason: Some(why) }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.0.plus(self.clock.1.elapsed())
    }

    /// What is left of the time in which it must be decided.
    pub(super) fn left(&self) -> Duration {
        self.deploy.began.plus(self.deploy.wishes.timeout).since(self.now())
    }

    /// Writes it down. Only who was not overtaken can.
    pub(super) async fn save(&mut self) -> Result<(), Halt> {
        loop {
            self.me.until = self.now().plus(self.deploy.pace.lease);
            self.deploy.controller = Some(self.me.clone());
            let value = text(self.store, &self.deploy)?;
            let put = self.store.put(&self.deploy.tier, Space::Deploy, LATEST, self.version, &value, None);
            match put.await? {
                Put::Done(version) => {
                    (self.version, self.renewed) = (version, instant());
                    return Ok(());
                }
                Put::Raced(_) => match latest(self.store, &self.deploy.tier).await? {
                    // A person asked for its end, or an answer to this process was lost: that is no other controller.
                    Some(read) if self.leads(&read.deploy) => {
                        (self.version, self.deploy.abort) = (read.version, read.deploy.abort);
                    }
                    other => {
                        let there = other.map_or_else(|| self.deploy.clone(), |read| read.deploy);
                        return Err(Halt::Fenced(Box::new(there)));
                    }
                },
            }
        }
    }

    fn leads(&self, other: &Deploy) -> bool {
        other.id == self.deploy.id
            && other.controller.as_ref().is_some_and(|controller| controller.nonce == self.me.nonce)
    }

    /// A line of the journal, written down.
    pub(super) async fn say(&mut self, ok: Option<bool>, text: impl Into<String> + Send) -> Result<(), Halt> {
        let now = self.now();
        self.deploy.note(now, ok, text);
        self.save().await
    }

    /// A line that says where it stands, unless the last one says the same.
    pub(super) async fn standing(&mut self, text: String) -> Result<(), Halt> {
        let same = self.deploy.journal.last().is_some_and(|line| line.text == text && line.ok.is_none());
        if same { Ok(()) } else { self.say(None, text).await }
    }

    /// Looks at the tier, and keeps the lease.
    pub(super) async fn look(&mut self) -> Result<TierFacts, Halt> {
        if self.wake.is_none() {
            self.wake = self.store.subscribe(&self.deploy.tier).await.ok();
        }
        let facts = TierFacts::gather(self.store, &self.deploy.tier, Some(&self.deploy.to)).await?;
        self.clock = (facts.now, instant());
        if self.renewed.elapsed() >= self.deploy.pace.lease / RENEWED {
            self.save().await?;
        }
        Ok(facts)
    }

    /// Until it is worth to look again.
    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(PAUSE).await; // wake-ups of a busy tier come without end
        match &mut self.wake {
            Some(wake) => drop(wake.woken(LOOK - PAUSE).await),
            None => tokio::time::sleep(LOOK - PAUSE).await,
        }
    }

    /// The end that a person asked for, before the switch.
    pub(super) fn aborted(&self) -> Option<Next> {
        let by = self.deploy.abort.as_ref()?;
        Some(Next::End(Outcome::Aborted, format!("aborted by {}", by.who)))
    }

    /// Goes to the next step, or to the end.
    pub(super) async fn go(&mut self, next: Next) -> Result<(), Halt> {
        let now = self.now();
        match next {
            Next::Step(step, showed) => {
                self.deploy.note(now, Some(true), showed);
                self.deploy.step = step;
                self.save().await
            }
            Next::End(outcome, why) => {
                self.deploy.note(now, Some(outcome == Outcome::Committed), why.clone());
                (self.deploy.outcome, self.deploy.ended, self.deploy.why) =
                    (Some(outcome), Some(now), Some(why));
                Ok(())
            }
        }
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// How far the release has come, on its own record, if it has one.
    pub(super) async fn mark(&self, state: ReleaseState) -> Result<(), Halt> {
        let (now, guilty, by) =
            (self.deploy.ended.unwrap_or(self.now()), self.guilty, self.deploy.by.clone());
        let why = format!("deploy {}", self.deploy.id);
        let change = |record: &mut ReleaseRecord| {
            record.state = match state {
                // What was proven once stays something to go back to, unless evidence says otherwise.
                ReleaseState::Registered | ReleaseState::Rejected | ReleaseState::RolledBack
                    if record.verified_at.is_some() && !guilty =>
                {
                    ReleaseState::Verified
                }
                state => state,
            };
            if state == ReleaseState::Verified {
                (record.verified_at, record.quarantine) = (Some(now), None);
            }
            if guilty {
                let by = Actor { who: by.who.clone(), reason: Some(why.clone()) };
                record.quarantine = Some(Mark { at: now, by });
            }
        };
        match records::update(self.store, &self.deploy.tier, &self.deploy.to, change).await {
            Ok(_) | Err(RecordError::Unknown { .. }) => Ok(()), // started by others, and never registered
            Err(RecordError::Store(error)) => Err(error.into()),
            Err(other) => {
                tracing::warn!(release = %self.deploy.to, error = %other, "the release's record is left as it is");
                Ok(())
            }
        }
    }

    /// Writes its end down, wherever it belongs. May be done again: the answers of a store get lost.
    pub(super) async fn close(&mut self) -> Result<(), Halt> {
        let state = match self.deploy.outcome {
            None => return Ok(()),
            Some(Outcome::Committed) => ReleaseState::Verified,
            Some(Outcome::Rejected) => ReleaseState::Rejected,
            Some(Outcome::RolledBack | Outcome::RollbackFailed) => ReleaseState::RolledBack,
            // Nothing was found out about it.
            Some(Outcome::Environment | Outcome::Undecided | Outcome::Aborted | Outcome::Superseded) => {
                ReleaseState::Registered
            }
        };
        self.save().await?; // first: from here on nobody else can end it otherwise
        self.mark(state).await?;
        close(self.store, &self.deploy).await?;
        self.closed = true;
        Ok(())
    }
}
