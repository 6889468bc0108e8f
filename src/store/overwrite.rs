//! Writing over whatever a versioned record holds: for records of which the last word counts.

use std::time::Duration;

use super::{ErrorKind, Put, Record, Space, Store, StoreError};
use crate::names::{Tier, shown};

/// A record that changes under us so often is not ours to write.
const TRIES: u32 = 8;

/// Writes (an empty value deletes); answers what stood there.
pub(crate) async fn overwrite(
    store: &dyn Store,
    tier: &Tier,
    space: Space,
    key: &str,
    value: &str,
    keep: Option<Duration>,
) -> Result<Option<Record>, StoreError> {
    let mut there = store.record(tier, space, key).await?;
    for _ in 0..TRIES {
        if there.is_none() && value.is_empty() {
            return Ok(None);
        }
        let version = there.as_ref().map_or(0, |record| record.version);
        match store.put(tier, space, key, version, value, keep).await? {
            Put::Done(_) => return Ok(there),
            Put::Raced(now) => there = now,
        }
    }
    let detail = format!("`{}` was written by others again and again", shown(key));
    Err(StoreError::new("write", store.about().location, ErrorKind::Unavailable, detail).hint("try again"))
}
