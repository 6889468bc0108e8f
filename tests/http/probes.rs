//! The probes over a socket. The rules themselves are tested beside them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::health;
use sluicegate::health::Source;
use sluicegate::http::{Health, HealthServer};
use sluicegate::ids::Nonce;
use sluicegate::names::{Release, WorkerName};
use sluicegate::store::Presence;
use sluicegate::worker::Facts;
use tokio_util::sync::CancellationToken;

use super::kit::{Answer, Request, loopback, send};

/// Facts that a test sets.
pub(super) struct Fixed(pub(super) Mutex<Option<Facts>>);

impl Fixed {
    pub(super) fn idle() -> Self {
        let (name, release) = (WorkerName::new("w-1").unwrap(), Release::new("r-2031").unwrap());
        let presence = Presence {
            state: WorkerState::Active,
            state_age: Duration::from_secs(60),
            generation: 1,
            slots: 8,
            claim_age: Some(Duration::ZERO),
            canary_age: Some(Duration::ZERO),
            ..Presence::new(name, Nonce::new(), release)
        };
        Self(Mutex::new(Some(Facts::new(presence))))
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Facts)) {
        change(self.0.lock().unwrap().as_mut().unwrap());
    }
}

impl Source for Fixed {
    fn facts(&self) -> Option<Facts> {
        self.0.lock().unwrap().clone()
    }
}

struct Probes {
    health: HealthServer,
    source: Arc<Fixed>,
    shutdown: CancellationToken,
}

impl Probes {
    fn start() -> Self {
        Self::with(|health| health)
    }

    fn with(change: impl FnOnce(Health) -> Health) -> Self {
        Self::of(Fixed::idle(), change)
    }

    fn of(source: Fixed, change: impl FnOnce(Health) -> Health) -> Self {
        let (source, shutdown) = (Arc::new(source), CancellationToken::new());
        let health = change(Health::new(Arc::clone(&source) as _));
        let health = health.serve(loopback(), shutdown.clone()).unwrap();
        Self { health, source, shutdown }
    }

    /// Another release is active.
    fn stands_by(&self) {
        self.source.set(|f| {
            f.presence.state = WorkerState::Inactive;
            f.presence.reason = Some("release `r-2030` is active".into());
        });
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::new("GET", path)).await
    }

    async fn send(&self, request: Request) -> Answer {
        send(self.health.address(), &request.bytes()).await
    }
}

#[tokio::test]
async fn live_and_ready_are_two_questions() {
    let probes = Probes::start();
    for path in ["/livez", "/readyz"] {
        let answer = probes.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
        let head = probes.send(Request::new("HEAD", path)).await;
        assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", Some("3")));
    }
    probes
        .source
        .set(|f| (f.presence.state, f.presence.reason) = (WorkerState::Inactive, Some("standing by".into())));
    assert_eq!(probes.get("/livez").await.status, 200);
    let ready = probes.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains("[-]activation failed: worker is inactive for 1m 00s: standing by"),
        "{ready:?}"
    );
    probes.source.set(|f| f.presence.runtime_age = Duration::from_secs(6));
    assert_eq!(probes.get("/livez").await.status, 503);
}

#[tokio::test]
async fn the_body_is_what_was_asked_for() {
    let probes = Probes::start();
    let verbose = probes.get("/readyz?verbose").await;
    assert!(verbose.body.starts_with("[+]runtime ok\n") && verbose.body.ends_with("readyz check passed\n"));
    assert_eq!(verbose.header("content-type"), Some("text/plain; charset=utf-8"));
    for accept in ["application/health+json", "text/html, application/json;q=0.9"] {
        let json = probes.send(Request::new("GET", "/readyz").header("Accept", accept)).await;
        assert_eq!(json.header("content-type"), Some("application/health+json"));
        assert_eq!((&json.json()["status"], &json.json()["releaseId"]), (&"pass".into(), &"r-2031".into()));
    }
    assert_eq!(probes.get("/readyz?release=r-2031").await.status, 200);
    let other = probes.get("/readyz?release=r-2032&x=y").await;
    assert!(other.status == 503 && other.body.contains("not `r-2032`"), "{other:?}");
}

#[tokio::test]
async fn healthz_is_neither_question() {
    let probes = Probes::start();
    let answer = probes.get("/healthz").await;
    assert!(answer.status == 404 && answer.body.contains("/livez") && answer.body.contains("/readyz"));
    assert!(answer.body.contains("`health.healthz`"), "the way out: {answer:?}");
    probes.get("/v1/jobs").await.problem(404, "NO_SUCH_PATH");
    probes.send(Request::new("POST", "/livez")).await.problem(405, "METHOD_NOT_ALLOWED");
}

#[tokio::test]
async fn healthz_is_the_question_that_the_configuration_names() {
    for (probe, path) in [(health::Probe::Live, "/livez"), (health::Probe::Ready, "/readyz")] {
        let probes = Probes::with(|health| health.healthz(Some(probe)));
        assert_eq!(probes.status("/healthz").await, 200);
        probes.stands_by();
        assert_eq!(probes.get("/healthz").await.body, probes.get(path).await.body);
        assert_eq!(probes.status("/healthz").await, if path == "/livez" { 200 } else { 503 });
    }
}

