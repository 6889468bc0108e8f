//! Measures one store: `cargo bench --bench figures -- URL [JOBS]`, or what telemetry costs: `--only telemetry URL JOBS PAIRS`. Prints one JSON object; asserts nothing, since machines are
//! shared and noisy: compare only what was measured in one run. `scripts/bench` starts the stores and makes a table.
//!
//! The worker is a process of its own: this program again, in another role.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time, and reads its own role")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate::activation::WorkerState;
use sluicegate::ids::Nonce;
use sluicegate::names::{Release, Tier, WorkerName};
use sluicegate::store::observed::Observed;
use sluicegate::store::{Actor, Claim, ClaimAsk, Lane, PageAsk, Settle, Store, Verdict};
use sluicegate::telemetry::otel::{self, Otel};
use sluicegate::worker::{Options, Registry, Worker};
use sluicegate::{Client, Context, Handler, Job, JobResult, NewJob, Outcome};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Arguments of 100 bytes.
#[derive(Serialize, Deserialize)]
struct Noop {
    pad: String,
}

impl Job for Noop {
    const KIND: &'static str = "noop";
}

impl Handler for Noop {
    async fn run(self, _: Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

fn noop() -> Result<NewJob, Failure> {
    Ok(NewJob::of(&Noop { pad: "x".repeat(90) })?)
}

/// Waits for a second.
#[derive(Serialize, Deserialize)]
struct Wait {}

impl Job for Wait {
    const KIND: &'static str = "wait";
}

impl Handler for Wait {
    async fn run(self, _: Context) -> JobResult {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Outcome::Done)
    }
}

/// Tells how long it took from its enqueue to its start.
#[derive(Serialize, Deserialize)]
struct Ping {
    at: u64,
}

impl Job for Ping {
    const KIND: &'static str = "ping";
}

impl Handler for Ping {
    async fn run(self, _: Context) -> JobResult {
        println!("ping {}", micros().saturating_sub(self.at));
        Ok(Outcome::Done)
    }
}

/// The wall clock, which is the same in every process of a host.
fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Processor time of this process, in seconds, and what it holds in memory, in MiB.
fn cost() -> (f64, f64) {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let stat = read("/proc/self/stat");
    let ticks = |n: usize| {
        stat.rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(n))
            .and_then(|t| t.parse::<f64>().ok())
    };
    let status = read("/proc/self/status");
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|kib| kib.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    ((ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0, kib.unwrap_or(0.0) / 1024.0)
}

async fn client(url: &str) -> Result<Client, Failure> {
    Ok(Client::new(sluicegate::store::open(&url.parse()?).await?, Tier::default()))
}

// ---- the worker's role

/// Works until it was told to stop, or until so many jobs are done; says when it is active, and what it cost.
async fn work(url: &str, slots: usize, jobs: u64, collector: Option<&str>) -> Result<(), Failure> {
    let began = Instant::now();
    let options = Options { slots, ..Options::default() };
    let otel = collector.and_then(|endpoint| telemetry(endpoint, &options));
    let observer = otel.as_ref().map(Otel::observer);
    let mut registry = Registry::new();
    registry.add::<Noop>()?.add::<Wait>()?.add::<Ping>()?;
    let store = Arc::clone(client(url).await?.store());
    let worker = Worker::start(store, registry, Options { observer, ..options }).await?;
    if let Some(otel) = &otel {
        otel.watch(&worker);
    }
    worker.until(WorkerState::Active).await;
    println!("active");
    let (idle_cpu, idle_rss) = cost();
    let completed = || worker.facts().map_or(0, |facts| facts.presence.completed);
    while completed() < jobs {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (cpu, rss) = cost();
    println!(
        "done {}",
        json!({ "s": began.elapsed().as_secs_f64(), "cpu_s": cpu - idle_cpu, "rss_mib": rss, "idle_rss_mib": idle_rss,
            "telemetry": otel.as_ref().map(Otel::counts) })
    );
    worker.stop();
    worker.ended().await;
    Ok(())
}

fn telemetry(endpoint: &str, options: &Options) -> Option<Otel> {
    otel::start(&otel::Settings {
        endpoint: endpoint.to_owned(),
        metrics_every: Duration::from_secs(1),
        service: "bench".into(),
        tier: options.tier.clone(),
        worker: options.name.clone(),
        release: Release::default(),
    })
}

struct Role(Child, BufReader<ChildStdout>);

impl Role {
    fn worker(url: &str, slots: usize, jobs: u64) -> Result<Self, Failure> {
        Self::worker_with(url, slots, jobs, None)
    }

    fn worker_with(url: &str, slots: usize, jobs: u64, collector: Option<&str>) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--role", "work", url, &slots.to_string(), &jobs.to_string()])
            .args(collector)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no pipe")?;
        Ok(Self(child, BufReader::new(out)))
    }

    /// The next line that begins so.
    fn line(&mut self, begins: &str) -> Result<String, Failure> {
        let mut line = String::new();
        while self.1.read_line(&mut line)? > 0 {
            if let Some(rest) = line.strip_prefix(begins) {
                return Ok(rest.trim().to_owned());
            }
            line.clear();
        }
        Err("the worker ended early".into())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

// ---- measurements

/// Jobs per second of one client that enqueues many.
async fn bulk(client: &Client, jobs: usize) -> Result<f64, Failure> {
    let mut took = Duration::ZERO;
    let mut left = jobs;
    while left > 0 {
        let batch = (0..left.min(20_000)).map(|_| noop()).collect::<Result<Vec<_>, _>>()?;
        left -= batch.len();
        let began = Instant::now();
        client.insert_many(batch).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        took += began.elapsed();
    }
    Ok(jobs as f64 / took.as_secs_f64())
}

/// Jobs per second of so many callers that enqueue one at a time.
async fn singles(client: &Client, callers: usize, jobs: usize) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..jobs / callers {
                client.insert(noop()?).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}

/// What one worker process does with a backlog.
fn drain(url: &str, slots: usize, jobs: u64) -> Result<Value, Failure> {
    let mut worker = Role::worker(url, slots, jobs)?;
    Ok(serde_json::from_str(&worker.line("done ")?)?)
}

/// The raw limit: the store's own claims and settles in a bare loop, several on their way at a time, no worker around them.
async fn raw(store: &Arc<dyn Store>, jobs: usize, at_a_time: usize) -> Result<f64, Failure> {
    let left = Arc::new(AtomicUsize::new(jobs));
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..at_a_time {
        let (store, left) = (Arc::clone(store), Arc::clone(&left));
        tasks.spawn(async move {
            let tier = Tier::default();
            let incarnation = Nonce::new();
            while left.load(Relaxed) > 0 {
                let ask = ClaimAsk {
                    lane: Lane::Jobs,
                    tier: tier.clone(),
                    worker: WorkerName::new(&format!("raw-{n}"))?,
                    incarnation,
                    release: Release::default(),
                    generation: 0,
                    queues: None,
                    max: 250,
                    lease: Duration::from_secs(15),
                    nonce: Nonce::new(),
                    suspects: false,
                };
                let Claim::Active(batch) = store.claim(ask).await? else { return Err("not active".into()) };
                let settle = |job: &sluicegate::store::Claimed| Settle {
                    nonce: batch.nonce,
                    id: job.id,
                    slot: job.slot,
                    ran: Duration::from_micros(1),
                    verdict: Verdict::Completed,
                };
                let items: Vec<Settle> = batch.jobs.iter().map(settle).collect();
                if items.is_empty() {
                    return Ok::<_, Failure>(());
                }
                left.fetch_sub(items.len().min(left.load(Relaxed)), Relaxed);
                store.settle(&tier, items).await?;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}

/// From an enqueue in this process to the start in another, idle one; in milliseconds.
async fn idle(client: &Client, worker: &mut Role, pings: usize) -> Result<(f64, f64), Failure> {
    let mut took = Vec::with_capacity(pings);
    for n in 0..pings + 50 {
        client.insert(NewJob::of(&Ping { at: micros() })?).await?;
        let us: f64 = worker.line("ping ")?.parse()?;
        if n >= 50 {
            took.push(us / 1_000.0); // the first ones warm everything up
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied().unwrap_or(0.0);
    Ok((at(0.50), at(0.99)))
}

/// The longest call of each sort while so many jobs wait; in milliseconds, as a caller sees it.
async fn longest(store: &Arc<dyn Store>) -> Result<(f64, String), Failure> {
    let observed = Arc::new(Observed::new(Arc::clone(store)));
    let (tier, by) = (Tier::default(), Actor { who: "bench".into(), reason: None });
    let as_store: Arc<dyn Store> = Arc::clone(&observed) as _;
    let client = Client::new(Arc::clone(&as_store), tier.clone());
    for _ in 0..20 {
        client.insert_many((0..500).map(|_| noop()).collect::<Result<_, _>>()?).await;
        let page = as_store.page(&tier, PageAsk { limit: 50, ..PageAsk::default() }).await?;
        as_store.census(&tier).await?;
        let ids = page.jobs.iter().map(|job| job.id).collect();
        as_store.bulk(&tier, ids, sluicegate::store::Action::Cancel, &by).await?;
        as_store
            .sweep(sluicegate::store::SweepAsk {
                tier: tier.clone(),
                capability: "bench".into(),
                kinds: Vec::new(),
                lease: Duration::from_secs(15),
            })
            .await?;
        raw(&as_store, 2_000, 1).await?;
    }
    let slowest =
        observed.snapshot().into_iter().max_by_key(|seat| seat.slowest).ok_or("nothing was called")?;
    Ok((slowest.slowest.as_secs_f64() * 1e3, slowest.op.to_owned()))
}

/// A collector that takes everything, or one that only accepts; its URL.
fn collector(answers: bool) -> Result<String, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let serve = move |stream: TcpStream| -> std::io::Result<()> {
        let mut reader = BufReader::new(&stream);
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line)? > 0 {
            if let Some(given) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = given.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" && answers {
                std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
                (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            }
            line.clear();
        }
        Ok(())
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(url)
}

/// How fast jobs are with telemetry, compared with how fast they are without, run by run: each pair goes one after the
/// other, and the order changes.
async fn with_telemetry(url: &str, jobs: usize, pairs: usize) -> Result<Value, Failure> {
    let client = client(url).await?;
    let refusing = format!("http://{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let (silent, working) = (collector(false)?, collector(true)?);
    let off = "off".to_owned();
    let mut out = serde_json::Map::new();
    for (name, endpoint) in [("off", off), ("refuses", refusing), ("silent", silent), ("works", working)] {
        let (mut speed, mut cost, mut seen) = (Vec::new(), Vec::new(), Value::Null);
        for n in 0..pairs {
            let (mut took, mut cpu) = ([0.0; 2], [0.0; 2]);
            for which in [n % 2, 1 - n % 2] {
                bulk(&client, jobs).await?;
                let collector = (which == 1 && endpoint != "off").then_some(endpoint.as_str());
                let line = Role::worker_with(url, 1_000, jobs as u64, collector)?.line("done ")?;
                let done: Value = serde_json::from_str(&line)?;
                for (values, key) in [(&mut took, "s"), (&mut cpu, "cpu_s")] {
                    if let Some(value) = values.get_mut(which) {
                        *value = done.get(key).and_then(Value::as_f64).unwrap_or(0.0);
                    }
                }
                if collector.is_some() {
                    seen = done.get("telemetry").cloned().unwrap_or_default();
                }
            }
            speed.push(took[0] / took[1]);
            cost.push(cpu[1] / cpu[0]);
        }
        let spread = |values: &mut Vec<f64>| {
            values.sort_by(f64::total_cmp);
            let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
            json!({ "median": at(pairs / 2), "least": at(0), "most": at(pairs - 1) })
        };
        let (speed, cost) = (spread(&mut speed), spread(&mut cost));
        let result = json!({ "speed": speed, "worker_cpu": cost, "last": seen });
        eprintln_progress(name, &result);
        out.insert(name.to_owned(), result);
    }
    Ok(Value::Object(out))
}

async fn measure(url: &str, jobs: usize) -> Result<Value, Failure> {
    let client = client(url).await?;
    let store = Arc::clone(client.store());
    let about = store.about();
    let mut out = serde_json::Map::new();
    let mut put = |key: &str, value: Value| {
        eprintln_progress(key, &value);
        out.insert(key.to_owned(), value);
    };
    put("engine", json!(about.engine));
    put("detail", json!(about.detail));
    put("durability", json!(about.durability.to_string()));
    // A worker first: it activates the tier, and shows how fast it starts.
    let began = Instant::now();
    let mut worker = Role::worker(url, 200, u64::MAX)?;
    worker.line("active")?;
    put("start_ms", json!(began.elapsed().as_secs_f64() * 1e3));
    let (p50, p99) = idle(&client, &mut worker, 1_000).await?;
    put("idle_p50_ms", json!(p50));
    put("idle_p99_ms", json!(p99));
    drop(worker);
    put("single_enqueue_per_s", json!(singles(&client, 50, jobs / 4).await?));
    put("bulk_enqueue_per_s", json!(bulk(&client, jobs - jobs / 4).await?));
    let drained = drain(url, 1_000, jobs as u64)?;
    let number = |key: &str| drained.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    put("drain_per_s", json!(jobs as f64 / number("s")));
    put("worker_cpu_us_per_job", json!(number("cpu_s") * 1e6 / jobs as f64));
    put("rss_mib", json!(number("rss_mib")));
    put("idle_rss_mib", json!(number("idle_rss_mib")));
    bulk(&client, jobs).await?;
    put("raw_drain_per_s", json!(raw(&store, jobs, 4).await?));
    let mut took = 0.0;
    for _ in 0..20 {
        bulk(&client, 10_000).await?;
        took += 10_000.0 / raw(&store, 10_000, 4).await?;
    }
    put("raw_drain_at_10k_per_s", json!(200_000.0 / took));
    for slots in [1_000, 200] {
        let batch = (0..10_000).map(|_| Ok(NewJob::of(&Wait {})?)).collect::<Result<Vec<_>, Failure>>()?;
        client.insert_many(batch).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let drained = drain(url, slots, 10_000)?;
        put(
            &format!("ten_thousand_of_1s_with_{slots}_slots_s"),
            drained.get("s").cloned().unwrap_or_default(),
        );
    }
    bulk(&client, 1_000_000).await?;
    let (ms, op) = longest(&store).await?;
    put("longest_call_ms", json!(ms));
    put("longest_call", json!(op));
    put("raw_drain_at_1m_per_s", json!(raw(&store, 200_000, 4).await?));
    Ok(Value::Object(out))
}

#[expect(clippy::print_stderr, reason = "it tells how far it is")]
fn eprintln_progress(key: &str, value: &Value) {
    eprintln!("   {key} {value}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--role", "work", url, slots, jobs] => work(url, slots.parse()?, jobs.parse()?, None).await,
        ["--role", "work", url, slots, jobs, collector] => {
            work(url, slots.parse()?, jobs.parse()?, Some(collector)).await
        }
        ["--only", "telemetry", url, jobs, pairs] => {
            println!("{}", with_telemetry(url, jobs.parse()?, pairs.parse()?).await?);
            Ok(())
        }
        ["--only", "cycle", url, jobs] => {
            let (client, jobs) = (client(url).await?, jobs.parse::<usize>()?);
            bulk(&client, jobs).await?;
            drain(url, 1_000, jobs as u64)?;
            println!("{{}}");
            Ok(())
        }
        ["--only", "bulk", url, jobs] => {
            let client = client(url).await?;
            println!("{:.0}", bulk(&client, jobs.parse()?).await?);
            Ok(())
        }
        ["--only", "idle", url, pings] => {
            let mut worker = Role::worker(url, 200, u64::MAX)?;
            worker.line("active")?;
            println!("{:?}", idle(&client(url).await?, &mut worker, pings.parse()?).await?);
            Ok(())
        }
        ["--only", "drain", url, jobs] => {
            println!("{}", drain(url, 1_000, jobs.parse()?)?);
            Ok(())
        }
        ["--only", "singles", url, jobs] => {
            println!("{:.0}", singles(&client(url).await?, 50, jobs.parse()?).await?);
            Ok(())
        }
        ["--only", "raw", url, jobs, at_a_time] => {
            println!("{:.0}", raw(client(url).await?.store(), jobs.parse()?, at_a_time.parse()?).await?);
            Ok(())
        }
        [url, jobs] => {
            println!("{}", measure(url, jobs.parse()?).await?);
            Ok(())
        }
        [url] => {
            println!("{}", measure(url, 400_000).await?);
            Ok(())
        }
        _ => Err("usage: figures URL [JOBS]".into()),
    }
}
