//! The probes: they ask [`crate::health`] and render its verdict, from memory.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Request, StatusCode};

use super::census::Counted;
use super::guard::Guard;
use super::metrics;
use super::problem::Problem;
use super::reply::{self, Reply};
use super::routes::{self, PROBES, Probe as Route};
use super::server::{Face, Peer};
use crate::client::Client;
use crate::health::{Ask, Memory, Probe, Source, Thresholds, Verdict, judge};
use crate::store::observed::Observed;

/// How often the facts are looked at between probes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the queues are counted when some of them have a limit.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The probes of one worker.
pub(crate) struct Probes {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) memory: Memory,
    pub(crate) guard: Guard,
    pub(crate) counted: Option<Counted>,
    pub(crate) client: Option<Client>,
    pub(crate) observed: Option<Arc<Observed>>,
    pub(crate) healthz: Option<Probe>,
    pub(crate) limits: Thresholds,
}

impl Probes {
    /// Looks at the facts between probes too, so that the first one that asks gets an answer with a past.
    pub(crate) async fn look(&self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            drop(self.memory.look(&*self.source));
        }
    }

    /// Counts the queues between scrapes, if anybody set a limit to compare them with.
    pub(crate) async fn count(&self) {
        let mut ticks = tokio::time::interval(COUNT_EVERY);
        while !self.memory.slos().is_empty() && self.counted.is_some() {
            ticks.tick().await;
            self.view().await;
        }
    }

    async fn view(&self) -> super::census::View {
        let Some(counted) = &self.counted else { return super::census::View::default() };
        let view = counted.view().await;
        if let Some((at, census)) = &view.last {
            self.memory.counted(*at, Arc::clone(census));
        }
        view
    }

    async fn route(&self, request: &Request<()>) -> Result<Reply, Problem> {
        let (what, segment) = routes::find(&PROBES, request.method(), request.uri().path())?;
        let query = request.uri().query().unwrap_or_default();
        match what {
            Route::Metrics => Ok(self.metrics(request.headers()).await),
            Route::Ask(probe) => self.probe(one_check(probe, segment)?, query, request.headers()),
            Route::Health => {
                self.health(group(segment)?, query, request.headers(), request.extensions().get::<Peer>())
            }
            Route::Healthz => match self.healthz {
                Some(probe) => self.probe(probe.into(), query, request.headers()),
                None => Ok(healthz("")),
            },
        }
    }

    fn judge(&self, ask: Ask, query: &str) -> Verdict {
        let ask = Ask { exclude: excluded(query), release: parameters(query, "release").next(), ..ask };
        judge(&ask, self.memory.look(&*self.source).as_ref(), &self.limits)
    }

    fn probe(&self, ask: Ask, query: &str, headers: &HeaderMap) -> Result<Reply, Problem> {
        let verdict = self.judge(ask, query);
        if wants_json(headers) {
            return document(&verdict);
        }
        let verbose = parameters(query, "verbose").next().is_some();
        Ok(reply::text(status(&verdict), verdict.to_text(verbose)))
    }

    /// The whole document; what it was found from only for those on this machine, since this listener knows no token.
    fn health(
        &self,
        probe: Probe,
        query: &str,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<Reply, Problem> {
        let verdict = self.judge(probe.into(), query);
        let near = peer.is_some_and(|Peer(ip)| ip.to_canonical().is_loopback());
        let verdict = if near { verdict } else { verdict.without_checks() };
        if accepts(headers, &["text/plain"]) && !wants_json(headers) {
            let verbose = near && parameters(query, "verbose").next().is_some();
            return Ok(reply::text(status(&verdict), verdict.to_text(verbose)));
        }
        document(&verdict)
    }

    async fn metrics(&self, headers: &HeaderMap) -> Reply {
        let view = self.view().await;
        let worker = self.source.facts();
        let facts = worker.as_ref().map(|worker| self.memory.see(worker));
        let status = |probe: Probe| (probe, judge(&probe.into(), facts.as_ref(), &self.limits).status);
        let known = metrics::Known {
            tier: self.counted.as_ref().map(|counted| counted.tier.clone()).unwrap_or_default(),
            worker: worker.as_ref(),
            facts: facts.as_ref(),
            counts: self.source.counts(),
            waits: self.source.waits(),
            sent: self.client.as_ref().map(Client::sent).unwrap_or_default(),
            operations: self.observed.as_ref().map(|observed| observed.times()).unwrap_or_default(),
            verdicts: Probe::ALL.map(status),
            counted: self.counted.is_some(),
            view,
            slos: self.memory.slos(),
        };
        let open = accepts(headers, &["application/openmetrics-text"]);
        let kind = if open { metrics::OPENMETRICS } else { metrics::PROMETHEUS };
        reply::body(StatusCode::OK, kind, metrics::text(&known, open))
    }
}