#[tokio::test]
async fn a_standby_is_not_ready_and_not_broken() {
    let probes = Probes::start();
    assert_eq!(probes.status("/readyz/staged").await, 200, "an active worker is no worse than a standby");
    probes.stands_by();
    for (path, status) in [("/livez", 200), ("/readyz", 503), ("/readyz/staged", 200), ("/startupz", 200)] {
        let answer = probes.get(path).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    assert!(probes.get("/readyz/staged?verbose").await.body.contains("[+]staged ok"));
    assert_eq!(probes.status("/readyz/staged?release=r-2032").await, 503);
    probes.source.set(|f| f.presence.canary_age = None);
    let answer = probes.get("/readyz/staged").await;
    assert!(answer.status == 503 && answer.body.contains("[-]staged failed: "), "{answer:?}");
    assert!(answer.body.ends_with("readyz/staged check failed\n"), "{answer:?}");
}

#[tokio::test]
async fn startup_passes_once_and_for_good() {
    let starting = Fixed::idle();
    starting.set(|f| f.presence.state = WorkerState::Starting);
    let fresh = Probes::of(starting, |health| health);
    assert_eq!(fresh.status("/startupz").await, 503);
    fresh.source.set(|f| f.presence.state = WorkerState::Inactive);
    assert_eq!(fresh.status("/startupz").await, 200);
    fresh.source.set(|f| f.presence.state = WorkerState::Stopped);
    assert_eq!(fresh.status("/startupz").await, 200);
    assert_eq!(fresh.status("/startupz/startup").await, 200);
}

#[tokio::test]
async fn each_check_has_a_path_and_an_unknown_one_names_the_others() {
    let probes = Probes::start();
    probes.source.set(|f| f.store_down = Some(("refused".into(), 41.0)));
    for (path, status) in [
        ("/livez/runtime", 200),
        ("/livez/store", 200),
        ("/readyz/runtime", 200),
        ("/readyz/activation", 200),
        ("/readyz/store", 503),
        ("/readyz/store?exclude=store", 503), // no evidence is no pass
        ("/livez/runtime?exclude=runtime", 200),
        ("/readyz?exclude=store", 200),
        ("/readyz?exclude=runtime,store", 200),
        ("/readyz?exclude=runtime&exclude=claim%2Cstore", 200),
        ("/readyz?exclude=runtime", 503),
    ] {
        let answer = probes.get(path).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        let head = probes.send(Request::new("HEAD", path)).await;
        assert_eq!((head.status, head.body.as_str()), (status, ""), "{path}");
    }
    assert_eq!(probes.get("/readyz/store").await.body.lines().count(), 2);
    let problem = probes.get("/readyz/no-such").await.problem(404, "NO_SUCH_CHECK");
    let hint = problem["hint"].as_str().unwrap();
    assert!(hint.contains("runtime") && hint.contains("activation") && hint.contains("staged"), "{hint}");
    probes.get("/livez/activation").await.problem(404, "NO_SUCH_CHECK");
    probes.get("/readyz/store/x").await.problem(404, "NO_SUCH_PATH");
}

#[tokio::test]
async fn the_whole_document_for_each_group() {
    let probes = Probes::start();
    probes.stands_by();
    for (path, status) in [
        ("/health", 503),
        ("/health/ready", 503),
        ("/health/live", 200),
        ("/health/startup", 200),
        ("/health/staged", 200),
        ("/health/deploy", 503),
    ] {
        let answer = probes.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/health+json"));
        let json = answer.json();
        assert_eq!(json["status"], if status == 200 { "pass" } else { "fail" }, "{path}: {json}");
        assert!(!json["checks"].as_object().unwrap().is_empty(), "{path}: {json}");
    }
    let activation = probes.get("/health").await.json()["checks"]["worker:activation"][0].clone();
    assert_eq!(
        (&activation["code"], &activation["observedValue"]),
        (&"NOT_ACTIVE".into(), &"inactive".into())
    );
    probes.get("/health/no-such").await.problem(404, "NO_SUCH_GROUP");
}

/// 100 probes one after the other, each with a connection of its own.
#[tokio::test]
async fn a_probe_is_answered_from_memory() {
    let probes = Probes::start();
    let mut took = Vec::new();
    for _ in 0..100 {
        let began = std::time::Instant::now();
        assert_eq!(probes.status("/readyz").await, 200);
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("a probe with its connection: median {:?}, worst {:?}", took[50], took[99]);
    assert!(took[50] < Duration::from_millis(20), "median {:?}", took[50]);
}

#[tokio::test]
async fn a_worker_that_has_not_started_is_alive_and_not_ready() {
    let probes = Probes::start();
    *probes.source.0.lock().unwrap() = None;
    assert_eq!(probes.get("/livez").await.status, 200);
    assert_eq!(probes.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn h30_a_web_page_cannot_read_the_probes_by_a_name_of_its_own() {
    let probes = Probes::start();
    let get = |host: &str| probes.send(Request::new("GET", "/livez").host(host));
    assert_eq!(get("localhost:7433").await.status, 200);
    get("evil.example").await.problem(421, "HOST_NOT_ALLOWED");
    let old = send(probes.health.address(), b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 200, "balancers probe like this");
}

/// This test's own runtime is the only thread it has, and the test blocks it.
#[tokio::test(flavor = "current_thread")]
async fn a_blocked_job_runtime_does_not_silence_the_probes() {
    let probes = Probes::start();
    probes.source.set(|f| f.presence.runtime_age = Duration::from_secs(6));
    let address = probes.health.address();
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(send(address, &Request::new("GET", "/livez").bytes()))
    });
    let answer = client.join().unwrap(); // blocks
    assert!(answer.status == 503 && answer.body.contains("has not ticked for 6.0 s"), "{answer:?}");
    probes.shutdown.cancel();
    probes.health.stopped().await.unwrap();
}
