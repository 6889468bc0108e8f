//! What the workers written in Rust do with a job, and how their clients are measured.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// About 100 bytes as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Args {
    /// When it was enqueued, if its wait is measured; else 0.
    pub sent_us: u64,
    pub sleep_s: u64,
    pub pad: String,
}

impl Args {
    pub fn noop() -> Self {
        Self { sent_us: 0, sleep_s: 0, pad: "x".repeat(64) }
    }

    pub fn stamped() -> Self {
        Self { sent_us: clock_us(), ..Self::noop() }
    }

    pub fn sleeper() -> Self {
        Self { sleep_s: 30, ..Self::noop() }
    }
}

/// Counts jobs and reports once, when the expected number has run.
#[derive(Clone)]
pub struct Meter(Arc<Inner>);

struct Inner {
    expected: usize,
    first_us: OnceLock<u64>,
    done: AtomicUsize,
    waits_us: Mutex<Vec<u64>>,
}

impl Meter {
    pub fn new(expected: usize) -> Self {
        let (first_us, done, waits_us) = Default::default();
        Self(Arc::new(Inner { expected, first_us, done, waits_us }))
    }

    /// The body of every job.
    pub async fn run(&self, args: Args) {
        let now_us = clock_us();
        let first_us = self.0.first_us.get_or_init(|| now_us);
        if args.sent_us > 0 {
            self.0.waits_us.lock().unwrap().push(now_us - args.sent_us);
        }
        if args.sleep_s > 0 {
            println!("asleep");
            sleep(Duration::from_secs(args.sleep_s)).await;
        }
        if self.0.done.fetch_add(1, Ordering::Relaxed) + 1 == self.0.expected {
            let waits_us = self.0.waits_us.lock().unwrap();
            println!("{}", json!({ "first_us": first_us, "waits_us": *waits_us }));
        }
    }
}

/// The monotonic clock: one for all processes of a machine.
pub fn clock_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Waits for the turn of the `n`th of 100 jobs a second.
pub async fn turn(began: Instant, n: usize) {
    sleep_until(began + Duration::from_millis(10) * n as u32).await;
}

/// What a client prints at its end.
pub fn report(began_us: u64) {
    println!("{}", json!({ "seconds": (clock_us() - began_us) as f64 / 1e6 }));
}
