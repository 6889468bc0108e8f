//! Which releases shall run on this host, and how many workers of each: read from the store, decided without it.
//!
//! | release | workers |
//! |---|---|
//! | the active one | N |
//! | that of the running deploy, from `stage` on, and the one it replaces | N |
//! | the way back: the last verified one that is not active | M |
//!
//! N and M stand in one record of the store, which all hosts read: `Space::Control`, key `workers`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::activation::{Activation, Mode};
use crate::names::{Release, Tier};
use crate::release::deploy::record::{self, Deploy, Outcome, Step};
use crate::release::records::{self, Listing, ReleaseRecord};
use crate::store::{Actor, ErrorKind, Put, Space, Store, StoreError, Wake};

/// Most workers of a release on one host.
pub const MOST: u32 = 1_000;
const KEY: &str = "workers";
/// Between two looks; a wake-up makes it shorter, and never shorter than [`PAUSE`]. A deploy that goes on wakes nobody.
const LOOK: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// Workers of a release on each host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of the active release, and of one that is deployed.
    pub workers: u32,
    /// Of the way back.
    pub standby: u32,
}

impl Default for Counts {
    fn default() -> Self {
        Self { workers: 1, standby: 1 }
    }
}

/// What this host was told for itself, whatever the tier says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
    /// In the place of [`Counts::workers`].
    pub workers: Option<u32>,
    /// In the place of [`Counts::standby`].
    pub standby: Option<u32>,
}

impl Own {
    fn over(self, counts: Counts) -> Counts {
        Counts {
            workers: self.workers.unwrap_or(counts.workers),
            standby: self.standby.unwrap_or(counts.standby),
        }
    }
}

/// The counts of a tier; the defaults if nobody set them.
///
/// # Errors
/// When they cannot be read.
pub async fn counts(store: &dyn Store, tier: &Tier) -> Result<Counts, StoreError> {
    Ok(versioned(store, tier).await?.0)
}

async fn versioned(store: &dyn Store, tier: &Tier) -> Result<(Counts, u64), StoreError> {
    let Some(record) = store.record(tier, Space::Control, KEY).await? else {
        return Ok((Counts::default(), 0));
    };
    let counts = serde_json::from_str(&record.value).map_err(|error| {
        let detail = format!("how many workers the tier wants cannot be read: {error}");
        StoreError::new("read", store.about().location, ErrorKind::Corrupt, detail)
            .hint("set it anew: `sluicegate tier set --workers N --standby M`")
    })?;
    Ok((counts, record.version))
}

/// Sets what is given of the counts of a tier; answers what stood before, and what stands now.
///
/// # Errors
/// When the store could not answer.
pub async fn set_counts(
    store: &dyn Store,
    tier: &Tier,
    own: Own,
    by: &Actor,
) -> Result<(Counts, Counts), StoreError> {
    loop {
        let (before, version) = match versioned(store, tier).await {
            // What cannot be read is replaced when all of it is given.
            Err(error)
                if error.kind == ErrorKind::Corrupt && own.workers.is_some() && own.standby.is_some() =>
            {
                let there = store.record(tier, Space::Control, KEY).await?;
                (Counts::default(), there.map_or(0, |record| record.version))
            }
            read => read?,
        };
        let after = own.over(before);
        if after == before && version > 0 {
            return Ok((before, after));
        }
        let value = serde_json::json!(after).to_string();
        if let Put::Done(_) = store.put(tier, Space::Control, KEY, version, &value, None).await? {
            let detail = serde_json::json!({ "from": before, "to": after }).to_string();
            store.append(tier, "tier.workers", by, &detail).await?;
            return Ok((before, after));
        }
    }
}

/// What a release is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is active.
    Active,
    /// It is being deployed.
    Deployed,
    /// It is what a rollback goes to.
    WayBack,
}

impl Role {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deployed => "deployed",
            Self::WayBack => "way back",
        }
    }
}

/// A release that shall run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) role: Role,
    pub(super) workers: u32,
    /// Its record, or why there is none.
    pub(super) record: Result<Arc<ReleaseRecord>, NoRecord>,
}

/// Why a release has no record that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// Others start its workers.
    NotRegistered,
    Unreadable(String),
}

/// What the store wants, as it was last read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) releases: BTreeMap<Release, Wanted>,
    /// Nothing is under way that may still need what is not wanted.
    pub(super) may_stop: bool,
    pub(super) active: Option<Release>,
    /// The store does not answer: all of the above is old. What runs is kept, and nothing is started that could not work.
    pub(super) is_away: bool,
}

