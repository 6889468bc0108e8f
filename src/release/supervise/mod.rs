//! Keeps a host's worker processes as the store wants them, and goes on with deploys that nobody leads.
//!
//! - `wanted`: which releases, and how many workers of each
//! - `keeper`: starts, restarts and stops them; `process`: one of them; `log`: what they write
//! - `report`: what this host tells of them
//!
//! Workers outlive their supervisor, so that a new one is no outage: it finds them by the locks that they hold, and takes them
//! over as they are.

mod keeper;
mod log;
mod process;
pub mod report;
pub mod wanted;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::keeper::Keeper;
use self::process::{Held, Place};
use self::report::Report;
use self::wanted::Own;
use super::Shelf;
use super::deploy::advance;
use super::deploy::lead::{Halt, Lead};
use crate::clock::instant;
use crate::location;
use crate::names::Tier;
use crate::store::Store;

/// Between two looks for a deploy that nobody leads.
const LOOK: Duration = Duration::from_secs(1);
/// A goodbye to a store that is away takes no longer.
const GOODBYE: Duration = Duration::from_secs(2);

/// Where and how.
#[derive(Debug)]
pub struct Options {
    /// The tier.
    pub tier: Tier,
    /// The releases of this host.
    pub shelf: Shelf,
    /// Where locks and logs are.
    pub data: PathBuf,
    /// What each worker is told of this host, as environment variables.
    pub variables: Vec<(String, String)>,
    /// This host's configuration file, for releases that bring none.
    pub config: Option<PathBuf>,
    /// How many workers here, whatever the tier says.
    pub own: Own,
}

/// When it ends.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Now, and its workers before it.
    pub stop: CancellationToken,
    /// Sooner.
    pub hurry: CancellationToken,
    /// Now, and its workers go on.
    pub leave: CancellationToken,
}

/// Why it could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Another one does this already.
    #[error("tier `{tier}` has a supervisor on this host already: process {pid}")]
    Held {
        /// Of which tier.
        tier: Tier,
        /// The other one.
        pid: String,
    },
    /// The file system could not do it.
    #[error("cannot use `{path}`: {error}", path = .path.display())]
    Disk {
        /// What.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// One of its own parts died. The workers go on; the next supervisor adopts them.
    #[error("a part of the supervisor died: {0}")]
    Broken(String),
}

/// Supervises until it is told to end.
///
/// # Errors
/// When another one does already, or this host does not let it.
pub async fn run(store: Arc<dyn Store>, options: Options, end: End) -> Result<(), SuperviseError> {
    let (tier, host) = (options.tier.clone(), location::host_word());
    let folder = options.data.join("supervise");
    let place = Place {
        tier: tier.clone(),
        host: host.clone(),
        shelf: options.shelf,
        run: folder.join(tier.as_str()),
        logs: options.data.join("logs"),
        variables: options.variables,
        config: options.config,
    };
    let disk = |error: std::io::Error| SuperviseError::Disk { path: folder.clone(), error };
    place.make().map_err(disk)?;
    let lock = process::only_one(&folder.join(format!("{tier}.lock"))).map_err(|held| match held {
        Held::By(pid) => SuperviseError::Held { tier: tier.clone(), pid },
        Held::Disk(error) => disk(error),
    })?;
    let (events, mut heard) = mpsc::unbounded_channel();
    let mut keeper = Keeper::new(Arc::new(place), Arc::clone(&store), events);
    keeper.adopt().map_err(disk)?;
    let (told, mut wishes) = watch::channel(None);
    let (reports, reported) =
        watch::channel(Report { host: host.clone(), pid: std::process::id(), releases: Default::default() });
    let mut parts = JoinSet::new();
    parts.spawn(wanted::watch(Arc::clone(&store), tier.clone(), options.own, told));
    parts.spawn(report::tell(Arc::clone(&store), tier.clone(), reported));
    parts.spawn(lead_deploys(Arc::clone(&store), tier.clone(), format!("supervise/{host}")));
    tracing::info!(%tier, host, pid = std::process::id(), "supervising");
    let (mut stops, mut hurries) = (false, false);
    loop {
        let next = keeper.reconcile();
        keeper.report(&reports);
        if stops && keeper.is_empty() {
            break;
        }
        let due = async {
            match next {
                Some(at) => tokio::time::sleep(at.saturating_duration_since(instant())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end.leave.cancelled() => {
                tracing::info!("ends, and leaves its workers running");
                break;
            }
            () = end.stop.cancelled(), if !stops => {
                stops = true;
                keeper.stop();
            }
            () = end.hurry.cancelled(), if !hurries => {
                hurries = true;
                keeper.hurry();
            }
            Some(ended) = parts.join_next() => {
                return Err(SuperviseError::Broken(ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string())));
            }
            changed = wishes.changed(), if !parts.is_empty() => {
                changed.map_err(|error| SuperviseError::Broken(error.to_string()))?;
                keeper.wish(wishes.borrow_and_update().clone());
            }
            Some(event) = heard.recv() => keeper.heard(event),
            () = due => {}
        }
    }
    parts.shutdown().await;
    if let Ok(Err(error)) = tokio::time::timeout(GOODBYE, report::leave(&*store, &tier, &host)).await {
        tracing::debug!(%error, "the store does not hear that this supervisor ends");
    }
    drop(lock);
    Ok(())
}

/// Goes on with deploys that nobody leads: those that were begun for it, and those whose leader fell silent. For ever.
async fn lead_deploys(store: Arc<dyn Store>, tier: Tier, name: String) {
    loop {
        match Lead::take(&*store, &tier, &name).await {
            Ok(Some(lead)) => {
                let id = lead.deploy().id.clone();
                tracing::info!(deploy = id, to = %lead.deploy().to, step = %lead.deploy().step, "leading");
                match advance(lead).await {
                    Ok(deploy) => {
                        let outcome = deploy.outcome.map_or("", |outcome| outcome.as_str());
                        tracing::info!(deploy = id, why = deploy.why, "ended: {outcome}");
                    }
                    Err(Halt::Fenced(_)) => tracing::info!(deploy = id, "another process leads it now"),
                    Err(Halt::Store(error)) => tracing::warn!(deploy = id, %error, "cannot be led now"),
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "cannot look for deploys"),
        }
        tokio::time::sleep(LOOK).await;
    }
}
