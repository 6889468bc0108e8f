//! The kit's server does what it says: it is a Redis of its own, its clock moves, and it dies and comes back.

use std::time::Duration;

use super::resp::{DEADLINE, Ends, Reply, Wire};
use super::server::Server;

const DAY: Duration = Duration::from_secs(86_400);

/// The server's time in microseconds, as `TIME` says it or a script that asks.
async fn time(server: &Server, command: &[&str]) -> i64 {
    let parts: Vec<_> = server.cli(command).await.list().into_iter().map(Reply::int).collect();
    parts[0] * 1_000_000 + parts[1]
}

const SCRIPT: &[&str] = &["EVAL", "return redis.call('TIME')", "0"];

#[tokio::test]
async fn the_clock_moves() {
    let server = Server::start();
    let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (before, script) = (time(&server, &["TIME"]).await, time(&server, SCRIPT).await);
    assert!(Duration::from_micros(before.unsigned_abs()) - real < DEADLINE, "it begins with the machine's");

    server.pass(30 * DAY);
    server.pass(Duration::from_micros(700_001));
    let shift = (30 * DAY + Duration::from_micros(700_001)).as_micros() as i64;
    for (then, now) in [(before, time(&server, &["TIME"]).await), (script, time(&server, SCRIPT).await)] {
        let moved = now - then;
        assert!((shift..shift + DEADLINE.as_micros() as i64).contains(&moved), "{moved} for {shift}");
    }
}

#[tokio::test]
async fn a_key_expires_when_its_time_has_passed_and_no_earlier() {
    let server = Server::start();
    server.cli(&["SET", "key", "value", "EX", "86400"]).await;
    server.pass(DAY - DEADLINE);
    assert_eq!(server.cli(&["GET", "key"]).await, Reply::Text("value".into()));
    server.pass(DEADLINE + Duration::from_millis(1));
    assert_eq!(server.cli(&["GET", "key"]).await, Reply::Nil);
}

#[tokio::test]
async fn one_clock_moves_and_no_other_and_it_stays_moved() {
    let (mut server, other) = (Server::start(), Server::start());
    server.pass(DAY);
    let ahead = time(&server, &["TIME"]).await - time(&other, &["TIME"]).await;
    assert!(ahead > (DAY - DEADLINE).as_micros() as i64, "{ahead}");
    server.kill();
    server.start_again();
    let ahead = time(&server, &["TIME"]).await - time(&other, &["TIME"]).await;
    assert!(ahead > (DAY - DEADLINE).as_micros() as i64, "{ahead}");
}

#[tokio::test]
async fn a_killed_server_keeps_what_it_acknowledged() {
    let mut server = Server::setup().append_only("always").start();
    let pid = server.pid();
    let mut wire = Wire::to(server.port()).await.unwrap();
    let (counted, mut count) = tokio::sync::watch::channel(0);
    let writer = tokio::spawn(async move {
        // Many at once, so that the kill meets some on their way.
        let mut acknowledged = 0;
        loop {
            for _ in 0..20 {
                if wire.send(&["INCR", "count"]).await.is_err() {
                    return acknowledged;
                }
            }
            for _ in 0..20 {
                match wire.read().await {
                    Ok(reply) => acknowledged = reply.int(),
                    Err(_) => return acknowledged,
                }
            }
            counted.send_replace(acknowledged);
        }
    });
    count.wait_for(|count| *count >= 200).await.unwrap();
    server.kill();
    let acknowledged = writer.await.unwrap();
    assert!(Wire::to(server.port()).await.is_err(), "nobody listens");

    server.start_again();
    assert_ne!(server.pid(), pid);
    let kept = server.cli(&["GET", "count"]).await.int();
    assert!((acknowledged..=acknowledged + 20).contains(&kept), "{kept} of {acknowledged}");
}

#[tokio::test]
async fn a_killed_server_without_a_file_forgets() {
    let mut server = Server::start();
    server.cli(&["SET", "key", "value"]).await;
    server.kill();
    server.start_again();
    assert_eq!(server.cli(&["GET", "key"]).await, Reply::Nil);
}

#[tokio::test]
async fn nobody_else_gets_the_port_of_a_killed_server() {
    let mut server = Server::start();
    server.kill();
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    assert!(other.bind(([127, 0, 0, 1], server.port()).into()).is_err());
    server.start_again();
    assert_eq!(server.cli(&["PING"]).await.text(), "PONG");
}

