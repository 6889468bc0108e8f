//! `echo`: does nothing, or fails or waits on demand. For trying things out, and for proving that jobs run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::duration_from_secs;
use crate::job::{Context, Handler, Job, JobResult, Outcome};

/// Any JSON object. `{"fail":"text"}` fails with that text, `{"sleep":2.5}` takes so many seconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Echo {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sleep: Option<f64>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Job for Echo {
    const KIND: &'static str = "echo";

    fn timeout() -> Duration {
        Duration::from_secs(24 * 3600)
    }
}

impl Handler for Echo {
    /// It has no effect anyway.
    fn canary() -> Option<Self> {
        Some(Self { fail: None, sleep: None, rest: serde_json::Map::new() })
    }

    async fn run(self, ctx: Context) -> JobResult {
        ctx.receipt("echo");
        if let Some(secs) = self.sleep {
            let Some(time) = duration_from_secs(secs) else {
                return Ok(Outcome::Dead(format!("`sleep` {secs} is out of range: 0 to 31622400 seconds")));
            };
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = ctx.cancel.cancelled() => return Err("cancelled while it slept".into()),
            }
        }
        match self.fail {
            Some(text) => Err(text.into()),
            None => Ok(Outcome::Done),
        }
    }
}
