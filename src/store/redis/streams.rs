//! Names, once each: a stream (queue and kind) is a small number in the records, and this cache knows what it stands for.
//! The numbers hold for one life of the store: a server that came back empty has another identity, and the cache is dropped.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use deadpool_redis::redis;

use super::link::Lane;
use super::record::MAX_STREAMS;
use super::scripts::{Args, Script};
use super::value::{Values, strange};
use super::{RedisStore, prefix};
use crate::ids::Nonce;
use crate::job::NewJob;
use crate::names::{Kind, Queue, Tier};
use crate::store::{ErrorKind, StoreError};

/// A server that comes back empty so often while one call runs is given up.
const TRIES: usize = 50;

#[derive(Debug, Default)]
pub(super) struct Streams(RwLock<HashMap<Tier, Known>>);

/// What is known of a tier.
#[derive(Debug, Clone, Default)]
struct Known {
    identity: Vec<u8>,
    numbers: HashMap<(Queue, Kind), u16>,
    names: HashMap<u16, (Queue, Kind)>,
    /// Whether this process has put the tier into the index of tiers.
    listed: bool,
}

impl Streams {
    fn read<T>(&self, tier: &Tier, read: impl FnOnce(&Known) -> Option<T>) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(tier).and_then(read)
    }

    fn write(&self, tier: &Tier, identity: &[u8], write: impl FnOnce(&mut Known)) {
        let mut tiers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = tiers.entry(tier.clone()).or_default();
        if known.identity != identity {
            // One that had none yet gets it with its first stream, and is the same store.
            let listed = known.listed && known.identity.is_empty();
            *known = Known { identity: identity.to_vec(), listed, ..Known::default() };
        }
        write(known);
    }

    pub(super) fn is_listed(&self, tier: &Tier) -> bool {
        self.read(tier, |known| known.listed.then_some(())).is_some()
    }

    /// Notes whether the index of tiers has it.
    pub(super) fn list(&self, tier: &Tier, listed: bool) {
        let mut tiers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tiers.entry(tier.clone()).or_default().listed = listed;
    }

    /// What was heard of the identity: another one ends what was known.
    pub(super) fn heard(&self, tier: &Tier, identity: &[u8]) {
        if self.read(tier, |known| (known.identity == identity).then_some(())).is_none() {
            self.write(tier, identity, |_| ());
        }
    }
}

impl RedisStore {
    /// The numbers of the streams of some jobs, given now if need be, and the identity under which all of them hold: the server
    /// may come back empty between two questions.
    pub(super) async fn numbers(
        &self,
        tier: &Tier,
        jobs: &[&NewJob],
    ) -> Result<(Vec<u8>, Vec<u16>), StoreError> {
        for _ in 0..TRIES {
            let all = self.streams.read(tier, |known| {
                let number =
                    |job: &&NewJob| known.numbers.get(&(job.queue.clone(), job.kind.clone())).copied();
                Some((known.identity.clone(), jobs.iter().map(number).collect::<Option<Vec<u16>>>()?))
            });
            if let Some(all) = all {
                return Ok(all);
            }
            // A queue or kind that is new to this process: the tier may be new as well.
            self.enlist(tier, Lane::In).await?;
            for job in jobs {
                self.number(tier, &job.queue, &job.kind).await?;
            }
        }
        Err(self.contended("name a queue"))
    }

    /// The number of a stream, given now if need be.
    async fn number(&self, tier: &Tier, queue: &Queue, kind: &Kind) -> Result<u16, StoreError> {
        let name = (queue.clone(), kind.clone());
        if let Some(sid) = self.streams.read(tier, |known| known.numbers.get(&name).copied()) {
            return Ok(sid);
        }
        let args = Args::new()
            .arg(queue.as_str())
            .arg(kind.as_str())
            .number(MAX_STREAMS)
            .arg(Nonce::new().to_string());
        let op = Script::Stream.op();
        let answer = self.link.script(Script::Stream, &prefix(tier), Lane::In, args).await?;
        let mut values = Values::of(answer, op, self.link.place())?;
        let (sid, identity) = (values.int()?, values.bytes()?.unwrap_or_default());
        let Ok(sid) = u16::try_from(sid) else {
            let detail = format!("a tier has at most {MAX_STREAMS} pairs of queue and kind");
            return Err(self
                .link
                .error(op, ErrorKind::Refused, detail)
                .hint("use fewer queues: tags tell jobs apart as well"));
        };
        self.streams.write(tier, &identity, |known| {
            known.numbers.insert(name.clone(), sid);
            known.names.insert(sid, name);
        });
        Ok(sid)
    }

    /// Learns every stream of a tier.
    async fn learn(&self, tier: &Tier) -> Result<(), StoreError> {
        let prefix = prefix(tier);
        let mut ask = redis::pipe();
        ask.hget(format!("{prefix}meta"), "identity").hgetall(format!("{prefix}streams"));
        let mut answers = self.link.pipeline("read names", Lane::Rest, &ask).await?.into_iter();
        let op = "read names";
        let place = self.link.place();
        let identity = match answers.next() {
            Some(redis::Value::BulkString(identity)) => identity,
            _ => Vec::new(),
        };
        let pairs = match answers.next() {
            Some(redis::Value::Map(pairs)) => {
                pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()
            }
            Some(redis::Value::Array(values)) => values,
            _ => return Err(strange(op, place)),
        };
        self.remember(tier, &identity, redis::Value::Array(pairs))
    }

    /// Keeps what a script told of the streams: names and numbers, one after the other.
    pub(super) fn remember(
        &self,
        tier: &Tier,
        identity: &[u8],
        pairs: redis::Value,
    ) -> Result<(), StoreError> {
        let mut values = Values::of(pairs, "read names", self.link.place())?;
        let mut found = Vec::with_capacity(values.left() / 2);
        while values.left() > 1 {
            let (name, sid) = (values.text()?.unwrap_or_default(), values.int()?);
            let (Some((queue, kind)), Ok(sid)) = (name.split_once(' '), u16::try_from(sid)) else { continue };
            if let (Ok(queue), Ok(kind)) = (Queue::stored(queue), Kind::new(kind)) {
                found.push((sid, (queue, kind)));
            }
        }
        self.streams.write(tier, identity, |known| {
            for (sid, name) in found {
                known.numbers.insert(name.clone(), sid);
                known.names.insert(sid, name);
            }
        });
        Ok(())
    }

    /// What a stream is.
    pub(super) async fn stream(&self, tier: &Tier, sid: u16) -> Result<(Queue, Kind), StoreError> {
        self.stream_if_known(tier, sid).await?.ok_or_else(|| {
            self.link.error("read names", ErrorKind::Corrupt, format!("stream {sid} has jobs and no name"))
        })
    }

    /// The same; `None` when the store has no such number, which is no damage where the number is older than the store.
    pub(super) async fn stream_if_known(
        &self,
        tier: &Tier,
        sid: u16,
    ) -> Result<Option<(Queue, Kind)>, StoreError> {
        let known = |sid| self.streams.read(tier, |known| known.names.get(&sid).cloned());
        if let Some(name) = known(sid) {
            return Ok(Some(name));
        }
        self.learn(tier).await?;
        Ok(known(sid))
    }
}
