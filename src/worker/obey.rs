//! Obeys what operators say through the store. The beat tells the revision of the tier's controls; only when it has
//! risen are they read.

use std::time::Duration;

use serde_json::json;

use super::state::{Core, lock};
use crate::clock::Timestamp;
use crate::store::orders::{self, Order};
use crate::store::{Actor, Space, overwrite};

/// How long what a worker wrote down is kept.
const KEEP_DUMP: Duration = Duration::from_secs(600);

/// What was read and done so far.
#[derive(Debug, Default)]
pub(super) struct Obeyed {
    /// The revision of the controls that was read last.
    revision: Option<u64>,
    /// When this process came (store time).
    since: Option<Timestamp>,
    /// The version of the last order that was carried out.
    order: u64,
}

/// Reads the controls if they have changed, and does what they say.
pub(super) async fn obey(core: &Core, revision: u64) {
    let known = lock(&core.obeyed).revision;
    if known == Some(revision) {
        return;
    }
    let Some(standing) = core.heard("heartbeat", orders::read(&*core.store, &core.options.tier).await) else {
        return;
    };
    let fresh = {
        let mut obeyed = lock(&core.obeyed);
        let since = *obeyed.since.get_or_insert_with(|| core.store_now());
        obeyed.revision = Some(revision);
        // What was ordered before this process came was for another one.
        let fresh = standing
            .order(&core.options.name)
            .filter(|(version, at, _)| *version > obeyed.order && *at >= since);
        if let Some((version, ..)) = fresh {
            obeyed.order = version;
        }
        fresh.map(|(_, _, order)| order)
    };
    core.ordered(standing.quiets(&core.options.name, &core.release), fresh == Some(Order::Resume));
    match fresh {
        Some(Order::Stop) => {
            tracing::info!(worker = %core.options.name, "stopping: ordered through the store");
            core.stop.cancel();
        }
        Some(Order::Dump) => write_down(core).await,
        Some(Order::Resume) | None => {}
    }
}

/// Writes down what runs now, for whoever asked.
async fn write_down(core: &Core) {
    let value =
        json!({ "worker": core.options.name, "at": core.store_now(), "jobs": core.dump() }).to_string();
    let (key, tier) = (orders::dump_key(&core.options.name), &core.options.tier);
    let written = overwrite(&*core.store, tier, Space::Receipt, &key, &value, Some(KEEP_DUMP)).await;
    if let Err(error) = written {
        tracing::warn!(%error, "what runs could not be written down");
    }
}

/// Who acts when a worker does something by itself.
pub(super) fn itself(core: &Core, reason: &str) -> Actor {
    Actor { who: format!("worker/{}", core.options.name), reason: Some(reason.to_owned()) }
}
