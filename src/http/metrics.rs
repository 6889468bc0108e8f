//! What a worker knows, as metrics: rendered by hand, so that a scrape needs neither a collector nor a thread. Every
//! series is there from the start, and none is named by a job or a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::census::View;
use super::exposition::{Text, Type};
use crate::activation::WorkerState;
use crate::client::Sent;
use crate::clock::{self, Timestamp};
use crate::health::{Facts, Probe, Status};
use crate::histogram::Times;
use crate::job::State;
use crate::names::{Queue, Tier};
use crate::store::{FaultCode, QueueCensus};
use crate::worker::{self, BOUNDS, Counts, Done, WAITS, Waits};

pub(crate) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a scrape shows.
pub(crate) struct Known<'a> {
    pub(crate) tier: Tier,
    pub(crate) worker: Option<&'a worker::Facts>,
    pub(crate) facts: Option<&'a Facts>,
    pub(crate) counts: Counts,
    pub(crate) waits: Waits,
    /// What this process enqueued.
    pub(crate) sent: Sent,
    /// How long the store's operations took, if that is measured here.
    pub(crate) operations: Vec<(&'static str, Times)>,
    pub(crate) verdicts: [(Probe, Status); 5],
    /// Whether the queues are counted here at all.
    pub(crate) counted: bool,
    pub(crate) view: View,
    pub(crate) slos: &'a BTreeMap<Queue, Duration>,
}

/// The whole document.
pub(crate) fn text(known: &Known<'_>, open: bool) -> String {
    let mut text = Text::new(open, known.tier.as_str());
    about(&mut text, known);
    worker(&mut text, known);
    times(&mut text, known);
    enqueued(&mut text, known);
    jobs(&mut text, &known.counts);
    waits(&mut text, known);
    store(&mut text, known);
    queues(&mut text, known);
    text.end()
}

fn about(text: &mut Text, known: &Known<'_>) {
    let release = known.facts.map_or("", |facts| facts.release.as_str());
    let commit = option_env!("SLUICEGATE_COMMIT").unwrap_or("unknown");
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", commit), ("release", release)];
    text.family("sluicegate_build_info", Type::Gauge, "What runs here.").is(&labels, 1);
    let mut family = text.family(
        "sluicegate_health_status",
        Type::Gauge,
        "The answer to each question of health: 1 for the one that holds.",
    );
    for (probe, now) in known.verdicts {
        for status in [Status::Pass, Status::Warn, Status::Fail] {
            let labels = [("question", probe.group()), ("status", status.as_str())];
            family.is(&labels, u8::from(status == now));
        }
    }
}

fn worker(text: &mut Text, known: &Known<'_>) {
    let now = known.facts.map_or(WorkerState::Starting, |facts| facts.state);
    let mut family = text.family(
        "sluicegate_worker_status",
        Type::Gauge,
        "The state of the worker: 1 for the one it is in.",
    );
    for state in WorkerState::ALL {
        family.is(&[("state", state.as_str())], u8::from(state == now));
    }
    let fault = known.facts.and_then(|facts| facts.fault.as_ref()).map(|fault| fault.code);
    let mut family = text.family(
        "sluicegate_worker_fault",
        Type::Gauge,
        "The step on its way to active that failed: 1 for the one that did.",
    );
    for code in FaultCode::ALL {
        family.is(&[("code", code.as_str())], u8::from(fault == Some(code)));
    }
    let endless =
        known.facts.and_then(|facts| facts.quiet.as_ref()).is_some_and(|quiet| quiet.until.is_none());
    text.family(
        "sluicegate_worker_quiet_without_deadline",
        Type::Gauge,
        "Whether only a person ends its quiet.",
    )
    .is(&[], u8::from(endless));
    let (slots, busy, stuck) = known.facts.map_or((0, 0, 0), |facts| (facts.slots, facts.busy, facts.stuck));
    text.family("sluicegate_worker_slots", Type::Gauge, "Slots by what they do.")
        .is(&[("state", "busy")], busy.saturating_sub(stuck))
        .is(&[("state", "idle")], slots.saturating_sub(busy))
        .is(&[("state", "stuck")], stuck);
    let (unsettled, lost) = known.worker.map_or((0, 0), |worker| (worker.unsettled, worker.lost));
    text.family(
        "sluicegate_worker_unsettled_outcomes",
        Type::Gauge,
        "Outcomes that the store has not confirmed.",
    )
    .is(&[], unsettled);
    text.family(
        "sluicegate_leases_lost_total",
        Type::Counter,
        "Jobs whose lease was lost while they were held.",
    )
    .is(&[], lost);
    let tick = known.facts.map_or(0.0, |facts| facts.runtime_age.as_secs_f64());
    text.family(
        "sluicegate_worker_runtime_tick_age_seconds",
        Type::Gauge,
        "Age of the job runtime's last tick.",
    )
    .is(&[], tick);
}

