//! The commands on a Redis that may not be used, or that goes away: what is said, and with which exit code.

use std::time::{Duration, Instant};

use super::sandbox::Sandbox;
use crate::redis::server::Server;

const SECRET: &str = "hunter2-secret";

fn work(url: &str) -> Vec<&str> {
    vec!["work", "--health-listen", "127.0.0.1:0", "--store", url]
}

/// `status`, an enqueue and `work` all end like this, and say all of it.
fn refused(url: &str, env: &[(&str, &str)], code: i32, says: &[&str]) {
    let sandbox = Sandbox::new();
    for args in [vec!["status", "--store", url], vec!["job", "enqueue", "echo", "--store", url], work(url)] {
        let mut run = sandbox.run_with(&args, env, "").exits(code);
        for text in says {
            run = run.says(text);
        }
        assert!(run.err.starts_with("error: cannot ") && run.err.contains("\nhint: "), "{run:?}");
        assert!(!format!("{run:?}").contains(SECRET), "{run:?}");
    }
    // What is configured is valid all the same: that asks no server.
    sandbox.run_with(&["config", "validate", "--store", url], env, "").exits(0);
}

#[test]
fn h07_a_redis_that_is_not_there_is_13() {
    let mut server = Server::start();
    server.kill();
    refused(&server.url(), &[], 13, &["redis-cli"]);
}

#[test]
fn h07_a_server_that_speaks_http_is_13() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::{Read as _, Write as _};
            let (mut stream, mut heard) = (stream.unwrap(), [0; 64]);
            let _ = stream.read(&mut heard);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    refused(&url, &[], 13, &["`HTTP/1.1 400 Bad Request`", "does not speak Redis"]);
}

#[test]
fn h07_a_wrong_password_or_none_is_4_and_never_printed() {
    let server = Server::setup().password("right").start();
    let wrong = format!("redis://:{SECRET}@127.0.0.1:{}", server.port());
    for url in [&wrong, &server.url()] {
        refused(url, &[], 4, &["`store.password_file`"]);
    }
    let sandbox = Sandbox::new();
    let file = sandbox.path("password");
    std::fs::write(&file, "right\n").unwrap();
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&file, permissions).unwrap();
    let env = [("SLUICEGATE__STORE__PASSWORD_FILE", file.to_str().unwrap())];
    sandbox.run_with(&["status", "--store", &server.url()], &env, "").exits(0);
}

#[test]
fn h16_a_user_who_lacks_a_permission_is_4_and_told_which() {
    let server = Server::setup().user("ada", &format!("on >{SECRET} ~* &* +@all -evalsha")).start();
    let url = format!("redis://ada:{SECRET}@127.0.0.1:{}", server.port());
    refused(&url, &[], 4, &["'evalsha'", "~sg:*"]);
}

#[test]
fn h16_settings_that_put_jobs_at_risk_are_1_and_named_with_the_wanted_value() {
    let server = Server::setup().max_memory("50mb", "allkeys-lru").start();
    refused(
        &server.url(),
        &[],
        1,
        &["`maxmemory-policy` is allkeys-lru, noeviction is needed", "CONFIG SET"],
    );
    let master = Server::start();
    let replica = Server::setup().replica_of(&master).start();
    refused(&replica.url(), &[], 1, &["`role` is slave, a master is needed"]);
    let disk = [("SLUICEGATE__STORE__DURABILITY", "disk")];
    refused(&master.url(), &disk, 1, &["`appendonly` is no, yes is needed"]);
    let replicas = [("SLUICEGATE__STORE__DURABILITY", "replica 2")];
    refused(&master.url(), &replicas, 1, &["asks for 2 replicas, `connected_slaves` is 1"]);
}

#[test]
fn rule_07_what_an_enqueue_survives_is_told() {
    let enqueued = |url: &str, durability: &str| {
        let env = [("SLUICEGATE__STORE__DURABILITY", durability)];
        let args = ["job", "enqueue", "echo", "--json", "--store", url];
        Sandbox::new().run_with(&args, &env, "").exits(0).json()["durability"].clone()
    };
    let always = Server::setup().append_only("always").start();
    assert_eq!(enqueued(&always.url(), "disk"), "disk");
    assert_eq!(enqueued(&Server::start().url(), "memory"), "memory");
    let replica = Server::setup().replica_of(&always).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(always.cli(&["WAIT", "1", "0"])).int(), 1);
    assert_eq!(enqueued(&always.url(), "replica 1"), serde_json::json!({ "replica": 1 }));
    replica.stop();
    let env = [("SLUICEGATE__STORE__DURABILITY", "replica 1")];
    let args = ["job", "enqueue", "echo", "--store", &always.url()];
    let run = Sandbox::new().run_with(&args, &env, "").exits(13).says("0 of 1 replicas").says("--id job_");
    assert!(run.out.is_empty(), "no success is told: {run:?}");
}

/// Processor time of a process, in clock ticks of a hundredth of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn an_outage_of_a_store_is_few_lines_and_little_work() {
    let sandbox = Sandbox::new();
    let mut server = Server::setup().append_only("always").start();
    let url = server.url();
    let worker = sandbox.work(&["--name", "w-1", "--store", &url]);
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s", "--store", &url]).exits(0);
    server.kill();
    let (began, before) = (Instant::now(), ticks(worker.pid()));
    const AWAY: Duration = Duration::from_secs(12);
    while began.elapsed() < AWAY {
        std::thread::sleep(Duration::from_millis(100)); // an outage is a time
    }
    let used = ticks(worker.pid()) - before;
    server.start_again();
    let back = Instant::now();
    sandbox.run(&["job", "enqueue", "echo", "--wait", "--timeout", "30s", "--store", &url]).exits(0);
    assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed()); // with two processes that start
    worker.signal("TERM");
    let run = worker.ended().exits(0);
    let lines: Vec<&str> =
        run.err.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    println!("{used} ticks of processor time in {AWAY:?}; {} lines:\n{}", run.err.lines().count(), run.err);
    // One in ten seconds at most: six or seven in a minute.
    assert!((1..=2).contains(&lines.len()), "{}", run.err);
    let of_store = run.err.lines().filter(|line| line.contains("store"));
    assert!((2..=3).contains(&of_store.count()) && run.err.lines().count() < 15, "{}", run.err);
    assert!(run.err.contains("store is away"), "{}", run.err);
    assert!(used < 60, "{used} hundredths of a second in {AWAY:?}: 5 % of a core is too much");
}
