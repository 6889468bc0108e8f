//! What the store knows of releases: one versioned record each, below its tier. Hosts come and go; this is what deploys,
//! rollbacks and gates agree on.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::description::Description;
use crate::clock::Timestamp;
use crate::names::{Release, Tier, shown};
use crate::store::{Actor, ErrorKind, MAX_BATCH, Put, Record, Space, Store, StoreError};

/// The version of records that this program reads and writes.
pub const FORMAT: u32 = 1;
/// Characters of a digest that people are shown, and that name a release which nobody named.
pub const SHORT: usize = 12;
/// A record that others change so often is not ours to change.
const TRIES: u32 = 8;

/// How far a release has come in its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// Known, and nothing more.
    Registered,
    /// Its workers are up, inactive, and what was registered.
    Standby,
    /// Canary jobs have passed on every one of them.
    CanaryPassed,
    /// Active, until it is confirmed or reverts.
    Provisional,
    /// It was committed with evidence: something to go back to.
    Verified,
    /// It failed before it was activated.
    Rejected,
    /// It failed after that.
    RolledBack,
}

impl ReleaseState {
    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Standby => "standby",
            Self::CanaryPassed => "canary_passed",
            Self::Provisional => "provisional",
            Self::Verified => "verified",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Whether it failed the last time it was tried.
    #[must_use]
    pub const fn has_failed(self) -> bool {
        matches!(self, Self::Rejected | Self::RolledBack)
    }

    /// Whether a deploy of it is under way.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Standby | Self::CanaryPassed | Self::Provisional)
    }
}

impl std::fmt::Display for ReleaseState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who did something to a release, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When (store time).
    pub at: Timestamp,
    /// Who, and why.
    #[serde(flatten)]
    pub by: Actor,
}

/// One release of a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// The version of this format: [`FORMAT`].
    pub format: u32,
    /// Its name.
    pub release: Release,
    /// The digest of its manifest: what makes two releases the same.
    pub digest: String,
    /// SHA-256 of its program: what a worker of it must say of itself.
    #[serde(default)]
    pub program: Option<String>,
    /// SHA-256 of its part of the configuration.
    #[serde(default)]
    pub config: Option<String>,
    /// SHA-256 of its activation hook.
    #[serde(default)]
    pub hook: Option<String>,
    /// What it runs.
    pub description: Description,
    /// How far it has come.
    pub state: ReleaseState,
    /// When it was last committed with evidence (store time). The newest one of a tier is its stable release.
    #[serde(default)]
    pub verified_at: Option<Timestamp>,
    /// Never pruned, if somebody pinned it.
    #[serde(default)]
    pub pinned: Option<Mark>,
    /// Not to be activated again without a word, if it failed.
    #[serde(default)]
    pub quarantine: Option<Mark>,
    /// When and by whom; `None` until its line is in the ledger.
    #[serde(default)]
    pub registered: Option<Mark>,
    /// What newer versions wrote: kept as it is.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl ReleaseRecord {
    /// A release that nobody has registered yet.
    #[must_use]
    pub fn new(release: Release, digest: String, description: Description) -> Self {
        Self {
            format: FORMAT,
            release,
            digest,
            program: None,
            config: None,
            hook: None,
            description,
            state: ReleaseState::Registered,
            verified_at: None,
            pinned: None,
            quarantine: None,
            registered: None,
            more: serde_json::Map::new(),
        }
    }
}

/// The part of a digest that people are shown.
#[must_use]
pub fn short(digest: &str) -> &str {
    digest.get(..SHORT).unwrap_or(digest)
}

/// Why a record could not be had or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Nobody registered it.
    #[error("release `{release}` is not registered in tier `{tier}`")]
    Unknown {
        /// Which.
        release: Release,
        /// Where.
        tier: Tier,
    },
    /// The name belongs to other content.
    #[error("release `{}` is registered already, with other content: its digest is {}, not {}", .there.release, short(&.there.digest), short(.digest))]
    Conflict {
        /// What is there.
        there: Box<ReleaseRecord>,
        /// The digest that was to be registered.
        digest: String,
    },
    /// A newer version wrote it, or it is damaged.
    #[error("the record of release `{release}` cannot be read: {why}")]
    Unreadable {
        /// Which.
        release: String,
        /// Why.
        why: String,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The records of a tier.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// By name.
    pub records: Vec<ReleaseRecord>,
    /// Those that this version cannot read, with the reason: nothing may be decided about them.
    pub unreadable: Vec<(String, String)>,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// What is there now.
    pub record: ReleaseRecord,
    /// Whether this call put it there.
    pub is_new: bool,
}

fn parse(record: &Record) -> Result<ReleaseRecord, RecordError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let unreadable = |why: String| RecordError::Unreadable { release: shown(&record.key), why };
    let version: Version =
        serde_json::from_str(&record.value).map_err(|error| unreadable(error.to_string()))?;
    if version.format != FORMAT {
        return Err(unreadable(format!("its format is {}, this program reads {FORMAT}", version.format)));
    }
    serde_json::from_str(&record.value).map_err(|error| unreadable(error.to_string()))
}

fn text(store: &dyn Store, record: &ReleaseRecord) -> Result<String, StoreError> {
    serde_json::to_string(record)
        .map_err(|error| StoreError::new("write", store.about().location, ErrorKind::Refused, error))
}

