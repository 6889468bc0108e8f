//! An app with a kind that its callers run first: a page is made anew at once, whatever the tier does, and the queue has its turn
//! only when that fails.
//!
//! ```console
//! $ cargo run --example page -- job enqueue page.bust '{"page":"/tmp/index.html"}'
//! ```

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicegate::{Bypass, Context, Handler, Job, JobResult, Outcome};

/// A file stands for the page; each run adds a line.
#[derive(Serialize, Deserialize)]
struct Bust {
    page: PathBuf,
    /// Fails with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fail: Option<String>,
    /// Is not done before this file is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<PathBuf>,
}

impl Job for Bust {
    const KIND: &'static str = "page.bust";

    /// Twice is as good as once.
    fn bypass() -> Bypass {
        Bypass::First
    }
}

impl Handler for Bust {
    async fn run(self, ctx: Context) -> JobResult {
        let mut page = File::options().create(true).append(true).open(&self.page)?;
        writeln!(page, "begun {}", ctx.id)?;
        while self.after.as_ref().is_some_and(|path| !path.exists()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Some(error) = self.fail {
            return Err(error.into());
        }
        writeln!(page, "done {}", ctx.id)?;
        Ok(Outcome::Done)
    }
}

fn main() -> ExitCode {
    sluicegate::cli::App::new().job::<Bust>().main()
}
