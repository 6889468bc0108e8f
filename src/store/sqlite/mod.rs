//! The SQLite engine: one file, no set-up. One writer thread per process commits a group of callers at once
//! (`writer`), several processes take turns (`turn`) and wake each other (`wake`), readers stay out of the way (`read`).
//!
//! | file | what it does |
//! |---|---|
//! | `schema` | the tables, the settings, what errors mean |
//! | `session`, `catalog`, `lease` | what a step works with: counters, names, what a lease holds |
//! | `insert`, `claim`, `settle`, `completed`, `sweep`, `trim`, `act` | the steps of the data plane |
//! | `canary` | what is special about canary jobs |
//! | `control`, `pause` | activation, records, ledger, presence; pauses, and what operators set |

mod act;
mod canary;
mod catalog;
mod claim;
mod completed;
mod control;
mod insert;
mod lease;
mod pause;
mod read;
mod schema;
mod session;
mod settle;
mod sweep;
mod trim;
mod turn;
mod wake;
mod writer;

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use self::read::Readers;
use self::session::Step;
use self::wake::Signal;
use self::writer::{How, Writer};
use super::{
    About, Acted, Action, Actor, Beat, Census, Claim, ClaimAsk, Durability, ErrorKind, Flip, Flipped, Guard,
    Insert, LedgerEntry, MAX_BATCH, Page, PageAsk, Pause, Paused, Presence, Put, Record, Renewed, Seen,
    Settle, Settled, Space, Store, StoreError, SweepAsk, Swept, Wake, meaning,
};
use crate::activation::Activation;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::ids::{JobId, Nonce};
use crate::job::{JobRecord, NewJob};
use crate::names::{Queue, Tier};

/// How a file is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store's clock: the host's, since every process of a file is on one host.
    pub clock: Arc<dyn Clock>,
    /// Most memory for pages, in KiB; it is only taken when it is needed.
    pub cache_kib: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), cache_kib: 8_000 }
    }
}

/// A store in one SQLite file.
pub struct SqliteStore {
    writer: Writer,
    readers: Arc<Readers>,
    signal: Arc<Signal>,
    path: Arc<PathBuf>,
    clock: Arc<dyn Clock>,
    /// The file that was opened, to notice when it is replaced.
    inode: u64,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteStore({})", self.path.display())
    }
}

/// Waits for the disk before it answers.
const fn durable(name: &'static str) -> How {
    How { name, durable: true, urgent: false }
}

/// May be lost with the machine: what it says is renewed, or found out again, after a power cut.
const fn volatile(name: &'static str) -> How {
    How { name, durable: false, urgent: false }
}

const fn urgent(name: &'static str) -> How {
    How { name, durable: false, urgent: true }
}

