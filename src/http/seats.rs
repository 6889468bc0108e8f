//! Who is connected, and who has to go when there are too many: whoever has kept us waiting longest for a request. So
//! ten thousand connections that say nothing cannot keep out one that does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::server::Limits;
use crate::clock;

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Seat {
    number: u64,
    peer: IpAddr,
    /// Since when we wait for a request; `None` while one is being answered.
    waiting: Mutex<Option<Instant>>,
    evicted: CancellationToken,
}

impl Seat {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    pub(crate) fn is_busy(&self) {
        self.set(None);
    }

    pub(crate) fn is_waiting(&self) {
        self.set(Some(clock::instant()));
    }

    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    fn set(&self, since: Option<Instant>) {
        match self.waiting.lock() {
            Ok(mut waiting) => *waiting = since,
            Err(poisoned) => *poisoned.into_inner() = since,
        }
    }

    fn waiting_since(&self) -> Option<Instant> {
        match self.waiting.lock() {
            Ok(waiting) => *waiting,
            Err(poisoned) => *poisoned.into_inner(),
        }
    }
}

/// All connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: HashMap<u64, Arc<Seat>>,
    next: u64,
}

impl Seats {
    /// A place for a new connection; `None` when every place it could have is busy.
    pub(crate) fn take(&mut self, peer: IpAddr, limits: &Limits) -> Option<Arc<Seat>> {
        let of_peer = self.taken.values().filter(|seat| seat.peer == peer).count();
        if of_peer >= limits.per_peer && !self.evict(|seat| seat.peer == peer) {
            return None;
        }
        if self.taken.len() >= limits.connections && !self.evict(|_| true) {
            return None;
        }
        self.next += 1;
        let seat = Arc::new(Seat {
            number: self.next,
            peer,
            waiting: Mutex::new(Some(clock::instant())),
            evicted: CancellationToken::new(),
        });
        self.taken.insert(self.next, Arc::clone(&seat));
        Some(seat)
    }

    /// A connection's task ended.
    pub(crate) fn ended(&mut self, ended: Result<u64, JoinError>) {
        match ended {
            Ok(number) => {
                self.taken.remove(&number);
            }
            Err(error) => {
                tracing::error!(%error, "a connection's task died");
                // It cannot say which it was: nobody else holds its seat any more.
                self.taken.retain(|_, seat| Arc::strong_count(seat) > 1);
            }
        }
    }

    /// Frees the place, and the file, of whoever has kept us waiting longest.
    pub(crate) fn evict_longest_waiting(&mut self) {
        self.evict(|_| true);
    }

    fn evict(&mut self, among: impl Fn(&Seat) -> bool) -> bool {
        let longest = self
            .taken
            .values()
            .filter(|seat| among(seat))
            .filter_map(|seat| Some((seat.waiting_since()?, seat.number)))
            .min();
        let Some(seat) = longest.and_then(|(_, number)| self.taken.remove(&number)) else { return false };
        seat.evicted.cancel();
        true
    }
}
