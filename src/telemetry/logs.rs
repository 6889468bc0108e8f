//! Logs: lines go through a queue to a thread that writes them, and are dropped when nobody reads standard error.

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Keeps the thread that writes logs; its drop waits about a second for the last lines.
#[derive(Debug)]
pub struct Logs {
    _guard: WorkerGuard,
}

/// Starts logging to standard error. A second call in one process changes nothing.
#[must_use]
pub fn logs(level: &str, json: bool) -> Logs {
    // The queue is allocated whole: its default of 128,000 lines would be 4 MiB of every idle worker.
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(8_192).finish(std::io::stderr());
    // Our own lines at the level; libraries only when something is wrong.
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("sluicegate", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).with_target(false);
    let set = if json {
        tracing_subscriber::registry().with(filter).with(lines.json()).try_init()
    } else {
        tracing_subscriber::registry().with(filter).with(lines.compact()).try_init()
    };
    if let Err(error) = set {
        tracing::debug!(%error, "logging was set up before");
    }
    Logs { _guard: guard }
}
