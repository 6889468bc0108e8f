//! A deploy as it stands in the store: one versioned record, which is its state, its journal and its lock at once.
//!
//! | key in `Space::Deploy` | what it holds |
//! |---|---|
//! | `latest` | the last [`Deploy`] of the tier, running or ended; while it runs, its version is the lock |
//! | its id | the same, once it has ended |

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::clock::{Timestamp, human};
use crate::health::tier::ledger_tail;
use crate::names::{Kind, Release, Tier};
use crate::store::{Actor, ErrorKind, Put, Space, Store, StoreError};

/// Where the running deploy is, or the last one.
pub(super) const LATEST: &str = "latest";
/// Lines of the journal that are kept; what comes later replaces the last but one.
const LINES: usize = 200;
/// The line of the ledger that tells of an end.
const ENDED: &str = "deploy.ended";
/// Lines of the ledger in which it is looked for: those since it ended.
const LOOK_BACK: u64 = 500;
/// So often a begin or an abort is tried whose answer was lost, with this between.
pub(super) const TRIES: u32 = 5;
pub(super) const AGAIN: Duration = Duration::from_millis(200);
/// Between two looks for what a living leader is about to write.
const SOON: Duration = Duration::from_millis(20);

/// The steps, in order. Each is entered with a line in the journal, and left with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// What changes, and whether it may.
    Plan,
    /// Workers of the release come up, inactive.
    Stage,
    /// They and the way back are proven.
    Preflight,
    /// Jobs that prove each kind run on each of them.
    Canary,
    /// The switch, provisional.
    Activate,
    /// Watched while it works.
    Verify,
    /// It stands.
    Commit,
    /// The old one stays warm.
    Retain,
}

impl Step {
    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Stage => "stage",
            Self::Preflight => "preflight",
            Self::Canary => "canary",
            Self::Activate => "activate",
            Self::Verify => "verify",
            Self::Commit => "commit",
            Self::Retain => "retain",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The release is active and stands.
    Committed,
    /// Refused before the switch: nothing was changed.
    Rejected,
    /// The former release is active again, and works.
    RolledBack,
    /// The former release was to be active again, and nobody saw it work.
    RollbackFailed,
    /// Both releases fail in the same way: held, the switch stands.
    Environment,
    /// Not enough evidence at the end, and held as asked: the switch stands, and nobody calls the release good.
    Undecided,
    /// Ended by a person before the switch.
    Aborted,
    /// Somebody else switched the tier.
    Superseded,
}

impl Outcome {
    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled back",
            Self::RollbackFailed => "rollback failed",
            Self::Environment => "held: environment",
            Self::Undecided => "held: undecided",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
        }
    }
}

/// How long silence may last. Whoever takes a deploy over goes by what it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// For how long nobody else may advance it, since its leader's last word.
    #[serde(with = "crate::clock::secs")]
    pub lease: Duration,
    /// A provisional activation reverts when nobody has extended it for so long.
    #[serde(with = "crate::clock::secs")]
    pub confirm: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { lease: Duration::from_secs(10), confirm: Duration::from_secs(30) }
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Workers of the release that must be there; `None`: those that come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// How long it is watched after the switch.
    #[serde(with = "crate::clock::secs")]
    pub verify: Duration,
    /// All of it must be decided within this.
    #[serde(with = "crate::clock::secs")]
    pub timeout: Duration,
    /// There is no way back, and that is right: the first release of a tier.
    #[serde(default)]
    pub first: bool,
    /// Kinds that need no proof, and why.
    #[serde(default)]
    pub waived: BTreeMap<Kind, String>,
    /// Also when evidence spoke against the release before.
    #[serde(default)]
    pub again: bool,
    /// Without enough evidence at the end it stands, instead of being reverted.
    #[serde(default)]
    pub hold_undecided: bool,
}

/// Who advances it, and until when nobody else may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// `cli/ada@host` or `supervise/host`.
    pub name: String,
    /// This very process.
    pub nonce: String,
    /// Its lease (store time).
    pub until: Timestamp,
}

/// That the former release is to be active again: written down before it is done, so that whoever takes over does the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Back {
    /// Why.
    pub why: String,
    /// Evidence spoke against the release.
    pub guilty: bool,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts from 1, so that a watcher knows what it has seen.
    pub seq: u64,
    /// Store time.
    pub at: Timestamp,
    /// The step.
    pub step: Step,
    /// `None`: it begins, or goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// In words.
    pub text: String,
}

