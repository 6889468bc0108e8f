//! `/metrics`: what is there, from the start, whatever the store does; and that Prometheus' own parsers read it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::clock;
use sluicegate::http::{Health, HealthServer};
use sluicegate::job::{Args, NewJob};
use sluicegate::names::{Kind, Queue, Tier};
use sluicegate::store::{Actor, ErrorKind, Fault, FaultCode, Pause, Quiet, Store};
use tokio_util::sync::CancellationToken;

use super::faulty;
use super::kit::{Answer, DEADLINE, Request, loopback, send};
use super::probes::Fixed;
use crate::both::{Engine, Place};
use crate::worker::faulty::Faulty;

/// The metrics of a worker in the tier `web`, with a limit for the queue `mail`.
pub(super) struct Scraped {
    health: HealthServer,
    source: Arc<Fixed>,
    shutdown: CancellationToken,
}

impl Scraped {
    pub(super) fn over(store: Arc<dyn Store>) -> Self {
        let (source, shutdown) = (Arc::new(Fixed::idle()), CancellationToken::new());
        let health = Health::new(Arc::clone(&source) as _).store(store, tier()).slos(slos());
        Self { health: health.serve(loopback(), shutdown.clone()).unwrap(), source, shutdown }
    }

    pub(super) async fn scrape(&self) -> String {
        self.answer("*/*").await.body
    }

