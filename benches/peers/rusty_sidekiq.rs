//! rusty-sidekiq: the worker and the clients that `run` measures. It has no bulk API.

mod meter;

use async_trait::async_trait;
use bb8::Pool;
use meter::{Args, Failure, Meter};
use sidekiq::{Processor, ProcessorConfig, RedisConnectionManager, RedisPool, Worker};

#[derive(Clone)]
struct Noop(Meter);

#[async_trait]
impl Worker<Args> for Noop {
    async fn perform(&self, args: Args) -> sidekiq::Result<()> {
        self.0.run(args).await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", concurrency, expected] => work(concurrency.parse()?, expected.parse()?).await,
        ["singles", jobs] => singles(jobs.parse()?).await,
        ["trickle", jobs] => trickle(jobs.parse()?).await,
        ["sleepers", jobs] => sleepers(jobs.parse()?).await,
        _ => Err("usage: rusty-sidekiq work CONCURRENCY EXPECTED | singles|trickle|sleepers JOBS".into()),
    }
}

/// Without bb8's test of each connection it lends, a PING: that would double the round trips.
async fn pool(size: u32) -> Result<RedisPool, Failure> {
    let manager = RedisConnectionManager::new(std::env::var("REDIS_URL")?)?;
    Ok(Pool::builder().max_size(size).min_idle(size).test_on_check_out(false).build(manager).await?)
}

async fn work(concurrency: u32, expected: usize) -> Result<(), Failure> {
    // Its README: no fewer connections than workers. The others are for its heartbeat and its pollers.
    let mut processor = Processor::new(pool(concurrency + 4).await?, vec!["default".into()])
        .with_config(ProcessorConfig::default().num_workers(concurrency as usize));
    processor.register(Noop(Meter::new(expected)));
    println!("ready");
    processor.run().await;
    Ok(())
}

async fn singles(jobs: usize) -> Result<(), Failure> {
    let pool = pool(50).await?;
    let began_us = meter::clock_us();
    let clients = (0..50).map(|first| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in (first..jobs).step_by(50) {
                Noop::perform_async(&pool, Args::noop()).await?;
            }
            sidekiq::Result::Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    meter::report(began_us);
    Ok(())
}

async fn trickle(jobs: usize) -> Result<(), Failure> {
    let pool = pool(1).await?;
    let (began, began_us) = (tokio::time::Instant::now(), meter::clock_us());
    for job in 0..jobs {
        meter::turn(began, job).await;
        Noop::perform_async(&pool, Args::stamped()).await?;
    }
    meter::report(began_us);
    Ok(())
}

async fn sleepers(jobs: usize) -> Result<(), Failure> {
    let pool = pool(1).await?;
    let began_us = meter::clock_us();
    for _ in 0..jobs {
        Noop::perform_async(&pool, Args::sleeper()).await?;
    }
    meter::report(began_us);
    Ok(())
}
