//! One TCP stream under hyper, with two things that hyper does not do: it gives up on a peer that does not read, and it
//! keeps the raw head of the request, because hyper tidies away what makes a head ambiguous.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Request;
use hyper::header::TRANSFER_ENCODING;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Largest head of a request, in bytes.
pub(crate) const MAX_HEAD: usize = 8 * 1024;

/// The stream.
pub(crate) struct Wire {
    stream: TcpStream,
    tap: Tap,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// `patience`: how long the peer may leave a write waiting.
    pub(crate) fn new(stream: TcpStream, tap: Tap, patience: Duration) -> Self {
        Self { stream, tap, patience, stalled: None }
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn patiently<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.tap.saw(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.patiently(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.patiently(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.patiently(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The first bytes since the last response: the head of the request, unless the client sent it ahead of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<Vec<u8>>>);

impl Tap {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    fn saw(&self, new: &[u8]) {
        let mut bytes = self.bytes();
        let room = MAX_HEAD.saturating_sub(bytes.len()).min(new.len());
        bytes.extend_from_slice(new.get(..room).unwrap_or_default());
    }

    /// Forgets; call it when a response is made.
    pub(crate) fn reset(&self) {
        self.bytes().clear();
    }

    /// Whether anything came since the last response.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// What is ambiguous about the head of this request, if anything is. A proxy in front may have read it in another
    /// way than hyper did, and then the next request on this connection is somebody else's.
    pub(crate) fn fault<B>(&self, request: &Request<B>) -> Option<&'static str> {
        let bytes = self.bytes();
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        let raw = bytes.get(start..).unwrap_or_default();
        let ours = raw
            .strip_prefix(request.method().as_str().as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b' '));
        let head = end_of_head(raw).and_then(|end| raw.get(..end));
        match head {
            Some(head) if ours => head_fault(head),
            // Sent ahead of the last response. Without a chunked body there is nothing to disagree about.
            _ if request.headers().contains_key(TRANSFER_ENCODING) => {
                Some("a chunked request must not be sent before the last response was received")
            }
            _ => None,
        }
    }
}

fn end_of_head(raw: &[u8]) -> Option<usize> {
    let with_returns = raw.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let without = raw.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
    let mixed = raw.windows(3).position(|three| three == b"\n\r\n").map(|at| at + 3);
    [with_returns, without, mixed].into_iter().flatten().min()
}

fn head_fault(head: &[u8]) -> Option<&'static str> {
    let (mut lengths, mut encodings) = (0, 0);
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Some("a line of the head ends without a carriage return");
        };
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        lengths += usize::from(name.eq_ignore_ascii_case(b"content-length"));
        encodings += usize::from(name.eq_ignore_ascii_case(b"transfer-encoding"));
    }
    if lengths > 1 {
        Some("more than one Content-Length")
    } else if encodings > 1 {
        Some("more than one Transfer-Encoding")
    } else if lengths > 0 && encodings > 0 {
        Some("both Content-Length and Transfer-Encoding")
    } else {
        None
    }
}