impl SqliteStore {
    /// Opens a file, creating it when it does not exist.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged, is not ours, or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Options::default()).await
    }

    /// The same, with a clock of one's own.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_with(path: &Path, options: Options) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let named = path.clone();
        tokio::task::spawn_blocking(move || Self::open_blocking(path, &options)).await.unwrap_or_else(
            |error| Err(StoreError::new("open", named.display(), ErrorKind::Unavailable, error)),
        )
    }

    fn open_blocking(path: PathBuf, options: &Options) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| schema::explain_io(&path, &error);
        let conn = schema::open_writer(&path, options.cache_kib)?;
        let inode = std::fs::metadata(&path).map_err(failed)?.ino();
        let signal = Arc::new(Signal::open(&path).map_err(failed)?);
        let writer = Writer::start(conn, path.clone(), Arc::clone(&options.clock), Arc::clone(&signal))
            .map_err(failed)?;
        Ok(Self {
            writer,
            readers: Arc::default(),
            signal,
            path: Arc::new(path),
            clock: Arc::clone(&options.clock),
            inode,
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        op: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (readers, path) = (Arc::clone(&self.readers), Arc::clone(&self.path));
        let named = Arc::clone(&path);
        tokio::task::spawn_blocking(move || readers.read(op, &path, read))
            .await
            .unwrap_or_else(|error| Err(StoreError::new(op, named.display(), ErrorKind::Unavailable, error)))
    }

    /// A batch over the limit would hold everybody else up.
    fn bounded(&self, op: &'static str, n: usize) -> Result<(), StoreError> {
        if n <= MAX_BATCH {
            return Ok(());
        }
        Err(StoreError::new(
            op,
            self.path.display(),
            ErrorKind::Refused,
            format!("{n} in one call, at most {MAX_BATCH} are allowed"),
        ))
    }

    fn refuse(&self, op: &'static str, why: Option<impl std::fmt::Display>) -> Result<(), StoreError> {
        why.map_or(Ok(()), |why| Err(StoreError::new(op, self.path.display(), ErrorKind::Refused, why)))
    }

    /// A file that was deleted or replaced would take writes that nobody ever reads again.
    fn still_there(&self, op: &'static str) -> Result<(), StoreError> {
        match std::fs::metadata(&*self.path) {
            Ok(meta) if meta.ino() == self.inode => Ok(()),
            Ok(_) => Err(StoreError::new(
                op,
                self.path.display(),
                ErrorKind::Corrupt,
                "the file was replaced while it was open",
            )),
            Err(error) => Err(StoreError::new(
                op,
                self.path.display(),
                ErrorKind::Corrupt,
                format!("the file is gone: {error}"),
            )),
        }
        .map_err(|error| {
            error.hint("stop the processes that have it open, put the right file back, and start them again")
        })
    }
}

fn renew_one(session: &session::Session, tid: i64, nonce: Nonce, lease: Duration) -> Step<Renewed> {
    let until = session.now.plus(lease);
    let known = session
        .conn
        .prepare_cached("UPDATE lease SET until = ?3 WHERE nonce = ?1 AND tid = ?2")?
        .execute(params![nonce.as_bytes(), tid, until.ms()])?;
    if known == 0 {
        return Ok(Renewed::Lost);
    }
    let any: bool = session
        .conn
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM cancel WHERE tid = ?1)")?
        .query_row([tid], |row| row.get(0))?;
    let mut cancel = Vec::new();
    if any && let Some(lease) = lease::Lease::by_nonce(session, tid, nonce.as_bytes())? {
        let mut wanted = session.conn.prepare_cached(
            "SELECT j.id FROM cancel c JOIN job j ON j.seq = c.seq WHERE c.tid = ?1 AND c.seq = ?2",
        )?;
        for held in lease.held {
            let mut rows = wanted.query(params![tid, held.seq])?;
            if let Some(row) = rows.next()? {
                cancel.push(JobId::from_bytes(row.get(0)?));
            }
        }
    }
    Ok(Renewed::Until { until, cancel })
}

#[async_trait]
impl Store for SqliteStore {
    fn about(&self) -> About {
        About {
            engine: "sqlite",
            location: format!("sqlite:{}", self.path.display()),
            detail: format!("SQLite {}, WAL, synchronous FULL", rusqlite::version()),
            durability: Durability::Disk,
        }
    }

    async fn insert(&self, tier: &Tier, jobs: Vec<NewJob>) -> Result<Vec<Insert>, StoreError> {
        self.bounded("insert", jobs.len())?;
        self.refuse("insert", jobs.iter().find_map(NewJob::stray))?;
        self.still_there("insert")?; // nobody may be told "on disk" of a file that is gone
        let tier = tier.clone();
        self.writer
            .run(durable("insert"), move |session| insert::insert(session, &tier, &jobs, Durability::Disk))
            .await
    }

    async fn claim(&self, ask: ClaimAsk) -> Result<Claim, StoreError> {
        self.bounded("claim", ask.max)?;
        let ask = Arc::new(ask);
        let peeked = Arc::clone(&ask);
        self.writer
            .run_or_peek(
                volatile("claim"),
                move |session| claim::peek(session, &peeked),
                move |session| claim::claim(session, &ask),
            )
            .await
    }