impl Face for Probes {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (parts, _) = request.into_parts();
        let answer = match self.guard.check(&parts) {
            Ok(()) => self.route(&Request::from_parts(parts, ())).await,
            Err(problem) => Err(problem),
        };
        answer.unwrap_or_else(Problem::reply)
    }
}

/// The question of a path such as `/readyz/store`.
fn one_check(probe: Probe, check: &str) -> Result<Ask, Problem> {
    if check.is_empty() {
        return Ok(probe.into());
    }
    let only = probe.checks().find(|name| *name == check);
    match only {
        Some(_) => Ok(Ask { only, ..Ask::from(probe) }),
        None => {
            let staged = (probe == Probe::Ready).then_some("staged");
            Err(unknown("NO_SUCH_CHECK", check, probe.checks().chain(staged)))
        }
    }
}

fn group(name: &str) -> Result<Probe, Problem> {
    if name.is_empty() {
        return Ok(Probe::Ready);
    }
    let found = Probe::ALL.into_iter().find(|probe| probe.group() == name);
    found.ok_or_else(|| unknown("NO_SUCH_GROUP", name, Probe::ALL.into_iter().map(Probe::group)))
}

fn unknown(code: &'static str, given: &str, known: impl Iterator<Item = &'static str>) -> Problem {
    let known: Vec<&str> = known.collect();
    let detail = format!("there is no `{}` here", crate::names::shown(given));
    Problem::new(StatusCode::NOT_FOUND, code, detail).hint(format!("there are {}", known.join(", ")))
}

fn status(verdict: &Verdict) -> StatusCode {
    if verdict.is_yes() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn document(verdict: &Verdict) -> Result<Reply, Problem> {
    let json = verdict.to_json().map_err(Problem::internal)?;
    Ok(reply::body(status(verdict), "application/health+json", json + "\n"))
}

/// As a liveness path an alias of readiness kills workers that stop; as a gate an alias of liveness passes ones that do
/// nothing. So it is neither, until somebody says which.
pub(crate) fn healthz(base: &str) -> Reply {
    let text = format!(
        "there is no /healthz, on purpose: it would mean one of two different questions\n\
         {base}/livez   would a restart help?             (liveness probe)\n\
         {base}/readyz  may this worker be given work?    (readiness probe, deploy gate)\n\
         `health.healthz` in the configuration makes it one of them\n"
    );
    reply::text(StatusCode::NOT_FOUND, text)
}

/// Probes are asked by programs that nobody reconfigures in an outage: what they do not know, they leave alone.
fn parameters(query: &str, name: &str) -> impl Iterator<Item = String> {
    query.split('&').filter_map(move |pair| {
        let (other, value) = pair.split_once('=').unwrap_or((pair, ""));
        (other == name).then(|| routes::decoded(value).unwrap_or_else(|| value.to_owned()))
    })
}

fn excluded(query: &str) -> Vec<String> {
    let lists = parameters(query, "exclude");
    lists.flat_map(|list| list.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()).collect()
}

fn wants_json(headers: &HeaderMap) -> bool {
    accepts(headers, &["application/health+json", "application/json"])
}

fn accepts(headers: &HeaderMap, kinds: &[&str]) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let given = range.split(';').next().unwrap_or_default().trim();
            kinds.iter().any(|kind| given.eq_ignore_ascii_case(kind))
        })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    struct Nobody;

    impl Source for Nobody {
        fn facts(&self) -> Option<crate::worker::Facts> {
            let name = crate::names::WorkerName::new("w-1").ok()?;
            let presence = crate::store::Presence::new(name, Default::default(), Default::default());
            Some(crate::worker::Facts::new(presence))
        }
    }

    /// A name, a release and reasons are nobody's business beyond this machine, unless they hold a token.
    #[test]
    fn details_are_for_this_machine_only() {
        let probes = Probes {
            source: Arc::new(Nobody),
            memory: Memory::default(),
            guard: Guard {
                listen: ([0, 0, 0, 0], 7433).into(),
                token: None,
                hosts: Vec::new(),
                probes: true,
            },
            counted: None,
            client: None,
            observed: None,
            healthz: None,
            limits: Thresholds::default(),
        };
        let length = |ip: Option<&str>| {
            let peer = ip.and_then(|ip| Some(Peer(ip.parse::<IpAddr>().ok()?)));
            let reply = probes.health(Probe::Ready, "", &HeaderMap::new(), peer.as_ref());
            reply.ok().and_then(|reply| hyper::body::Body::size_hint(reply.body()).exact()).unwrap_or(0)
        };
        let (near, far) = (length(Some("127.0.0.1")), length(Some("10.1.2.3")));
        assert!(near > 2 * far && far > 0, "{near} {far}");
        assert_eq!(length(Some("::ffff:127.0.0.1")), near);
        assert_eq!(length(Some("::1")), near);
        assert_eq!(length(None), far, "whoever is not known is far");
    }
}
