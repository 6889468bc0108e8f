//! The smallest program that enqueues: `default-features = false, features = ["client", "sqlite"]`.
//!
//! ```console
//! $ cargo run --example enqueue -- sqlite:/tmp/jobs.db
//! ```

#![expect(clippy::print_stdout, reason = "an app of its own prints as it likes")]

use serde::{Deserialize, Serialize};
use sluicegate::{Client, Job};

#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl Job for Greet {
    const KIND: &'static str = "greet";
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = std::env::args().nth(1).unwrap_or_else(|| "sqlite:jobs.db".into());
    let client = Client::open(&store).await?;
    let job = client.enqueue(&Greet { name: "Ada".into() }).await?;
    println!("{} is {}", job.id, job.state);
    Ok(())
}
