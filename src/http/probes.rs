//! `/livez` and `/readyz`: they ask [`crate::health`] and render its verdict.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Request, StatusCode};
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use super::problem::Problem;
use super::reply::{self, Reply};
use super::routes::{self, PROBES, Probe};
use super::server::Face;
use crate::health::{Ask, Memory, Source, Thresholds, judge};

/// How often the facts are looked at between probes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The probes of one worker.
pub(crate) struct Probes {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) memory: Memory,
    pub(crate) guard: Guard,
}

impl Probes {
    /// Looks at the facts between probes too, so that the first one that asks gets an answer with a past.
    pub(crate) async fn watch(&self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => drop(self.memory.look(&*self.source)),
            }
        }
    }

    fn route(&self, request: &Request<()>) -> Result<Reply, Problem> {
        let (what, _) = routes::find(&PROBES, request.method(), request.uri().path())?;
        let probe = match what {
            Probe::Live => crate::health::Probe::Live,
            Probe::Ready => crate::health::Probe::Ready,
            Probe::Healthz => return Ok(healthz("")),
        };
        let query = request.uri().query().unwrap_or_default();
        let release = parameter(query, "release").map(str::to_owned);
        let verbose = parameter(query, "verbose").is_some();
        let facts = self.memory.look(&*self.source);
        let verdict = judge(&Ask { probe, release }, facts.as_ref(), &Thresholds::default());
        let status = if verdict.is_yes() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if !wants_json(request.headers()) {
            return Ok(reply::text(status, verdict.to_text(verbose)));
        }
        let json = verdict.to_json().map_err(|error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", error.to_string())
        })?;
        Ok(reply::body(status, "application/health+json", json + "\n"))
    }
}

impl Face for Probes {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (parts, _) = request.into_parts();
        self.guard
            .check(&parts)
            .and_then(|()| self.route(&Request::from_parts(parts, ())))
            .unwrap_or_else(Problem::reply)
    }
}

/// As a liveness path an alias of readiness kills workers that stop; as a gate an alias of liveness passes ones that do
/// nothing. So it is neither.
pub(crate) fn healthz(base: &str) -> Reply {
    let text = format!(
        "there is no /healthz, on purpose: it would mean one of two different questions\n\
         {base}/livez   would a restart help?             (liveness probe)\n\
         {base}/readyz  may this worker be given work?    (readiness probe, deploy gate)\n"
    );
    reply::text(StatusCode::NOT_FOUND, text)
}

/// Probes are asked by programs that nobody reconfigures in an outage: what they do not know, they leave alone.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (other, value) = pair.split_once('=').unwrap_or((pair, ""));
        (other == name).then_some(value)
    })
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let kind = range.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/health+json")
                || kind.eq_ignore_ascii_case("application/json")
        })
}
