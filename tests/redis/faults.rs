//! The kit's proxy does what it says, before a real server.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::proxy::{Proxy, Way};
use super::resp::{Reply, Wire};
use super::server::Server;

const HOUR: Duration = Duration::from_secs(3_600);

fn ok() -> Reply {
    Reply::Text("OK".into())
}

async fn rig() -> (Server, Proxy, Wire) {
    let server = Server::start();
    let proxy = Proxy::before(&server);
    let mut wire = Wire::to(proxy.port()).await.unwrap();
    assert_eq!(wire.ask(&["PING"]).await.unwrap().text(), "PONG");
    (server, proxy, wire)
}

#[tokio::test]
async fn a_wire_without_faults_carries_everything() {
    let (_server, proxy, mut wire) = rig().await;
    let big = "x".repeat(1 << 20);
    assert_eq!(wire.ask(&["SET", "key", &big]).await.unwrap(), ok());
    assert_eq!(wire.ask(&["GET", "key"]).await.unwrap().text(), big);
    let counts = proxy.counts();
    assert!(counts.up.bytes > 1 << 20 && counts.down.bytes > 1 << 20, "{counts:?}");
    assert_eq!((counts.connections, counts.open, counts.replies, counts.dropped), (1, 1, 3, 0));
    assert_eq!((counts.up.held, counts.down.held), (0, 0));
    assert_eq!(proxy.url(), format!("redis://127.0.0.1:{}", proxy.port()));
    drop(wire);
    proxy.until(|counts| counts.open == 0).await;
}

