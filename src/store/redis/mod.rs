//! The Redis engine: Redis 7.0 or later, or Valkey. All keys of a tier share one hash tag, so that a claim and a flip are one
//! atomic step and a cluster spreads tiers over its slots. Short scripts move bytes; what a failure, a crash or a retry means is
//! decided here, in Rust, and committed only if the job is still as it was seen.
//!
//! | key, after `sg:{tier}:` | what it holds |
//! |---|---|
//! | `jobs` | hash: id → record (see `record`) |
//! | `completed` | hash: id → how the completing attempt went |
//! | `log:N`, `chunks`, `buried` | ids in the order of their insertion, in chunks; the chunks; how much of each is gone |
//! | `ready:QUEUE:PRIORITY` | list of runs: place, count, stream, and ids unless the log has them |
//! | `back:…`, `suspects:…` | sorted sets beside it: what was handed back, and suspects; by place |
//! | `waiting`, `suspected` | which of those have work, by priority |
//! | `back:~WORKER:0`, `canaries` | sorted sets: a worker's canary jobs, by place; those that have ended, by when |
//! | `gaps` | sorted set: places in ready lists whose job was called off |
//! | `leases`, `until` | hash: nonce → who holds which ids; and when it ends |
//! | `due`, `expiry`, `final` | sorted sets: by when they run, are too late, ended |
//! | `parked:WHY:STREAM:BY`, `parked` | what can be un-parked, and which such keys there are |
//! | `done:QUEUE`, `kept` | batches of completed jobs in order, and how many jobs: what trimming walks |
//! | `unique`, `unique_until`, `remembered` | unique keys and their holders; how long ended ones and idempotency keys are kept |
//! | `cancel` | running jobs that somebody wants cancelled |
//! | `c`, `streams`, `queue`, `kind` | counters by stream and state; streams (queue and kind), their numbers, and back |
//! | `activation`, `ledger`, `workers`, `seen`, `records:SPACE`, `keys:SPACE` | the control plane |
//! | `paused`, `pauses` | sorted set: paused queues by when that lapses; hash: since when and by whom |
//! | `meta`, `seq`, `turns`, `versions` | sweeps, the store's identity, the revision of controls; sequences |
//!
//! One key is of no tier: `sg:tiers`, the set of their names (see `tiers`).
//!
//! `link` reaches the server (`greeting`: who is it?), `scripts`, `value` and `errors` talk to it, `server` judges its settings, `moves` commits decisions.

mod act;
mod claim;
mod control;
mod errors;
mod greeting;
mod insert;
mod link;
mod moves;
mod pause;
mod read;
mod record;
mod scripts;
mod server;
mod settle;
mod streams;
mod sweep;
mod tiers;
mod trim;
mod value;
mod wake;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use self::link::Link;
use self::server::Server;
use self::streams::Streams;
use self::wake::Wakes;
use super::{
    About, Acted, Action, Actor, Beat, Census, Claim, ClaimAsk, ErrorKind, Flip, Flipped, Guard, Insert,
    LedgerEntry, MAX_BATCH, Page, PageAsk, Pause, Paused, Presence, Put, Record, Renewed, Seen, Settle,
    Settled, Space, Store, StoreError, SweepAsk, Swept, Wake, meaning,
};
use crate::activation::Activation;
use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::{JobRecord, NewJob};
use crate::location::RedisUrl;
use crate::names::{Queue, Tier};

/// How a server is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// What an insert must survive to count as stored; `None`: whatever the server gives, told as it is.
    pub durability: Option<super::Durability>,
}

/// A store in a Redis server.
pub struct RedisStore {
    link: Link,
    server: Server,
    streams: Streams,
    wakes: Wakes,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisStore({})", self.link.place())
    }
}

/// What every key of a tier begins with.
fn prefix(tier: &Tier) -> String {
    format!("sg:{{{tier}}}:")
}

impl RedisStore {
    /// Reaches a server and judges its settings.
    ///
    /// # Errors
    /// When it cannot be reached, or would put jobs at risk; names the setting, its value and the wanted value.
    pub async fn open(url: &RedisUrl, options: Options) -> Result<Self, StoreError> {
        let link = Link::new(url)?;
        let server = Server::new(options);
        server.judge(&link, "open").await?;
        Ok(Self { link, server, streams: Streams::default(), wakes: Wakes::default() })
    }

    /// A batch over the limit would hold everybody else up.
    fn bounded(&self, op: &'static str, n: usize) -> Result<(), StoreError> {
        if n <= MAX_BATCH {
            return Ok(());
        }
        Err(self.link.error(
            op,
            ErrorKind::Refused,
            format!("{n} in one call, at most {MAX_BATCH} are allowed"),
        ))
    }

    fn refuse(&self, op: &'static str, why: Option<impl fmt::Display>) -> Result<(), StoreError> {
        why.map_or(Ok(()), |why| Err(self.link.error(op, ErrorKind::Refused, why)))
    }

    /// What changed again and again while it was decided upon.
    fn contended(&self, op: &'static str) -> StoreError {
        self.link
            .error(op, ErrorKind::Unavailable, "others changed the same again and again")
            .hint("try again")
    }
}

