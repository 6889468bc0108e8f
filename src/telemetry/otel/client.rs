//! The HTTP client that the exporters are given: few requests, one at a time, each with a deadline, none after one that
//! failed until a while later. Answers are read up to a limit, redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::tally::Tally;
use crate::https;
use crate::names::shown_long;

/// Requests that wait to be sent. There are two exporters, and each waits for its answer.
const QUEUE: usize = 4;
/// How long one request may take, from when it was asked for.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);
/// No more of an answer is read; a good one is a few bytes.
const MAX_ANSWER: usize = 64 * 1024;

pub(super) type Sender = https::Pool<HttpConnector>;
type Answer = Result<Response<Bytes>, String>;

struct Ask {
    request: Request<Bytes>,
    due: Instant,
    reply: oneshot::Sender<Answer>,
}

/// What an exporter holds. It needs no runtime where it is called.
#[derive(Debug, Clone)]
pub(super) struct Client {
    asks: mpsc::Sender<Ask>,
    tally: Arc<Tally>,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ask")
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (reply, answer) = oneshot::channel();
        let skip = |why: &'static str| -> HttpError {
            self.tally.skipped();
            why.into()
        };
        if self.tally.pause().is_some() {
            return Err(skip("the collector failed a moment ago"));
        }
        let ask = Ask { request, due: Instant::now() + DEADLINE, reply };
        self.asks.try_send(ask).map_err(|_| skip("too many requests are on their way"))?;
        let answer = answer.await.map_err(|_| skip("the thread that sends is gone"))?;
        Ok(answer?)
    }
}

/// A client, and the work that it leans on.
pub(super) fn new(sender: Sender, tally: Arc<Tally>) -> (Client, impl Future<Output = ()> + Send + 'static) {
    let (asks, asked) = mpsc::channel(QUEUE);
    (Client { asks, tally: Arc::clone(&tally) }, post(asked, sender, tally))
}

async fn post(mut asked: mpsc::Receiver<Ask>, sender: Sender, tally: Arc<Tally>) {
    while let Some(Ask { request, due, reply }) = asked.recv().await {
        let answer = if tally.pause().is_some() {
            tally.skipped();
            Err("the collector failed a moment ago".to_owned())
        } else {
            let late = || Err(format!("no answer within {} s", DEADLINE.as_secs()));
            let answer =
                tokio::time::timeout_at(due, exchange(&sender, request)).await.unwrap_or_else(|_| late());
            account(&tally, &answer);
            answer
        };
        reply.send(answer).ok(); // whoever asked may have given up
    }
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    shown_long(&https::causes(error))
}

async fn exchange(sender: &Sender, request: Request<Bytes>) -> Answer {
    let response = sender.request(request.map(Full::new)).await.map_err(|error| causes(&error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| causes(&*error))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

fn account(tally: &Tally, answer: &Answer) {
    match answer {
        Ok(response) if response.status().is_success() => tally.succeeded(),
        Ok(response) => tally.failed(&format!("it answered {}", response.status())),
        Err(why) => tally.failed(why),
    }
}

/// Connections to the collector.
pub(super) fn pool(secure: bool) -> Result<Sender, String> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    https::pool(connector, secure, 1)
}
