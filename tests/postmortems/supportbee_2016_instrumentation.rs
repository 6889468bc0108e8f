//! SupportBee, 21 July 2016: a library that instrumented Redis broke every background job, for 13 hours. So: whatever the
//! collector of traces and metrics does, and whatever breaks in what feeds it, jobs run, the worker stays ready, and its
//! process ends when it is told to.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use sluicegate::activation::WorkerState;
use sluicegate::job::State;
use sluicegate::names::{Release, Tier};
use sluicegate::telemetry::otel::{self, Settings};
use sluicegate::worker::{Options, Worker};

use super::collector::{Collector, Manner, Message};
use crate::cli::sandbox::{Run, Running, Sandbox};
use crate::worker::bench::{Bench, Engine, active, ended, eventually, options};

/// A stop of an idle worker and 2 s for the last spans, on a machine that others use: still less than one of the SDK's own
/// waits of 5 s and what comes before it.
const EXIT: Duration = Duration::from_secs(6);
const OFTEN: (&str, &str) = ("OTEL_METRIC_EXPORT_INTERVAL", "1000");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A worker as a process, with a collector.
struct Site {
    sandbox: Sandbox,
    worker: Option<Running>,
    health: SocketAddr,
}

impl Site {
    fn with(env: &[(&str, &str)]) -> Self {
        let health = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let sandbox = Sandbox::new();
        let mut site = Self { sandbox, worker: None, health };
        site.start(env);
        site
    }

    fn start(&mut self, env: &[(&str, &str)]) {
        let listen = self.health.to_string();
        let args = ["work", "--name", "w-1", "--health-listen", &listen];
        self.worker = Some(self.sandbox.start_with(&crate::cli::sandbox::binary(), &args, env));
    }

    /// Jobs go all the way, those that fail too.
    fn works(&self, jobs: usize) {
        let run = |args: &[&str]| self.sandbox.run(&[&["job", "enqueue", "echo"], args].concat());
        for n in 0..jobs {
            run(&[&format!("{{\"n\":{n}}}"), "--wait", "--timeout", "60s"]).exits(0);
        }
        run(&[r#"{"fail":"a payload"}"#, "--retry", "1", "--queue", "mail", "--wait", "--timeout", "60s"])
            .exits(3);
    }

    fn is_ready(&self) {
        let url = format!("http://{}", self.health);
        let answer = std::process::Command::new("curl")
            .args(["-sf", "--max-time", "20", &format!("{url}/readyz")])
            .output()
            .expect("curl runs");
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stdout));
    }

    /// Stops it; it must end by itself in time.
    fn stops(&mut self) -> Run {
        let worker = self.worker.take().expect("a worker");
        let begun = Instant::now();
        worker.signal("TERM");
        let run = worker.ended().exits(0);
        assert!(begun.elapsed() < EXIT, "{:?}: {run:?}", begun.elapsed());
        assert!(!run.err.contains("panicked"), "{run:?}");
        run
    }
}

/// How often a worker complained of its collector.
fn complaints(run: &Run) -> usize {
    run.err.matches("the collector does not take it").count()
}

/// A worker lives beside a collector of this manner, from its first job to its end.
fn lives_beside(manner: Manner) -> (Collector, Run) {
    let collector = Collector::start(manner);
    let endpoint = collector.url();
    let at = ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str());
    let mut site = Site::with(&[at]);
    // The collector's first request is the one at the stop, or not much older: nothing is known of it.
    site.sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "60s"]).exits(0);
    let run = site.stops();
    let slow = matches!(manner, Manner::Silent | Manner::Drips);
    assert_eq!(run.err.contains("did not take the last spans and metrics in time"), slow, "{run:?}");
    collector.asked("");
    site.start(&[at, OFTEN]);
    site.works(1);
    collector.asked("");
    // Something is on its way, or has just failed.
    site.works(5);
    site.is_ready();
    let run = site.stops();
    let status = site.sandbox.run(&["status", "--json"]).json();
    assert_eq!(status["workers"], serde_json::json!([]), "{status}");
    (collector, run)
}

#[test]
fn a_collector_that_refuses() {
    let endpoint = format!("http://{}", Collector::refusing());
    let mut site = Site::with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    site.works(5);
    site.is_ready();
    assert_eq!(complaints(&site.stops()), 1);
}

#[test]
fn a_collector_that_accepts_and_never_answers() {
    let (_, run) = lives_beside(Manner::Silent);
    assert!(complaints(&run) <= 1, "{run:?}");
}

