//! What systemd is told, when it is there (`Type=notify`): ready when the worker is proven, its state and why on each
//! change, that it lives, and that it stops. On a thread of its own, so that blocked job threads are noticed by their
//! silence and not by ours.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::activation::WorkerState;
use crate::clock::instant;
use crate::config::variable;
use crate::health::{Facts, Memory, Probe, Source, Status, Thresholds, judge};
use crate::names::escaped;

/// How often the worker is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often until it is ready: somebody waits for that.
const LOOK_AT_FIRST: Duration = Duration::from_millis(100);

/// The way to the service manager.
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Manager {
    /// As `NOTIFY_SOCKET` names it: a path, or `@name` in the abstract space.
    fn at(name: &str) -> io::Result<Self> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        Ok(Self { socket: UnixDatagram::unbound()?, address })
    }

    fn tell(&self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            tracing::debug!(%error, "systemd could not be told");
        }
    }
}

/// Tells until it is dropped; that says that the worker stops, if nothing did before.
pub(super) struct Telling {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Telling {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Begins to tell of a worker; `None` when nobody asked for it.
pub(super) fn start(source: impl Source, limits: Thresholds) -> Option<Telling> {
    let manager = match Manager::at(&variable("NOTIFY_SOCKET")?) {
        Ok(manager) => manager,
        Err(error) => {
            tracing::warn!(%error, "NOTIFY_SOCKET cannot be used: systemd is told nothing");
            return None;
        }
    };
    let (stop, stopped) = channel::<()>();
    let mut words = Words::new(watchdog(), limits);
    let tell = move || {
        let memory = Memory::default();
        loop {
            let facts = memory.look(&source);
            words.next(facts.as_ref(), instant()).iter().for_each(|message| manager.tell(message));
            if stopped.recv_timeout(words.pause()) != Err(RecvTimeoutError::Timeout) {
                return words.last().iter().for_each(|message| manager.tell(message));
            }
        }
    };
    let thread = std::thread::Builder::new().name("systemd".to_owned()).spawn(tell);
    let thread = thread.inspect_err(|error| tracing::warn!(%error, "systemd is told nothing")).ok()?;
    Some(Telling { stop: Some(stop), thread: Some(thread) })
}

/// How often systemd wants a sign of life from this process.
fn watchdog() -> Option<Duration> {
    let mine = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let usec = variable("WATCHDOG_USEC")?.parse().ok().filter(|usec| *usec > 0)?;
    mine.then(|| Duration::from_micros(usec))
}

/// What to say next.
struct Words {
    limits: Thresholds,
    /// Half of what systemd allows.
    half: Option<Duration>,
    alive: Option<Instant>,
    ready: bool,
    stopping: bool,
    /// What the last status was about, without the ages in it.
    about: Option<(WorkerState, Option<String>, Vec<&'static str>)>,
}

impl Words {
    fn new(watchdog: Option<Duration>, limits: Thresholds) -> Self {
        let half = watchdog.map(|span| span / 2);
        Self { limits, half, alive: None, ready: false, stopping: false, about: None }
    }

    fn pause(&self) -> Duration {
        let look = if self.ready { LOOK_EVERY } else { LOOK_AT_FIRST };
        self.half.map_or(look, |half| look.min(half / 4)).max(Duration::from_millis(1))
    }

    fn next(&mut self, facts: Option<&Facts>, now: Instant) -> Vec<String> {
        let mut said = Vec::new();
        let answers = |probe: Probe| judge(&probe.into(), facts, &self.limits);
        let (live, ready) = (answers(Probe::Live), answers(Probe::Ready));
        let proven = ready.is_yes() || answers(Probe::Staged).is_yes();
        if let Some(facts) = facts {
            let failing: Vec<&'static str> = ready
                .checks
                .iter()
                .filter(|check| check.status == Status::Fail)
                .map(|check| check.name)
                .collect();
            let about = (facts.state, facts.reason.clone(), failing);
            if self.about.as_ref() != Some(&about) {
                self.about = Some(about);
                said.push(status(facts, &ready.output));
            }
            if matches!(facts.state, WorkerState::Stopping | WorkerState::Stopped) {
                said.extend(self.last());
            }
        }
        if proven && !self.ready {
            self.ready = true;
            said.push("READY=1".to_owned());
        }
        // Never for a worker that only a restart would help: silence is how systemd is asked for one.
        let due = |half: Duration| {
            self.alive.is_none_or(|at| now.saturating_duration_since(at) + self.pause() > half)
        };
        if facts.is_some() && live.is_yes() && self.half.is_some_and(due) {
            self.alive = Some(now);
            said.push("WATCHDOG=1".to_owned());
        }
        said
    }