/// One record.
///
/// # Errors
/// When it cannot be read, or the store cannot answer.
pub async fn read(
    store: &dyn Store,
    tier: &Tier,
    release: &Release,
) -> Result<Option<ReleaseRecord>, RecordError> {
    store.record(tier, Space::Release, release.as_str()).await?.as_ref().map(parse).transpose()
}

/// All records of a tier.
///
/// # Errors
/// When the store cannot answer.
pub async fn list(store: &dyn Store, tier: &Tier) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let mut after: Option<String> = None;
    loop {
        let page = store.records(tier, Space::Release, after.as_deref(), MAX_BATCH).await?;
        for record in &page {
            match parse(record) {
                Ok(read) => listing.records.push(read),
                Err(RecordError::Unreadable { why, .. }) => {
                    listing.unreadable.push((record.key.clone(), why))
                }
                Err(error) => listing.unreadable.push((record.key.clone(), error.to_string())),
            }
        }
        after = page.last().map(|last| last.key.clone()).or(after);
        if page.len() < MAX_BATCH {
            return Ok(listing);
        }
    }
}

/// Changes a record, however often others do so meanwhile: `change` is called again with what is there then. A change that
/// changes nothing writes nothing. Answers the record before and after.
///
/// # Errors
/// When there is none, when it cannot be read, or the store cannot answer.
pub async fn update(
    store: &dyn Store,
    tier: &Tier,
    release: &Release,
    mut change: impl FnMut(&mut ReleaseRecord),
) -> Result<(ReleaseRecord, ReleaseRecord), RecordError> {
    let key = release.as_str();
    let mut there = store.record(tier, Space::Release, key).await?;
    for _ in 0..TRIES {
        let Some(record) = &there else {
            return Err(RecordError::Unknown { release: release.clone(), tier: tier.clone() });
        };
        let before = parse(record)?;
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok((before, after));
        }
        let value = text(store, &after)?;
        match store.put(tier, Space::Release, key, record.version, &value, None).await? {
            Put::Done(_) => return Ok((before, after)),
            Put::Raced(now) => there = now,
        }
    }
    let detail = format!("the record of release `{release}` was changed by others again and again");
    let error = StoreError::new("write", store.about().location, ErrorKind::Unavailable, detail);
    Err(error.hint("try again").into())
}

/// Registers a release; the same content again changes nothing. Its line in the ledger is written at least once: a process
/// that died between record and line is made up for by the next one that registers the same.
///
/// # Errors
/// When the name belongs to other content, or the store cannot answer.
pub async fn register(
    store: &dyn Store,
    tier: &Tier,
    record: ReleaseRecord,
    by: &Actor,
) -> Result<Registered, RecordError> {
    let release = record.release.clone();
    let value = text(store, &record)?;
    let (there, is_new) = match store.put(tier, Space::Release, release.as_str(), 0, &value, None).await? {
        Put::Done(_) => (record, true),
        Put::Raced(Some(there)) => {
            let there = parse(&there)?;
            if there.digest != record.digest {
                return Err(RecordError::Conflict { there: Box::new(there), digest: record.digest });
            }
            (there, false)
        }
        Put::Raced(None) => {
            let detail = format!("the record of release `{release}` came and went");
            let error = StoreError::new("write", store.about().location, ErrorKind::Unavailable, detail);
            return Err(error.hint("try again").into());
        }
    };
    if there.registered.is_some() {
        return Ok(Registered { record: there, is_new });
    }
    let at = store.probe(tier).await?;
    let detail =
        json!({ "release": release, "digest": there.digest, "kinds": there.description.kinds.len() });
    store.append(tier, "release.registered", by, &detail.to_string()).await?;
    let mark = Mark { at, by: by.clone() };
    let (_, record) = update(store, tier, &release, |record| {
        record.registered.get_or_insert_with(|| mark.clone());
    })
    .await?;
    Ok(Registered { record, is_new })
}

/// Pins a release, so that no prune takes it, or unpins it (`false`). Answers whether that changed anything.
///
/// # Errors
/// When nobody registered it, or the store cannot answer.
pub async fn pin(
    store: &dyn Store,
    tier: &Tier,
    release: &Release,
    pinned: bool,
    by: &Actor,
) -> Result<bool, RecordError> {
    let at = store.probe(tier).await?;
    let mark = Mark { at, by: by.clone() };
    let (before, after) = update(store, tier, release, |record| match (pinned, &record.pinned) {
        (true, None) => record.pinned = Some(mark.clone()),
        (false, Some(_)) => record.pinned = None,
        _ => {}
    })
    .await?;
    let changed = before != after;
    if changed {
        let event = if pinned { "release.pinned" } else { "release.unpinned" };
        store.append(tier, event, by, &json!({ "release": release }).to_string()).await?;
    }
    Ok(changed)
}

/// The releases of a tier that were verified, and did not fail since, newest first: what can be gone back to.
#[must_use]
pub fn verified(records: &[ReleaseRecord]) -> Vec<&ReleaseRecord> {
    let mut verified: Vec<&ReleaseRecord> = records
        .iter()
        .filter(|record| {
            record.verified_at.is_some() && record.quarantine.is_none() && !record.state.has_failed()
        })
        .collect();
    verified.sort_by_key(|record| std::cmp::Reverse(record.verified_at));
    verified
}
