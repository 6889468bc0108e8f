//! Attempts as spans: `process QUEUE`, in a trace of its own, linked to the span that enqueued the job.
//!
//! On the job's thread an attempt is copied into a queue, if there is room. Elsewhere, once a second, what is there is made
//! into spans and sent. So a worker makes at most as many spans per second as the queue is long, which is a per cent of
//! one core; what is more than that, or comes while the collector is away, is dropped and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::{Client, DEADLINE};
use super::tally::Tally;
use crate::clock;
use crate::ids::JobId;
use crate::job::new::Extras;
use crate::names::{Kind, Queue, Release};
use crate::worker::watch::{Attempted, Fate, Fault, Observer};

/// Attempts that wait to become spans.
const ROOM: usize = 2_048;
/// How often they do.
const EVERY: Duration = Duration::from_secs(1);
/// Most spans of one request.
const BATCH: usize = 512;

/// What a span needs to know of an attempt.
struct Done {
    id: JobId,
    kind: Kind,
    queue: Queue,
    attempt: u32,
    extras: Option<Arc<Extras>>,
    end: SystemTime,
    ran: Duration,
    waited: Duration,
    fate: Fate,
    fault: Option<Fault>,
}

enum Said {
    Done(Done),
    #[cfg(test)]
    Panic,
}

/// Where the worker's attempts go in.
pub(super) struct Sink {
    room: mpsc::Sender<Said>,
    tally: Arc<Tally>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

impl Observer for Sink {
    fn ended(&self, attempt: &Attempted<'_>) {
        let Some(ran) = attempt.ran else { return };
        // A backlog that drains fast comes by here most of the time: nothing is copied in vain.
        if self.room.capacity() == 0 {
            return self.tally.dropped(1);
        }
        let done = Done {
            id: attempt.job.id,
            kind: attempt.job.kind.clone(),
            queue: attempt.job.queue.clone(),
            attempt: attempt.job.failures.saturating_add(1),
            extras: attempt.job.extras.clone(),
            end: clock::wall_time(),
            ran,
            waited: attempt.waited,
            fate: attempt.fate,
            fault: attempt.fault,
        };
        if self.room.try_send(Said::Done(done)).is_err() {
            self.tally.dropped(1);
        }
    }
}

pub(super) struct Jobs(mpsc::Receiver<Said>);

pub(super) fn sink(tally: Arc<Tally>) -> (Sink, Jobs) {
    let (room, jobs) = mpsc::channel(ROOM);
    (Sink { room, tally }, Jobs(jobs))
}

pub(super) fn exporter(client: &Client, base: &str, resource: &Resource) -> Result<SpanExporter, String> {
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_endpoint(format!("{base}/v1/traces"))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(DEADLINE)
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|error| error.to_string())?;
    exporter.set_resource(resource);
    Ok(exporter)
}

/// Makes spans of attempts until it is told to stop, and then of what is left.
pub(super) async fn gather(
    Jobs(mut jobs): Jobs,
    maker: Maker,
    exporter: SpanExporter,
    tally: Arc<Tally>,
    stop: CancellationToken,
) {
    let mut told = Told::default();
    while let Some(first) = tokio::select! { job = jobs.recv() => job, () = stop.cancelled() => None } {
        let mut next = Some(first);
        let pause = tally.pause().unwrap_or_default().max(EVERY);
        tokio::select! { () = tokio::time::sleep(pause) => {} () = stop.cancelled() => {} }
        // What does not go now waits in the queue; when that is full, new attempts are dropped. The count bounds what a
        // worker spends on it: a backlog fills the queue again as fast as it is emptied.
        for _ in 0..ROOM / BATCH {
            let Some(first) = next.take().or_else(|| jobs.try_recv().ok()) else { break };
            send(first, &mut jobs, &maker, &exporter, &tally).await;
            if tally.pause().is_some() {
                break;
            }
        }
        told.note(&tally);
    }
    jobs.close();
    while let Ok(first) = jobs.try_recv() {
        send(first, &mut jobs, &maker, &exporter, &tally).await;
    }
}

/// One request: this one, and those that wait behind it.
async fn send(
    first: Said,
    jobs: &mut mpsc::Receiver<Said>,
    maker: &Maker,
    exporter: &SpanExporter,
    tally: &Tally,
) {
    let mut next = Some(first);
    let mut taken = 0;
    while let Some(said) = next.take() {
        match said {
            Said::Done(done) => maker.make(done),
            #[cfg(test)]
            Said::Panic => std::panic::panic_any("as told"),
        }
        taken += 1;
        next = if taken < BATCH { jobs.try_recv().ok() } else { None };
    }
    let spans = maker.made();
    let count = spans.len();
    if count == 0 {
        return; // not sampled
    }
    match exporter.export(spans).await {
        Ok(()) => tally.exported(count),
        Err(_) => tally.dropped(count), // the client has said why
    }
}

