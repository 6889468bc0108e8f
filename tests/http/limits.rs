//! Clients that are slow, many, or gone; and a machine without files.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use sluicegate::clock::instant;

use sluicegate::handlers::{Inbox, InboxMessage};
use sluicegate::http::inbox::FileInbox;
use sluicegate::http::{Api, Limits, serve_health};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use super::kit::{Answer, DEADLINE, Request, Server, exchange, loopback, read_all_while_writing};

const SHORT: Duration = Duration::from_millis(200);

fn short(api: Api) -> Api {
    api.limits(Limits {
        header_timeout: SHORT,
        body_timeout: SHORT,
        write_timeout: SHORT,
        ..Limits::default()
    })
}

/// One response on a connection that may stay open.
pub(super) async fn one_response(stream: &mut TcpStream, request: &[u8], status: u16) -> Answer {
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    loop {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        if let Some(answer) = Answer::first(&text) {
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            if answer.body.len() >= length {
                assert_eq!(answer.status, status, "{answer:?}");
                return answer;
            }
        }
        assert_ne!(read, 0, "closed within a response: {text:?}");
    }
}

#[tokio::test]
async fn h32_a_slow_head_or_body_is_cut_off() {
    let server = Server::start(short).await;
    let began = instant();
    let head = exchange(server.address, b"GET /v1/version HTTP/1.1\r\nHost: local").await;
    assert!(head.starts_with("HTTP/1.1 408"), "{head:?}");
    let body = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{";
    let body = exchange(server.address, body.as_bytes()).await;
    Answer::first(&body).unwrap().problem(408, "BODY_TOO_SLOW");
    // Somebody who says nothing at all is told nothing.
    assert_eq!(exchange(server.address, b"").await, "");
    let took = began.elapsed();
    assert!(took >= 3 * SHORT && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn h32_a_head_that_trickles_in_is_cut_off_as_a_whole() {
    let server = Server::start(short).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let trickle = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(SHORT / 8);
        loop {
            ticks.tick().await;
            if write.write_all(b"GET /v1/version HTTP/1.1\r\nx: y\r\n".get(..1).unwrap()).await.is_err() {
                return;
            }
        }
    });
    let mut got = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, read.read_to_end(&mut got)).await;
    assert!(ended.is_ok(), "one byte at a time must not keep a connection");
    trickle.abort();
}

#[tokio::test]
async fn h32_a_client_that_never_reads_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let inbox = std::sync::Arc::new(FileInbox::open(dir.path(), 5).unwrap());
    inbox.keep(InboxMessage { body: "x".repeat(32 << 20), ..super::inbox::message("big") }).unwrap();
    let limits = Limits { write_timeout: SHORT, grace: DEADLINE, ..Limits::default() };
    let mut server = Server::start(|api| api.inbox(inbox).limits(limits)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(&Request::new("GET", "/dev/inbox.json").bytes()).await.unwrap();
    stream.readable().await.unwrap(); // the answer has begun, and nobody reads on
    let began = instant();
    server.shutdown.cancel();
    (&mut server.served).await.unwrap().unwrap();
    assert!(began.elapsed() < DEADLINE / 2, "the shutdown waited for a client that never reads");
}

#[tokio::test]
async fn h32_those_who_say_nothing_cannot_keep_out_those_who_do() {
    let limits = |connections, per_peer| Limits { connections, per_peer, ..Limits::default() };
    for limits in [limits(8, 100), limits(100, 8)] {
        let server = Server::start(|api| api.limits(limits)).await;
        let mut silent = Vec::new();
        for _ in 0..60 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(b"GET /v1/ver").await.unwrap();
            silent.push(stream);
        }
        let began = instant();
        for _ in 0..20 {
            assert_eq!(server.get("/v1/version").await.status, 200);
        }
        assert!(began.elapsed() < Duration::from_secs(4), "answered before the silent ones timed out");
        let mut gone = 0;
        for stream in &mut silent {
            // Whoever was put out sees the end at once; the others are still connected.
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await;
            gone += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
        }
        assert!(gone >= 52, "{gone} of 60 were put out");
    }
}

#[tokio::test]
async fn h32_two_hundred_pipelined_requests_are_answered_in_order() {
    let server = Server::start(|api| api).await;
    let mut bytes = Vec::new();
    for n in 0..199 {
        bytes.extend_from_slice(format!("GET /no/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    }
    bytes.extend_from_slice(&Request::new("GET", "/no/199").bytes());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let text = read_all_while_writing(&mut stream, &bytes).await;
    assert_eq!(text.matches("HTTP/1.1 404").count(), 200);
    assert!(text.find("`/no/7`").unwrap() < text.find("`/no/198`").unwrap());
}

#[tokio::test]
async fn a_shutdown_finishes_what_runs_and_closes_what_is_idle() {
    let mut server = Server::start(|api| api).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\n\r\n";
    one_response(&mut idle, request, 200).await;
    one_response(&mut idle, request, 200).await;
    // This one's body is still on its way when the shutdown begins.
    let mut running = TcpStream::connect(server.address).await.unwrap();
    let (body, head) = (r#"{"kind":"echo"}"#, "Host: localhost\r\nContent-Type: application/json");
    let expect =
        format!("POST /v1/jobs HTTP/1.1\r\n{head}\r\nExpect: 100-continue\r\nContent-Length: 15\r\n\r\n");
    running.write_all(expect.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    running.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.shutdown.cancel();
    let mut rest = Vec::new();
    assert_eq!(tokio::time::timeout(DEADLINE, idle.read_to_end(&mut rest)).await.unwrap().unwrap(), 0);
    one_response(&mut running, body.as_bytes(), 201).await;
    tokio::time::timeout(DEADLINE, &mut server.served).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

/// Set for the part of `t29` that runs in a process of its own.
const T29_CHILD: &str = "SLUICEGATE_TEST_T29_CHILD";

/// The part of `t29` that runs out of files.
#[test]
fn t29_child() {
    if std::env::var_os(T29_CHILD).is_none() {
        return; // t29 starts it under a limit of its own
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shutdown = CancellationToken::new();
    let source = std::sync::Arc::new(super::probes::Fixed::idle());
    let health = serve_health(loopback(), source, shutdown.clone()).unwrap();
    println!("\nlistening {}", health.address());
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    shutdown.cancel();
    runtime.block_on(health.stopped()).unwrap();
}

fn probe(address: SocketAddr) -> std::io::Result<Duration> {
    let began = instant();
    let mut stream = StdStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(&Request::new("GET", "/livez").bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    assert!(text.starts_with("HTTP/1.1 200"), "{text:?}");
    Ok(began.elapsed())
}

#[test]
fn t29_probes_answer_without_files_under_a_flood() {
    let mut child = Command::new("prlimit")
        .args(["--nofile=40:40", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "http::limits::t29_child", "--nocapture"])
        .env(T29_CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let address = lines.find_map(|line| line.strip_prefix("listening ")?.parse().ok()).unwrap();
    let mut flood: Vec<StdStream> = Vec::new();
    let mut took = Vec::new();
    for _ in 0..50 {
        for _ in 0..4 {
            let mut stream = StdStream::connect(address).unwrap();
            stream.write_all(b"GET /livez HTT").unwrap();
            flood.push(stream);
        }
        took.push(probe(address).unwrap());
    }
    took.sort_unstable();
    println!("probes under the flood: median {:?}, worst {:?}", took[25], took[49]);
    assert!(took[25] < Duration::from_millis(100), "median {:?}", took[25]);
    assert!(took[49] < Duration::from_secs(2), "worst {:?}", took[49]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
