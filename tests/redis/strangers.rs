//! What answers is no Redis, or what it holds is not ours: a clear error, no panic, no memory.

use std::time::{Duration, Instant};

use sluicegate::job::State;
use sluicegate::names::Tier;
use sluicegate::store::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::site::*;
use super::wires::every;
use crate::store::bench::*;

/// What one who is not Redis says.
#[derive(Debug, Clone, Copy)]
enum Says {
    /// The same to whatever comes.
    Always(&'static str),
    /// This, and then these bytes without an end.
    Endless(&'static str, u8),
    /// This, a million times.
    Repeated(&'static str),
    Nothing,
    /// Ends the connection at once.
    Goodbye,
}

async fn stranger(says: Says) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { drop(talk(stream, says).await) });
        }
    });
    url
}

async fn talk(mut stream: TcpStream, says: Says) -> std::io::Result<()> {
    let mut heard = vec![0; 64 * 1024];
    loop {
        if matches!(says, Says::Goodbye) || stream.read(&mut heard).await? == 0 {
            return Ok(());
        }
        match says {
            Says::Always(text) => stream.write_all(text.as_bytes()).await?,
            Says::Repeated(text) => stream.write_all(text.repeat(1_000_000).as_bytes()).await?,
            Says::Endless(text, byte) => {
                stream.write_all(text.as_bytes()).await?;
                let more = vec![byte; 64 * 1024];
                loop {
                    stream.write_all(&more).await?;
                }
            }
            Says::Nothing | Says::Goodbye => {}
        }
    }
}

/// Kilobytes of this process: now, or at most since it began.
fn memory(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What opening it says, and after how long.
async fn refused(says: Says) -> StoreError {
    let url = stranger(says).await;
    let began = Instant::now();
    let opened = sluicegate::store::open(&url.parse().unwrap()).await;
    let took = began.elapsed();
    let error = opened.map(drop).expect_err("it is no Redis");
    println!("{says:?}: {took:?} {:?} {error} | {:?}", error.kind, error.hint);
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(error.to_string().len() < 600, "{error}");
    error
}

#[tokio::test]
async fn a_server_that_speaks_http_is_named_as_that() {
    let http = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let error = refused(Says::Always(http)).await;
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.hint.is_some_and(|hint| hint.contains("does not speak Redis")));
}

#[tokio::test]
async fn garbage_is_an_error_in_time() {
    for text in [
        "SSH-2.0-OpenSSH_9.2p1\r\n",
        "\0\x01\x02\x03\r\n",
        "$x\r\n",
        ":abc\r\n",
        "*-9\r\n",
        "$-9\r\n",
        "*1\r\n*1\r\n*1\r\n!\r\n",
        "$2147483647\r\nabc",
        "*2147483647\r\n:1\r\n",
        "%9223372036854775807\r\n",
        "+OK\r\n",
        ":1\r\n",
        "-\r\n",
        "$3\r\nabcde\r\n",
    ] {
        refused(Says::Always(text)).await;
    }
}