/// A deploy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    /// `d-118`.
    pub id: String,
    /// Rises whenever another process takes it over.
    pub epoch: u64,
    /// Its tier.
    pub tier: Tier,
    /// The activation when it was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Activation>,
    /// The release that is to be active.
    pub to: Release,
    /// What was agreed to.
    pub plan: String,
    /// What was asked for.
    pub wishes: Wishes,
    /// How long silence may last.
    #[serde(default)]
    pub pace: Pace,
    /// Who began it, and why.
    pub by: Actor,
    /// Where it is.
    pub step: Step,
    /// Who advances it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<Controller>,
    /// The activation that it installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<Activation>,
    /// It goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<Back>,
    /// A person wants it to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Actor>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it began (store time).
    pub began: Timestamp,
    /// When it ended (store time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// From the decision to go back to the first job that the former release settled after it.
    #[serde(default, with = "crate::clock::secs::option", skip_serializing_if = "Option::is_none")]
    pub back_after: Option<Duration>,
    /// What happened.
    pub journal: Vec<Line>,
}

impl Deploy {
    /// The release that it replaces.
    #[must_use]
    pub fn replaced(&self) -> Option<&Release> {
        self.from.as_ref().map(|from| &from.release)
    }

    /// Whether somebody advances it at this time.
    #[must_use]
    pub fn is_led(&self, now: Timestamp) -> bool {
        self.controller.as_ref().is_some_and(|controller| controller.until > now)
    }

    /// The same at another pace, before it is begun.
    #[must_use]
    pub fn at(mut self, pace: Pace) -> Self {
        self.pace = pace;
        if let Some(controller) = &mut self.controller {
            controller.until = self.began.plus(pace.lease);
        }
        self
    }

    /// Adds a line.
    pub fn note(&mut self, at: Timestamp, ok: Option<bool>, text: impl Into<String>) {
        let seq = self.journal.last().map_or(1, |line| line.seq + 1);
        if self.journal.len() >= LINES {
            self.journal.remove(LINES - 2);
        }
        self.journal.push(Line { seq, at, step: self.step, ok, text: text.into() });
    }

    /// Whose number it is.
    fn number(&self) -> u64 {
        self.id.strip_prefix("d-").and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

/// A deploy as it was read, with the version that it had.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The deploy.
    pub deploy: Deploy,
    /// The version of its record, which is its lock.
    pub version: u64,
}

fn parse(store: &dyn Store, key: &str, value: &str) -> Result<Deploy, StoreError> {
    serde_json::from_str(value).map_err(|error| {
        let detail = format!("the record of deploy `{key}` cannot be read: {error}");
        StoreError::new("read a deploy", store.about().location, ErrorKind::Corrupt, detail)
    })
}

pub(super) fn text(store: &dyn Store, deploy: &Deploy) -> Result<String, StoreError> {
    serde_json::to_string(deploy)
        .map_err(|error| StoreError::new("write a deploy", store.about().location, ErrorKind::Refused, error))
}

/// The running deploy of a tier, or the last one.
///
/// # Errors
/// When the store cannot be read.
pub async fn latest(store: &dyn Store, tier: &Tier) -> Result<Option<Read>, StoreError> {
    let Some(record) = store.record(tier, Space::Deploy, LATEST).await? else { return Ok(None) };
    Ok(Some(Read { deploy: parse(store, LATEST, &record.value)?, version: record.version }))
}

/// A deploy by its id.
///
/// # Errors
/// When the store cannot be read.
pub async fn find(store: &dyn Store, tier: &Tier, id: &str) -> Result<Option<Deploy>, StoreError> {
    if let Some(read) = latest(store, tier).await?.filter(|read| read.deploy.id == id) {
        return Ok(Some(read.deploy));
    }
    let record = store.record(tier, Space::Deploy, id).await?;
    record.map(|record| parse(store, id, &record.value)).transpose()
}

/// Every deploy that is kept, newest first, and at most so many.
///
/// # Errors
/// When the store cannot be read.
pub async fn list(store: &dyn Store, tier: &Tier, most: usize) -> Result<Vec<Deploy>, StoreError> {
    let mut all: Vec<Deploy> = latest(store, tier).await?.into_iter().map(|read| read.deploy).collect();
    let mut after: Option<String> = None;
    loop {
        let page = store.records(tier, Space::Deploy, after.as_deref(), crate::store::MAX_BATCH).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        for record in page.iter().filter(|record| record.key.starts_with("d-")) {
            all.push(parse(store, &record.key, &record.value)?);
        }
    }
    all.sort_by_key(|deploy| std::cmp::Reverse(deploy.number()));
    all.dedup_by(|a, b| a.id == b.id);
    all.truncate(most);
    Ok(all)
}

/// The answer to a begin.
#[derive(Debug)]
pub enum Begun {
    /// It is the tier's deploy now.
    Now(Read),
    /// Another one is not over.
    Busy(Deploy),
}

/// Puts a deploy in the place of the last one, if that has ended; its id follows that one's.
///
/// # Errors
/// When the store could not answer.
pub async fn begin(store: &dyn Store, deploy: Deploy) -> Result<Begun, StoreError> {
    let mut tries = 0;
    loop {
        match try_begin(store, deploy.clone()).await {
            // It may have begun: given up, nobody could lead for one lease.
            Err(error) if error.is_transient() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(AGAIN).await;
            }
            begun => return begun,
        }
    }
}

