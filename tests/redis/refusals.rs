//! Servers that would put jobs at risk, or that may not be used: not ready, and the setting, its value and the wanted value
//! are named. And what an insert is told to survive.

use std::time::{Duration, Instant};

use sluicegate::job::State;
use sluicegate::location::{Durability, StoreUrl};
use sluicegate::store::*;

use super::server::{Server, Setup};
use super::site::*;
use crate::store::bench::*;

const SECRET: &str = "hunter2-secret";

async fn try_open(
    url: &str,
    durability: Option<Durability>,
) -> Result<std::sync::Arc<dyn Store>, StoreError> {
    let url: StoreUrl = url.parse().unwrap();
    open_wanting(&url, durability).await
}

/// The error of opening a server of this kind; it must name all of these.
async fn refused(url: &str, wanted: Option<Durability>, kind: ErrorKind, names: &[&str]) -> StoreError {
    let error = try_open(url, wanted).await.map(drop).expect_err("refused");
    assert_eq!(error.kind, kind, "{error}");
    let text = format!("{error} | {}", error.hint.clone().unwrap_or_default());
    for name in names {
        assert!(text.contains(name), "`{name}` is not in: {text}");
    }
    assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    error
}

fn url_of(server: &Server, user: &str, password: &str) -> String {
    format!("redis://{user}:{password}@127.0.0.1:{}", server.port())
}

#[tokio::test]
async fn an_eviction_policy_that_drops_jobs_is_refused_at_the_start() {
    for policy in ["allkeys-lru", "volatile-lru", "allkeys-random", "volatile-ttl"] {
        let server = Server::setup().max_memory("50mb", policy).start();
        let names = ["`maxmemory-policy`", policy, "noeviction", "CONFIG SET"];
        refused(&server.url(), None, ErrorKind::Unsafe, &names).await;
    }
}

/// Waits until a claim ends like this; for how long it took.
async fn until_claims(site: &Site, safe: bool) -> Duration {
    let hand = Hand::new("w-1", "r1");
    let began = Instant::now();
    loop {
        // As a worker does: its sweeps look at the settings now and then.
        let swept = site.store.sweep(site.sweeper()).await.map(drop);
        match swept.and(site.store.claim(site.ask(&hand, 0)).await) {
            Ok(_) if safe => return began.elapsed(),
            Err(error) if !safe => {
                assert_eq!((error.kind, error.is_transient()), (ErrorKind::Unsafe, true), "{error}");
                assert!(error.to_string().contains("`maxmemory-policy` is allkeys-lru"), "{error}");
                return began.elapsed();
            }
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind, ErrorKind::Unsafe, "{error}"),
        }
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s");
        tokio::time::sleep(Duration::from_millis(50)).await; // what changes is what the clock says
    }
}

