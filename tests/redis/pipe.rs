//! One connection through the proxy: each piece is read as it comes, waits for what the faults say, and goes on.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::proxy::{Counts, Faults, Lane, Shared, Traffic, Way};
use super::resp::Ends;

/// Pieces under way in one direction; the sender waits when there are more.
const ROOM: usize = 256;

/// An end of a connection. Unless both ends said that there is no more, its peer must not believe so: it is reset.
struct End {
    stream: TcpStream,
    orderly: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.orderly {
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Counts a connection while it is open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.open -= 1);
    }
}

pub(super) async fn carry(client: TcpStream, target: u16, shared: Arc<Shared>) {
    shared.counts.send_modify(|counts| {
        counts.connections += 1;
        counts.open += 1;
    });
    // Dropped last: a connection that is counted as gone is gone.
    let _open = Open(shared.clone());
    let mut client = End { stream: client, orderly: false };
    let _ = client.stream.set_nodelay(true);
    // The server must not see a client that no byte of comes through.
    let mut faults = shared.faults.subscribe();
    if faults.wait_for(|faults| !faults.up.shut).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = server.set_nodelay(true);
    let mut server = End { stream: server, orderly: false };

    let (from_client, to_client) = client.stream.split();
    let (from_server, to_server) = server.stream.split();
    let up = Pipe::new(Way::Up, &shared).run(from_client, to_server);
    let down = Pipe::new(Way::Down, &shared).run(from_server, to_client);
    let orderly = tokio::try_join!(up, down).is_ok();
    client.orderly = orderly;
    server.orderly = orderly;
}

/// One direction of one connection.
struct Pipe<'a> {
    way: Way,
    shared: &'a Shared,
    faults: watch::Receiver<Faults>,
    ends: Ends,
}

/// What was read, and when; nothing when there is no more.
type Piece = (Instant, io::Result<Vec<u8>>);

impl<'a> Pipe<'a> {
    fn new(way: Way, shared: &'a Shared) -> Self {
        Self { way, shared, faults: shared.faults.subscribe(), ends: Ends::default() }
    }

    async fn run(self, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(ROOM);
        tokio::try_join!(read(from, sender), self.write(receiver, to))?;
        Ok(())
    }

    async fn write(
        mut self,
        mut pieces: mpsc::Receiver<Piece>,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        while let Some((arrived, piece)) = pieces.recv().await {
            self.wait(arrived).await;
            let bytes = piece?;
            if bytes.is_empty() {
                return to.shutdown().await;
            }
            let dropped = self.dropped(&bytes);
            self.send(arrived, &bytes[..dropped.unwrap_or(bytes.len())], &mut to).await?;
            if dropped.is_some() {
                self.shared.counts.send_modify(|counts| counts.dropped += 1);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        Ok(())
    }

    /// Waits for as long as a fault says: the end of a delay, or of the fault.
    async fn wait(&mut self, arrived: Instant) {
        let mut held = false;
        loop {
            let lane = self.lane();
            let due = arrived + lane.delay;
            if !lane.shut && due <= Instant::now() {
                return;
            }
            if !std::mem::replace(&mut held, true) {
                self.count(|traffic| traffic.held += 1);
            }
            tokio::select! {
                _ = self.faults.changed() => {}
                () = tokio::time::sleep_until(due), if !lane.shut => {}
            }
        }
    }

    /// Sends bytes on, as fast as they may go, and holds the rest when they may not any more.
    async fn send(
        &mut self,
        arrived: Instant,
        mut bytes: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            self.wait(arrived).await;
            let mut length = bytes.len();
            if let Some(rate) = self.lane().bytes_per_second.map(NonZeroU32::get) {
                length = length.min((rate / 50).max(1) as usize);
                self.count(|traffic| traffic.held += 1);
                let time = Duration::from_secs_f64(length as f64 / f64::from(rate));
                if tokio::time::timeout(time, self.faults.changed()).await.is_ok() {
                    continue;
                }
            }
            to.write_all(&bytes[..length]).await?;
            self.count(|traffic| traffic.bytes += length as u64);
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// Counts the replies that end in these bytes; where the one begins that must be dropped.
    fn dropped(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.way != Way::Down {
            return None;
        }
        let mut begin = 0;
        for end in self.ends.feed(bytes) {
            self.shared.counts.send_modify(|counts| counts.replies += 1);
            let every = self.faults.borrow().drop_every;
            if let Some(every) = every
                && (self.shared.answered.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every.get())
            {
                return Some(begin);
            }
            begin = end;
        }
        None
    }

    /// The faults of this way, now.
    fn lane(&mut self) -> Lane {
        let faults = self.faults.borrow_and_update();
        if self.way == Way::Up { faults.up } else { faults.down }
    }

    fn count(&self, change: impl Fn(&mut Traffic)) {
        self.shared.counts.send_modify(|counts: &mut Counts| {
            change(if self.way == Way::Up { &mut counts.up } else { &mut counts.down });
        });
    }
}

/// Reads on while pieces wait, so that each waits from its own arrival. How it ended waits its turn as well.
async fn read(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Piece>) -> io::Result<()> {
    loop {
        let mut bytes = Vec::with_capacity(16 * 1024);
        let read = from.read_buf(&mut bytes).await;
        let over = !matches!(read, Ok(1..));
        if to.send((Instant::now(), read.map(|_| bytes))).await.is_err() || over {
            return Ok(());
        }
    }
}
