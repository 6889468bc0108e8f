//! The HTTP client of the kinds: guarded, pooled, with a deadline and a cap on what it reads. It follows no redirects.
//!
//! A name is resolved once, every address it stands for is checked, and the connection goes to one of the checked
//! addresses: a name that changes between the check and the connection finds nobody.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout_at;

use super::guard::{self, Destination, Refused};
use crate::clock::human;

/// No more of an answer is read; none of it is shown.
const MAX_ANSWER: usize = 64 * 1024;

type Pool = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// Sends requests.
#[derive(Clone)]
pub(super) struct Outbound {
    guarded: Result<Pool, String>,
    open: Result<Pool, String>,
    /// How long one request may take, connecting included.
    deadline: Duration,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbound")
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `Retry-After`, when it is a number of seconds.
    pub(super) retry_after: Option<Duration>,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("cannot send to `{host}`: {why}")]
    Failed { host: String, why: String },
}

impl Outbound {
    pub(super) fn new(deadline: Duration) -> Self {
        Self { guarded: pool(true), open: pool(false), deadline }
    }

    /// Sends one request and reads (and forgets) the answer's body.
    pub(super) async fn send(
        &self,
        to: &Destination,
        headers: &[(&str, String)],
        body: String,
    ) -> Result<Answer, SendError> {
        let host = to.url.host_str().unwrap_or_default().to_owned();
        let failed = |why: String| SendError::Failed { host: host.clone(), why };
        let pool = if to.allowed { &self.open } else { &self.guarded };
        let pool = pool.as_ref().map_err(|why| failed(why.clone()))?;
        let mut request = Request::post(to.url.as_str());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(|error| failed(error.to_string()))?;
        let deadline = tokio::time::Instant::now() + self.deadline;
        let response = match timeout_at(deadline, pool.request(request)).await {
            Ok(response) => response.map_err(|error| explain(&error, &host))?,
            Err(_) => return Err(failed(format!("no answer within {}", human(self.deadline)))),
        };
        let status = response.status();
        let retry_after =
            response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        // The status is the answer. Reading the rest lets the connection be used again; a body that is too long, or
        // never comes, costs only its connection.
        let rest = Limited::new(response.into_body(), MAX_ANSWER).collect();
        match timeout_at(deadline, rest).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the answer's body was not read to its end"),
            Err(_) => tracing::debug!("the answer's body did not end in time"),
        }
        Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs) })
    }
}

/// The innermost cause says most; a refusal is passed on as itself.
fn explain(error: &(dyn std::error::Error + 'static), host: &str) -> SendError {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return SendError::Refused(refused.clone());
        }
        causes.push(error.to_string());
        next = error.source();
    }
    causes.dedup();
    SendError::Failed { host: host.to_owned(), why: causes.join(": ") }
}

fn pool(guarded: bool) -> Result<Pool, String> {
    // ring, named: with two providers in one program rustls panics at the first use.
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_native_roots()
        .map_err(|error| {
            format!("no trusted certificates on this machine (package ca-certificates): {error}")
        })?
        .with_no_client_auth();
    let mut http = HttpConnector::new_with_resolver(Resolver { guarded });
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(10)));
    let https =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
    let mut builder = Client::builder(TokioExecutor::new());
    Ok(builder
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(32)
        .pool_timer(TokioTimer::new())
        .build(https))
}

/// Resolves names, and refuses the whole name when one of its addresses is not public.
#[derive(Debug, Clone)]
struct Resolver {
    guarded: bool,
}

type Addresses = std::vec::IntoIter<SocketAddr>;
type Resolving =
    Pin<Box<dyn Future<Output = Result<Addresses, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

impl tower_service::Service<Name> for Resolver {
    type Response = Addresses;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let guarded = self.guarded;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if guarded {
                found.iter().try_for_each(|address| guard::check_address(name.as_str(), address.ip()))?;
            }
            Ok(found.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tower_service::Service as _;

    #[tokio::test]
    async fn h39_a_name_with_a_private_address_is_refused_at_the_connection() {
        // Every machine knows this name, and it is private: the guard sits where the connection is made.
        let refused = Resolver { guarded: true }.call("localhost".parse().unwrap()).await.unwrap_err();
        assert!(refused.downcast_ref::<Refused>().is_some(), "{refused}");
        assert!(Resolver { guarded: false }.call("localhost".parse().unwrap()).await.is_ok());
    }
}
