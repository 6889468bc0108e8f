//! The one connection layer under every face: it accepts, limits, and survives. hyper's header time-out is silently off
//! when no timer is set, so the timer is set here, once, for all.

use std::convert::Infallible;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::TRANSFER_ENCODING;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::problem::Problem;
use super::reply::{self, Reply};
use super::seats::{Seat, Seats};
use super::wire::{MAX_HEAD, Tap, Wire};

/// What one listener accepts from the world.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For the whole head of a request; an idle connection is closed after the same time.
    pub header_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// How long a client may leave our answer unread.
    pub write_timeout: Duration,
    /// Connections at once. When there are more, the one that has kept us waiting longest for a request goes.
    pub connections: usize,
    /// Connections at once from one address. Clients on this machine share one.
    pub per_peer: usize,
    /// How long requests that run may go on after the shutdown began.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            connections: 256,
            per_peer: 128,
            grace: Duration::from_secs(10),
        }
    }
}

/// Who asks: a face finds it among the extensions of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// What answers requests.
pub(crate) trait Face: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Reply> + Send;
}

/// How long to wait when the process or the machine has no more files: nothing tells us when there are some again.
const NO_FILES_PAUSE: Duration = Duration::from_millis(20);

/// How long, …
const LINGER: Duration = Duration::from_secs(1);
/// …and for how much, a client that was refused may go on sending.
const LINGER_BYTES: u64 = 16 * 1024 * 1024;

/// Serves until `shutdown`, then lets what runs finish within the grace.
pub(crate) async fn serve<F: Face>(
    listener: std::net::TcpListener,
    face: Arc<F>,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut tasks = JoinSet::new();
    let mut seats = Seats::default();
    let mut spare = Spare::default();
    spare.refill();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                seats.ended(ended);
                spare.refill();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(seat) = seats.take(peer.ip(), &limits) else {
                    refuse(&stream);
                    continue;
                };
                let (face, limits, shutdown) = (Arc::clone(&face), limits.clone(), shutdown.clone());
                let keep_alive = spare.is_full();
                tasks.spawn(async move {
                    connection(stream, face, &limits, &seat, keep_alive, shutdown).await;
                    seat.number()
                });
            }
            Err(error) => accept_failed(&error, &mut seats, &mut spare).await,
        }
    }
    drop(listener);
    let finish = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, finish).await.is_err() {
        tracing::warn!("requests that still ran at the end of the grace were cut off");
    }
    Ok(())
}

/// No failure of `accept` ends the loop: most are of one connection, and the rest pass.
async fn accept_failed(error: &io::Error, seats: &mut Seats, spare: &mut Spare) {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    if !matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
        tracing::debug!(%error, "a connection was not accepted");
        // Whatever it is, it must not spin.
        return tokio::task::yield_now().await;
    }
    seats.evict_longest_waiting();
    if spare.give_up() {
        // The next accept has a file to use, and it is not taken back before a connection has ended: otherwise this
        // would turn at once, and put out everybody.
        return tokio::task::yield_now().await;
    }
    spare.complain(error);
    tokio::time::sleep(NO_FILES_PAUSE).await;
}

/// An open file that is given up when there are no others, so that one connection at a time can still be served.
#[derive(Debug, Default)]
struct Spare {
    file: Option<File>,
    /// Said once, until there are files again: this comes many times a second.
    complained: bool,
}

impl Spare {
    fn refill(&mut self) {
        if self.file.is_none() {
            self.file = File::open("/dev/null").ok();
            self.complained &= self.file.is_none();
        }
    }

    fn is_full(&self) -> bool {
        self.file.is_some()
    }

    fn give_up(&mut self) -> bool {
        self.file.take().is_some()
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(%error, "no files left to accept connections with: raise the limit (`ulimit -n`)");
        }
    }
}

/// Too many connections, all of them busy. Said without a task, without waiting, and without promise.
fn refuse(stream: &TcpStream) {
    let said = stream.try_write(
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    tracing::debug!(?said, "a connection was refused: all are busy");
}

async fn connection<F: Face>(
    stream: TcpStream,
    face: Arc<F>,
    limits: &Limits,
    seat: &Seat,
    keep_alive: bool,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let tap = Tap::default();
    let wire = Wire::new(stream, tap.clone(), limits.write_timeout);
    let service = service_fn(|mut request: Request<Incoming>| async {
        seat.is_busy();
        request.extensions_mut().insert(Peer(seat.peer()));
        let mut reply = answer(&*face, request, &tap).await;
        reply::seal(&mut reply);
        tap.reset();
        seat.is_waiting();
        Ok::<_, Infallible>(reply)
    });
    let mut conn = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(MAX_HEAD)
        .max_buf_size(2 * MAX_HEAD)
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(wire), service);
    let mut closing = false;
    let result = loop {
        tokio::select! {
            result = &mut conn => break result,
            () = seat.evicted() => return,
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                Pin::new(&mut conn).graceful_shutdown();
            }
        }
    };
    let slow = result.as_ref().is_err_and(hyper::Error::is_timeout) && !tap.is_empty();
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
    if !closing {
        let stream = conn.into_parts().io.into_inner().into_stream();
        tokio::select! { () = part(stream, slow) => {} () = seat.evicted() => {} }
    }
}

/// Parts with a client in a way that lets it read our last words: a socket that is closed while it still has unread
/// bytes takes back what was sent. So what still comes is read, for a little while.
async fn part(mut stream: TcpStream, slow: bool) {
    if slow {
        // hyper closes without a word. Somebody who began a request is told why; an idle connection is just closed.
        let said = stream
            .try_write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        tracing::debug!(?said, "a request's head took too long");
    }
    let rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    match tokio::time::timeout(LINGER, rest).await {
        Ok(Ok(_)) => {}
        end => tracing::debug!(?end, "a client did not part in order"),
    }
}

/// A panic in a handler ends its connection and nothing else.
async fn answer<F: Face>(face: &F, request: Request<Incoming>, tap: &Tap) -> Reply {
    if let Some(fault) = tap.fault(&request).or_else(|| odd_encoding(&request)) {
        return Problem::bad_request("AMBIGUOUS_REQUEST", fault).close().reply();
    }
    match AssertUnwindSafe(face.answer(request)).catch_unwind().await {
        Ok(reply) => reply,
        Err(_) => {
            tracing::error!("a request handler panicked");
            Problem::internal("the request could not be answered because of a bug")
                .hint("the server's log says more")
                .close()
                .reply()
        }
    }
}

fn odd_encoding(request: &Request<Incoming>) -> Option<&'static str> {
    let encoding = request.headers().get(TRANSFER_ENCODING)?;
    (!encoding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        .then_some("a Transfer-Encoding other than `chunked`")
}
