//! What a supervisor tells of itself: one record per host (`Space::Deploy`, key `supervisor/HOST`), and a line in the ledger
//! for each release that it could not start. On a task of its own: the processes do not wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::wanted::Role;
use crate::clock::Timestamp;
use crate::health::tier::ledger_tail;
use crate::names::{Release, Tier};
use crate::store::{Actor, MAX_BATCH, Space, Store, StoreError, overwrite};

const PREFIX: &str = "supervisor/";
/// It is told again so often, though nothing changed.
const EVERY: Duration = Duration::from_secs(15);
/// Who said nothing for so long is gone.
const GONE: Duration = Duration::from_secs(45);
/// Kept for longer than it is believed: what was refused before a restart is not told twice.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Between tries while the store is away.
const AGAIN: Duration = Duration::from_secs(1);

/// One supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its host.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// What it keeps, by release.
    pub releases: BTreeMap<Release, Running>,
}

/// How a release stands on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    /// What it is wanted for; `None`: for nothing any more.
    pub role: Option<Role>,
    /// How many workers are wanted.
    pub wanted: u32,
    /// How many run.
    pub up: u32,
    /// How many were told to stop.
    pub stopping: u32,
    /// Why none can be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
    /// How one that waits for its next start ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// Why a release cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// For programs: `DAMAGED`, `NOT_ON_SHELF`, `NOT_REGISTERED`, `RECORD_UNREADABLE`, `SHELF_UNREADABLE`, `CANNOT_START`.
    pub code: String,
    /// For people.
    pub why: String,
}

/// The supervisors of a tier, by host, and whether each was heard of lately.
///
/// # Errors
/// When the store cannot answer.
pub async fn supervisors(store: &dyn Store, tier: &Tier) -> Result<Vec<(Report, bool)>, StoreError> {
    let now = store.census(tier).await?.now;
    let mut found = Vec::new();
    let mut after = PREFIX.to_owned();
    loop {
        let page = store.records(tier, Space::Deploy, Some(&after), MAX_BATCH).await?;
        for record in &page {
            let Some(host) = record.key.strip_prefix(PREFIX) else { return Ok(found) };
            match serde_json::from_str::<Report>(&record.value) {
                Ok(report) => found.push((report, is_fresh(record.at, now))),
                Err(error) => tracing::warn!(host, %error, "cannot read what a supervisor says"),
            }
        }
        match page.last() {
            Some(last) if page.len() == MAX_BATCH => after.clone_from(&last.key),
            _ => return Ok(found),
        }
    }
}

fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) <= GONE
}

/// How far back the ledger is asked whether something was told.
const LOOK_BACK: u64 = 500;

/// Tells of what is reported, for ever.
pub(super) async fn tell(store: Arc<dyn Store>, tier: Tier, mut reports: watch::Receiver<Report>) {
    loop {
        let report = reports.borrow_and_update().clone();
        let pause = match say(&*store, &tier, &report).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::debug!(%error, "the store does not hear of this supervisor");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        if let Ok(Err(_)) = tokio::time::timeout(pause, reports.changed()).await {
            return; // nobody reports any more
        }
    }
}

async fn say(store: &dyn Store, tier: &Tier, report: &Report) -> Result<(), StoreError> {
    let key = format!("{PREFIX}{}", report.host);
    let before = store.record(tier, Space::Deploy, &key).await?;
    let before: Option<Report> = before.and_then(|record| serde_json::from_str(&record.value).ok());
    for (release, running) in &report.releases {
        let Some(blocked) = &running.blocked else { continue };
        let told = before.as_ref().and_then(|before| before.releases.get(release)?.blocked.as_ref());
        // Workers of a release that nobody registered are somebody else's, which is nothing to tell.
        if told.is_some_and(|told| told.code == blocked.code) || blocked.code == "NOT_REGISTERED" {
            continue;
        }
        let by = Actor { who: format!("supervise/{}", report.host), reason: Some(blocked.why.clone()) };
        let detail =
            serde_json::json!({ "release": release, "host": report.host, "code": blocked.code }).to_string();
        // A supervisor that has just come has not looked yet, so its first report says less than the last one of the one before it.
        let tail = ledger_tail(store, tier, LOOK_BACK).await?;
        let last = tail.iter().rfind(|entry| entry.event == "release.not_started" && entry.by.who == by.who);
        if last.is_some_and(|entry| entry.detail == detail) {
            continue;
        }
        store.append(tier, "release.not_started", &by, &detail).await?;
    }
    let value = serde_json::json!(report).to_string();
    overwrite(store, tier, Space::Deploy, &key, &value, Some(KEEP)).await.map(drop)
}

/// Says goodbye: this host keeps nothing any more.
pub(super) async fn leave(store: &dyn Store, tier: &Tier, host: &str) -> Result<(), StoreError> {
    overwrite(store, tier, Space::Deploy, &format!("{PREFIX}{host}"), "", None).await.map(drop)
}