/// Points in time, zero for never: then their age is large, and whoever watches it is told.
fn times(text: &mut Text, known: &Known<'_>) {
    let presence = known.worker.map(|worker| &worker.presence);
    let now = clock::wall();
    let at = |age: Option<Duration>| age.map_or(0.0, |age| seconds(now.minus(age)));
    for (name, help, age) in [
        (
            "sluicegate_worker_last_claim_timestamp_seconds",
            "When a claim was last answered.",
            presence.and_then(|presence| presence.claim_age),
        ),
        (
            "sluicegate_worker_last_progress_timestamp_seconds",
            "When a job last started or ended.",
            presence.and_then(|presence| presence.progress_age),
        ),
        (
            "sluicegate_canary_success_timestamp_seconds",
            "When the worker's own canary last came back.",
            presence.and_then(|presence| presence.canary_age),
        ),
    ] {
        text.family(name, Type::Gauge, help).is(&[], at(age));
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.ms() as f64 / 1e3
}

/// A process that has no way in enqueues nothing: that is zero, and not unknown.
fn enqueued(text: &mut Text, known: &Known<'_>) {
    let places: BTreeSet<_> = known.counts.keys().chain(known.sent.keys()).collect();
    let mut family = text.family(
        "sluicegate_jobs_enqueued_total",
        Type::Counter,
        "Jobs that this process enqueued, to run now or later.",
    );
    for place in places {
        let (sent, (queue, kind)) = (known.sent.get(place).copied().unwrap_or_default(), place);
        for (when, jobs) in [("now", sent.now), ("scheduled", sent.scheduled)] {
            family.is(&[("queue", queue.as_str()), ("kind", kind.as_str()), ("when", when)], jobs);
        }
    }
}

/// A queue that has a limit is one that somebody watches: it is there although no job of it began here yet.
fn waits(text: &mut Text, known: &Known<'_>) {
    let none = Times::none(&WAITS);
    let mut rows: BTreeMap<&Queue, &Times> = known.slos.keys().map(|queue| (queue, &none)).collect();
    rows.extend(&known.waits);
    let mut family = text.family(
        "sluicegate_job_wait_seconds",
        Type::Histogram,
        "How long jobs waited from when they could run until they began, in this process.",
    );
    for (queue, times) in rows {
        family.times(&[("queue", queue.as_str())], times);
    }
}

fn jobs(text: &mut Text, counts: &Counts) {
    let mut family = text.family(
        "sluicegate_jobs_processed_total",
        Type::Counter,
        "Attempts by how they ended, in this process.",
    );
    for ((queue, kind), count) in counts {
        for done in Done::ALL {
            let labels = [("queue", queue.as_str()), ("kind", kind.as_str()), ("outcome", done.as_str())];
            family.is(&labels, count.of(done));
        }
    }
    let (retried, dead) = ("sluicegate_jobs_retried_total", "sluicegate_jobs_dead_total");
    for (name, help) in
        [(retried, "Failed attempts that are repeated."), (dead, "Jobs that failed for good.")]
    {
        let mut family = text.family(name, Type::Counter, help);
        for ((queue, kind), count) in counts {
            let value = if name == retried { count.retried } else { count.dead };
            family.is(&[("queue", queue.as_str()), ("kind", kind.as_str())], value);
        }
    }
    let mut family = text.family(
        "sluicegate_job_duration_seconds",
        Type::Histogram,
        "Run times of attempts, in this process.",
    );
    for ((queue, kind), count) in counts {
        let labels = [("queue", queue.as_str()), ("kind", kind.as_str())];
        family.histogram(&labels, &BOUNDS, &count.buckets, count.ran.as_secs_f64());
    }
}

fn store(text: &mut Text, known: &Known<'_>) {
    let away = known.worker.and_then(|worker| worker.store_down.as_ref());
    let up = away.is_none() && (known.view.up || !known.counted && known.worker.is_some());
    text.family(
        "sluicegate_store_up",
        Type::Gauge,
        "Whether the store answers this worker, and this scrape.",
    )
    .is(&[], u8::from(up));
    text.family(
        "sluicegate_store_away_seconds",
        Type::Gauge,
        "For how long the store has not answered this worker.",
    )
    .is(&[], away.map_or(0.0, |(_, secs)| *secs));
    let mut family = text.family(
        "sluicegate_store_operation_duration_seconds",
        Type::Histogram,
        "How long the calls of this process to its store took, whether they were answered, failed or were given up.",
    );
    for (op, times) in &known.operations {
        family.times(&[("op", op)], times);
    }
    let counted = known.view.last.as_ref().map_or(0.0, |(at, _)| seconds(clock::wall().minus(at.elapsed())));
    text.family(
        "sluicegate_queue_census_timestamp_seconds",
        Type::Gauge,
        "When the queues were counted: while the store is away, the last counts stay.",
    )
    .is(&[], counted);
}

/// The same from every worker of the tier, but for the moment: `max by (queue)`.
fn queues(text: &mut Text, known: &Known<'_>) {
    let mut rows: BTreeMap<&Queue, Option<&QueueCensus>> = BTreeMap::new();
    if let Some((_, census)) = &known.view.last {
        // without counts, zero would be a lie
        let served = known.worker.and_then(|worker| worker.presence.queues.as_ref()).into_iter().flatten();
        let own = known.counts.keys().map(|(queue, _)| queue);
        let named = served.chain(own).chain(known.slos.keys()).chain(&known.view.paused);
        rows.extend(named.map(|queue| (queue, None)));
        rows.extend(census.queues.iter().map(|count| (&count.queue, Some(count))));
    }
    let mut family = text.family("sluicegate_queue_jobs", Type::Gauge, "Jobs by state.");
    for (queue, count) in &rows {
        for state in State::ALL {
            let jobs = count.map_or(0, |count| count.jobs(state));
            family.is(&[("queue", queue.as_str()), ("state", state.as_str())], jobs);
        }
    }
    let mut family = text.family(
        "sluicegate_queue_latency_seconds",
        Type::Gauge,
        "For how long the oldest available job has waited.",
    );
    for (queue, count) in &rows {
        let wait = count.and_then(|count| count.oldest_wait).unwrap_or_default();
        family.is(&[("queue", queue.as_str())], wait.as_secs_f64());
    }
    let paused: BTreeSet<&Queue> = known.view.paused.iter().collect();
    let mut family = text.family("sluicegate_queue_paused", Type::Gauge, "Whether the queue is paused.");
    for queue in rows.keys() {
        family.is(&[("queue", queue.as_str())], u8::from(paused.contains(queue)));
    }
    let mut family = text.family("sluicegate_queue_slo_seconds", Type::Gauge, "For how long a job may wait.");
    for (queue, slo) in known.slos {
        family.is(&[("queue", queue.as_str())], slo.as_secs_f64());
    }
}