#[tokio::test]
async fn an_eviction_policy_that_is_changed_at_run_time_stops_work_within_10_s_and_no_longer() {
    let site = Site::new().await;
    let set = async |policy| site.server.cli(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
    set("allkeys-lru").await;
    until_claims(&site, false).await;
    let error = site.store.insert(&site.tier, vec![job(1)]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsafe, "what may be dropped is not acknowledged: {error}");
    set("noeviction").await;
    until_claims(&site, true).await;
    site.add(job(2)).await;
}

#[tokio::test]
async fn a_replica_is_refused_and_a_master_that_became_one_is_read_only_until_it_is_master_again() {
    let master = Server::start();
    let replica = Server::setup().replica_of(&master).start();
    refused(&replica.url(), None, ErrorKind::ReadOnly, &["`role`", "slave", "master"]).await;

    let site = Site::new().await;
    site.warm().await;
    let port = master.port().to_string();
    site.server.cli(&["REPLICAOF", "127.0.0.1", &port]).await;
    let error = site.store.insert(&site.tier, vec![job(1)]).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (ErrorKind::ReadOnly, true), "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("replica")), "{error:?}");
    site.server.cli(&["REPLICAOF", "NO", "ONE"]).await;
    site.add(job(1)).await;
}

#[tokio::test]
async fn a_user_without_a_command_is_told_which_and_what_is_needed() {
    let setup = Server::setup().user("ada", &format!("on >{SECRET} ~* &* +@all -evalsha"));
    let setup = setup.user("bob", &format!("on >{SECRET} ~other:* &* +@all"));
    let server = setup.user("eve", &format!("on >{SECRET} ~* &* +@all -info")).start();
    for (user, named) in [("ada", "evalsha"), ("bob", "key"), ("eve", "info")] {
        let error = match try_open(&url_of(&server, user, SECRET), None).await {
            Ok(store) => store.probe(&sluicegate::names::Tier::default()).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!((error.kind, error.is_transient()), (ErrorKind::Denied, false), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("~sg:* &sg:*")), "{error:?}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
}

#[tokio::test]
async fn a_user_with_no_more_than_what_the_hint_says_can_do_everything() {
    let rules = format!("on >{SECRET} ~sg:* &sg:* +@all -@admin -@dangerous +info +config|get");
    let server = Server::setup().append_only("always").user("ada", &rules).start();
    let store = try_open(&url_of(&server, "ada", SECRET), Some(Durability::Disk)).await.unwrap();
    assert_eq!(store.about().durability, Durability::Disk);
    works(&Rig { store, ..of(&server).await }).await;
}

#[tokio::test]
async fn a_user_without_config_works_and_is_told_memory() {
    let rules = format!("on >{SECRET} ~sg:* &sg:* +@all -@admin -@dangerous +info");
    let server = Server::setup().append_only("always").user("ada", &rules).start();
    let url = url_of(&server, "ada", SECRET);
    let store = try_open(&url, None).await.unwrap();
    assert_eq!(store.about().durability, Durability::Memory, "unknown counts as the worse one");
    works(&Rig { store, ..of(&server).await }).await;
    let names = ["`store.durability`", "disk", "`appendfsync` is unknown (CONFIG is not allowed)"];
    refused(&url, Some(Durability::Disk), ErrorKind::Unsafe, &names).await;
}

/// The words of the suite, on a server without a wire.
async fn of(server: &Server) -> Rig {
    rig_at(&server.url()).await
}

async fn works(rig: &Rig) {
    rig.flip(None, "r1").await;
    rig.store.subscribe(&rig.tier).await.map(drop).unwrap();
    let hand = Hand::new("w-1", "r1");
    rig.beat(&hand, sluicegate::activation::WorkerState::Starting).await;
    let id = rig.add(job(1)).await;
    let batch = rig.claim(&hand, 10).await;
    rig.sweep().await;
    assert_eq!(rig.settle(&batch, id, Verdict::Completed).await, Settled::Ok);
    assert_eq!(rig.state(id).await, State::Completed);
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_never_printed() {
    let server = Server::setup().password("right").user("ada", "on >right ~* &* +@all").start();
    let hint = ["`store.url`", "`store.password_file`"];
    for url in
        [url_of(&server, "", SECRET), url_of(&server, "ada", SECRET), url_of(&server, "nobody", SECRET)]
    {
        refused(&url, None, ErrorKind::Denied, &hint).await;
    }
    refused(&server.url(), None, ErrorKind::Denied, &hint).await;
    // A password where none is asked for is no error of ours to hide, and the server says so.
    let without = Server::start();
    let answer = try_open(&url_of(&without, "", SECRET), None).await.map(drop);
    assert!(!format!("{answer:?}").contains(SECRET), "{answer:?}");
}

#[tokio::test]
async fn rule_07_less_than_what_was_asked_for_is_refused() {
    let none = Server::start();
    let everysec = Server::setup().append_only("everysec").start();
    let asked = ["`store.durability`", "disk"];
    let disk = Some(Durability::Disk);
    let error = refused(&none.url(), disk, ErrorKind::Unsafe, &asked).await;
    assert!(error.to_string().contains("`appendonly` is no, yes is needed"), "{error}");
    let error = refused(&everysec.url(), disk, ErrorKind::Unsafe, &asked).await;
    assert!(error.to_string().contains("`appendfsync` is everysec, always is needed"), "{error}");
    let error = refused(&none.url(), Some(Durability::Replica(1)), ErrorKind::Unsafe, &["1 replica"]).await;
    assert!(error.to_string().contains("`connected_slaves` is 0"), "{error}");
}

#[tokio::test]
async fn a_member_of_a_cluster_is_refused() {
    // By default its bus is 10,000 ports above, where there may be none.
    let bus = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::setup().with("cluster-enabled yes").with(&format!("cluster-port {bus}")).start();
    refused(&server.url(), None, ErrorKind::Unsupported, &["`cluster-enabled`", "yes"]).await;
}

async fn told(setup: Setup) -> (Durability, Durability) {
    let site = Site::of(setup).await;
    match site.insert(job(1)).await {
        Insert::Stored { durability, .. } => (durability, site.store.about().durability),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rule_07_disk_is_told_with_always_only() {
    use Durability::{Disk, Memory};
    assert_eq!(told(Server::setup()).await, (Memory, Memory));
    assert_eq!(told(Server::setup().append_only("no")).await, (Memory, Memory));
    assert_eq!(told(Server::setup().append_only("everysec")).await, (Memory, Memory));
    assert_eq!(told(Server::setup().append_only("always")).await, (Disk, Disk));
}

#[tokio::test]
async fn rule_07_a_producer_does_not_go_on_telling_disk_when_the_server_does_not_sync_any_more() {
    let site = Site::of(Server::setup().append_only("always")).await;
    site.server.cli(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
    let began = Instant::now();
    for n in 0.. {
        match site.insert(job(n)).await {
            Insert::Stored { durability: Durability::Memory, .. } => break,
            Insert::Stored { .. } => assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s"),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await; // what changes is what the clock says
    }
}

/// A master with one replica, and a client that wants that.
async fn replicated() -> (Server, Server, Rig) {
    let master = Server::start();
    let replica = Server::setup().replica_of(&master).start();
    assert_eq!(master.cli(&["WAIT", "1", "0"]).await.int(), 1);
    let store = try_open(&master.url(), Some(Durability::Replica(1))).await.unwrap();
    let rig = Rig { store, ..of(&master).await };
    (master, replica, rig)
}

#[tokio::test]
async fn rule_07_replica_1_is_told_when_the_replica_has_it() {
    let (_master, replica, rig) = replicated().await;
    assert_eq!(rig.store.about().durability, Durability::Replica(1));
    match rig.insert(job(1)).await {
        Insert::Stored { durability, .. } => assert_eq!(durability, Durability::Replica(1)),
        other => panic!("{other:?}"),
    }
    assert_eq!(replica.cli(&["HLEN", "sg:{default}:jobs"]).await.int(), 1);
}

#[tokio::test]
async fn rule_07_a_replica_that_stands_still_makes_an_insert_unknown_and_no_success() {
    let (_master, replica, rig) = replicated().await;
    rig.add(job(1)).await;
    replica.stop();
    let late = job(2);
    // However often it is tried: it is there, and nobody knows for how long.
    for _ in 0..2 {
        let error = rig.store.insert(&rig.tier, vec![late.clone()]).await.unwrap_err();
        assert_eq!((error.kind, error.is_transient()), (ErrorKind::Timeout, true), "{error}");
        assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
        assert!(error.hint.is_some_and(|hint| hint.contains("`store.durability`")));
    }
    replica.cont();
    assert!(matches!(rig.insert(late.clone()).await, Insert::Existing { id, .. } if id == late.id));
    assert_eq!(replica.cli(&["HLEN", "sg:{default}:jobs"]).await.int(), 2);
    assert_eq!(states(&rig, "default").await, [("available".into(), 2)]);
}

#[tokio::test]
async fn rule_07_a_replica_that_is_gone_is_refused_before_anything_is_stored() {
    let (master, replica, rig) = replicated().await;
    drop(replica);
    let began = Instant::now();
    loop {
        let error = rig.store.insert(&rig.tier, vec![job(1)]).await.unwrap_err();
        if error.kind == ErrorKind::Unsafe {
            assert!(error.to_string().contains("`connected_slaves` is 0"), "{error}");
            break;
        }
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s");
    }
    drop(master);
}