    async fn answer(&self, accept: &str) -> Answer {
        let request = Request::new("GET", "/metrics").header("Accept", accept);
        let answer = send(self.health.address(), &request.bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }
}

impl Drop for Scraped {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn tier() -> Tier {
    Tier::new("web").unwrap()
}

fn slos() -> BTreeMap<Queue, Duration> {
    [(Queue::new("mail").unwrap(), Duration::from_secs(60))].into()
}

/// The value of a series, written as in the text.
#[track_caller]
pub(super) fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no `{series}` in:\n{text}")).parse().unwrap()
}

async fn mail(store: &Arc<dyn Store>) {
    let mut job = NewJob::raw(Kind::new("test.mail").unwrap(), Args::default());
    job.queue = Queue::new("mail").unwrap();
    store.insert(&tier(), vec![job]).await.unwrap();
}

async fn queues_are_counted(engine: Engine) {
    let place = Place::new(engine);
    let store = place.open().await;
    mail(&store).await;
    mail(&store).await;
    let (paused, by) = (Queue::new("paused").unwrap(), Actor { who: "ada".into(), reason: None });
    store.pause(&tier(), &paused, Some(Pause::default()), &by).await.unwrap();
    let scraped = Scraped::over(Arc::clone(&store));
    let text = scraped.scrape().await;
    for (series, wanted) in [
        ("sluicegate_store_up{tier=\"web\"}", 1.0),
        ("sluicegate_queue_jobs{tier=\"web\",queue=\"mail\",state=\"available\"}", 2.0),
        ("sluicegate_queue_jobs{tier=\"web\",queue=\"mail\",state=\"dead\"}", 0.0),
        ("sluicegate_queue_paused{tier=\"web\",queue=\"mail\"}", 0.0),
        ("sluicegate_queue_paused{tier=\"web\",queue=\"paused\"}", 1.0),
        ("sluicegate_queue_slo_seconds{tier=\"web\",queue=\"mail\"}", 60.0),
    ] {
        assert_eq!(value(&text, series), wanted, "{series}");
    }
    let waited = value(&text, "sluicegate_queue_latency_seconds{tier=\"web\",queue=\"mail\"}");
    assert!((0.0..DEADLINE.as_secs_f64()).contains(&waited), "{waited}");
}

on_both! {
    #[tokio::test] async:
        queues_are_counted;
}

#[tokio::test]
async fn every_state_has_a_value_from_the_start() {
    let scraped = Scraped::over(Place::new(Engine::Sqlite).open().await);
    *scraped.source.0.lock().unwrap() = None;
    let text = scraped.scrape().await;
    assert_eq!(value(&text, "sluicegate_worker_status{tier=\"web\",state=\"starting\"}"), 1.0);
    for state in ["inactive", "active", "quiet", "stopping", "stopped"] {
        assert_eq!(value(&text, &format!("sluicegate_worker_status{{tier=\"web\",state=\"{state}\"}}")), 0.0);
    }
    assert_eq!(value(&text, "sluicegate_worker_last_claim_timestamp_seconds{tier=\"web\"}"), 0.0);
    assert_eq!(
        value(&text, "sluicegate_health_status{tier=\"web\",question=\"ready\",status=\"fail\"}"),
        1.0
    );
}

#[tokio::test]
async fn the_worker_is_told_by_state_fault_slots_and_times() {
    let scraped = Scraped::over(Place::new(Engine::Sqlite).open().await);
    scraped.source.set(|f| {
        f.presence.state = WorkerState::Quiet;
        f.presence.quiet = Some(Quiet { owner: "ada".into(), reason: "INC-1".into(), until: None });
        f.presence.fault =
            Some(Fault { code: FaultCode::ActivationHookFailed, detail: "no".into(), at: clock::wall() });
        (f.presence.busy, f.presence.stuck) = (5, 2);
        f.presence.canary_age = Some(Duration::from_secs(100));
    });
    let text = scraped.scrape().await;
    let now = clock::wall().ms() as f64 / 1e3;
    for (series, wanted) in [
        ("sluicegate_worker_status{tier=\"web\",state=\"quiet\"}", 1.0),
        ("sluicegate_worker_status{tier=\"web\",state=\"active\"}", 0.0),
        ("sluicegate_worker_fault{tier=\"web\",code=\"ACTIVATION_HOOK_FAILED\"}", 1.0),
        ("sluicegate_worker_fault{tier=\"web\",code=\"SELF_TEST_FAILED\"}", 0.0),
        ("sluicegate_worker_quiet_without_deadline{tier=\"web\"}", 1.0),
        ("sluicegate_worker_slots{tier=\"web\",state=\"busy\"}", 3.0),
        ("sluicegate_worker_slots{tier=\"web\",state=\"idle\"}", 3.0),
        ("sluicegate_worker_slots{tier=\"web\",state=\"stuck\"}", 2.0),
        ("sluicegate_health_status{tier=\"web\",question=\"ready\",status=\"fail\"}", 1.0),
        ("sluicegate_health_status{tier=\"web\",question=\"ready\",status=\"pass\"}", 0.0),
    ] {
        assert_eq!(value(&text, series), wanted, "{series}");
    }
    let canary = value(&text, "sluicegate_canary_success_timestamp_seconds{tier=\"web\"}");
    assert!((now - 100.0 - DEADLINE.as_secs_f64()..=now - 99.0).contains(&canary), "{canary} {now}");
    assert!(!text.contains("w-1") && !text.contains("worker=\""), "no label names the worker:\n{text}");
}

/// Nobody has to scrape for it: the queues are counted for the probes as well.
#[tokio::test]
async fn a_queue_over_its_limit_is_a_warning_and_nothing_else() {
    let place = Place::new(Engine::Sqlite);
    let store = place.open().await;
    mail(&store).await;
    let waited = async || store.census(&tier()).await.unwrap().queues[0].oldest_wait.unwrap();
    while waited().await <= Duration::from_millis(1) {}
    let (source, shutdown) = (Arc::new(Fixed::idle()), CancellationToken::new());
    let slos = [(Queue::new("mail").unwrap(), Duration::from_millis(1))].into();
    let health = Health::new(source as _).store(store, tier()).slos(slos);
    let health = health.serve(loopback(), shutdown.clone()).unwrap();
    let get = async |path: &str| send(health.address(), &Request::new("GET", path).bytes()).await;
    let warned = async || loop {
        let answer = get("/readyz?verbose").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        if answer.body.contains("[!]queue-latency warn: mail ") {
            return answer;
        }
    };
    let answer = tokio::time::timeout(DEADLINE, warned()).await.expect("a warning");
    assert!(answer.body.ends_with("readyz check passed\n"), "{answer:?}");
    assert!(!get("/livez?verbose").await.body.contains("queue-latency"));
    shutdown.cancel();
}

/// The store of `super::faulty` never answers a census.
#[tokio::test]
async fn a_store_that_hangs_does_not_hold_a_scrape_up() {
    let scraped = Scraped::over(Arc::new(faulty::Faulty::new(ErrorKind::Timeout)));
    let scrapes = async { tokio::join!(scraped.scrape(), scraped.scrape(), scraped.scrape()) };
    let (text, ..) = tokio::time::timeout(DEADLINE, scrapes).await.expect("in time");
    assert_eq!(value(&text, "sluicegate_store_up{tier=\"web\"}"), 0.0);
    assert_eq!(value(&text, "sluicegate_queue_census_timestamp_seconds{tier=\"web\"}"), 0.0);
    assert!(!text.contains("sluicegate_queue_jobs{"), "nobody knows, so nothing is said:\n{text}");
}

#[tokio::test]
async fn while_the_store_is_away_the_last_counts_stay_with_their_age() {
    let place = Place::new(Engine::Sqlite);
    let store = place.open().await;
    mail(&store).await;
    let faulty = Faulty::around(store);
    let scraped = Scraped::over(Arc::clone(&faulty) as _);
    let before = scraped.scrape().await;
    faulty.away.store(true, SeqCst);
    let (up, series) = (
        "sluicegate_store_up{tier=\"web\"}",
        "sluicegate_queue_jobs{tier=\"web\",queue=\"mail\",state=\"available\"}",
    );
    let noticed = async {
        loop {
            let text = scraped.scrape().await; // what was counted a moment ago is good for a second
            if value(&text, up) == 0.0 {
                return text;
            }
        }
    };
    let after = tokio::time::timeout(DEADLINE, noticed).await.expect("in time");
    assert_eq!((value(&before, up), value(&before, series), value(&after, series)), (1.0, 1.0, 1.0));
    let counted = "sluicegate_queue_census_timestamp_seconds{tier=\"web\"}";
    let moved = value(&after, counted) - value(&before, counted);
    assert!((-0.1..1.5).contains(&moved), "the same count, or its last successor: {moved}");
}

/// However many scrape, the store is asked about once a second.
#[tokio::test]
async fn many_scrapes_are_one_question() {
    let faulty = Faulty::around(Place::new(Engine::Sqlite).open().await);
    let scraped = Scraped::over(Arc::clone(&faulty) as _);
    let began = std::time::Instant::now();
    for _ in 0..50 {
        scraped.scrape().await;
    }
    let (asked, most) = (faulty.calls.load(SeqCst), began.elapsed().as_secs() + 2);
    assert!((1..=most).contains(&asked), "{asked} questions in {:?}", began.elapsed());
}

/// Needs Python, as `scripts/test` installs it.
mod parsed {
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use serde_json::Value;