#[tokio::test]
async fn whoever_says_nothing_or_goes_away_is_an_error_in_time() {
    for says in [Says::Nothing, Says::Goodbye] {
        let error = refused(says).await;
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn an_endless_answer_costs_no_memory() {
    let before = memory("VmRSS");
    for says in [
        Says::Endless("$2147483647\r\n", b'x'),
        Says::Endless("+", b'x'),
        Says::Endless("*2147483647\r\n", b':'),
        Says::Repeated("*1\r\n"),
        Says::Repeated("+OK\r\n"),
    ] {
        refused(says).await;
        let grown = memory("VmHWM").saturating_sub(before) / 1024;
        assert!(grown < 64, "{says:?}: {grown} MiB");
    }
}

/// A tier with something in every place, and one job of each kind of place.
async fn lived_in(site: &Site, tier: &str) -> (Rig, Batch) {
    let mut rig = site.beside().await;
    rig.tier = Tier::new(tier).unwrap();
    rig.flip(None, "r1").await;
    let hand = Hand::new("w-1", "r1");
    rig.beat(&hand, sluicegate::activation::WorkerState::Starting).await;
    rig.add_many(10).await;
    let batch = rig.claim(&hand, 5).await;
    let ids = ids(&batch);
    rig.settle(&batch, ids[0], Verdict::Completed).await;
    rig.settle(&batch, ids[1], retry(Duration::from_secs(100))).await;
    rig.settle(&batch, ids[2], Verdict::Dead { error: "no luck".into() }).await;
    rig.settle(&batch, ids[3], Verdict::Return).await;
    rig.act(ids[4], Action::Cancel).await;
    rig.store.put(&rig.tier, Space::Effect, "key", 0, "value", None).await.unwrap();
    (rig, batch)
}

/// Every call ends with an answer or with "damaged", and never with "perhaps later".
async fn nothing_panics(site: &Site, rig: &Rig, what: &str) -> usize {
    let mut damaged = 0;
    for (name, call) in every(site, &rig.store, &rig.tier) {
        if let Err(error) = call.await {
            assert_eq!(error.kind, ErrorKind::Corrupt, "{what}: {name}: {error:?}");
            damaged += 1;
        }
    }
    damaged
}

#[tokio::test]
async fn keys_of_another_type_are_damage_and_no_panic() {
    let site = Site::new().await;
    let keys = [
        "jobs",
        "completed",
        "log:0",
        "chunks",
        "buried",
        "ready:default:0",
        "back:default:0",
        "waiting",
        "suspected",
        "gaps",
        "leases",
        "until",
        "due",
        "expiry",
        "final",
        "parked",
        "done:default",
        "kept",
        "unique",
        "unique_until",
        "remembered",
        "cancel",
        "c",
        "streams",
        "queue",
        "kind",
        "activation",
        "ledger",
        "workers",
        "seen",
        "records:effect",
        "keys:effect",
        "records_until",
        "meta",
        "seq",
        "turns",
        "versions",
    ];
    for (n, key) in keys.iter().enumerate() {
        let tier = format!("t{n}");
        let (rig, _) = lived_in(&site, &tier).await;
        let key = format!("sg:{{{tier}}}:{key}");
        site.server.cli(&["DEL", &key]).await;
        site.server.cli(&["XADD", &key, "*", "not", "ours"]).await;
        let damaged = nothing_panics(&site, &rig, &key).await;
        println!("{key}: {damaged} calls");
    }
}

#[tokio::test]
async fn values_that_are_not_ours_are_damage_and_no_panic() {
    let site = Site::new().await;
    let garbage = ["", "x", "\u{1}\u{2}\u{3}", &"y".repeat(17), &"z".repeat(40), &"{\"a\":".repeat(20)];
    let mut n = 0;
    for key in [
        "jobs",
        "completed",
        "leases",
        "workers",
        "activation",
        "records:effect",
        "meta",
        "c",
        "streams",
        "unique",
    ] {
        for value in garbage {
            n += 1;
            let tier = format!("v{n}");
            let (rig, _) = lived_in(&site, &tier).await;
            let key = format!("sg:{{{tier}}}:{key}");
            let fields = site.server.field_names(&key).await;
            for field in fields {
                site.server.set_field(&key, &field, value.as_bytes()).await;
            }
            let damaged = nothing_panics(&site, &rig, &format!("{key} = {value:?}")).await;
            println!("{key} {value:?}: {damaged} calls");
        }
    }
}

#[tokio::test]
async fn rule_01_a_damaged_job_does_not_take_its_neighbours_with_it() {
    let garbage = [&b""[..], b"x", &[7; 17], &[7; 40], &[0; 18]];
    for (garbage, handed_back) in garbage.into_iter().flat_map(|garbage| [(garbage, false), (garbage, true)])
    {
        let site = Site::new().await;
        let ids = site.add_many(10).await;
        let hand = Hand::new("w-1", "r1");
        if handed_back {
            let batch = site.claim(&hand, 2).await;
            site.settle_all(&batch, &Verdict::Return).await;
        }
        site.server.set_field("sg:{default}:jobs", ids[4].as_bytes(), garbage).await;
        let claim = site.store.claim(site.ask(&hand, 100)).await;
        println!("{garbage:?}: {claim:?}");
        for id in ids.iter().filter(|id| **id != ids[4]) {
            let state = site.state(*id).await;
            let held =
                matches!(&claim, Ok(Claim::Active(batch)) if batch.jobs.iter().any(|job| job.id == *id));
            // It runs if and only if somebody was told to run it.
            assert_eq!(state == State::Running, held, "{garbage:?}: {state}");
        }
    }
}

#[tokio::test]
async fn a_damaged_job_in_a_lease_does_not_stop_the_sweeps() {
    for garbage in [&b"x"[..], &[7; 17], &[7; 40], &[0; 18]] {
        let site = Site::new().await;
        let ids = site.add_many(5).await;
        site.claim(&Hand::new("w-1", "r1"), 5).await;
        site.server.set_field("sg:{default}:jobs", ids[2].as_bytes(), garbage).await;
        assert_eq!(site.leases_run_out().await, 4, "{garbage:?}");
        for id in ids.iter().filter(|id| **id != ids[2]) {
            assert_eq!(site.state(*id).await, State::Available);
        }
        assert_eq!(site.store.get(&site.tier, ids[2]).await.unwrap_err().kind, ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn a_server_with_too_many_clients_is_away_for_now_and_not_for_good() {
    let site = Site::of(super::server::Server::setup().with("maxclients 2")).await;
    // `open` and the flip took two connections.
    let error = site.store.insert(&site.tier, vec![job(1)]).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (ErrorKind::Unavailable, true), "{error}");
    assert!(error.to_string().contains("max number of clients"), "{error}");
}
