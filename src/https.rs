//! The connections of those who send by HTTP: the built-in kinds, and telemetry. One way to set TLS up, and one to say why a
//! request failed.

use std::error::Error;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Kept-alive connections over a connector.
pub(crate) type Pool<C> = Client<HttpsConnector<C>, Full<Bytes>>;

/// A pool that keeps so many idle connections to a host. Trusted certificates are read only if it is to speak `https`: they
/// are a megabyte.
pub(crate) fn pool<C>(connector: C, secure: bool, idle: usize) -> Result<Pool<C>, String>
where
    HttpsConnector<C>: Connect + Clone,
{
    // ring, named: with two providers in one program rustls panics at the first use.
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let tls = if secure {
        tls.with_native_roots().map_err(|error| {
            format!("no trusted certificates on this machine (package ca-certificates): {error}")
        })?
    } else {
        tls.with_root_certificates(rustls::RootCertStore::empty())
    };
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls.with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let mut builder = Client::builder(TokioExecutor::new());
    Ok(builder
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(idle)
        .pool_timer(TokioTimer::new())
        .build(https))
}

/// An error and what caused it, outermost first.
pub(crate) fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The same in words. The innermost cause says most.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut causes: Vec<String> = chain(error).map(ToString::to_string).collect();
    causes.dedup();
    causes.join(": ")
}
