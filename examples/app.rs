//! An app of its own: one kind of job, and the whole command line of sluicegate in its binary.
//!
//! ```console
//! $ cargo run --example app -- dev
//! $ target/debug/examples/app job enqueue greet '{"name":"Ada"}' --wait
//! ```

#![expect(clippy::print_stderr, reason = "an app of its own prints as it likes")]

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use sluicegate::{Context, Handler, Job, JobResult, Outcome};

/// The arguments of the job are the fields of its type.
#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl Job for Greet {
    const KIND: &'static str = "greet";
}

impl Handler for Greet {
    async fn run(self, ctx: Context) -> JobResult {
        if self.name.is_empty() {
            // No attempt will make it better.
            return Ok(Outcome::Dead("nobody to greet".into()));
        }
        eprintln!("{}: hello, {}", ctx.id, self.name);
        Ok(Outcome::Done)
    }
}

fn main() -> ExitCode {
    sluicegate::cli::App::new().job::<Greet>().main()
}
