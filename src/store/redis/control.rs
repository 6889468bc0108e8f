//! The control plane: the activation, versioned records, the ledger, and workers' presence.

use std::time::Duration;

use deadpool_redis::redis;
use serde::{Deserialize, Serialize};

use super::link::Lane;
use super::record::{read_entry, read_presence, read_versioned};
use super::scripts::{Args, Script};
use super::value::{Values, damaged, int, strange};
use super::{RedisStore, prefix};
use crate::activation::{Activation, Mode};
use crate::clock::Timestamp;
use crate::ids::Nonce;
use crate::names::Tier;
use crate::store::{
    Actor, Beat, ErrorKind, Flip, Flipped, Guard, LedgerEntry, Presence, Put, Record, Seen, Space,
    StoreError, Swept,
};

/// How long a lease that was taken over may stay with whoever gives its jobs back.
const TAKEN_OVER: Duration = Duration::from_secs(15);

/// A change of the activation that others get in the way of so often is given up.
const TRIES: usize = 50;

/// A line of the ledger, as it is stored; its time comes from the script, its number from its place.
#[derive(Serialize, Deserialize)]
struct Line {
    event: String,
    by: Actor,
    detail: String,
}

/// An activation as it stands: what it says, and the bytes that say so, which whoever changes it must find again. Another
/// version may write the same in other words.
pub(super) struct Standing {
    body: Vec<u8>,
    pub(super) activation: Activation,
}

/// Whether an activation was installed.
pub(super) enum Installed {
    Yes,
    /// Something else stands than what was seen.
    Raced,
    /// The guard is not what it was.
    Fenced,
}

impl Standing {
    fn generation(&self) -> u64 {
        self.activation.generation
    }

    pub(super) fn into(self) -> Activation {
        self.activation
    }
}

impl RedisStore {
    pub(super) fn json<T: Serialize>(&self, op: &'static str, value: &T) -> Result<String, StoreError> {
        serde_json::to_string(value)
            .map_err(|error| self.link.error(op, ErrorKind::Refused, format!("not JSON: {error}")))
    }

    /// A line of the ledger.
    pub(super) fn line(
        &self,
        op: &'static str,
        event: &str,
        by: &Actor,
        detail: &str,
    ) -> Result<String, StoreError> {
        self.json(op, &Line { event: event.to_owned(), by: by.clone(), detail: detail.to_owned() })
    }

    /// The activation of a tier. A body that cannot be read is damage, not "none".
    pub(super) fn activation_from(&self, body: Option<Vec<u8>>) -> Result<Option<Standing>, StoreError> {
        let read = |body: Vec<u8>| match serde_json::from_slice(&body) {
            Ok(activation) => Ok(Standing { body, activation }),
            Err(error) => Err(self.link.error("read the activation", ErrorKind::Corrupt, error)),
        };
        body.map(read).transpose()
    }

    pub(super) async fn read_activation(&self, tier: &Tier) -> Result<Option<Standing>, StoreError> {
        let mut ask = redis::cmd("HGET");
        ask.arg(format!("{}activation", prefix(tier))).arg("body");
        match self.link.command("read the activation", Lane::Rest, &ask).await? {
            redis::Value::BulkString(body) => self.activation_from(Some(body)),
            _ => Ok(None),
        }
    }

    pub(super) async fn flip_tier(
        &self,
        tier: &Tier,
        expect: Option<u64>,
        next: &Flip,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        for _ in 0..TRIES {
            let current = self.read_activation(tier).await?;
            if current.as_ref().map(Standing::generation) != expect {
                return Ok(Flipped::Raced(current.map(Standing::into)));
            }
            // Asked for seldom, so it need not trust what this process did before.
            self.streams.list(tier, false);
            self.enlist(tier, Lane::Rest).await?;
            let now = self.try_write(tier, Script::Probe).await?;
            let provisional = next.mode == Mode::Provisional;
            let to = Activation {
                generation: next.generation(expect),
                release: next.release.clone(),
                mode: next.mode,
                confirm_by: next.confirm_within.filter(|_| provisional).map(|within| now.plus(within)),
                fallback: next.fallback.clone().filter(|_| provisional),
                deploy: next.deploy.clone(),
                since: now,
            };
            let told = Some((by, "activation.flipped"));
            match self.install(tier, current.as_ref(), &to, next.guard.as_ref(), told).await? {
                Installed::Yes => return Ok(Flipped::Now(to)),
                Installed::Fenced => return Ok(Flipped::Fenced),
                Installed::Raced => {}
            }
        }
        Err(self.contended(Script::Flip.op()))
    }

    /// Lets a provisional activation stand.
    pub(super) async fn commit_tier(
        &self,
        tier: &Tier,
        generation: u64,
        guard: Option<&Guard>,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        for _ in 0..TRIES {
            let current = match self.read_activation(tier).await? {
                Some(current) if current.generation() == generation => current,
                other => return Ok(Flipped::Raced(other.map(Standing::into))),
            };
            if current.activation.mode == Mode::Committed {
                return Ok(Flipped::Now(current.activation));
            }
            let to = current.activation.committed();
            let told = Some((by, "activation.committed"));
            match self.install(tier, Some(&current), &to, guard, told).await? {
                Installed::Yes => return Ok(Flipped::Now(to)),
                Installed::Fenced => return Ok(Flipped::Fenced),
                Installed::Raced => {}
            }
        }
        Err(self.contended("commit the activation"))
    }