    async fn settle(&self, tier: &Tier, items: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        self.bounded("settle", items.len())?;
        let tier = tier.clone();
        self.writer.run(durable("settle"), move |session| settle::settle(session, &tier, &items)).await
    }

    async fn renew(
        &self,
        tier: &Tier,
        leases: Vec<Nonce>,
        lease: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        self.bounded("renew", leases.len())?;
        let tier = tier.clone();
        self.writer
            .run(urgent("renew"), move |session| {
                let tid = session::tid(session, &tier)?;
                leases.into_iter().map(|nonce| renew_one(session, tid, nonce, lease)).collect()
            })
            .await
    }

    async fn sweep(&self, ask: SweepAsk) -> Result<Swept, StoreError> {
        self.writer.run(volatile("sweep"), move |session| sweep::sweep(session, &ask)).await
    }

    async fn subscribe(&self, _: &Tier) -> Result<Box<dyn Wake>, StoreError> {
        Ok(Box::new(self.signal.subscribe()))
    }

    async fn get(&self, tier: &Tier, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let tier = tier.clone();
        self.read("get", move |conn| read::get(conn, &tier, id)).await
    }

    async fn page(&self, tier: &Tier, ask: PageAsk) -> Result<Page, StoreError> {
        let (tier, now, path) = (tier.clone(), self.clock.now(), Arc::clone(&self.path));
        self.read("list jobs", move |conn| Ok(read::page(conn, &tier, &ask, now)))
            .await?
            .and_then(|page| page.map_err(|error| schema::explain("list jobs", &path, &error)))
    }

    async fn bulk(
        &self,
        tier: &Tier,
        ids: Vec<JobId>,
        action: Action,
        by: &Actor,
    ) -> Result<Vec<Acted>, StoreError> {
        self.bounded("change jobs", ids.len())?;
        let (tier, by) = (tier.clone(), by.clone());
        self.writer
            .run(durable("change jobs"), move |session| act::bulk(session, &tier, &ids, action, &by))
            .await
    }

    async fn census(&self, tier: &Tier) -> Result<Census, StoreError> {
        let (tier, now) = (tier.clone(), self.clock.now());
        self.read("count jobs", move |conn| {
            let tx = conn.unchecked_transaction()?; // one snapshot: counters and heads belong together
            let census = read::census(conn, &tier, now)?;
            tx.finish()?;
            Ok(census)
        })
        .await
    }

    async fn tiers(&self) -> Result<Vec<Tier>, StoreError> {
        self.read("list tiers", control::tiers).await
    }

    async fn activation(&self, tier: &Tier) -> Result<Option<Activation>, StoreError> {
        let tier = tier.clone();
        self.read("read the activation", move |conn| match read::tier_id(conn, &tier)? {
            Some(tid) => control::read_activation(conn, tid),
            None => Ok(None),
        })
        .await
    }

    async fn flip(
        &self,
        tier: &Tier,
        expect: Option<u64>,
        next: Flip,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        let (tier, by) = (tier.clone(), by.clone());
        self.writer
            .run(durable("flip"), move |session| control::flip(session, &tier, expect, &next, &by))
            .await
    }

    async fn commit(
        &self,
        tier: &Tier,
        generation: u64,
        guard: Option<&Guard>,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        let (tier, guard, by) = (tier.clone(), guard.cloned(), by.clone());
        self.writer
            .run(durable("commit the activation"), move |session| {
                control::commit(session, &tier, generation, guard.as_ref(), &by)
            })
            .await
    }

    async fn extend(
        &self,
        tier: &Tier,
        seen: &Activation,
        within: Duration,
        guard: Option<&Guard>,
    ) -> Result<Flipped, StoreError> {
        let (tier, seen, guard) = (tier.clone(), seen.clone(), guard.cloned());
        self.writer
            .run(volatile("extend the activation"), move |session| {
                control::extend(session, &tier, &seen, within, guard.as_ref())
            })
            .await
    }

