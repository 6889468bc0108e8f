//! The worker's counters as metrics. The SDK reads them on a thread of its own, through callbacks that may fail: one that
//! panicked would end that thread for good.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, MeterProvider as _};
use opentelemetry_otlp::{MetricExporter, Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};

use super::client::{Client, DEADLINE};
use super::tally::Tally;
use crate::activation::WorkerState;
use crate::clock;
use crate::worker::watch::{Fate, Processed};
use crate::worker::{Facts, Worker};

/// What a worker knows of itself at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Its state, slots and ages.
    pub facts: Facts,
    /// What it has processed.
    pub processed: Processed,
}

impl Reading {
    /// Of this worker, now.
    #[must_use]
    pub fn of(worker: &Worker) -> Option<Self> {
        Some(Self { facts: worker.facts()?, processed: worker.processed() })
    }
}

pub(super) type Read = Arc<dyn Fn() -> Option<Reading> + Send + Sync>;

pub(super) fn exporter(client: &Client, base: &str) -> Result<MetricExporter, String> {
    MetricExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_endpoint(format!("{base}/v1/metrics"))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(DEADLINE)
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|error| error.to_string())
}

pub(super) fn provider(exporter: MetricExporter, every: Duration, resource: Resource) -> SdkMeterProvider {
    let reader = PeriodicReader::builder(exporter).with_interval(every).build();
    SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build()
}

/// Registers every metric. The names are a contract with whoever has a dashboard.
pub(super) fn register(provider: &SdkMeterProvider, tally: &Arc<Tally>, read: Read) {
    let source = Source { tally: Arc::clone(tally), read };
    let meter = provider.meter("sluicegate");
    meter
        .u64_observable_counter("sluicegate.jobs.processed")
        .with_description("attempts that ended, by outcome")
        .with_unit("{job}")
        .with_callback(source.callback(tell_processed))
        .build();
    meter
        .u64_observable_counter("messaging.client.consumed.messages")
        .with_description("attempts that ended, done or failed")
        .with_unit("{message}")
        .with_callback(source.callback(tell_consumed))
        .build();
    meter
        .u64_observable_gauge("sluicegate.worker.slots")
        .with_description("jobs that it runs, that it could run beside them, and that it cannot end")
        .with_unit("{slot}")
        .with_callback(source.callback(tell_slots))
        .build();
    meter
        .i64_observable_up_down_counter("sluicegate.worker.status")
        .with_description("1 for the state it is in, 0 for the others")
        .with_unit("{worker}")
        .with_callback(source.callback(tell_status))
        .build();
    meter
        .f64_observable_gauge("sluicegate.worker.last_claim.timestamp")
        .with_description("when the store last answered a claim")
        .with_unit("s")
        .with_callback(source.callback(|reading, to| tell_time(reading.facts.presence.claim_age, to)))
        .build();
    meter
        .f64_observable_gauge("sluicegate.worker.last_progress.timestamp")
        .with_description("when a job last began or ended")
        .with_unit("s")
        .with_callback(source.callback(|reading, to| tell_time(reading.facts.presence.progress_age, to)))
        .build();
}

/// Where readings come from.
struct Source {
    tally: Arc<Tally>,
    read: Read,
}

impl Source {
    /// A callback that cannot panic; after it would have, it says nothing any more.
    fn callback<T: 'static>(
        &self,
        tell: fn(&Reading, &dyn AsyncInstrument<T>),
    ) -> impl Fn(&dyn AsyncInstrument<T>) + Send + Sync + 'static {
        let (tally, read, broken) = (Arc::clone(&self.tally), Arc::clone(&self.read), AtomicBool::new(false));
        move |to| {
            if broken.load(Relaxed) {
                return;
            }
            let told = || {
                if let Some(reading) = read() {
                    tell(&reading, to);
                }
            };
            if std::panic::catch_unwind(AssertUnwindSafe(told)).is_err() && !broken.swap(true, Relaxed) {
                tally.reading_broke();
            }
        }
    }
}

fn tell_processed(reading: &Reading, to: &dyn AsyncInstrument<u64>) {
    for (outcome, count) in reading.processed.by_outcome() {
        to.observe(count, &[KeyValue::new("outcome", outcome.as_str())]);
    }
}

/// The same in the words of OpenTelemetry, which know only of an error.
fn tell_consumed(reading: &Reading, to: &dyn AsyncInstrument<u64>) {
    let known = [
        KeyValue::new("messaging.system", "sluicegate"),
        KeyValue::new("messaging.operation.name", "process"),
    ];
    let [system, operation] = known.clone();
    to.observe(reading.processed.success, &known);
    to.observe(
        reading.processed.error,
        &[system, operation, KeyValue::new("error.type", Fate::Error.as_str())],
    );
}

fn tell_slots(reading: &Reading, to: &dyn AsyncInstrument<u64>) {
    let seen = &reading.facts.presence;
    let idle = seen.slots.saturating_sub(seen.busy);
    for (state, slots) in [("busy", seen.busy), ("idle", idle), ("stuck", seen.stuck)] {
        to.observe(u64::from(slots), &[KeyValue::new("state", state)]);
    }
}

fn tell_status(reading: &Reading, to: &dyn AsyncInstrument<i64>) {
    let now = reading.facts.presence.state;
    for state in WorkerState::ALL {
        to.observe(i64::from(state == now), &[KeyValue::new("state", state.to_string())]);
    }
}

/// An age as a time, in seconds since the epoch; nothing when it has not happened yet.
fn tell_time(age: Option<Duration>, to: &dyn AsyncInstrument<f64>) {
    let since_epoch = |age| clock::wall_time().checked_sub(age)?.duration_since(std::time::UNIX_EPOCH).ok();
    if let Some(at) = age.and_then(since_epoch) {
        to.observe(at.as_secs_f64(), &[]);
    }
}
