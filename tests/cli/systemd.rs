//! What systemd is told by a worker's process, over a socket like its own; and the unit file.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use super::health::{Worker, until};
use super::sandbox::{Sandbox, binary};
use crate::both::Engine;

/// Nothing here takes this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

/// The service manager.
struct Manager(UnixDatagram);

impl Manager {
    /// Everything that is said until this is.
    #[track_caller]
    fn until(&self, wanted: &str) -> Vec<String> {
        let (mut said, begun): (Vec<String>, _) = (Vec::new(), Instant::now());
        while said.last().is_none_or(|last| !last.starts_with(wanted)) {
            // Signs of life go on whatever else is missing.
            assert!(begun.elapsed() < LONG, "no `{wanted}`: {:?}", &said[..said.len().min(20)]);
            let mut message = [0; 4_096];
            let length =
                self.0.recv(&mut message).unwrap_or_else(|e| panic!("{e}: no `{wanted}` after {said:?}"));
            said.push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
        said
    }
}

fn systemd_is_told_that_it_is_ready_alive_quiet_and_stopping(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let path = sandbox.path("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("a socket"));
    manager.0.set_read_timeout(Some(LONG)).expect("a time-out");
    let env = [("NOTIFY_SOCKET", path.to_str().expect("a path")), ("WATCHDOG_USEC", "400000")];
    let worker = Worker::start(&sandbox, &["--name", "w-1"], &env);
    let mut first = manager.until("READY=1");
    if !first.iter().any(|message| message.starts_with("STATUS=active")) {
        first.extend(manager.until("STATUS=active")); // it was ready as a standby
    }
    assert!(first.contains(&"STATUS=active, release default".to_owned()), "{first:?}");
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    worker.signal("TSTP");
    manager.until("STATUS=quiet: ");
    manager.until("WATCHDOG=1"); // a restart would not help
    worker.signal("CONT");
    manager.until("STATUS=active");
    worker.signal("TERM");
    let rest = manager.until("STOPPING=1");
    assert!(!rest.contains(&"READY=1".to_owned()), "once: {rest:?}");
    assert_eq!(worker.ended(), 0);
}

fn a_standby_is_ready_for_systemd_and_not_for_work(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    let first = Worker::start(&sandbox, &["--name", "w-1"], &[]);
    until(&sandbox, &first, &[], 0); // so the tier has a release that is active
    let path = sandbox.path("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("a socket"));
    manager.0.set_read_timeout(Some(LONG)).expect("a time-out");
    let env = [("NOTIFY_SOCKET", path.to_str().expect("a path"))];
    let standby = Worker::start(&sandbox, &["--name", "w-2", "--release", "r-2"], &env);
    manager.until("READY=1");
    for (group, code) in [("staged", 0), ("live", 0), ("startup", 0), ("ready", 3), ("deploy", 3)] {
        until(&sandbox, &standby, &[group], code);
    }
    let told = until(&sandbox, &standby, &["ready"], 3);
    assert!(told.out.contains("release `default` is active"), "{told:?}");
}

on_both! {
    #[test] fn:
        a_standby_is_ready_for_systemd_and_not_for_work
        systemd_is_told_that_it_is_ready_alive_quiet_and_stopping;
}

const UNIT: &str = include_str!("../../ops/systemd/sluicegate-worker@.service");

#[test]
fn the_unit_file_is_one_that_systemd_reads() {
    for line in ["Type=notify", "NotifyAccess=main", "WatchdogSec=30", "Restart=always", "KillSignal=SIGTERM"]
    {
        assert!(UNIT.lines().any(|other| other == line), "{line}");
    }
    // The program is looked for, so it is one that exists.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sluicegate-worker@.service");
    let unit = UNIT.replace("/usr/bin/sluicegate", binary().to_str().expect("a path"));
    std::fs::write(&path, unit).expect("written");
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else {
        println!("!! SKIPPED: no systemd-analyze here: the unit file was not checked");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    // Of other units of this machine it may say what it likes.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("sluicegate")).collect();
    assert!(output.status.success() && ours.is_empty(), "{output:?}");
}