    async fn record(&self, tier: &Tier, space: Space, key: &str) -> Result<Option<Record>, StoreError> {
        let (tier, key, now) = (tier.clone(), key.to_owned(), self.clock.now());
        self.read("read a record", move |conn| match read::tier_id(conn, &tier)? {
            Some(tid) => control::record(conn, tid, space, &key, now),
            None => Ok(None),
        })
        .await
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
        let (tier, key, value) = (tier.clone(), key.to_owned(), value.to_owned());
        self.writer
            .run(durable("write a record"), move |session| {
                control::put(session, &tier, space, &key, expect, &value, keep)
            })
            .await
    }

    async fn records(
        &self,
        tier: &Tier,
        space: Space,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let (tier, after, now, limit) =
            (tier.clone(), after.map(str::to_owned), self.clock.now(), limit.min(MAX_BATCH));
        self.read("list records", move |conn| match read::tier_id(conn, &tier)? {
            Some(tid) => control::records(conn, tid, space, after.as_deref(), limit, now),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn pause(
        &self,
        tier: &Tier,
        queue: &Queue,
        pause: Option<Pause>,
        by: &Actor,
    ) -> Result<Option<Paused>, StoreError> {
        self.refuse("pause a queue", meaning::unpausable(queue, pause))?;
        let (tier, queue, by) = (tier.clone(), queue.clone(), by.clone());
        self.writer
            .run(durable("pause a queue"), move |session| pause::pause(session, &tier, &queue, pause, &by))
            .await
    }

    async fn pauses(&self, tier: &Tier) -> Result<Vec<Paused>, StoreError> {
        let (tier, now) = (tier.clone(), self.clock.now());
        self.read("list pauses", move |conn| match read::tier_id(conn, &tier)? {
            Some(tid) => pause::standing(conn, tid, now),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn append(&self, tier: &Tier, event: &str, by: &Actor, detail: &str) -> Result<u64, StoreError> {
        let (tier, event, by, detail) = (tier.clone(), event.to_owned(), by.clone(), detail.to_owned());
        self.writer
            .run(durable("append to the ledger"), move |session| {
                let tid = session::tid(session, &tier)?;
                control::append(session, tid, &event, &by, &detail)
            })
            .await
    }

    async fn ledger(&self, tier: &Tier, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        let (tier, limit) = (tier.clone(), limit.min(MAX_BATCH));
        self.read("read the ledger", move |conn| match read::tier_id(conn, &tier)? {
            Some(tid) => control::ledger(conn, tid, after, limit),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn ledger_end(&self, tier: &Tier) -> Result<u64, StoreError> {
        let tier = tier.clone();
        self.read("read the ledger", move |conn| match read::tier_id(conn, &tier)? {
            Some(tid) => control::ledger_end(conn, tid),
            None => Ok(0),
        })
        .await
    }

    async fn beat(&self, tier: &Tier, presence: &Presence) -> Result<Beat, StoreError> {
        self.still_there("beat")?;
        let (tier, presence) = (tier.clone(), presence.clone());
        self.writer.run(urgent("beat"), move |session| control::beat(session, &tier, &presence)).await
    }

    async fn workers(&self, tier: &Tier) -> Result<Vec<Seen>, StoreError> {
        let (tier, now) = (tier.clone(), self.clock.now());
        self.read("list workers", move |conn| match read::tier_id(conn, &tier)? {
            Some(tid) => control::workers(conn, tid, now),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn probe(&self, tier: &Tier) -> Result<Timestamp, StoreError> {
        self.still_there("probe")?;
        let tier = tier.clone();
        self.writer
            .run(durable("probe"), move |session| {
                let tid = session::tid(session, &tier)?;
                // A real write: a reply to a read says nothing about a full or read-only disk.
                session.conn.prepare_cached("UPDATE tier SET name = name WHERE tid = ?1")?.execute([tid])?;
                Ok(session.now)
            })
            .await
    }
}
