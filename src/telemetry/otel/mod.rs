//! Export of traces and metrics by OTLP, off unless an endpoint is given.
//!
//! A worker hands every attempt that ended to `spans`, which takes it or drops it, and never waits. All that is
//! OpenTelemetry's runs elsewhere: one thread of ours makes spans and sends everything (`client`), the SDK's own thread
//! reads the worker's counters once a minute (`metrics`). A collector that is down costs one request every 30 s, and the spans.
//! What must not be used, and why: a span processor of the SDK (`BatchSpanProcessor` does not say what it dropped, and waits
//! 5 s in its drop), retries (they sleep), a `force_flush` of metrics (it may wait for ever).
//!
//! Health never asks here.

mod client;
mod metrics;
mod spans;
mod tally;

use std::mem::ManuallyDrop;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use hyper::Uri;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector, SdkProvidedResourceDetector};
use tokio_util::sync::CancellationToken;

use crate::location::without_password;
use crate::names::{Release, Tier, WorkerName};
use crate::worker::Worker;
use crate::worker::watch::Observer;
pub use metrics::Reading;
pub use tally::Counts;
use tally::Tally;

/// The last spans and metrics have this long; then the process ends without them.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What to export where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The collector's base URL; `/v1/traces` and `/v1/metrics` are below it.
    pub endpoint: String,
    /// How often metrics are sent.
    pub metrics_every: Duration,
    /// `service.name`, unless the environment names one.
    pub service: String,
    /// The tier, for the resource.
    pub tier: Tier,
    /// The worker, for the resource.
    pub worker: WorkerName,
    /// The release, for the resource and for spans.
    pub release: Release,
}

/// A running export. Call [`Otel::shutdown`] where waiting is allowed: dropping it does not wait for the last spans.
#[derive(Debug)]
pub struct Otel {
    sink: Arc<spans::Sink>,
    meters: Meters,
    stop: CancellationToken,
    gathered: Option<mpsc::Receiver<()>>,
    tally: Arc<Tally>,
}

/// Dropping a provider waits up to 5 s for its thread, so it is dropped on a thread for that, or never.
type Meters = Arc<Mutex<ManuallyDrop<Option<SdkMeterProvider>>>>;

/// Starts the export. Whatever is wrong is a warning, and then there is no telemetry.
#[must_use]
pub fn start(settings: &Settings) -> Option<Otel> {
    // The libraries below are not ours to vouch for.
    let started = std::panic::catch_unwind(AssertUnwindSafe(|| Otel::start(settings)));
    let why = match started {
        Ok(Ok(otel)) => {
            tracing::info!(endpoint = %without_password(&settings.endpoint), "telemetry is sent");
            return Some(otel);
        }
        Ok(Err(why)) => why,
        Err(_) => "its start panicked".to_owned(),
    };
    let endpoint = without_password(&settings.endpoint);
    tracing::warn!(%endpoint, why, "telemetry is off; jobs run as ever");
    None
}

impl Otel {
    fn start(settings: &Settings) -> Result<Self, String> {
        let base = base(&settings.endpoint)?;
        let tally = Arc::new(Tally::default());
        let pool = client::pool(base.starts_with("https://"))?;
        let (client, posting) = client::new(pool, Arc::clone(&tally));
        let resource = resource(settings);
        let spans = spans::exporter(&client, &base, &resource)?;
        let metrics = metrics::exporter(&client, &base)?;
        drop(client); // the exporters have theirs: when both are gone, the thread ends
        let maker = spans::Maker::new(&settings.release);
        let (sink, jobs) = spans::sink(Arc::clone(&tally));
        let stop = CancellationToken::new();
        let gather = spans::gather(jobs, maker, spans, Arc::clone(&tally), stop.clone());
        let gathered = thread(posting, gather)?;
        let meters = metrics::provider(metrics, settings.metrics_every, resource);
        let meters = Arc::new(Mutex::new(ManuallyDrop::new(Some(meters))));
        Ok(Self { sink: Arc::new(sink), meters, stop, gathered: Some(gathered), tally })
    }

