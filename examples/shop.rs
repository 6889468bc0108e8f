//! An app whose releases can be made bad: for trying what a deploy catches. What is wrong with a worker stands in the environment
//! variable `SHOP` of its process, as words with spaces between.
//!
//! ```console
//! $ cargo run --example shop -- work --release r1 &
//! $ SHOP='mail=fail' cargo run --example shop -- work --release r2 &
//! $ cargo run --example shop -- deploy r2        # rejected: its canaries of `shop.mail` fail
//! ```
//!
//! | word | what it does |
//! |---|---|
//! | `KIND=fail` | every run fails |
//! | `KIND=fail:30` | 30 of 100 do |
//! | `KIND=fail-jobs` | real jobs fail, canaries pass |
//! | `KIND=fail-while:FILE` | every run fails while the file is there |
//! | `KIND=slow:500` | takes 500 ms |
//! | `KIND=silent` | returns `Ok`, and does nothing |
//! | `KIND=missing` | is not registered |
//! | `boot=panic` | the process dies when it starts |
//!
//! KIND is `order` or `mail`, which declare a canary, or `label`, which does not.

#![expect(clippy::disallowed_methods, reason = "an app of its own reads its environment as it likes")]
#![expect(clippy::panic, reason = "what a bad release does")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicegate::cli::App;
use sluicegate::retry::{RetryPolicy, Shape};
use sluicegate::{Context, Handler, Job, JobResult, Outcome};

/// What is wrong, in words.
struct Faults {
    words: String,
    runs: AtomicU64,
}

impl Faults {
    fn of(&self, kind: &str) -> impl Iterator<Item = (&str, &str)> {
        let here =
            self.words.split_whitespace().filter_map(move |word| word.strip_prefix(kind)?.strip_prefix('='));
        here.map(|what| what.split_once(':').unwrap_or((what, "")))
    }

    fn has(&self, kind: &str, fault: &str) -> bool {
        self.of(kind).any(|(what, _)| what == fault)
    }
}

/// What every kind of this shop does.
async fn serve(ctx: &Context) -> JobResult {
    let faults = ctx.shared.get::<Arc<Faults>>().ok_or("the app shares no faults")?;
    let name = ctx.kind.as_str().trim_start_matches("shop.");
    for (what, value) in faults.of(name) {
        let fails = match what {
            "fail" if value.is_empty() => true,
            "fail" => faults.runs.fetch_add(37, Ordering::Relaxed) % 100 < value.parse()?,
            "fail-jobs" => !ctx.is_canary(),
            "fail-while" => Path::new(value).exists(),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(value.parse()?)).await;
                false
            }
            "silent" => return Ok(Outcome::Done),
            _ => false,
        };
        if fails {
            return Err(format!("the {name} desk is closed").into());
        }
    }
    ctx.receipt(&format!("{name} {}", ctx.id));
    Ok(Outcome::Done)
}

/// Soon again, for a long time: a job that fails under a bad release is still there for the good one.
fn soon() -> RetryPolicy {
    RetryPolicy { backoff: Shape::Fixed, base: Duration::from_millis(300), ..RetryPolicy::attempts(1_000) }
}

macro_rules! kinds {
    ($($kind:ident $name:literal $canary:expr;)+) => {$(
        #[derive(Serialize, Deserialize)]
        struct $kind {
            #[serde(default)]
            n: u64,
        }

        impl Job for $kind {
            const KIND: &'static str = $name;

            fn retry() -> RetryPolicy {
                soon()
            }
        }

        impl Handler for $kind {
            async fn run(self, ctx: Context) -> JobResult {
                serve(&ctx).await
            }

            fn canary() -> Option<Self> {
                $canary
            }
        }
    )+};
}

kinds! {
    Order "shop.order" Some(Self { n: 0 });
    Mail "shop.mail" Some(Self { n: 0 });
    Label "shop.label" None;
}

fn main() -> ExitCode {
    let words = std::env::var("SHOP").unwrap_or_default();
    let faults = Arc::new(Faults { words, runs: AtomicU64::new(0) });
    if faults.has("boot", "panic") {
        panic!("the shop burned down");
    }
    let mut app = App::new().share(Arc::clone(&faults));
    if !faults.has("order", "missing") {
        app = app.job::<Order>();
    }
    if !faults.has("mail", "missing") {
        app = app.job::<Mail>();
    }
    if !faults.has("label", "missing") {
        app = app.job::<Label>();
    }
    app.main()
}