/// Says once that spans are dropped although the collector takes them, and once that they are not any more.
#[derive(Default)]
struct Told {
    dropped: u64,
    dropping: bool,
    calm: u32,
}

impl Told {
    /// Ticks without a drop until it counts as over.
    const CALM: u32 = 60;

    fn note(&mut self, tally: &Tally) {
        let dropped = tally.spans_dropped();
        let more = dropped > std::mem::replace(&mut self.dropped, dropped);
        self.calm = if more { 0 } else { self.calm.saturating_add(1) };
        if more && !self.dropping && tally.pause().is_none() {
            self.dropping = true;
            tracing::info!(
                most = ROOM,
                "telemetry: more attempts per second than become spans; the others are dropped"
            );
        } else if self.dropping && self.calm >= Self::CALM {
            self.dropping = false;
            tracing::info!(dropped, "telemetry: every attempt becomes a span again");
        }
    }
}

/// Makes spans.
pub(super) struct Maker {
    tracer: SdkTracer,
    made: Gathered,
    release: String,
}

impl Maker {
    pub(super) fn new(release: &Release) -> Self {
        let made = Gathered::default();
        let provider = SdkTracerProvider::builder().with_span_processor(made.clone()).build();
        Self { tracer: provider.tracer("sluicegate"), made, release: release.to_string() }
    }

    fn make(&self, done: Done) {
        let start = done.end.checked_sub(done.ran).unwrap_or(done.end);
        let mut attributes = vec![
            KeyValue::new("messaging.system", "sluicegate"),
            KeyValue::new("messaging.destination.name", done.queue.to_string()),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.message.id", done.id.to_string()),
            KeyValue::new("sluicegate.job.kind", done.kind.to_string()),
            KeyValue::new("sluicegate.job.attempt", i64::from(done.attempt)),
            KeyValue::new("sluicegate.job.outcome", done.fate.as_str()),
            KeyValue::new("sluicegate.job.wait_seconds", done.waited.as_secs_f64()),
            KeyValue::new("sluicegate.release.id", self.release.clone()),
        ];
        if let Some(fault) = done.fault {
            attributes.push(KeyValue::new("error.type", fault.as_str()));
        }
        let builder = SpanBuilder::from_name(format!("process {}", done.queue))
            .with_kind(SpanKind::Consumer)
            .with_start_time(start)
            .with_attributes(attributes)
            .with_links(producer(done.extras.as_deref()).map(Link::with_context).into_iter().collect());
        let mut span = self.tracer.build_with_context(builder, &Context::new());
        if done.fate == Fate::Error {
            span.set_status(Status::error(done.fault.map_or("error", Fault::as_str)));
        }
        span.end_with_timestamp(done.end);
    }

    fn made(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.made.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The span that enqueued the job, if it said so in a way that can be read.
fn producer(extras: Option<&Extras>) -> Option<SpanContext> {
    let traceparent = extras?.traceparent.clone()?;
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent)]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let producer = context.span().span_context().clone();
    producer.is_valid().then_some(producer)
}

/// Ended spans, until they are sent. It exports nothing itself, so that nothing of the SDK ever waits.
#[derive(Debug, Clone, Default)]
struct Gathered(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Gathered {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
impl Sink {
    /// Its thread's task panics, and is gone when this returns.
    pub(super) fn kills_the_maker(&self) {
        assert!(self.room.try_send(Said::Panic).is_ok());
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.map(|runtime| runtime.block_on(self.room.closed())).ok();
    }

    pub(super) fn some_attempt(&self) {
        let job = crate::store::Claimed {
            id: JobId::new(),
            slot: 0,
            kind: Kind::new("echo").unwrap(),
            queue: Queue::default(),
            args: crate::job::Args::default(),
            version: 1,
            failures: 0,
            crashes: 0,
            enqueued_at: clock::Timestamp::from_ms(0),
            due_at: clock::Timestamp::from_ms(0),
            expires_at: None,
            extras: None,
        };
        let ran = Some(Duration::from_millis(1));
        self.ended(&Attempted { job: &job, ran, waited: Duration::ZERO, fate: Fate::Success, fault: None });
    }
}
