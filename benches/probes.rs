//! How fast a worker answers a probe over one kept connection, idle and while eight handlers block every thread of its job
//! runtime, beside the raw limit: a thread that echoes the same bytes. `cargo bench --bench probes`; prints one JSON object,
//! in milliseconds, and asserts nothing: compare only what was measured in one run.
//!
//! The worker is a process of its own: this program again, in another role.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time, and reads its own role")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate::activation::WorkerState;
use sluicegate::http::Health;
use sluicegate::names::Tier;
use sluicegate::worker::{Options, Registry, Worker};
use sluicegate::{Client, Context, Handler, Job, JobResult, Outcome};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PROBES: usize = 20_000;
const HANDLERS: usize = 8;

/// Holds a thread of the job runtime for so many seconds: waiting, or burning a core.
#[derive(Serialize, Deserialize)]
struct Block {
    seconds: u64,
    burn: bool,
}

impl Job for Block {
    const KIND: &'static str = "block";
}

impl Handler for Block {
    async fn run(self, _: Context) -> JobResult {
        let end = Instant::now() + Duration::from_secs(self.seconds);
        while Instant::now() < end {
            if !self.burn {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(Outcome::Done)
    }
}

/// A worker with as many job threads as `sluicegate work` has here, until it is killed; blocked if there are jobs for it.
async fn work(url: &str, burn: Option<bool>) -> Result<(), Failure> {
    let store = sluicegate::store::open(&url.parse()?).await?;
    let mut registry = Registry::new();
    registry.add::<Block>()?;
    let worker = Worker::start(Arc::clone(&store), registry, Options::default()).await?;
    let health = Health::new(Arc::new(worker.clone()));
    let health = health.serve(TcpListener::bind("127.0.0.1:0")?, CancellationToken::new())?;
    worker.until(WorkerState::Active).await;
    let address = health.address();
    // From a thread of its own: the job runtime is about to be blocked.
    let (facts, wanted) = (worker.clone(), if burn.is_some() { HANDLERS.min(threads()) } else { 0 });
    std::thread::spawn(move || {
        let busy = || facts.facts().map_or(0, |facts| facts.presence.busy as usize);
        while busy() < wanted {
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("{address}");
    });
    if let Some(burn) = burn {
        let client = Client::new(store, Tier::default());
        for _ in 0..HANDLERS {
            client.enqueue(&Block { seconds: 60, burn }).await?;
        }
    }
    worker.ended().await;
    Ok(())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4)
}

/// Sends back as many bytes as a probe's answer has.
fn echo() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 1024];
            while stream.read(&mut asked).is_ok_and(|n| n > 0) {
                let said = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n");
                if said.is_err() {
                    break;
                }
            }
        }
    });
    Ok(address)
}

/// The same question again and again over one connection; the times, sorted, in milliseconds.
fn ask(address: SocketAddr, path: &str) -> Result<Vec<f64>, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (question, mut answer) = (format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"), [0; 16_384]);
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = Instant::now();
        stream.write_all(question.as_bytes())?;
        if stream.read(&mut answer)? == 0 {
            return Err("the connection was closed".into());
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn figures(times: &[f64]) -> Value {
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied();
    json!({ "p50": at(0.5), "p99": at(0.99), "max": times.last() })
}

fn measure() -> Result<Value, Failure> {
    let echo = echo()?;
    let mut out = serde_json::Map::new();
    out.insert("raw_echo".to_owned(), figures(&ask(echo, "/")?));
    for (name, role) in [("idle", "idle"), ("blocked", "wait"), ("burning", "burn")] {
        let folder = std::env::temp_dir().join(format!("sluicegate-probes-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let url = format!("sqlite:{}", folder.join("jobs.db").display());
        let mut worker =
            Command::new(std::env::current_exe()?).args([role, &url]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(worker.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let asked = line.trim().parse().map_err(Failure::from).and_then(|address| {
            let mut of = serde_json::Map::new();
            for path in ["/livez", "/readyz"] {
                of.insert(path.to_owned(), figures(&ask(address, path)?));
            }
            Ok(Value::from(of))
        });
        worker.kill()?;
        worker.wait()?;
        std::fs::remove_dir_all(&folder)?;
        out.insert(name.to_owned(), asked?);
    }
    Ok(out.into())
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [role, url] = args.as_slice() else {
        println!("{:#}", measure()?);
        return Ok(());
    };
    let burn = match role.as_str() {
        "idle" => None,
        other => Some(other == "burn"),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads()).enable_all().build()?;
    runtime.block_on(work(url, burn))
}
