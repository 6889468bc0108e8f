//! Wake-ups: one connection per tier and process that subscribes to the tier's channel. A script publishes when a list that was
//! empty is not any more, when something is due earlier than all else, and when the activation changes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::link::Link;
use super::prefix;
use crate::names::Tier;
use crate::store::{ErrorKind, StoreError, Wake};

/// A subscription that is silent for so long is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(3);
/// Longest wait between attempts to subscribe again. A worker works again only when it is subscribed.
const MOST: u64 = 1_000;

/// The channels that this process listens to.
#[derive(Debug, Default)]
pub(super) struct Wakes(Mutex<HashMap<Tier, Listener>>);

#[derive(Debug)]
struct Listener {
    count: watch::Sender<u64>,
    /// Whether the subscription stands.
    stands: watch::Receiver<bool>,
    /// Ends with the store.
    task: Task,
}

#[derive(Debug)]
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Wakes {
    /// From now on nothing is missed.
    pub(super) async fn subscribe(&self, link: &Link, tier: &Tier) -> Result<Box<dyn Wake>, StoreError> {
        let (mut stands, seen) = {
            let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let listener = listeners.entry(tier.clone()).or_insert_with(|| listen(link, tier));
            if listener.task.0.is_finished() {
                *listener = listen(link, tier);
            }
            (listener.stands.clone(), listener.count.subscribe())
        };
        let stood = tokio::time::timeout(ANSWER, stands.wait_for(|stands| *stands)).await;
        if !matches!(stood, Ok(Ok(_))) {
            return Err(link.error(
                "subscribe",
                ErrorKind::Unavailable,
                "the subscription does not come about",
            ));
        }
        let mut seen = seen;
        seen.mark_unchanged();
        Ok(Box::new(Subscription { seen }))
    }
}

fn listen(link: &Link, tier: &Tier) -> Listener {
    let count = watch::Sender::new(0);
    let (told, stands) = watch::channel(false);
    let (client, channel) = (link.client().clone(), format!("{}wake", prefix(tier)));
    let task = link.io().spawn(keep_listening(client, channel, count.clone(), told));
    Listener { count, stands, task: Task(task) }
}

async fn keep_listening(
    client: redis::Client,
    channel: String,
    count: watch::Sender<u64>,
    stands: watch::Sender<bool>,
) {
    let mut failures = 0_u32;
    loop {
        match tokio::time::timeout(ANSWER, subscribed(&client, &channel)).await {
            Ok(Ok(connection)) => {
                failures = 0;
                // Whatever happened while nobody listened; before anybody is told that it stands, who would be woken for nothing.
                count.send_modify(|count| *count += 1);
                stands.send_replace(true);
                listen_once(connection, &count).await;
                stands.send_replace(false);
            }
            Ok(Err(error)) => tracing::debug!(%error, "cannot subscribe to wake-ups"),
            Err(_) => tracing::debug!("cannot subscribe to wake-ups in time"),
        }
        failures = (failures + 1).min(6);
        let delay = fastrand::u64(10..=(100_u64 << failures).min(MOST)); // full jitter
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
}

async fn subscribed(client: &redis::Client, channel: &str) -> redis::RedisResult<redis::aio::PubSub> {
    let mut connection = client.get_async_pubsub().await?;
    connection.subscribe(channel).await?;
    Ok(connection)
}

/// Until the connection ends, or gives no sign of life.
async fn listen_once(connection: redis::aio::PubSub, count: &watch::Sender<u64>) {
    let (mut sink, mut stream) = connection.split();
    loop {
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(_)) => count.send_modify(|count| *count += 1),
            Ok(None) => return,
            Err(_) => {
                let alive = tokio::time::timeout(ANSWER, sink.ping::<redis::Value>()).await;
                if !matches!(alive, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

#[derive(Debug)]
struct Subscription {
    seen: watch::Receiver<u64>,
}

#[async_trait]
impl Wake for Subscription {
    async fn woken(&mut self, timeout: Duration) -> bool {
        matches!(tokio::time::timeout(timeout, self.seen.changed()).await, Ok(Ok(())))
    }
}