#[tokio::test]
async fn an_orderly_end_is_an_end_at_the_other_side() {
    let (server, _proxy, mut wire) = rig().await;
    wire.ask(&["QUIT"]).await.unwrap();
    assert_eq!(wire.read().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(server.info("clients").await["connected_clients"], "1", "the one that asks");
}

#[tokio::test]
async fn a_delayed_wire_is_late_each_way() {
    let (_server, proxy, mut wire) = rig().await;
    let delay = Duration::from_millis(30);
    for (way, least) in [(Way::Up, delay), (Way::Down, delay), (Way::Both, delay * 2)] {
        proxy.heal();
        proxy.delay(way, delay);
        let began = Instant::now();
        wire.ask(&["PING"]).await.unwrap();
        assert!(began.elapsed() >= least, "{way:?}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_delay_can_be_ended_and_keeps_the_order() {
    let (server, proxy, mut wire) = rig().await;
    proxy.delay(Way::Up, HOUR);
    wire.send(&["SET", "key", "1"]).await.unwrap();
    proxy.until(|counts| counts.up.held == 1).await;
    wire.send(&["SET", "key", "2"]).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", "key"]).await, Reply::Int(0));
    proxy.heal();
    for _ in 0..2 {
        assert_eq!(wire.read().await.unwrap(), ok());
    }
    assert_eq!(server.cli(&["GET", "key"]).await.text(), "2");
}

#[tokio::test]
async fn a_cut_resets_every_connection_and_refuses_new_ones() {
    let server = Server::setup().with("loglevel verbose").start();
    let proxy = Proxy::before(&server);
    let mut wire = Wire::to(proxy.port()).await.unwrap();
    assert_eq!(wire.ask(&["PING"]).await.unwrap().text(), "PONG");
    let mut idle = Wire::to(proxy.port()).await.unwrap();
    assert_eq!(idle.ask(&["PING"]).await.unwrap().text(), "PONG");
    proxy.cut();
    for wire in [&mut wire, &mut idle] {
        assert_eq!(wire.read().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(Wire::to(proxy.port()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(proxy.counts().open, 0);
    assert_eq!(server.info("clients").await["connected_clients"], "1", "the server's end is gone too");
    assert_eq!(server.log().matches("Connection reset by peer").count(), 2, "{}", server.log());

    proxy.heal();
    let mut wire = Wire::to(proxy.port()).await.unwrap();
    assert_eq!(wire.ask(&["PING"]).await.unwrap().text(), "PONG");
    proxy.until(|counts| counts.connections == 3 && counts.open == 1).await;
}

#[tokio::test]
async fn a_black_hole_keeps_connections_and_forwards_nothing() {
    let (server, proxy, mut wire) = rig().await;
    let connections =
        async || server.info("stats").await["total_connections_received"].parse::<u64>().unwrap();
    let before = connections().await;
    proxy.black_hole();
    wire.send(&["SET", "key", "value"]).await.unwrap();
    let mut late = Wire::to(proxy.port()).await.unwrap();
    late.send(&["GET", "key"]).await.unwrap();
    proxy.until(|counts| counts.up.held == 1 && counts.connections == 2).await;
    assert_eq!(server.cli(&["EXISTS", "key"]).await, Reply::Int(0), "it did not arrive");
    assert_eq!(connections().await, before + 2, "nor did the late one: those are our two questions");
    assert!(wire.is_silent() && late.is_silent());

    proxy.heal();
    assert_eq!(wire.read().await.unwrap(), ok(), "it was only held");
    late.read().await.unwrap();
    assert_eq!(wire.ask(&["GET", "key"]).await.unwrap().text(), "value");
}

#[tokio::test]
async fn a_black_hole_hides_who_is_gone() {
    let (server, proxy, wire) = rig().await;
    proxy.black_hole();
    drop(wire);
    proxy.until(|counts| counts.up.held == 1).await;
    assert_eq!(server.info("clients").await["connected_clients"], "2");
    proxy.heal();
    proxy.until(|counts| counts.open == 0).await;
}

#[tokio::test]
async fn a_half_open_wire_executes_and_does_not_tell() {
    let (server, proxy, mut wire) = rig().await;
    proxy.half_open();
    wire.send(&["SET", "key", "value"]).await.unwrap();
    proxy.until(|counts| counts.down.held == 1).await;
    assert_eq!(server.cli(&["GET", "key"]).await.text(), "value", "it was executed");
    assert!(wire.is_silent(), "it was not told");
    proxy.heal();
    assert_eq!(wire.read().await.unwrap(), ok());
}

#[tokio::test]
async fn a_dropped_reply_was_executed_and_ends_its_connection() {
    let (server, proxy, mut wire) = rig().await;
    let mut other = Wire::to(proxy.port()).await.unwrap();
    other.ask(&["RPUSH", "list", "a", "b", "c"]).await.unwrap();
    proxy.drop_replies(3);
    // A nested reply counts as one, and replies that come together are told apart.
    wire.send(&["EVAL", "return {1, {'x', {2}}, redis.call('LRANGE', 'list', 0, -1)}", "0"]).await.unwrap();
    wire.send(&["INCR", "count"]).await.unwrap();
    assert_eq!(wire.read().await.unwrap().list().len(), 3);
    assert_eq!(wire.read().await.unwrap(), Reply::Int(1));
    wire.send(&["INCR", "count"]).await.unwrap();
    assert_eq!(wire.read().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let counts = proxy.until(|counts| counts.dropped == 1 && counts.open == 1).await;
    assert_eq!(counts.replies, 5);
    assert_eq!(server.cli(&["GET", "count"]).await.int(), 2, "executed, and never told");

    // The count goes over all connections, and the others live on.
    for _ in 0..2 {
        other.ask(&["INCR", "count"]).await.unwrap();
    }
    assert_eq!(other.ask(&["INCR", "count"]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.cli(&["GET", "count"]).await.int(), 5);

    proxy.drop_replies(4); // counted anew
    let mut wire = Wire::to(proxy.port()).await.unwrap();
    for count in 6..=8 {
        assert_eq!(wire.ask(&["INCR", "count"]).await.unwrap(), Reply::Int(count));
    }
    assert_eq!(wire.ask(&["INCR", "count"]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    proxy.heal();
    let mut wire = Wire::to(proxy.port()).await.unwrap();
    for count in 10..=20 {
        assert_eq!(wire.ask(&["INCR", "count"]).await.unwrap(), Reply::Int(count));
    }
}

#[tokio::test]
async fn a_reply_is_dropped_from_the_middle_of_a_pipeline() {
    let (server, proxy, mut wire) = rig().await;
    server.stop(); // so that the three answers come at once
    for _ in 0..3 {
        wire.send(&["INCR", "count"]).await.unwrap();
    }
    proxy.drop_replies(2);
    server.cont();
    assert_eq!(wire.read().await.unwrap(), Reply::Int(1), "the one before arrives");
    assert_eq!(wire.read().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_message_that_a_subscriber_gets_is_a_reply() {
    let (server, proxy, mut wire) = rig().await;
    assert_eq!(wire.ask(&["SUBSCRIBE", "news"]).await.unwrap().list().len(), 3);
    proxy.drop_replies(2);
    server.cli(&["PUBLISH", "news", "first"]).await;
    assert_eq!(wire.read().await.unwrap().list()[2], Reply::Text("first".into()));
    server.cli(&["PUBLISH", "news", "second"]).await;
    assert_eq!(wire.read().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_slow_wire_takes_its_time_until_it_is_healed() {
    let (_server, proxy, mut wire) = rig().await;
    proxy.slow(100_000);
    let began = Instant::now();
    wire.ask(&["SET", "key", &"x".repeat(5_000)]).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());

    proxy.slow(20);
    let sent = proxy.counts().up.bytes;
    wire.send(&["SET", "key", &"x".repeat(100_000)]).await.unwrap();
    proxy.until(|counts| counts.up.bytes > sent).await;
    assert!(wire.is_silent());
    proxy.heal();
    assert_eq!(wire.read().await.unwrap(), ok());

    // The byte that waits for its turn when another fault comes does not slip through.
    proxy.slow(1);
    let before = proxy.counts().up;
    wire.send(&["PING"]).await.unwrap();
    proxy.until(|counts| counts.up.held > before.held).await;
    proxy.black_hole();
    let held = proxy.until(|counts| counts.up.held > before.held + 1).await;
    assert_eq!(held.up.bytes, before.bytes);
}

#[tokio::test]
async fn a_server_that_dies_behind_the_wire_ends_its_connections_and_may_come_back() {
    let (mut server, proxy, mut wire) = rig().await;
    server.kill();
    assert!(wire.read().await.is_err());
    let early = async { Wire::to(proxy.port()).await?.read().await };
    assert_eq!(early.await.unwrap_err().kind(), ErrorKind::ConnectionReset, "nobody is there");
    server.start_again();
    let mut wire = Wire::to(proxy.port()).await.unwrap();
    assert_eq!(wire.ask(&["PING"]).await.unwrap().text(), "PONG");
}
