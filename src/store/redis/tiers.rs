//! Which tiers there are. All keys of a tier share a hash tag, and no script touches another one's, so the index is a key beside
//! them and is written by a call of its own: first the name, then what it stands for. A process that dies in between leaves a
//! name with nothing behind it, which harms nobody. The other way round there would be a tier that works, or should, and that
//! nobody is told of.

use deadpool_redis::redis;

use super::RedisStore;
use super::link::Lane;
use super::scripts::{Args, Script};
use super::value::strange;
use crate::names::Tier;
use crate::store::{ErrorKind, StoreError};

/// A set of names.
const INDEX: &str = "sg:tiers";

impl RedisStore {
    /// Makes sure that a tier is in the index; a call for the first time only. A store that came back empty is told anew, see
    /// `streams`.
    pub(super) async fn enlist(&self, tier: &Tier, lane: Lane) -> Result<(), StoreError> {
        if self.streams.is_listed(tier) {
            return Ok(());
        }
        self.link.script(Script::Enlist, INDEX, lane, Args::new().arg(tier.as_str())).await?;
        self.streams.list(tier, true);
        Ok(())
    }

    pub(super) async fn read_tiers(&self) -> Result<Vec<Tier>, StoreError> {
        let op = "list tiers";
        let mut ask = redis::cmd("SMEMBERS");
        ask.arg(INDEX);
        let names = match self.link.command(op, Lane::Rest, &ask).await? {
            redis::Value::Set(names) | redis::Value::Array(names) => names,
            _ => return Err(strange(op, self.link.place())),
        };
        let read = |name| match name {
            redis::Value::BulkString(name) => Tier::new(&String::from_utf8_lossy(&name))
                .map_err(|error| self.link.error(op, ErrorKind::Corrupt, error)),
            _ => Err(strange(op, self.link.place())),
        };
        let mut tiers = names.into_iter().map(read).collect::<Result<Vec<Tier>, StoreError>>()?;
        tiers.sort_unstable();
        Ok(tiers)
    }
}
