//! Connects to receivers, and to no private one: the guard sits where the connection is made.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::guard;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Doing<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Addresses = std::vec::IntoIter<SocketAddr>;
/// What a name stands for. A value, so that the tests can have names of their own.
type Lookup = Arc<dyn Fn(String) -> Doing<Addresses> + Send + Sync>;

/// Connects, and checks what is at the other end before anything is sent.
#[derive(Clone)]
pub(super) struct Dialer {
    guarded: bool,
    connector: HttpConnector<Resolver>,
}

impl Dialer {
    pub(super) fn new(guarded: bool) -> Self {
        Self::with(guarded, Arc::new(|name| Box::pin(lookup(name))))
    }

    fn with(guarded: bool, lookup: Lookup) -> Self {
        let mut connector = HttpConnector::new_with_resolver(Resolver { guarded, lookup });
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        Self { guarded, connector }
    }
}

async fn lookup(name: String) -> Result<Addresses, BoxError> {
    Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect::<Vec<_>>().into_iter())
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Doing<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let guarded = self.guarded;
        let host = to.host().unwrap_or_default().to_owned();
        let connecting = self.connector.call(to);
        Box::pin(async move {
            let stream = connecting.await?;
            // An address that stands in the URL itself is not resolved, and so has not been checked here yet.
            if guarded {
                guard::check_address(&host, stream.inner().peer_addr()?.ip())?;
            }
            Ok(stream)
        })
    }
}

/// Resolves names, and refuses the whole name when one of its addresses is not public.
#[derive(Clone)]
struct Resolver {
    guarded: bool,
    lookup: Lookup,
}

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = BoxError;
    type Future = Doing<Addresses>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (guarded, looking) = (self.guarded, (self.lookup)(name.as_str().to_owned()));
        Box::pin(async move {
            let found = looking.await?;
            if guarded {
                let checked = |address: &SocketAddr| guard::check_address(name.as_str(), address.ip());
                found.as_slice().iter().try_for_each(checked)?;
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::handlers::guard::Refused;

    pub(in crate::handlers) fn from(addresses: &[&str]) -> Lookup {
        let all: Vec<SocketAddr> =
            addresses.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect();
        Arc::new(move |_| {
            let all = all.clone();
            Box::pin(async move { Ok(all.into_iter()) })
        })
    }

    pub(in crate::handlers) fn dialer(guarded: bool, lookup: Lookup) -> Dialer {
        Dialer::with(guarded, lookup)
    }

    async fn refused(dialer: &mut Dialer, url: &str) -> String {
        let error = dialer.call(url.parse().unwrap()).await.unwrap_err();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
        while let Some(cause) = next {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return refused.to_string();
            }
            next = cause.source();
        }
        panic!("not refused: {error}")
    }

    #[tokio::test]
    async fn h39_one_private_address_among_fifty_refuses_the_name() {
        let mut all = vec!["93.184.215.14"; 49];
        all.push("10.0.0.7");
        let error = refused(&mut dialer(true, from(&all)), "https://many.example.com/").await;
        assert!(error.contains("many.example.com") && error.contains("10.0.0.7"), "{error}");
    }

    #[tokio::test]
    async fn h39_a_name_that_changes_after_a_check_is_checked_again_where_it_is_used() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // Public for whoever checks first, private from then on.
        let rebinding: Lookup = Arc::new(move |_| {
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let address = if first { "93.184.215.14:0" } else { "127.0.0.1:0" };
            Box::pin(async move { Ok(vec![address.parse()?].into_iter()) })
        });
        let mut resolver = Resolver { guarded: true, lookup: Arc::clone(&rebinding) };
        assert!(resolver.call("rebind.example.com".parse().unwrap()).await.is_ok());
        let error = refused(&mut dialer(true, rebinding), "https://rebind.example.com/").await;
        assert!(error.contains("127.0.0.1"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one question per connection, and its answer is used");
    }

    #[tokio::test]
    async fn h39_every_machines_own_name_is_private() {
        let error = refused(&mut Dialer::new(true), "https://localhost/").await;
        assert!(error.contains("`localhost` is refused"), "{error}");
    }

    #[tokio::test]
    async fn h39_the_other_end_is_checked_once_connected() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        // An address in the URL passes by the resolver.
        let url = format!("https://{}/", server.local_addr().unwrap());
        let error = refused(&mut Dialer::new(true), &url).await;
        assert!(error.contains("127.0.0.1, a loopback address"), "{error}");
        assert!(Dialer::new(false).call(url.parse().unwrap()).await.is_ok());
    }
}