/// Pure: how many workers of which release.
fn decide(
    activation: Option<&Activation>,
    listing: &Listing,
    deploy: Option<&Deploy>,
    counts: Counts,
) -> (BTreeMap<Release, (Role, u32)>, bool) {
    let mut wanted = BTreeMap::new();
    let mut want = |release: &Release, role: Role, workers: u32| {
        let (_, most) = wanted.entry(release.clone()).or_insert((role, workers));
        *most = workers.max(*most);
    };
    let active = activation.map(|activation| &activation.release);
    if let Some(active) = active {
        want(active, Role::Active, counts.workers);
    }
    let running = deploy.filter(|deploy| deploy.outcome.is_none());
    if let Some(deploy) = running {
        if deploy.step >= Step::Stage {
            want(&deploy.to, Role::Deployed, counts.workers);
        }
        if let Some(replaced) = deploy.replaced() {
            want(replaced, Role::WayBack, counts.workers); // it did the work until now, and may have to again at once
        }
    }
    if let Some(fallback) = activation.and_then(|activation| activation.fallback.as_ref()) {
        want(fallback, Role::WayBack, counts.standby);
    }
    let verified = || {
        let verified = records::verified(&listing.records);
        verified.into_iter().map(|record| &record.release).find(|release| Some(*release) != active)
    };
    // A release that was activated by hand is verified by nobody, and still the one to go back to.
    let replaced = || {
        let committed = deploy.filter(|deploy| deploy.outcome == Some(Outcome::Committed));
        committed.and_then(Deploy::replaced).filter(|release| Some(*release) != active)
    };
    if let Some(back) = verified().or_else(replaced) {
        want(back, Role::WayBack, counts.standby);
    }
    let provisional = activation.is_some_and(|activation| activation.mode == Mode::Provisional);
    (wanted, running.is_none() && !provisional)
}

/// Reads what is wanted.
async fn look(store: &dyn Store, tier: &Tier, own: Own) -> Result<Wish, StoreError> {
    let counts = own.over(counts(store, tier).await?);
    let deploy = record::latest(store, tier).await?.map(|read| read.deploy);
    let listing = records::list(store, tier).await?;
    // Last: what a deploy or a record of before says of this activation is never too old to keep it.
    let activation = store.activation(tier).await?;
    let (wanted, may_stop) = decide(activation.as_ref(), &listing, deploy.as_ref(), counts);
    let record = |release: &Release| {
        let found = listing.records.iter().find(|record| record.release == *release);
        found.map(|record| Arc::new(record.clone())).ok_or_else(|| {
            let unreadable = listing.unreadable.iter().find(|(key, _)| key == release.as_str());
            unreadable.map_or(NoRecord::NotRegistered, |(_, why)| NoRecord::Unreadable(why.clone()))
        })
    };
    let releases = wanted
        .into_iter()
        .map(|(release, (role, workers))| {
            let record = record(&release);
            (release, Wanted { role, workers, record })
        })
        .collect();
    Ok(Wish { releases, may_stop, active: activation.map(|now| now.release), is_away: false })
}

/// Tells what is wanted whenever it changes, for ever.
pub(super) async fn watch(store: Arc<dyn Store>, tier: Tier, own: Own, told: watch::Sender<Option<Wish>>) {
    let mut wake: Option<Box<dyn Wake>> = None;
    loop {
        if wake.is_none() {
            wake = store.subscribe(&tier).await.ok(); // without it, looks are slower
        }
        match look(&*store, &tier, own).await {
            Ok(wish) => tell(&told, Some(wish)),
            Err(error) => {
                if !told.borrow().as_ref().is_some_and(|wish| wish.is_away) {
                    tracing::warn!(%error, "cannot read what is wanted: what runs is kept as it is");
                }
                let old = told.borrow().clone();
                tell(&told, old.map(|wish| Wish { is_away: true, ..wish }));
            }
        }
        tokio::time::sleep(PAUSE).await; // wake-ups of a busy tier come without end
        match &mut wake {
            Some(wake) => drop(wake.woken(LOOK - PAUSE).await),
            None => tokio::time::sleep(LOOK - PAUSE).await,
        }
    }
}

fn tell(told: &watch::Sender<Option<Wish>>, wish: Option<Wish>) {
    told.send_if_modified(|there| {
        let changed = *there != wish;
        if changed {
            *there = wish;
        }
        changed
    });
}