#[test]
fn a_collector_that_answers_one_byte_per_second() {
    let (_, run) = lives_beside(Manner::Drips);
    assert!(complaints(&run) <= 1, "{run:?}");
}

#[test]
fn a_collector_that_answers_garbage() {
    assert_eq!(complaints(&lives_beside(Manner::Garbage).1), 1);
    assert_eq!(complaints(&lives_beside(Manner::NoProtobuf).1), 0, "what a good answer says does not matter");
}

#[test]
fn a_collector_that_asks_to_come_back_in_an_hour() {
    let (collector, run) = lives_beside(Manner::Unavailable);
    assert_eq!(complaints(&run), 1, "{run:?}");
    assert!(collector.rest().is_empty(), "no request soon after one that failed");
}

#[test]
fn a_collector_that_answers_100_megabytes() {
    let (collector, run) = lives_beside(Manner::Floods);
    assert_eq!(complaints(&run), 1, "{run:?}");
    let answered = collector.answered.load(std::sync::atomic::Ordering::SeqCst);
    assert!(answered < 50_000_000, "{answered} bytes were read");
}

#[test]
fn an_endpoint_that_is_none_is_a_warning() {
    for endpoint in ["localhost:4317", "grpc://127.0.0.1:4317", "http://me:c4nary@127.0.0.1:1", "\u{1b}[2J"] {
        let mut site = Site::with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
        site.works(1);
        site.is_ready();
        let run = site.stops().says("telemetry is off");
        assert!(!run.err.contains("c4nary") && !run.err.contains('\u{1b}'), "{run:?}");
    }
}

#[test]
fn the_switch_off_of_the_standard_is_honoured() {
    let collector = Collector::start(Manner::Works);
    let endpoint = collector.url();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_SDK_DISABLED", "True")];
    let mut site = Site::with(&env);
    site.works(2);
    let run = site.stops();
    assert!(!run.err.contains("telemetry"), "{run:?}");
    assert!(collector.rest().is_empty());
}

/// A span as the collector sees it, with its resource.
struct Seen {
    span: Message,
    resource: Message,
}

/// Spans until there are so many.
fn spans(collector: &Collector, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let asked = collector.asked("/v1/traces");
        assert!(asked.head.contains("content-type: application/x-protobuf"), "{}", asked.head);
        let leaks = asked.body.windows(9).any(|part| part == b"a payload");
        assert!(!leaks, "an error's text may quote a payload");
        for traced in Message::read(&asked.body).all(1) {
            let resource = traced.all(1).pop().expect("a resource");
            let spans = traced.below(&[2, 2]);
            seen.extend(spans.into_iter().map(|span| Seen { span, resource: resource.clone() }));
        }
    }
    seen
}