    /// Moves the deadline of the provisional activation that was seen.
    pub(super) async fn extend_tier(
        &self,
        tier: &Tier,
        seen: &Activation,
        within: Duration,
        guard: Option<&Guard>,
    ) -> Result<Flipped, StoreError> {
        let current = match self.read_activation(tier).await? {
            Some(current) if current.activation == *seen && seen.mode == Mode::Provisional => current,
            other => return Ok(Flipped::Raced(other.map(Standing::into))),
        };
        let now = self.now("extend the activation").await?;
        let to = Activation { confirm_by: Some(now.plus(within)), ..seen.clone() };
        match self.install(tier, Some(&current), &to, guard, None).await? {
            Installed::Yes => Ok(Flipped::Now(to)),
            Installed::Fenced => Ok(Flipped::Fenced),
            Installed::Raced => Ok(Flipped::Raced(self.read_activation(tier).await?.map(Standing::into))),
        }
    }

    /// Installs an activation if what stands is still what was seen; and records it and tells of it, unless nobody is to be
    /// told.
    pub(super) async fn install(
        &self,
        tier: &Tier,
        seen: Option<&Standing>,
        to: &Activation,
        guard: Option<&Guard>,
        told: Option<(&Actor, &str)>,
    ) -> Result<Installed, StoreError> {
        let op = Script::Flip.op();
        let line = match told {
            Some((by, event)) => {
                let from = seen.map(|seen| &seen.activation);
                let detail = serde_json::json!({ "from": from, "to": to }).to_string();
                self.line(op, event, by, &detail)?
            }
            None => String::new(),
        };
        let args = Args::new()
            .arg(seen.map_or(&[][..], |seen| &seen.body))
            .arg(self.json(op, to)?)
            .arg(to.release.as_str())
            .number(to.generation)
            .arg(to.confirm_by.map_or(String::new(), |at| at.ms().to_string()))
            .arg(to.fallback.as_ref().map_or("", |release| release.as_str()))
            .arg(line)
            .arg(guard.map_or("", |guard| guard.space.as_str()))
            .arg(guard.map_or("", |guard| &guard.key))
            .number(guard.map_or(0, |guard| guard.version));
        let answer = self.link.script(Script::Flip, &prefix(tier), Lane::Rest, args).await?;
        match int(&answer) {
            Some(0) => Ok(Installed::Raced),
            Some(1) => Ok(Installed::Yes),
            Some(2) => Ok(Installed::Fenced),
            _ => Err(strange(op, self.link.place())),
        }
    }

    pub(super) async fn append_entry(
        &self,
        tier: &Tier,
        event: &str,
        by: &Actor,
        detail: &str,
    ) -> Result<u64, StoreError> {
        let op = Script::Append.op();
        let args = Args::new().arg(self.line(op, event, by, detail)?);
        let answer = self.link.script(Script::Append, &prefix(tier), Lane::Rest, args).await?;
        number(op, &answer, self.link.place())
    }

    pub(super) async fn read_ledger(
        &self,
        tier: &Tier,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        let (op, place) = ("read the ledger", self.link.place());
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut ask = redis::cmd("LRANGE");
        ask.arg(format!("{}ledger", prefix(tier))).arg(after).arg(after.saturating_add(limit as u64 - 1));
        let lines = Values::of(self.link.command(op, Lane::Rest, &ask).await?, op, place)?.all()?;
        let mut entries = Vec::with_capacity(lines.len());
        for (seq, bytes) in (after + 1..).zip(lines) {
            let (at, line) = read_entry(&bytes).map_err(|error| damaged(op, place, &error))?;
            let line: Line = serde_json::from_slice(line)
                .map_err(|error| self.link.error(op, ErrorKind::Corrupt, error))?;
            entries.push(LedgerEntry { seq, at, event: line.event, by: line.by, detail: line.detail });
        }
        Ok(entries)
    }

    /// How many entries the ledger has: each one's number is its place.
    pub(super) async fn count_ledger(&self, tier: &Tier) -> Result<u64, StoreError> {
        let op = "read the ledger";
        let mut ask = redis::cmd("LLEN");
        ask.arg(format!("{}ledger", prefix(tier)));
        number(op, &self.link.command(op, Lane::Rest, &ask).await?, self.link.place())
    }

    pub(super) async fn read_records(
        &self,
        tier: &Tier,
        space: Space,
        after: Option<&str>,
        limit: usize,
        only: Option<&str>,
    ) -> Result<Vec<Record>, StoreError> {
        let (op, place) = (Script::Records.op(), self.link.place());
        let mut args = Args::new().arg(space.as_str()).arg(after.unwrap_or_default()).number(limit);
        only.into_iter().for_each(|key| args.push(key));
        let answer = self.link.script(Script::Records, &prefix(tier), Lane::Rest, args).await?;
        let mut values = Values::of(answer, op, place)?;
        values.time()?;
        let mut found = Vec::new();
        while values.left() > 1 {
            let (key, bytes) = (values.text()?.unwrap_or_default(), values.bytes()?.unwrap_or_default());
            found.push(self.versioned(op, key, &bytes)?);
        }
        Ok(found)
    }

