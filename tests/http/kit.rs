//! A server in this process, and a client that sends exactly the bytes it is told to.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluicegate::Client;
use sluicegate::http::{Api, serve_api};
use sluicegate::names::Tier;
use sluicegate::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::both::{Engine, Place};

/// Nothing here takes so long, on any machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

pub(super) fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

pub(crate) struct Server {
    pub(super) address: SocketAddr,
    pub(super) shutdown: CancellationToken,
    pub(super) served: JoinHandle<std::io::Result<()>>,
    pub(super) client: Client,
    _place: Option<Place>,
}

impl Server {
    /// Where it does not matter on which store.
    pub(super) async fn start(change: impl FnOnce(Api) -> Api) -> Self {
        Self::on(Engine::Sqlite, change).await
    }

    /// With a store of its own.
    pub(super) async fn on(engine: Engine, change: impl FnOnce(Api) -> Api) -> Self {
        let place = Place::new(engine);
        let mut server = Self::over(place.open().await, change);
        server._place = Some(place);
        server
    }

    pub(super) fn over(store: Arc<dyn Store>, change: impl FnOnce(Api) -> Api) -> Self {
        Self::with(Client::new(store, Tier::default()), change)
    }

    /// Of a client that there is.
    pub(crate) fn of(client: Client) -> Self {
        Self::with(client, |api| api)
    }

    fn with(client: Client, change: impl FnOnce(Api) -> Api) -> Self {
        let listener = loopback();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let api = change(Api::new(client.clone()));
        let served = tokio::spawn(serve_api(listener, api, shutdown.clone()));
        Self { address, shutdown, served, client, _place: None }
    }

    pub(super) async fn send(&self, request: Request) -> Answer {
        send(self.address, &request.bytes()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::new("GET", path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(Request::new("POST", path).json(body)).await
    }

    /// How many jobs there are, whatever their state.
    pub(super) async fn jobs(&self) -> u64 {
        let census = self.client.store().census(self.client.tier()).await.unwrap();
        census.queues.iter().flat_map(|queue| queue.states.values()).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A request, byte by byte.
#[derive(Clone)]
pub(super) struct Request {
    first: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(super) fn new(method: &str, path: &str) -> Self {
        let headers = vec![("Host".into(), "127.0.0.1".into()), ("Connection".into(), "close".into())];
        Self { first: format!("{method} {path} HTTP/1.1"), headers, body: Vec::new() }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub(super) fn host(self, host: &str) -> Self {
        self.without("Host").header("Host", host)
    }

    pub(super) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        let length = body.len().to_string();
        self.header("Content-Length", &length)
    }

    pub(super) fn json(self, body: &str) -> Self {
        self.header("Content-Type", "application/json").body(body.as_bytes())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut bytes = format!("{}\r\n{headers}\r\n", self.first).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(super) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads the first response in a text; `None` when there is none.
    pub(super) fn first(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        Some(Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (other, value) = line.split_once(": ")?;
            other.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// A refusal: problem+json with everything that one has.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!((&json["code"], &json["status"]), (&code.into(), &status.into()), "{json}");
        let kind = json["type"].as_str().unwrap();
        assert!(kind.starts_with("https://sluicegate.dev/problems/"), "{kind}");
        assert!(!json["title"].as_str().unwrap().is_empty() && !json["detail"].as_str().unwrap().is_empty());
        json
    }
}

/// Sends bytes and reads until the server closes. Half a connection is never shut: that would be an early end.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    read_all_while_writing(&mut stream, bytes).await
}

pub(super) async fn read_all_while_writing(stream: &mut TcpStream, bytes: &[u8]) -> String {
    let (mut read, mut write) = stream.split();
    let mut got = Vec::new();
    let both = async {
        // The server may refuse, and close, before it has read all: then writing fails, and the answer is there.
        let (_written, _read) = tokio::join!(write.write_all(bytes), read.read_to_end(&mut got));
    };
    assert!(tokio::time::timeout(DEADLINE, both).await.is_ok(), "the server did not close the connection");
    String::from_utf8_lossy(&got).into_owned()
}

pub(super) async fn send(address: SocketAddr, bytes: &[u8]) -> Answer {
    let text = exchange(address, bytes).await;
    Answer::first(&text).unwrap_or_else(|| panic!("no response: {text:?}"))
}
