//! `health` against a worker's process, and against what is none.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use super::sandbox::{Run, Sandbox, binary};
use crate::both::Engine;

/// A worker's process whose probes are known.
pub(super) struct Worker {
    child: Child,
    pub(super) health: String,
}

impl Worker {
    pub(super) fn start(sandbox: &Sandbox, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = sandbox.command(&binary());
        command.args(["work", "--health-listen", "127.0.0.1:0"]).args(args).envs(env.iter().copied());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let health = lines.find_map(|line| Some(line.split_once("health=")?.1.trim().to_owned()));
        std::thread::spawn(move || lines.count()); // the worker must not wait for a reader
        Self { child, health: health.expect("the log says where the probes are") }
    }

    pub(super) fn signal(&self, signal: &str) {
        let kill =
            std::process::Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    pub(super) fn ended(mut self) -> i32 {
        self.child.wait().expect("ended").code().expect("a code")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `health`, asked again until it ends with this code.
pub(super) fn until(sandbox: &Sandbox, worker: &Worker, args: &[&str], code: i32) -> Run {
    let url = format!("http://{}", worker.health);
    let mut all = vec!["health", "--url", &url];
    all.extend(args);
    let found = (0..1_000).map(|_| sandbox.run(&all)).find(|run| run.code == code);
    found.unwrap_or_else(|| panic!("{args:?} never ended with {code}: {:?}", sandbox.run(&all)))
}

fn the_exit_code_of_health_is_the_verdict(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = Worker::start(&sandbox, &["--name", "w-1"], &[]);
    let ask = |args: &[&str], code| until(&sandbox, &worker, args, code);
    assert_eq!(ask(&[], 0).out, "ok\n");
    for group in ["live", "ready", "staged", "startup"] {
        assert_eq!(ask(&[group], 0).out, "ok\n", "{group}");
        assert_eq!(ask(&["--group", group], 0).out, "ok\n", "{group}");
    }
    let verbose = ask(&["ready", "-v"], 0).out;
    assert!(verbose.contains("[+]runtime ok\n") && verbose.ends_with("readyz check passed\n"), "{verbose}");
    for args in [["--format", "json"], ["-o", "json"]] {
        let json = ask(&args, 0).json();
        assert_eq!(
            (&json["status"], &json["serviceId"]),
            (&"pass".into(), &"worker/default/w-1".into()),
            "{json}"
        );
        assert_eq!(json["checks"]["worker:activation"][0]["observedValue"], "active");
    }
    let nagios = ask(&["--format", "nagios"], 0).out;
    assert!(
        nagios.starts_with("OK - worker/default/w-1 ready | ") && nagios.contains("'slots:stuck'=0;;200"),
        "{nagios}"
    );

    worker.signal("TSTP");
    let quiet = ask(&[], 3);
    assert!(quiet.out.contains("[-]activation failed: worker is quiet"), "{quiet:?}");
    assert_eq!(quiet.err, "", "a verdict is no error");
    assert_eq!(ask(&["live"], 0).out, "ok\n");
    assert_eq!(ask(&["--format", "json"], 3).json()["status"], "fail");
    let nagios = ask(&["--format", "nagios"], 2).out;
    assert!(nagios.starts_with("CRITICAL - worker is quiet") && nagios.lines().count() == 1, "{nagios}");
    assert!(ask(&["live", "--format", "nagios"], 0).out.starts_with("OK - "));
    worker.signal("CONT");
    ask(&[], 0);
}

fn a_worker_whose_hook_fails_says_so_and_is_not_started(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker =
        Worker::start(&sandbox, &["--name", "w-1"], &[("SLUICEGATE__WORKER__ACTIVATION_HOOK", "false")]);
    let hook = |args: &[&str]| {
        let json = until(&sandbox, &worker, args, 3).json();
        json["checks"]["worker:hook"][0].clone()
    };
    let check = (0..1_000).map(|_| hook(&["ready", "-o", "json"])).find(|check| check["status"] == "fail");
    let check = check.expect("a failed hook");
    assert_eq!(check["code"], "ACTIVATION_HOOK_FAILED", "{check}");
    assert!(
        check["since"].is_string() && check["output"].is_string() && check["hint"].is_string(),
        "{check}"
    );
    let startup = until(&sandbox, &worker, &["startup"], 3);
    assert!(startup.out.contains("[-]startup failed: worker has not proved itself"), "{startup:?}");
    until(&sandbox, &worker, &["staged"], 3);
    until(&sandbox, &worker, &["live"], 0);
}

fn a_deploy_counts_on_what_is_active_and_proven(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let worker = Worker::start(&sandbox, &[], &[]);
    until(&sandbox, &worker, &["deploy"], 0);
    worker.signal("TSTP");
    until(&sandbox, &worker, &["deploy"], 3);
}

on_both! {
    #[test] fn:
        a_deploy_counts_on_what_is_active_and_proven
        a_worker_whose_hook_fails_says_so_and_is_not_started
        the_exit_code_of_health_is_the_verdict;
}

#[test]
fn the_probes_are_where_the_configuration_says() {
    let sandbox = Sandbox::new();
    let worker = Worker::start(&sandbox, &[], &[]);
    let port = worker.health.rsplit_once(':').expect("a port").1;
    let run =
        |listen: &str| sandbox.run_with(&["health", "live"], &[("SLUICEGATE__HEALTH__LISTEN", listen)], "");
    run(&worker.health).exits(0);
    run(&format!("0.0.0.0:{port}")).exits(0);
    run("127.0.0.1:0").exits(2).says("has port 0");
    for url in ["https://127.0.0.1:7433", "127.0.0.1:7433", "http://127.0.0.1/x"] {
        sandbox.run(&["health", "--url", url]).exits(2).says("base URL of probes");
    }
    sandbox.run(&["health", "nobody"]).exits(2).says("live, ready");
}

/// Answers whoever connects, once, and keeps the connection until the other side gives up.
fn impostor(says: impl Fn(&mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request);
            says(&mut stream);
        }
    });
    url
}

#[test]
fn what_does_not_answer_as_probes_is_unreachable_and_not_unhealthy() {
    let sandbox = Sandbox::new();
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let closed = format!("http://{closed}");
    let silent = impostor(|stream| drop(stream.read(&mut [0; 1])));
    let endless = impostor(|stream| while stream.write_all(&[b'x'; 65_536]).is_ok() {});
    let other = impostor(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n");
    });
    let cut = impostor(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\nok\n");
    });
    for (url, why) in [
        (&closed, "cannot connect"),
        (&silent, "cannot ask"),
        (&endless, "more than 1048576 bytes"),
        (&other, "answered 404"),
        (&cut, "cut off"),
    ] {
        let args = ["health", "--url", url, "--timeout", "500ms"];
        sandbox.run(&args).exits(13).says(why).says("health.listen");
        let nagios = sandbox.run(&[&args[..], &["--format", "nagios"]].concat()).exits(3);
        assert!(nagios.out.starts_with("UNKNOWN - ") && nagios.out.contains(why), "{nagios:?}");
    }
}