    fn versioned(&self, op: &'static str, key: String, bytes: &[u8]) -> Result<Record, StoreError> {
        let (version, at, value) =
            read_versioned(bytes).map_err(|error| damaged(op, self.link.place(), &error))?;
        Ok(Record { key, version, value, at })
    }

    pub(super) async fn put_record(
        &self,
        tier: &Tier,
        space: Space,
        key: &str,
        expect: u64,
        value: &str,
        keep: Option<Duration>,
    ) -> Result<Put, StoreError> {
        let op = Script::Put.op();
        let args = Args::new()
            .arg(space.as_str())
            .arg(key)
            .number(expect)
            .arg(value)
            .arg(keep.map_or(String::new(), |keep| keep.as_millis().to_string()));
        let answer = self.link.script(Script::Put, &prefix(tier), Lane::Rest, args).await?;
        let mut values = Values::of(answer, op, self.link.place())?;
        if values.int()? == 1 {
            return Ok(Put::Done(u64::try_from(values.int()?).unwrap_or_default()));
        }
        let there = values.bytes()?.map(|bytes| self.versioned(op, key.to_owned(), &bytes)).transpose()?;
        Ok(Put::Raced(there))
    }

    pub(super) async fn say(&self, tier: &Tier, presence: &Presence) -> Result<Beat, StoreError> {
        let op = Script::Beat.op();
        self.enlist(tier, Lane::Beat).await?;
        let args = Args::new()
            .arg(presence.worker.as_str())
            .arg(*presence.incarnation.as_bytes())
            .arg(if presence.joining { "joining" } else { presence.state.as_str() })
            .arg(self.json(op, presence)?);
        let answer = self.link.script(Script::Beat, &prefix(tier), Lane::Beat, args).await?;
        let mut values = Values::of(answer, op, self.link.place())?;
        match values.int()? {
            2 => Ok(Beat::Superseded),
            known => {
                let (now, control) = (values.time()?, u64::try_from(values.int()?).unwrap_or_default());
                if values.left() > 0 {
                    self.server.told_policy(values.text()?);
                }
                if known == 1 && presence.joining {
                    self.take_over(tier, presence).await?;
                } else if known == 1 {
                    // It had forgotten a worker that lives: it may have come back empty, and its index with it.
                    self.streams.list(tier, false);
                    self.enlist(tier, Lane::Beat).await?;
                }
                Ok(Beat::Ok { now, control })
            }
        }
    }

    /// The process that had this name is gone: what it held is rescued now, not when its leases run out.
    async fn take_over(&self, tier: &Tier, presence: &Presence) -> Result<(), StoreError> {
        for (nonce, lease) in self.leases(tier).await? {
            if lease.worker.as_ref() != Some(&presence.worker) || lease.incarnation == presence.incarnation {
                continue;
            }
            let Ok(nonce) = <[u8; 16]>::try_from(nonce.as_slice()) else { continue };
            let mut swept = Swept::default();
            if let Some((seized, lease)) =
                self.seize(tier, Nonce::from_bytes(nonce), TAKEN_OVER, false, &mut swept).await?
            {
                self.rescue(tier, seized, lease, &mut swept).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn read_workers(&self, tier: &Tier) -> Result<Vec<Seen>, StoreError> {
        let (op, place) = ("list workers", self.link.place());
        let now = self.now(op).await?;
        let mut ask = redis::cmd("HVALS");
        ask.arg(format!("{}workers", prefix(tier)));
        let bodies = Values::of(self.link.command(op, Lane::Rest, &ask).await?, op, place)?.all()?;
        let mut seen = Vec::with_capacity(bodies.len());
        for bytes in bodies {
            let (incarnation, at, since, body) =
                read_presence(&bytes).map_err(|error| damaged(op, place, &error))?;
            let mut presence: Presence = serde_json::from_slice(body)
                .map_err(|error| self.link.error(op, ErrorKind::Corrupt, error))?;
            presence.incarnation = incarnation;
            seen.push(Seen { presence, at, age: now.since(at), since });
        }
        seen.sort_by(|a, b| a.presence.worker.cmp(&b.presence.worker));
        Ok(seen)
    }

    /// The store's time.
    pub(super) async fn now(&self, op: &'static str) -> Result<Timestamp, StoreError> {
        let answer = self.link.command(op, Lane::Rest, &redis::cmd("TIME")).await?;
        let mut values = Values::of(answer, op, self.link.place())?;
        let (secs, micros) = (values.int()?, values.int()?);
        Ok(Timestamp::from_ms(secs * 1_000 + micros / 1_000))
    }
}

/// A number of the ledger.
fn number(op: &'static str, answer: &redis::Value, place: &str) -> Result<u64, StoreError> {
    int(answer).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| strange(op, place))
}
