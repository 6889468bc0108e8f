//! The HTTP client of the kinds: guarded, pooled, with a deadline and a cap on what it reads. It follows no redirects.
//!
//! A name is resolved once, every address it stands for is checked, and the connection goes to one of the checked
//! addresses: a name that changes between the check and the connection finds nobody. When the connection stands, the
//! address at its other end is checked once more, before anything is sent.

use std::sync::LazyLock;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};

use super::dialer::Dialer;
use super::guard::{Destination, Refused};
use crate::clock::{Timestamp, wall};
use crate::https;

/// How long one request may take, connecting included.
const DEADLINE: Duration = Duration::from_secs(20);
/// No more of an answer is read, and no longer than this after its head; none of it is shown.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_TAIL: Duration = Duration::from_secs(1);

type Pool = https::Pool<Dialer>;

/// Sends requests.
pub(super) struct Outbound {
    guarded: Lazy,
    open: Lazy,
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
    /// `Retry-After`: in so many seconds, or until a date.
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
    pub(super) fn new() -> Self {
        Self { guarded: lazy(Dialer::new(true)), open: lazy(Dialer::new(false)), deadline: DEADLINE }
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
        let late = || failed(format!("no answer within {} s", self.deadline.as_secs_f64()));
        let response = tokio::time::timeout(self.deadline, pool.request(request)).await;
        let response = response.map_err(|_| late())?.map_err(|error| explain(&error, &host))?;
        let status = response.status();
        let retry_after = response.headers().get("retry-after").and_then(|value| wait(value.to_str().ok()?));
        // The head is the answer. Reading the rest lets the connection be used again; a body that is too long or too
        // slow costs only its connection.
        let tail = Limited::new(response.into_body(), MAX_ANSWER).collect();
        if !tokio::time::timeout(MAX_TAIL, tail).await.is_ok_and(|read| read.is_ok()) {
            tracing::debug!(%status, "the answer's body was not read to its end");
        }
        Ok(Answer { status, retry_after })
    }
}

/// `Retry-After` as a time to wait from now.
fn wait(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(secs) = text.parse() {
        return Some(Duration::from_secs(secs));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from_ms(until.as_millisecond()).since(wall()))
}

/// What failed; a refusal is passed on as itself.
fn explain(error: &(dyn std::error::Error + 'static), host: &str) -> SendError {
    match https::chain(error).find_map(|error| error.downcast_ref::<Refused>()) {
        Some(refused) => SendError::Refused(refused.clone()),
        None => SendError::Failed { host: host.to_owned(), why: https::causes(error) },
    }
}

/// Made when it is first used: reading the trusted certificates costs a megabyte that an idle worker need not hold.
type Lazy = LazyLock<Result<Pool, String>, Box<dyn FnOnce() -> Result<Pool, String> + Send>>;

fn lazy(dialer: Dialer) -> Lazy {
    LazyLock::new(Box::new(move || https::pool(dialer, true, 32)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::dialer::tests::{dialer, from};
    use super::super::guard::check_url;
    use super::*;

    async fn send(outbound: &Outbound, url: &str, allow: &[String]) -> String {
        let to = check_url(url, allow).unwrap();
        outbound.send(&to, &[], "{}".into()).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn h39_the_guard_of_the_connection_speaks_through_the_client() {
        let outbound = Outbound { guarded: lazy(dialer(true, from(&["10.0.0.7"]))), ..Outbound::new() };
        let error = send(&outbound, "https://hooks.example.com/x", &[]).await;
        assert!(error.contains("`hooks.example.com` is refused") && error.contains("10.0.0.7"), "{error}");
    }

    #[tokio::test]
    async fn a_receiver_that_never_answers_is_given_up_on() {
        // It accepts (the kernel does) and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = silent.local_addr().unwrap().to_string();
        let outbound = Outbound { deadline: Duration::from_millis(50), ..Outbound::new() };
        let error = send(&outbound, &format!("http://{host}/"), std::slice::from_ref(&host)).await;
        assert!(error.contains("no answer within 0.05 s"), "{error}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(wait(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(wait("Fri, 01 Jan 2100 00:00:00 GMT").is_some_and(|wait| wait.as_secs() > 86_400));
        for bad in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(wait(bad), None, "{bad}");
        }
    }
}