    /// That it stops, once.
    fn last(&mut self) -> Option<String> {
        (!std::mem::replace(&mut self.stopping, true)).then(|| "STOPPING=1".to_owned())
    }
}

fn status(facts: &Facts, output: &str) -> String {
    let state = facts.state;
    let why = facts.fault.as_ref().map(|fault| &fault.detail).or(facts.reason.as_ref());
    let text = match (output, why) {
        ("", _) => format!("{state}, release {}", facts.release),
        // Without ages: this stands until something else is so.
        (_, Some(why)) if state != WorkerState::Active => format!("{state}: {why}"),
        (_, None) if state != WorkerState::Active => state.to_string(),
        (output, _) => format!("{state}: {output}"),
    };
    format!("STATUS={}", escaped(&text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Nonce;
    use crate::names::{Release, WorkerName};
    use crate::store::Presence;
    use crate::worker;

    fn facts(change: impl FnOnce(&mut Presence)) -> Facts {
        let mut presence = Presence {
            state: WorkerState::Active,
            slots: 8,
            claim_age: Some(Duration::ZERO),
            ..Presence::new(WorkerName::new("w-1").unwrap(), Nonce::new(), Release::new("r-1").unwrap())
        };
        change(&mut presence);
        Facts::gather(&worker::Facts::new(presence), &Default::default(), crate::clock::wall())
    }

    fn quiet() -> Words {
        Words::new(None, Thresholds::default())
    }

    #[test]
    fn ready_is_said_once_and_only_when_it_is_proven() {
        let (mut words, now) = (quiet(), instant());
        assert!(words.next(None, now).is_empty());
        let starting = facts(|p| p.state = WorkerState::Starting);
        assert_eq!(words.next(Some(&starting), now), ["STATUS=starting"]);
        assert!(words.next(Some(&starting), now).is_empty(), "nothing changed");
        let proven = facts(|p| (p.state, p.canary_age) = (WorkerState::Inactive, Some(Duration::ZERO)));
        let said = words.next(Some(&proven), now);
        assert!(said.contains(&"READY=1".to_owned()), "a good standby is ready: {said:?}");
        assert_eq!(words.next(Some(&facts(|_| {})), now), ["STATUS=active, release r-1"]);
        let stopping = facts(|p| (p.state, p.reason) = (WorkerState::Stopping, Some("a\nb".into())));
        assert_eq!(words.next(Some(&stopping), now), ["STATUS=stopping: a\\x0ab", "STOPPING=1"]);
        assert_eq!(words.last(), None);
    }

    #[test]
    fn a_worker_that_a_restart_would_help_falls_silent() {
        let mut words = Words::new(Some(Duration::from_secs(30)), Thresholds::default());
        let alive = |words: &mut Words, facts: &Facts, now| {
            words.next(Some(facts), now).contains(&"WATCHDOG=1".to_owned())
        };
        let begun = instant();
        let good = facts(|_| {});
        let blocked = facts(|p| p.runtime_age = Duration::from_secs(6));
        assert!(alive(&mut words, &good, begun));
        assert!(!alive(&mut words, &good, begun + Duration::from_secs(5)), "not more often than needed");
        assert!(alive(&mut words, &good, begun + Duration::from_secs(15)));
        assert!(!alive(&mut words, &blocked, begun + Duration::from_secs(40)));
        let away = facts(|p| p.state = WorkerState::Quiet);
        assert!(alive(&mut words, &away, begun + Duration::from_secs(41)), "nothing else is a reason");
        assert!(!alive(&mut quiet(), &good, begun), "nobody asked");
    }

    #[test]
    fn both_kinds_of_sockets_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("sluicegate-test-{}", std::process::id());
        let places = [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}"),
            ),
        ];
        for (socket, at) in places {
            Manager::at(&at).unwrap().tell("READY=1");
            let mut heard = [0; 64];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1", "{at}");
        }
        Manager::at("/no/such/place").unwrap().tell("READY=1"); // is nobody's problem
    }
}
