//! The counts of a tier's queues, asked of the store on demand. A store that is slow or dead holds nobody up: the last
//! counts stay, with their age.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::clock;
use crate::names::{Queue, Tier};
use crate::store::{Census, Paused, Store, StoreError};

/// Counts younger than this are good enough for everybody.
const FRESH: Duration = Duration::from_secs(1);
/// Nobody waits longer than this for a count.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is known of the queues.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Whether the store answered the last question.
    pub(crate) up: bool,
    /// Its last answer, and when it came.
    pub(crate) last: Option<(Instant, Arc<Census>)>,
    /// The queues that were paused then.
    pub(crate) paused: Vec<Queue>,
}

/// The counts, and when they came: that is not when they are asked for again, if they came too late for whoever asked.
type Answer = Result<(Instant, Census, Vec<Paused>), StoreError>;

#[derive(Default)]
struct Inner {
    view: View,
    tried: Option<Instant>,
    /// A question that is on its way. Never two: a read that hangs on a dead disk holds a thread.
    asking: Option<JoinHandle<Answer>>,
}

/// Asks at most once a second, however many want to know.
pub(crate) struct Counted {
    store: Arc<dyn Store>,
    pub(crate) tier: Tier,
    inner: Mutex<Inner>,
}

impl Counted {
    pub(crate) fn new(store: Arc<dyn Store>, tier: Tier) -> Self {
        Self { store, tier, inner: Mutex::default() }
    }

    /// The counts, asked for again when they are not fresh.
    pub(crate) async fn view(&self) -> View {
        let mut inner = self.inner.lock().await;
        if inner.tried.is_none_or(|tried| tried.elapsed() >= FRESH) {
            self.ask(&mut inner).await;
            inner.tried = Some(clock::instant());
        }
        inner.view.clone()
    }

    async fn ask(&self, inner: &mut Inner) {
        let asking = inner.asking.get_or_insert_with(|| {
            let (store, tier) = (Arc::clone(&self.store), self.tier.clone());
            tokio::spawn(async move {
                let census = store.census(&tier).await?;
                Ok((clock::instant(), census, store.pauses(&tier).await?))
            })
        });
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        if answer.is_ok() {
            inner.asking = None;
        }
        inner.view.up = match answer {
            Ok(Ok(Ok((came, census, pauses)))) => {
                inner.view.paused = pauses.into_iter().map(|paused| paused.queue).collect();
                inner.view.last = Some((came, Arc::new(census)));
                true
            }
            failed => {
                tracing::debug!(?failed, "the queues could not be counted");
                false
            }
        };
    }
}