    /// What a worker's options take.
    #[must_use]
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.sink) as _
    }

    /// Exports the counters of a worker.
    pub fn watch(&self, worker: &Worker) {
        let worker = worker.clone();
        self.watch_with(move || Reading::of(&worker));
    }

    /// Exports what this returns; it may fail in any way.
    pub fn watch_with(&self, read: impl Fn() -> Option<Reading> + Send + Sync + 'static) {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(provider) = meters.as_ref() {
            metrics::register(provider, &self.tally, Arc::new(read));
        }
    }

    /// What was exported and what was not, so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Sends what there is, and waits for that no longer than 2 s. Not for a runtime's thread.
    pub fn shutdown(mut self) {
        let Some(closed) = self.close() else { return };
        if closed.recv_timeout(LAST_WORDS) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("telemetry: the collector did not take the last spans and metrics in time");
        }
    }

    /// Begins the end, on a thread of its own; `None` when it began before.
    fn close(&mut self) -> Option<mpsc::Receiver<()>> {
        let gathered = self.gathered.take()?;
        self.stop.cancel();
        let meters = Arc::clone(&self.meters);
        let (closing, closed) = mpsc::channel::<()>();
        let spawned = std::thread::Builder::new().name("sluicegate-otel-end".into()).spawn(move || {
            let provider = meters.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(provider); // sends the last metrics
            gathered.recv().ok(); // resolves by being dropped
            drop(closing);
        });
        spawned.ok().map(|_| closed)
    }
}

impl Drop for Otel {
    fn drop(&mut self) {
        self.close();
    }
}

/// The one thread of ours. What it returns resolves when the last spans are sent.
fn thread(
    posting: impl Future<Output = ()> + Send + 'static,
    gather: impl Future<Output = ()> + Send + 'static,
) -> Result<mpsc::Receiver<()>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime for it: {error}"))?;
    let (gathering, gathered) = mpsc::channel::<()>();
    let run = move || {
        runtime.block_on(async {
            // Tasks of their own: a panic in one leaves the other.
            let posting = tokio::spawn(posting);
            tokio::spawn(gather).await.ok();
            drop(gathering);
            posting.await.ok();
        });
        // A name that is still being looked up must not hold the thread.
        runtime.shutdown_background();
    };
    std::thread::Builder::new()
        .name("sluicegate-otel".into())
        .spawn(run)
        .map_err(|error| format!("no thread for it: {error}"))?;
    Ok(gathered)
}

/// The endpoint without its last slash, if something can be sent there.
fn base(endpoint: &str) -> Result<String, String> {
    let uri: Uri = endpoint.parse().map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("expected a URL such as `http://127.0.0.1:4318`".into());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("credentials belong into OTEL_EXPORTER_OTLP_HEADERS".into());
    }
    if uri.query().is_some() {
        return Err("a base URL has no query".into());
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// What all of it is about. The environment (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) beats what we know.
fn resource(settings: &Settings) -> Resource {
    let known = Resource::builder_empty()
        .with_service_name(settings.service.clone())
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", settings.worker.to_string()),
            KeyValue::new("sluicegate.tier", settings.tier.to_string()),
            KeyValue::new("sluicegate.release.id", settings.release.to_string()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()));
    let named = SdkProvidedResourceDetector.detect().get(&"service.name".into());
    match named.map(|name| name.to_string()).filter(|name| !name.starts_with("unknown_service")) {
        Some(name) => known.with_service_name(name).build(),
        None => known.build(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// To a port where nobody listens.
    fn running() -> Otel {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = Settings {
            endpoint: format!("http://{free}"),
            metrics_every: Duration::from_secs(3_600),
            service: "test".into(),
            tier: Tier::default(),
            worker: WorkerName::new("w-1").unwrap(),
            release: Release::default(),
        };
        start(&settings).unwrap()
    }

    #[test]
    fn a_maker_of_spans_that_died_costs_the_spans() {
        let otel = running();
        otel.sink.kills_the_maker();
        for n in 1..=3 {
            otel.sink.some_attempt();
            assert_eq!(otel.counts().spans_dropped, n);
        }
        otel.shutdown();
    }

    #[test]
    fn no_more_attempts_are_kept_than_there_is_room_and_the_others_are_counted() {
        let otel = running();
        // None is made into a span before a second has passed, and a slow machine only makes room.
        for _ in 0..3_000 {
            otel.sink.some_attempt();
        }
        let counts = otel.counts();
        assert!(counts.spans_dropped >= 1, "{counts:?}");
        let tally = Arc::clone(&otel.tally);
        otel.shutdown();
        let counts = tally.counts();
        assert_eq!((counts.spans_dropped, counts.spans_exported), (3_000, 0), "{counts:?}");
        assert_eq!(
            (counts.requests_ok, counts.requests_failed),
            (0, 1),
            "one request, then a pause: {counts:?}"
        );
        assert!(counts.failing && counts.requests_skipped >= 1, "{counts:?}");
    }

    #[test]
    fn only_a_base_url_is_an_endpoint() {
        for (good, wanted) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("https://otel.example.org/", "https://otel.example.org"),
            ("http://[::1]:4318/some/where//", "http://[::1]:4318/some/where"),
        ] {
            assert_eq!(base(good).as_deref(), Ok(wanted));
        }
        for bad in [
            "",
            "localhost:4318",
            "4318",
            "/v1",
            "grpc://x:4317",
            "http://",
            "http://me:pw@x",
            "http://x?a=b",
            "http://x y",
        ] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
