//! `/livez` and `/readyz` over a socket. The rules themselves are tested beside them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate::activation::WorkerState;
use sluicegate::health::Source;
use sluicegate::http::{HealthServer, serve_health};
use sluicegate::ids::Nonce;
use sluicegate::names::{Release, WorkerName};
use sluicegate::store::Presence;
use sluicegate::worker::Facts;
use tokio_util::sync::CancellationToken;

use super::kit::{Answer, Request, loopback, send};

/// Facts that a test sets.
pub(super) struct Fixed(Mutex<Option<Facts>>);

impl Fixed {
    pub(super) fn idle() -> Self {
        let (name, release) = (WorkerName::new("w-1").unwrap(), Release::new("r-2031").unwrap());
        let presence = Presence {
            state: WorkerState::Active,
            state_age: Duration::from_secs(60),
            generation: 1,
            slots: 8,
            claim_age: Some(Duration::ZERO),
            ..Presence::new(name, Nonce::new(), release)
        };
        Self(Mutex::new(Some(Facts {
            presence,
            managed: true,
            activation: None,
            store_down: None,
            backlog: false,
            unsettled: 0,
            lost: 0,
        })))
    }

    fn set(&self, change: impl FnOnce(&mut Facts)) {
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
        let (source, shutdown) = (Arc::new(Fixed::idle()), CancellationToken::new());
        let health = serve_health(loopback(), Arc::clone(&source) as _, shutdown.clone()).unwrap();
        Self { health, source, shutdown }
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
    probes.get("/v1/jobs").await.problem(404, "NO_SUCH_PATH");
    probes.send(Request::new("POST", "/livez")).await.problem(405, "METHOD_NOT_ALLOWED");
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
