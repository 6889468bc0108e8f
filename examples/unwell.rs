//! An app whose jobs do what they should not: to see a tier turn red, with the cause, and green again.
//!
//! ```console
//! $ cargo run --example unwell -- work --name w-1 &
//! $ cargo run --example unwell -- job enqueue unwell.block '{"until":"/tmp/well"}'
//! $ cargo run --example unwell -- gate wait       # its job runtime does not tick
//! $ touch /tmp/well
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicegate::{Context, Handler, Job, JobResult, Outcome};

fn hold(until: &Path) {
    while !until.exists() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Holds a thread of the job runtime until this file is there: what a blocking call in an async handler does.
#[derive(Serialize, Deserialize)]
struct Block {
    until: PathBuf,
}

impl Job for Block {
    const KIND: &'static str = "unwell.block";
}

impl Handler for Block {
    async fn run(self, _: Context) -> JobResult {
        hold(&self.until);
        Ok(Outcome::Done)
    }
}

/// Runs on a thread of its own until this file is there, whoever cancels it.
#[derive(Serialize, Deserialize)]
struct Deaf {
    until: PathBuf,
}

impl Job for Deaf {
    const KIND: &'static str = "unwell.deaf";
    fn timeout() -> Duration {
        Duration::from_secs(1)
    }
}

impl Handler for Deaf {
    const BLOCKING: bool = true;
    async fn run(self, _: Context) -> JobResult {
        hold(&self.until);
        Ok(Outcome::Done)
    }
}

fn main() -> ExitCode {
    sluicegate::cli::App::new().job::<Block>().job::<Deaf>().main()
}