#[async_trait]
impl Store for RedisStore {
    fn about(&self) -> About {
        self.server.about(self.link.place())
    }

    async fn insert(&self, tier: &Tier, jobs: Vec<NewJob>) -> Result<Vec<Insert>, StoreError> {
        self.bounded("insert", jobs.len())?;
        self.refuse("insert", jobs.iter().find_map(NewJob::stray))?;
        // What it promises, and whether it keeps anything at all, may have changed since it was opened.
        self.server.judge_now_and_then(&self.link, "insert").await?;
        self.insert_jobs(tier, &jobs).await
    }

    async fn claim(&self, ask: ClaimAsk) -> Result<Claim, StoreError> {
        self.bounded("claim", ask.max)?;
        self.claim_jobs(&ask).await
    }

    async fn settle(&self, tier: &Tier, items: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        self.bounded("settle", items.len())?;
        self.settle_jobs(tier, &items).await
    }

    async fn renew(
        &self,
        tier: &Tier,
        leases: Vec<Nonce>,
        lease: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        self.bounded("renew", leases.len())?;
        self.renew_leases(tier, &leases, lease).await
    }

    async fn sweep(&self, ask: SweepAsk) -> Result<Swept, StoreError> {
        self.server.judge_now_and_then(&self.link, "sweep").await?;
        self.sweep_tier(&ask).await
    }

    async fn subscribe(&self, tier: &Tier) -> Result<Box<dyn Wake>, StoreError> {
        self.wakes.subscribe(&self.link, tier).await
    }

    async fn get(&self, tier: &Tier, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.get_job(tier, id).await
    }

    async fn page(&self, tier: &Tier, ask: PageAsk) -> Result<Page, StoreError> {
        self.page_of(tier, &ask).await
    }

    async fn bulk(
        &self,
        tier: &Tier,
        ids: Vec<JobId>,
        action: Action,
        by: &Actor,
    ) -> Result<Vec<Acted>, StoreError> {
        self.bounded("change jobs", ids.len())?;
        self.act_on(tier, &ids, action, by).await
    }

    async fn census(&self, tier: &Tier) -> Result<Census, StoreError> {
        self.count_jobs(tier).await
    }

    async fn tiers(&self) -> Result<Vec<Tier>, StoreError> {
        self.read_tiers().await
    }

    async fn activation(&self, tier: &Tier) -> Result<Option<Activation>, StoreError> {
        Ok(self.read_activation(tier).await?.map(control::Standing::into))
    }

    async fn flip(
        &self,
        tier: &Tier,
        expect: Option<u64>,
        next: Flip,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        self.flip_tier(tier, expect, &next, by).await
    }

    async fn commit(
        &self,
        tier: &Tier,
        generation: u64,
        guard: Option<&Guard>,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        self.commit_tier(tier, generation, guard, by).await
    }

    async fn extend(
        &self,
        tier: &Tier,
        seen: &Activation,
        within: Duration,
        guard: Option<&Guard>,
    ) -> Result<Flipped, StoreError> {
        self.extend_tier(tier, seen, within, guard).await
    }

    async fn record(&self, tier: &Tier, space: Space, key: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.read_records(tier, space, None, 1, Some(key)).await?.pop())
    }

    async fn put(
        &self,
        tier: &Tier,
        space: Space,
        key: &str,
        expect: u64,
        value: &str,
        keep: Option<Duration>,
    ) -> Result<Put, StoreError> {
        self.put_record(tier, space, key, expect, value, keep).await
    }

    async fn records(
        &self,
        tier: &Tier,
        space: Space,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.read_records(tier, space, after, limit.min(MAX_BATCH), None).await
    }

    async fn pause(
        &self,
        tier: &Tier,
        queue: &Queue,
        pause: Option<Pause>,
        by: &Actor,
    ) -> Result<Option<Paused>, StoreError> {
        self.refuse("pause a queue", meaning::unpausable(queue, pause))?;
        self.pause_queue(tier, queue, pause, by).await
    }

    async fn pauses(&self, tier: &Tier) -> Result<Vec<Paused>, StoreError> {
        self.read_pauses(tier).await
    }

    async fn append(&self, tier: &Tier, event: &str, by: &Actor, detail: &str) -> Result<u64, StoreError> {
        self.append_entry(tier, event, by, detail).await
    }

    async fn ledger(&self, tier: &Tier, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        self.read_ledger(tier, after, limit.min(MAX_BATCH)).await
    }

    async fn ledger_end(&self, tier: &Tier) -> Result<u64, StoreError> {
        self.count_ledger(tier).await
    }

    async fn beat(&self, tier: &Tier, presence: &Presence) -> Result<Beat, StoreError> {
        self.say(tier, presence).await
    }

    async fn workers(&self, tier: &Tier) -> Result<Vec<Seen>, StoreError> {
        self.read_workers(tier).await
    }

    async fn probe(&self, tier: &Tier) -> Result<Timestamp, StoreError> {
        self.server.judge_now_and_then(&self.link, "probe").await?;
        // As an insert would be: one that finds no room says so.
        self.try_write(tier, scripts::Script::Room).await
    }
}