async fn try_begin(store: &dyn Store, mut deploy: Deploy) -> Result<Begun, StoreError> {
    let tier = deploy.tier.clone();
    let before = latest(store, &tier).await?;
    if let Some(read) = &before {
        if read.deploy.outcome.is_none() {
            deploy.id.clone_from(&read.deploy.id);
            return Ok(match read.deploy == deploy {
                true => Begun::Now(read.clone()), // the answer to an earlier try was lost
                false => Begun::Busy(read.deploy.clone()),
            });
        }
        make_up_for(store, &read.deploy).await?;
    }
    deploy.id = format!("d-{}", before.as_ref().map_or(0, |read| read.deploy.number()) + 1);
    let version = before.map_or(0, |read| read.version);
    let value = text(store, &deploy)?;
    match store.put(&tier, Space::Deploy, LATEST, version, &value, None).await? {
        Put::Done(version) => Ok(Begun::Now(Read { deploy, version })),
        Put::Raced(Some(there)) => Ok(Begun::Busy(parse(store, LATEST, &there.value)?)),
        Put::Raced(None) => {
            let detail = "the record of the last deploy vanished";
            Err(StoreError::new("begin a deploy", store.about().location, ErrorKind::Corrupt, detail))
        }
    }
}

/// Keeps an ended deploy under its id, and tells the ledger of its end.
///
/// # Errors
/// When the store could not answer.
pub(super) async fn close(store: &dyn Store, deploy: &Deploy) -> Result<(), StoreError> {
    if !is_told(store, deploy).await? {
        tell(store, deploy).await?;
    }
    keep(store, deploy).await
}

/// Does the same for one whose leader was killed after its last word. One that lives does it itself, and is waited for.
async fn make_up_for(store: &dyn Store, deploy: &Deploy) -> Result<(), StoreError> {
    while !is_told(store, deploy).await? {
        if !deploy.is_led(store.probe(&deploy.tier).await?) {
            tell(store, deploy).await?;
            break;
        }
        tokio::time::sleep(SOON).await;
    }
    keep(store, deploy).await
}

async fn keep(store: &dyn Store, deploy: &Deploy) -> Result<(), StoreError> {
    let value = text(store, deploy)?;
    match store.put(&deploy.tier, Space::Deploy, &deploy.id, 0, &value, None).await? {
        Put::Done(_) | Put::Raced(_) => Ok(()), // raced: it is kept already
    }
}

async fn is_told(store: &dyn Store, deploy: &Deploy) -> Result<bool, StoreError> {
    let lines = ledger_tail(store, &deploy.tier, LOOK_BACK).await?;
    Ok(lines.iter().any(|line| line.event == ENDED && is_of(&line.detail, &deploy.id)))
}

async fn tell(store: &dyn Store, deploy: &Deploy) -> Result<(), StoreError> {
    let took = deploy.ended.map(|at| human(at.since(deploy.began)));
    let detail = serde_json::json!({
        "deploy": deploy.id, "from": deploy.replaced(), "to": deploy.to,
        "outcome": deploy.outcome, "why": deploy.why, "took": took,
    });
    store.append(&deploy.tier, ENDED, &deploy.by, &detail.to_string()).await?;
    Ok(())
}

/// Whether a line of the ledger is about this deploy.
fn is_of(detail: &str, id: &str) -> bool {
    let detail: Result<serde_json::Value, _> = serde_json::from_str(detail);
    detail.is_ok_and(|detail| detail.get("deploy").is_some_and(|of| of == id))
}