#[test]
fn a_collector_that_works_gets_a_span_per_attempt_linked_to_its_producer() {
    let collector = Collector::start(Manner::Works);
    let endpoint = format!("{}/", collector.url());
    let mut site = Site::with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k3y"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ]);
    let job = format!(
        r#"{{"kind":"echo","queue":"mail","args":{{"sleep":0.05}},"meta":{{"traceparent":"00-{TRACE}-{SPAN}-01"}}}}"#
    );
    site.sandbox.run_with(&["job", "enqueue", "--from-file", "-"], &[], &job).exits(0);
    site.works(1);
    let seen = spans(&collector, 3);
    assert_eq!(seen.len(), 3);
    for Seen { span, resource } in &seen {
        assert_eq!((span.bytes(1).len(), span.bytes(2).len(), span.number(6)), (16, 8, 5), "consumer spans");
        assert_eq!(span.bytes(4), b"", "each is a trace of its own");
        assert_eq!(resource.attribute(1, "service.name").as_deref(), Some("sluicegate"));
        assert_eq!(resource.attribute(1, "service.instance.id").as_deref(), Some("w-1"));
        assert_eq!(resource.attribute(1, "deployment.environment.name").as_deref(), Some("test"));
        let attribute = |key| span.attribute(9, key).unwrap_or_default();
        assert_eq!(attribute("messaging.system"), "sluicegate");
        assert_eq!(attribute("messaging.operation.type"), "process");
        assert_eq!(
            (attribute("sluicegate.job.kind"), attribute("sluicegate.job.attempt")),
            ("echo".into(), "1".into())
        );
        assert_eq!(span.text(5), format!("process {}", attribute("messaging.destination.name")));
        assert_eq!(attribute("messaging.message.id").len(), 30, "{}", attribute("messaging.message.id"));
    }
    let linked: Vec<_> = seen.iter().filter(|seen| !seen.span.all(13).is_empty()).collect();
    let [Seen { span, .. }] = linked[..] else { panic!("{} linked spans", linked.len()) };
    assert_eq!(span.text(5), "process mail");
    let link = span.all(13).pop().expect("a link");
    assert_eq!((link.hex(1), link.hex(2)), (TRACE.to_owned(), SPAN.to_owned()));
    assert_ne!(span.hex(1), TRACE);
    let took = Duration::from_nanos(span.number(8) - span.number(7));
    assert!(took >= Duration::from_millis(50), "{took:?}");
    let failed: Vec<_> =
        seen.iter().filter(|seen| seen.span.below(&[15]).iter().any(|s| s.number(3) == 2)).collect();
    let [Seen { span, .. }] = failed[..] else { panic!("{} failed spans", failed.len()) };
    assert_eq!(span.attribute(9, "error.type").as_deref(), Some("error"));
    assert_eq!(span.attribute(9, "sluicegate.job.outcome").as_deref(), Some("error"));
    // What ends last is told at the stop, counters too.
    site.works(1);
    let run = site.stops();
    assert_eq!(complaints(&run), 0, "{run:?}");
    let rest = collector.rest();
    assert!(rest.iter().all(|asked| asked.head.contains("x-key: k3y")));
    let read =
        |path| rest.iter().filter(move |asked| asked.path == path).map(|asked| Message::read(&asked.body));
    assert_eq!(read("/v1/traces").map(|message| message.below(&[1, 2, 2]).len()).sum::<usize>(), 2);
    let processed: Vec<_> = read("/v1/metrics")
        .flat_map(|message| points(&message, "sluicegate.jobs.processed", "outcome"))
        .collect();
    assert!(processed.contains(&("success".into(), 3.0)), "{processed:?}");
}

/// Points of a metric: its attribute of this name (or nothing), and its value.
fn points(asked: &Message, name: &str, attribute: &str) -> Vec<(String, f64)> {
    let metrics = asked.below(&[1, 2, 2]);
    let found = metrics.iter().filter(|metric| metric.text(1) == name);
    let points = found.flat_map(|metric| [metric.below(&[5, 1]), metric.below(&[7, 1])].concat());
    points
        .map(|point| {
            let value = f64::from_bits(point.number(4));
            let value = if point.number(4) == 0 { point.number(6) as f64 } else { value };
            (point.attribute(7, attribute).unwrap_or_default(), value)
        })
        .collect()
}

#[test]
fn a_collector_that_works_gets_the_counters_of_the_worker() {
    let collector = Collector::start(Manner::Works);
    let mut site = Site::with(&[("SLUICEGATE__TELEMETRY__OTLP_ENDPOINT", &collector.url()), OFTEN]);
    site.works(3);
    let told = loop {
        let asked = Message::read(&collector.asked("/v1/metrics").body);
        if points(&asked, "sluicegate.jobs.processed", "outcome").contains(&("error".into(), 1.0)) {
            break asked;
        }
    };
    let processed = points(&told, "sluicegate.jobs.processed", "outcome");
    assert!(processed.contains(&("success".into(), 3.0)), "{processed:?}");
    assert_eq!(processed.len(), 4, "{processed:?}");
    let consumed = points(&told, "messaging.client.consumed.messages", "error.type");
    assert!(
        consumed.contains(&("error".into(), 1.0)) && consumed.contains(&("".into(), 3.0)),
        "{consumed:?}"
    );
    let slots = points(&told, "sluicegate.worker.slots", "state");
    let sum: f64 = slots.iter().filter(|(state, _)| state != "stuck").map(|(_, slots)| slots).sum();
    assert_eq!((sum, slots.len()), (200.0, 3), "{slots:?}");
    let status = points(&told, "sluicegate.worker.status", "state");
    assert!(status.contains(&("active".into(), 1.0)), "{status:?}");
    assert_eq!(status.iter().map(|(_, n)| n).sum::<f64>(), 1.0, "{status:?}");
    for name in ["sluicegate.worker.last_claim.timestamp", "sluicegate.worker.last_progress.timestamp"] {
        let [(_, at)] = points(&told, name, "")[..] else { panic!("{name}") };
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
        assert!((now - at).abs() < 60.0, "{name}: {at}");
    }
    site.stops();
}