#[tokio::test]
async fn a_stopped_server_stands_still_until_it_goes_on() {
    let server = Server::start();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("a process");
    let mut wire = Wire::to(server.port()).await.unwrap();
    server.stop();
    assert!(state().contains(") T "), "{}", state());
    wire.send(&["PING"]).await.unwrap();
    server.cont();
    assert_eq!(wire.read().await.unwrap().text(), "PONG");
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let server = Server::start();
    let (pid, port) = (server.pid(), server.port());
    server.stop();
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(Wire::to(port).await.is_err());
}

#[tokio::test]
async fn a_server_is_what_its_setup_says() {
    let setup = Server::setup().max_memory("3mb", "volatile-ttl").with("maxclients 77");
    let server = setup.password("secret").user("ada", "on >other ~jobs:* +get").start();
    assert_eq!(server.info("memory").await["maxmemory"], "3145728");
    assert_eq!(server.info("memory").await["maxmemory_policy"], "volatile-ttl");
    assert_eq!(server.info("clients").await["maxclients"], "77");
    assert_eq!(server.info("server").await["process_id"], server.pid().to_string());
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));

    let mut wire = Wire::to(server.port()).await.unwrap();
    let refused = |reply| matches!(reply, Reply::Error(text) if text.starts_with("NO"));
    assert!(refused(wire.ask(&["PING"]).await.unwrap()));
    wire.ask(&["AUTH", "ada", "other"]).await.unwrap();
    assert_eq!(wire.ask(&["GET", "jobs:1"]).await.unwrap(), Reply::Nil);
    assert!(refused(wire.ask(&["GET", "else"]).await.unwrap()));
    let piece = "x".repeat(100_000);
    let mut last = Reply::Nil;
    for key in 0..40 {
        last = server.cli(&["SET", &key.to_string(), &piece]).await;
    }
    assert!(matches!(last, Reply::Error(text) if text.starts_with("OOM")));
}

#[tokio::test]
async fn a_replica_follows_also_when_a_day_has_passed() {
    let master = Server::setup().password("secret").with("repl-ping-replica-period 1").start();
    let replica = Server::setup().replica_of(&master).start();
    assert_eq!(master.cli(&["WAIT", "1", "0"]).await, Reply::Int(1));
    for server in [&master, &replica] {
        server.pass(DAY);
    }
    // The master looks for replicas that were silent too long when it sends this.
    let mut monitor = Wire::to(replica.port()).await.unwrap();
    monitor.ask(&["MONITOR"]).await.unwrap();
    while !monitor.read().await.unwrap().text().to_uppercase().ends_with("\"PING\"") {}
    let mut wire = Wire::to(master.port()).await.unwrap();
    wire.ask(&["AUTH", "secret"]).await.unwrap();
    wire.ask(&["SET", "key", "value"]).await.unwrap();
    assert_eq!(wire.ask(&["WAIT", "1", "0"]).await.unwrap(), Reply::Int(1));
    assert_eq!(replica.cli(&["GET", "key"]).await.text(), "value");
    assert_eq!(replica.info("replication").await["role"], "slave");
    assert_eq!(master.info("stats").await["sync_full"], "1");
    assert_eq!(master.info("stats").await["sync_partial_ok"], "0", "the link never broke:\n{}", master.log());
}

#[test]
#[should_panic(expected = "no-such-setting")]
fn a_server_that_does_not_start_says_why() {
    Server::setup().with("no-such-setting 1").start();
}

#[test]
fn the_end_of_a_reply_is_found_whatever_pieces_it_comes_in() {
    let replies: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":12\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$7\r\na\r\nb\r\nc\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
        b"*2\r\n*2\r\n:1\r\n*1\r\n*0\r\n*1\r\n$3\r\n*1\r\r\n",
    ];
    let stream = replies.concat();
    let wanted: Vec<_> = (1..=replies.len()).map(|count| replies[..count].concat().len()).collect();
    for size in 1..=stream.len() {
        let (mut ends, mut at, mut found) = (Ends::default(), 0, Vec::new());
        for piece in stream.chunks(size) {
            found.extend(ends.feed(piece).into_iter().map(|end| at + end));
            at += piece.len();
        }
        assert_eq!(found, wanted, "pieces of {size}");
    }
    for reply in replies {
        assert_eq!(Reply::parse(reply).unwrap().1, reply.len());
        assert!(Reply::parse(&reply[..reply.len() - 1]).is_none());
    }
    let newer = b"%1\r\n+a\r\n~2\r\n:1\r\n#t\r\n>2\r\n+message\r\n_\r\n=5\r\ntxt:a\r\n";
    assert_eq!(Ends::default().feed(newer), [20, 37, newer.len()], "RESP3");
}
