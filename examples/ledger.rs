//! For `tests/chaos`: a worker and a producer that write what they did into a ledger outside of the store.
//!
//! ```console
//! $ ledger work sqlite:/tmp/jobs.db /tmp/ledger w-1
//! $ ledger produce sqlite:/tmp/jobs.db /tmp/ledger 1000
//! ```
//!
//! Lines of the ledger: `start ID`, `end ID` (by the handler), `intent ID`, `stored ID` (by the producer).

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicegate::ids::JobId;
use sluicegate::names::{Tier, WorkerName};
use sluicegate::worker::{Options, Registry, Worker};
use sluicegate::{Client, Context, Handler, Job, JobResult, NewJob, Outcome};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One write to a file opened for appending is one line, whoever else writes.
struct Ledger(File);

impl Ledger {
    fn open(path: &str) -> std::io::Result<Self> {
        Ok(Self(File::options().create(true).append(true).open(path)?))
    }

    fn write(&self, what: &str, ids: &[JobId]) -> std::io::Result<()> {
        let text: String = ids.iter().map(|id| format!("{what} {id}\n")).collect();
        (&self.0).write_all(text.as_bytes())
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {}

impl Job for Entry {
    const KIND: &'static str = "ledger.entry";
}

impl Handler for Entry {
    async fn run(self, ctx: Context) -> JobResult {
        let ledger = ctx.shared.get::<Ledger>().ok_or("no ledger")?;
        ledger.write("start", &[ctx.id])?;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..20))).await;
        ledger.write("end", &[ctx.id])?;
        Ok(Outcome::Done)
    }
}

async fn work(client: &Client, ledger: Ledger, name: &str) -> Result<(), Failure> {
    let mut registry = Registry::new();
    registry.add::<Entry>()?.share(ledger);
    let options = Options { name: WorkerName::new(name)?, slots: 50, ..Options::default() };
    Worker::start(Arc::clone(client.store()), registry, options).await?.ended().await;
    Ok(())
}

async fn produce(client: &Client, ledger: &Ledger, jobs: usize) -> Result<(), Failure> {
    let mut left = jobs;
    while left > 0 {
        let batch: Vec<NewJob> =
            (0..left.min(20)).map(|_| NewJob::of(&Entry {})).collect::<Result<_, _>>()?;
        left -= batch.len();
        let ids: Vec<JobId> = batch.iter().map(|job| job.id).collect();
        ledger.write("intent", &ids)?;
        // Whatever the store did not take, or did not say that it took, is asked for again under the same id.
        let mut batch = batch;
        while !batch.is_empty() {
            let answers = client.insert_many(batch.clone()).await;
            let stored: Vec<JobId> =
                answers.iter().filter_map(|answer| Some(answer.as_ref().ok()?.id)).collect();
            ledger.write("stored", &stored)?;
            batch.retain(|job| !stored.contains(&job.id));
            // No faster than two workers can follow.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..15))).await;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, store, ledger, last] = args.as_slice() else {
        return Err("usage: ledger work|produce STORE LEDGER NAME|JOBS".into());
    };
    let client = Client::new(sluicegate::store::open(&store.parse()?).await?, Tier::default());
    let ledger = Ledger::open(ledger)?;
    match what.as_str() {
        "work" => work(&client, ledger, last).await,
        _ => produce(&client, &ledger, last.parse()?).await,
    }
}