    use super::*;

    fn parse(format: &str, text: &str) -> Vec<Value> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let venv = std::env::var_os("SLUICEGATE_TEST_VENV")
            .map_or_else(|| root.join("target/test-venv"), PathBuf::from);
        let mut child = Command::new(venv.join("bin/python"))
            .arg(root.join("tests/http/metrics.py"))
            .arg(format)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python; `scripts/test` installs it");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "the parser refuses this:\n{text}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    #[tokio::test]
    async fn the_parsers_of_prometheus_read_both_formats() {
        let place = Place::new(Engine::Sqlite);
        let store = place.open().await;
        mail(&store).await;
        let bench = crate::worker::bench::Bench::on(Engine::Sqlite).await;
        let worker = bench.worker().await;
        bench.reaches(bench.probe("done").await, sluicegate::job::State::Completed).await;
        // The store answers before the worker counts.
        crate::worker::bench::facts_say(&worker, "it is counted", |facts| facts.presence.completed == 1)
            .await;
        let shutdown = CancellationToken::new();
        let health = Health::new(Arc::new(worker.clone())).store(store, tier()).slos(slos());
        let health = health.serve(loopback(), shutdown.clone()).unwrap();
        for (format, accept, kind) in [
            ("prometheus", "text/plain", "text/plain; version=0.0.4; charset=utf-8"),
            (
                "openmetrics",
                "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        ] {
            let request = Request::new("GET", "/metrics").header("Accept", accept);
            let answer = send(health.address(), &request.bytes()).await;
            assert_eq!(answer.header("content-type"), Some(kind));
            let families = parse(format, &answer.body);
            assert!(families.len() >= 20, "{families:#?}");
            let mut names = std::collections::BTreeSet::new();
            for family in &families {
                assert!(names.insert(family["name"].to_string()), "{} twice", family["name"]);
                assert!(
                    family["help"].as_str().unwrap().len() > 5 && family["type"] != "unknown",
                    "{family}"
                );
                for sample in family["samples"].as_array().unwrap() {
                    assert_eq!(sample[1]["tier"], "web", "{sample}");
                }
            }
            let find = |name: &str| families.iter().find(|family| family["name"] == name).unwrap();
            // Prometheus' old parser and OpenMetrics both name the family without `_total`.
            let done = find("sluicegate_jobs_processed")["samples"].as_array().unwrap();
            let of = |sample: &&Value| sample[1]["kind"] == "test.probe" && sample[1]["outcome"] == "success";
            assert_eq!(done.iter().find(of).unwrap()[2].as_f64(), Some(1.0), "{done:?}");
            let ran = find("sluicegate_job_duration_seconds")["samples"].as_array().unwrap();
            let of = |sample: &&Value| sample[1]["kind"] == "test.probe" && sample[1]["le"] == "+Inf";
            let last = ran.iter().find(of).unwrap();
            assert_eq!(last[0], "sluicegate_job_duration_seconds_bucket");
            assert_eq!(last[2].as_f64(), Some(1.0), "{ran:?}");
        }
        shutdown.cancel();
    }
}
