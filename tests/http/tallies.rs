//! `/metrics` of what the process itself did: enqueued, waited, asked its store.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::Client;
use sluicegate::clock;
use sluicegate::http::{Health, HealthServer};
use sluicegate::job::State;
use sluicegate::names::{Queue, Tier};
use sluicegate::store::observed::Observed;
use sluicegate::worker::Worker;
use tokio_util::sync::CancellationToken;

use super::kit::{DEADLINE, Request, Server, loopback, send};
use super::metrics::{Scraped, value};
use crate::both::{Engine, Place};
use crate::worker::bench::{Bench, active, eventually};
use crate::worker::faulty::Faulty;

/// A worker with both of its faces, as `dev` has them.
struct Whole {
    bench: Bench,
    worker: Worker,
    api: Server,
    health: HealthServer,
    shutdown: CancellationToken,
}

impl Whole {
    async fn on(engine: Engine) -> Self {
        let mut bench = Bench::on(engine).await;
        let observed = Arc::new(Observed::new(Arc::clone(&bench.store)));
        bench.store = Arc::clone(&observed) as _;
        let (worker, registry) = (bench.worker().await, bench.registry());
        let kinds = registry.infos().map(|info| (&info.queue, &info.kind));
        let client = Client::new(Arc::clone(&bench.store), Tier::default()).counting(kinds);
        let shutdown = CancellationToken::new();
        let health = Health::new(Arc::new(worker.clone()))
            .store(Arc::clone(&bench.store), Tier::default())
            .slos([(Queue::new("mail").unwrap(), Duration::from_secs(60))].into())
            .client(client.clone())
            .observed(observed)
            .serve(loopback(), shutdown.clone())
            .unwrap();
        Self { bench, worker, api: Server::of(client), health, shutdown }
    }

    async fn scrape(&self) -> String {
        send(self.health.address(), &Request::new("GET", "/metrics").bytes()).await.body
    }

    async fn post(&self, path: &str, body: &str) -> serde_json::Value {
        let answer = self.api.post(path, body).await;
        assert!(answer.status < 300, "{answer:?}");
        answer.json()
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.worker.stop();
        self.shutdown.cancel();
    }
}

fn enqueued(queue: &str, kind: &str, when: &str) -> String {
    format!(
        "sluicegate_jobs_enqueued_total{{tier=\"default\",queue=\"{queue}\",kind=\"{kind}\",when=\"{when}\"}}"
    )
}

/// Whoever alerts on a series must find it before the first job comes.
#[tokio::test]
async fn what_people_alert_on_is_there_from_the_start() {
    let whole = Whole::on(Engine::Sqlite).await;
    let text = whole.scrape().await;
    for kind in ["test.probe", "test.deaf", "test.noop", "test.teller", "test.silent"] {
        for when in ["now", "scheduled"] {
            assert_eq!(value(&text, &enqueued("default", kind, when)), 0.0);
        }
        let ran = format!(
            "sluicegate_job_duration_seconds_count{{tier=\"default\",queue=\"default\",kind=\"{kind}\"}}"
        );
        assert_eq!(value(&text, &ran), 0.0);
    }
    for queue in ["default", "mail"] {
        let waits = format!("sluicegate_job_wait_seconds_count{{tier=\"default\",queue=\"{queue}\"}}");
        assert_eq!(value(&text, &waits), 0.0);
    }
    let ops = "sluicegate_store_operation_duration_seconds_count{tier=\"default\",op=\"";
    assert_eq!(text.lines().filter(|line| line.starts_with(ops)).count(), 26, "every operation:\n{text}");
    assert_eq!(value(&text, &format!("{ops}flip\"}}")) + value(&text, &format!("{ops}bulk\"}}")), 0.0);
}

async fn what_came_in_by_http_is_counted_once_and_by_when(engine: Engine) {
    let whole = Whole::on(engine).await;
    active(&whole.worker).await; // its canary ran
    let first = whole.post("/v1/jobs", r#"{"kind":"test.probe","args":{"act":"fail"}}"#).await;
    whole.post("/v1/jobs", r#"{"kind":"test.noop","args":{},"delay":3600}"#).await;
    whole.post("/v1/jobs", r#"{"kind":"test.noop","args":{},"run_at":"2001-01-01T00:00:00Z"}"#).await;
    let batch =
        r#"{"jobs":[{"kind":"a.one","queue":"mail"},{"kind":"a.two","queue":"mail"},{"kind":"NOT"}]}"#;
    whole.post("/v1/jobs/batch", batch).await;
    let same = r#"{"kind":"test.noop","args":{},"queue":"mail","idempotency_key":"k"}"#;
    for _ in 0..2 {
        whole.post("/v1/jobs", same).await;
    }
    // Its second attempt is no second job.
    whole.bench.reaches(first["id"].as_str().unwrap().parse().unwrap(), State::Dead).await;
    let text = whole.scrape().await;
    for (queue, kind, now, scheduled) in [
        ("default", "test.probe", 1.0, 0.0),
        ("default", "test.noop", 1.0, 1.0),
        ("mail", "test.noop", 1.0, 0.0),
        ("mail", "other", 2.0, 0.0),
    ] {
        let told = ["now", "scheduled"].map(|when| value(&text, &enqueued(queue, kind, when)));
        assert_eq!(told, [now, scheduled], "{queue} {kind}");
    }
    assert!(!text.contains("a.one") && !text.contains("~canary"), "{text}");
    let sum = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    let all: f64 = text.lines().filter(|line| line.starts_with("sluicegate_jobs_enqueued")).map(sum).sum();
    assert_eq!(all, 6.0, "{text}");
    let inserts =
        value(&text, "sluicegate_store_operation_duration_seconds_count{tier=\"default\",op=\"insert\"}");
    assert!(inserts >= 6.0, "{inserts}");
    let waits = "sluicegate_job_wait_seconds_count{tier=\"default\",queue=\"default\"}";
    assert!(value(&text, waits) >= 2.0, "both attempts waited:\n{text}");
}

on_both! {
    #[tokio::test] async:
        what_came_in_by_http_is_counted_once_and_by_when;
}

/// The count was stamped with the time of the next scrape, and so seemed new however old it was.
#[tokio::test]
async fn a_count_that_came_late_has_the_age_it_has() {
    let place = Place::new(Engine::Sqlite);
    let faulty = Faulty::around(place.open().await);
    faulty.held.store(true, std::sync::atomic::Ordering::SeqCst);
    let scraped = Scraped::over(Arc::clone(&faulty) as _);
    let up = |text: &str| value(text, "sluicegate_store_up{tier=\"web\"}") == 1.0;
    assert!(!up(&scraped.scrape().await), "nobody waits for it");
    faulty.gate.add_permits(1);
    eventually("the count comes", async || {
        let calls = faulty.calls.load(std::sync::atomic::Ordering::SeqCst);
        if calls >= 2 { Ok(()) } else { Err(format!("{calls} calls: the pauses are asked for after it")) }
    })
    .await;
    let came = clock::wall().ms() as f64 / 1e3;
    let seen = async {
        loop {
            let text = scraped.scrape().await; // the last answer is good for a second
            if up(&text) {
                return text;
            }
        }
    };
    let text = tokio::time::timeout(DEADLINE, seen).await.expect("in time");
    let counted = value(&text, "sluicegate_queue_census_timestamp_seconds{tier=\"web\"}");
    assert!((came - DEADLINE.as_secs_f64()..came + 0.1).contains(&counted), "{counted}, it came at {came}");
}