fn settings(endpoint: String) -> Settings {
    Settings {
        endpoint,
        metrics_every: Duration::from_millis(50),
        service: "test".into(),
        tier: Tier::default(),
        worker: options().name,
        release: Release::default(),
    }
}

#[tokio::test]
async fn a_metric_that_panics_ends_neither_the_others_nor_a_job() {
    let bench = Bench::on(Engine::Sqlite).await;
    let collector = Collector::start(Manner::Works);
    let otel = otel::start(&settings(collector.url())).expect("telemetry");
    let worker = bench.worker_with(Options { observer: Some(otel.observer()), ..options() }).await;
    active(&worker).await;
    otel.watch_with(|| std::panic::panic_any("as told"));
    let broken = otel.counts().readings_broken;
    eventually("every reading broke", async || match otel.counts().readings_broken {
        6 => Ok(()),
        other => Err(format!("{broken}, {other}")),
    })
    .await;
    bench.reaches(bench.probe("done").await, State::Completed).await;
    // The SDK's thread lives: metrics that can be read are sent.
    otel.watch(&worker);
    let collector = tokio::task::spawn_blocking(move || {
        assert!(
            !points(&Message::read(&collector.asked("/v1/metrics").body), "sluicegate.worker.slots", "state")
                .is_empty()
        );
        assert_eq!(spans(&collector, 1).len(), 1);
        collector
    })
    .await
    .expect("asked");
    assert_eq!(worker.facts().expect("facts").presence.state, WorkerState::Active);
    worker.stop();
    ended(&worker).await;
    tokio::task::spawn_blocking(|| otel.shutdown()).await.expect("an end");
    drop(collector);
}

/// However little comes, a request ends, and the next one waits.
#[tokio::test]
async fn a_request_has_a_deadline() {
    for manner in [Manner::Silent, Manner::Drips] {
        let bench = Bench::on(Engine::Sqlite).await;
        let collector = Collector::start(manner);
        let otel = otel::start(&settings(collector.url())).expect("telemetry");
        let worker = bench.worker_with(Options { observer: Some(otel.observer()), ..options() }).await;
        bench.reaches(bench.probe("done").await, State::Completed).await;
        let counts = eventually("a request failed", async || match otel.counts() {
            counts if counts.requests_failed > 0 => Ok(counts),
            counts => Err(format!("{counts:?}")),
        })
        .await;
        assert!(counts.failing && counts.requests_ok == 0, "{counts:?}");
        worker.stop();
        ended(&worker).await;
    }
}

/// Dropping it on a thread of a runtime does not wait, whatever the collector does.
#[tokio::test]
async fn a_drop_on_a_runtime_waits_for_nothing() {
    let bench = Bench::on(Engine::Sqlite).await;
    let collector = Collector::start(Manner::Silent);
    let otel = otel::start(&settings(collector.url())).expect("telemetry");
    let worker: Worker = bench.worker_with(Options { observer: Some(otel.observer()), ..options() }).await;
    otel.watch(&worker);
    let (said, heard) = mpsc::channel();
    let asked = tokio::task::spawn_blocking(move || {
        let asked = collector.asked("/v1/metrics");
        said.send(()).expect("heard");
        (collector, asked)
    });
    eventually("it is asked", async || heard.try_recv().map_err(|error| error.to_string())).await;
    let begun = Instant::now();
    drop(otel);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    bench.reaches(bench.probe("done").await, State::Completed).await;
    worker.stop();
    ended(&worker).await;
    drop(asked.await);
}

/// An observer that panics is not called again, and costs no job anything.
#[tokio::test]
async fn an_observer_that_panics_is_called_once() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    struct Bad(AtomicU64);
    impl sluicegate::worker::watch::Observer for Bad {
        fn ended(&self, _: &sluicegate::worker::watch::Attempted<'_>) {
            self.0.fetch_add(1, SeqCst);
            std::panic::panic_any("as told");
        }
    }
    let bench = Bench::on(Engine::Sqlite).await;
    let bad = Arc::new(Bad(AtomicU64::new(0)));
    let worker = bench.worker_with(Options { observer: Some(bad.clone()), slots: 1, ..options() }).await;
    for _ in 0..3 {
        bench.reaches(bench.probe("done").await, State::Completed).await;
    }
    assert_eq!(bad.0.load(SeqCst), 1);
    assert_eq!(worker.processed().success, 3);
    worker.stop();
    ended(&worker).await;
}
