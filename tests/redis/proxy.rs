//! A wire with faults: a TCP proxy before a server. What is wrong with it is switched while it runs, also for
//! connections that live. It runs on a thread of its own, so a test that blocks does not block it.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::pipe;
use super::resp::DEADLINE;
use super::server::{Server, reserve};

/// Which way bytes go: `Up` from the client to the server, `Down` back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
    Both,
}

/// What is wrong with one way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lane {
    pub(super) delay: Duration,
    pub(super) shut: bool,
    pub(super) bytes_per_second: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) up: Lane,
    pub(super) down: Lane,
    pub(super) drop_every: Option<NonZeroU32>,
}

/// What went one way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    /// Bytes that arrived at the other end.
    pub(crate) bytes: u64,
    /// How often a fault held a piece back, for a while or until now.
    pub(crate) held: u64,
}

/// What happened since the proxy started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Connections accepted.
    pub(crate) connections: u64,
    /// Those of them that are open now.
    pub(crate) open: u64,
    pub(crate) up: Traffic,
    pub(crate) down: Traffic,
    /// Replies that came from the server, with those that were dropped.
    pub(crate) replies: u64,
    /// Replies that were dropped, each with its connection.
    pub(crate) dropped: u64,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) faults: watch::Sender<Faults>,
    pub(super) counts: watch::Sender<Counts>,
    /// Replies since `drop_replies`.
    pub(super) answered: AtomicU32,
}

/// What the thread must have done before the call returns.
#[derive(Debug)]
enum Order {
    Cut(Sender<()>),
    Listen(Sender<()>),
}

/// A wire to a server. All faults may be on at the same time; they end with `heal`.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A faultless wire to a server; the server may die and come back behind it.
    pub(crate) fn before(server: &Server) -> Self {
        let (reserved, address) = reserve();
        let shared = Arc::new(Shared::default());
        let (orders, received) = mpsc::unbounded_channel();
        let (target, theirs) = (server.port(), shared.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(reserved, target, received, theirs));
        });
        let proxy = Self { address, shared, orders: Some(orders), thread: Some(thread) };
        proxy.order(Order::Listen);
        proxy
    }

    /// `redis://127.0.0.1:PORT` of the proxy.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The proxy's port, the same also after `cut`.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything arrives so much later, in order.
    pub(crate) fn delay(&self, way: Way, time: Duration) {
        self.change(way, |lane| lane.delay = time);
    }

    /// Resets all connections, at both ends, and refuses new ones until `heal`.
    pub(crate) fn cut(&self) {
        self.order(Order::Cut);
    }

    /// Keeps connections and accepts new ones, and holds all bytes until `heal`.
    pub(crate) fn black_hole(&self) {
        self.change(Way::Both, |lane| lane.shut = true);
    }

    /// Commands go through; their replies are held until `heal`.
    pub(crate) fn half_open(&self) {
        self.change(Way::Down, |lane| lane.shut = true);
    }

    /// Swallows every n-th reply, counted over all connections from now on, and cuts that connection. Of a reply that
    /// comes in pieces the first ones may arrive.
    pub(crate) fn drop_replies(&self, every: u32) {
        let every = NonZeroU32::new(every).expect("at least 1");
        self.shared.faults.send_modify(|faults| {
            self.shared.answered.store(0, Ordering::SeqCst);
            faults.drop_every = Some(every);
        });
    }

    /// Lets so many bytes a second pass, each way and on each connection.
    pub(crate) fn slow(&self, bytes_per_second: u32) {
        let rate = NonZeroU32::new(bytes_per_second).expect("at least 1");
        self.change(Way::Both, |lane| lane.bytes_per_second = Some(rate));
    }

    /// Ends all faults; what was held goes on at once.
    pub(crate) fn heal(&self) {
        self.shared.faults.send_replace(Faults::default());
        self.order(Order::Listen);
    }

    /// What happened until now.
    pub(crate) fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until something has happened: `proxy.until(|counts| counts.dropped == 1).await`.
    pub(crate) async fn until(&self, what: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        let seen = tokio::time::timeout(DEADLINE, counts.wait_for(what)).await;
        let seen = seen.unwrap_or_else(|_| panic!("it never happened: {:?}", self.counts()));
        *seen.expect("the proxy holds the sender")
    }

    fn change(&self, way: Way, change: impl Fn(&mut Lane)) {
        self.shared.faults.send_modify(|faults| {
            if way != Way::Down {
                change(&mut faults.up);
            }
            if way != Way::Up {
                change(&mut faults.down);
            }
        });
    }

    fn order(&self, order: impl FnOnce(Sender<()>) -> Order) {
        let (done, wait) = channel();
        let orders = self.orders.as_ref().expect("kept until it is dropped");
        orders.send(order(done)).expect("the proxy's thread runs");
        wait.recv().expect("the proxy's thread runs");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.thread.take().expect("joined once").join();
    }
}

/// The thread: accepts connections and carries out orders until there is nobody left to give one.
async fn serve(
    reserved: TcpSocket,
    target: u16,
    mut orders: mpsc::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
) {
    let address = reserved.local_addr().expect("an address");
    let mut listener = None;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Cut(done)) => {
                    listener = None;
                    connections.shutdown().await;
                    let _ = done.send(());
                }
                Some(Order::Listen(done)) => {
                    listener = listener.or_else(|| Some(listen(address)));
                    let _ = done.send(());
                }
            },
            client = accept(listener.as_ref()) => {
                connections.spawn(pipe::carry(client, target, shared.clone()));
            }
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket");
    socket.bind(address).expect("the port is reserved");
    socket.listen(1024).expect("a listener")
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.expect("a connection").0,
        None => std::future::pending().await,
    }
}
