//! For `tests/chaos`: one of several processes that want the same thing at the same time, each by itself, with the store alone
//! to decide. It says `ready`, waits for a line on its standard input, and prints what it got.
//!
//! ```console
//! $ rivals insert|claim|flip|hold redis://127.0.0.1:6379 w-1
//! ```

#![expect(clippy::print_stdout, reason = "the test reads it")]

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::activation::Mode;
use sluicegate::ids::Nonce;
use sluicegate::job::{Args, NewJob};
use sluicegate::names::{Kind, Release, Tier, WorkerName};
use sluicegate::store::*;

type Failure = Box<dyn Error + Send + Sync>;

/// Ids that all of them insert.
const JOBS: usize = 2_000;
/// Jobs that one claim takes: small, so that they meet often.
const CLAIM: usize = 7;
/// Flips that all of them try to make.
const FLIPS: u64 = 100;
const LEASE: Duration = Duration::from_secs(60);

struct Rival {
    store: Arc<dyn Store>,
    tier: Tier,
    name: WorkerName,
    incarnation: Nonce,
    release: Release,
}

/// Waits for the word to go on.
fn wait(word: &str) -> Result<(), Failure> {
    println!("{word}");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

impl Rival {
    /// Inserts the same jobs as everybody else, in an order of its own; a batch may hold an id twice.
    async fn insert(&self) -> Result<(), Failure> {
        let mut numbers: Vec<usize> = (0..JOBS).chain(0..JOBS / 10).collect();
        fastrand::shuffle(&mut numbers);
        for batch in numbers.chunks(40) {
            let jobs = batch.iter().map(|n| self.numbered(*n)).collect::<Result<_, _>>()?;
            for answer in self.store.insert(&self.tier, jobs).await? {
                match answer {
                    Insert::Stored { id, .. } => println!("stored {id}"),
                    Insert::Existing { id, .. } => println!("existing {id}"),
                    other => return Err(format!("{other:?}").into()),
                }
            }
        }
        Ok(())
    }

    fn numbered(&self, n: usize) -> Result<NewJob, Failure> {
        let args = Args::parse(format!("{{\"n\":{n}}}").as_bytes())?;
        Ok(NewJob::raw(Kind::new("test.job")?, args).idempotency_key(&self.tier, &n.to_string()))
    }

    fn ask(&self, max: usize) -> ClaimAsk {
        ClaimAsk {
            lane: Lane::Jobs,
            tier: self.tier.clone(),
            worker: self.name.clone(),
            incarnation: self.incarnation,
            release: self.release.clone(),
            generation: 1,
            queues: None,
            max,
            lease: LEASE,
            nonce: Nonce::new(),
            suspects: true,
        }
    }

    async fn batch(&self, max: usize) -> Result<Batch, Failure> {
        match self.store.claim(self.ask(max)).await? {
            Claim::Active(batch) => Ok(batch),
            other => Err(format!("{other:?}").into()),
        }
    }

    async fn settle(&self, batch: &Batch) -> Result<Vec<Settled>, Failure> {
        let done = |job: &Claimed| Settle {
            nonce: batch.nonce,
            id: job.id,
            slot: job.slot,
            ran: Duration::from_millis(1),
            verdict: Verdict::Completed,
        };
        Ok(self.store.settle(&self.tier, batch.jobs.iter().map(done).collect()).await?)
    }

    /// Claims and settles until nothing is left.
    async fn claim(&self) -> Result<(), Failure> {
        loop {
            let batch = self.batch(CLAIM).await?;
            batch.jobs.iter().for_each(|job| println!("claimed {}", job.id));
            if batch.jobs.is_empty() && !batch.more {
                return Ok(());
            }
            let answers = self.settle(&batch).await?;
            answers.iter().for_each(|answer| println!("settled {answer:?}"));
        }
    }

    /// Flips from whatever generation is there, until there were enough.
    async fn flip(&self) -> Result<(), Failure> {
        loop {
            let now = self.store.activation(&self.tier).await?.ok_or("no activation")?;
            if now.generation > FLIPS {
                return Ok(());
            }
            let next = Flip {
                release: self.release.clone(),
                mode: Mode::Committed,
                confirm_within: None,
                fallback: None,
                deploy: None,
                guard: None,
                least: 0,
            };
            let by = Actor { who: self.name.to_string(), reason: None };
            if let Flipped::Now(mine) = self.store.flip(&self.tier, Some(now.generation), next, &by).await? {
                println!("flipped {}", mine.generation);
            }
        }
    }

    /// Takes over whoever had its name, claims what there is, and settles it when it is told to.
    async fn hold(&self) -> Result<(), Failure> {
        self.store.beat(&self.tier, &self.presence()).await?;
        let batch = self.batch(1).await?;
        batch.jobs.iter().for_each(|job| println!("claimed {}", job.id));
        wait("held")?;
        println!("settled {:?}", self.settle(&batch).await?);
        Ok(())
    }

    fn presence(&self) -> Presence {
        let (worker, release) = (self.name.clone(), self.release.clone());
        Presence { joining: true, generation: 1, ..Presence::new(worker, self.incarnation, release) }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, url, name] = args.as_slice() else {
        return Err("usage: rivals insert|claim|flip|hold STORE NAME".into());
    };
    let rival = Rival {
        store: open(&url.parse()?).await?,
        tier: Tier::default(),
        name: WorkerName::new(name)?,
        incarnation: Nonce::new(),
        release: Release::default(),
    };
    wait("ready")?;
    match what.as_str() {
        "insert" => rival.insert().await,
        "claim" => rival.claim().await,
        "flip" => rival.flip().await,
        _ => rival.hold().await,
    }
}
