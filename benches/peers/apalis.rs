//! apalis-redis: the worker and the clients that `run` measures.

mod meter;

use std::task::{Context, Poll};
use std::time::Duration;

use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use meter::{Args, Failure, Meter};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", batch, expected] => work(batch.parse()?, expected.parse()?).await,
        ["bulk", jobs] => bulk(jobs.parse()?).await,
        ["singles", jobs] => singles(jobs.parse()?).await,
        ["trickle", jobs] => trickle(jobs.parse()?).await,
        ["sleepers", jobs] => sleepers(jobs.parse()?).await,
        _ => Err("usage: apalis work BATCH EXPECTED | bulk|singles|trickle|sleepers JOBS".into()),
    }
}

async fn storage(config: Config) -> Result<RedisStorage<Args>, Failure> {
    let connection = apalis_redis::connect(std::env::var("REDIS_URL")?).await?;
    Ok(RedisStorage::new(connection).with_config(config.queue("bench")))
}

async fn perform(args: Args, meter: Data<Meter>) -> Result<(), Failure> {
    meter.run(args).await;
    Ok(())
}

async fn work(batch: usize, expected: usize) -> Result<(), Failure> {
    // Its documentation: locks are of no help to jobs that are shorter than a heartbeat. It is much faster without.
    let mut config = Config::default().batch_size(batch).lock_tasks(false);
    // A worker counts as lost after ten heartbeats, 300 s with the default.
    if let Ok(seconds) = std::env::var("HEARTBEAT_S") {
        config = config.heartbeat_interval(Duration::from_secs(seconds.parse()?));
    }
    let every_ms = tokio::time::interval(Duration::from_millis(1));
    let backend = storage(config).await?.poll_with_strategy(Ticks(every_ms));
    println!("ready");
    WorkerBuilder::new(format!("bench-{}", std::process::id()))
        .backend(backend)
        .data(Meter::new(expected))
        .build(perform)
        .run()
        .await?;
    Ok(())
}

/// Looks for work at every tick: a push wakes nobody. Its own interval strategy now and then registers no waker for the
/// next tick, when a tick and a reply of Redis coincide, and then the worker sleeps until its next heartbeat, 30 s.
struct Ticks(tokio::time::Interval);

impl PollStrategy for Ticks {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut due = Poll::Pending;
        while self.0.poll_tick(cx).is_ready() {
            due = Poll::Ready(Some(()));
        }
        due
    }
}

async fn bulk(jobs: usize) -> Result<(), Failure> {
    let mut storage = storage(Config::default()).await?;
    let began_us = meter::clock_us();
    for sent in (0..jobs).step_by(1000) {
        storage.push_bulk(vec![Args::noop(); 1000.min(jobs - sent)]).await?;
    }
    meter::report(began_us);
    Ok(())
}

async fn singles(jobs: usize) -> Result<(), Failure> {
    let storage = storage(Config::default()).await?;
    let began_us = meter::clock_us();
    let clients = (0..50).map(|first| {
        let mut storage = storage.clone();
        tokio::spawn(async move {
            for _ in (first..jobs).step_by(50) {
                storage.push(Args::noop()).await?;
            }
            Ok::<(), Failure>(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    meter::report(began_us);
    Ok(())
}

async fn trickle(jobs: usize) -> Result<(), Failure> {
    let mut storage = storage(Config::default()).await?;
    let (began, began_us) = (tokio::time::Instant::now(), meter::clock_us());
    for job in 0..jobs {
        meter::turn(began, job).await;
        storage.push(Args::stamped()).await?;
    }
    meter::report(began_us);
    Ok(())
}

async fn sleepers(jobs: usize) -> Result<(), Failure> {
    let mut storage = storage(Config::default()).await?;
    let began_us = meter::clock_us();
    storage.push_bulk(vec![Args::sleeper(); jobs]).await?;
    meter::report(began_us);
    Ok(())
}
