//! What every engine counts and remembers in the same way.

use uuid::Uuid;

use crate::job::Args;
use crate::names::{Kind, Queue};

/// Codes of counters beyond the states: totals that only rise.
pub(super) const INSERTED: u8 = 20;
pub(super) const COMPLETED: u8 = 21;
pub(super) const FAILED: u8 = 22;

/// A digest of what an id must agree on; the order of keys does not matter (`serde_json` sorts a value's keys).
pub(super) fn content_digest(kind: &Kind, queue: &Queue, args: &Args) -> [u8; 16] {
    let canonical =
        args.read::<serde_json::Value>().map_or_else(|_| args.as_str().to_owned(), |value| value.to_string());
    *Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{kind}\0{queue}\0{canonical}").as_bytes()).as_bytes()
}
