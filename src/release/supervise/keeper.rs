//! Keeps processes as they are wanted: a slot for each, by name. Nothing here waits for the store, so that a store that is
//! away, or a deploy that goes on, never keeps a worker from being started again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};

use super::process::{Ended, Handle, NAME_HELD, Place, Process, Refused};
use super::report::{Blocked, Report, Running};
use super::wanted::{NoRecord, Wanted, Wish};
use crate::clock::{human, instant};
use crate::names::{MAX_NAME, Release, WorkerName};
use crate::release::records::ReleaseRecord;
use crate::retry::Reconnect;
use crate::store::Store;

/// The first restart comes within a second, later ones within half a minute.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);
/// One that lived for so long did not end for what ended those before it.
const LIVED: Duration = Duration::from_secs(60);
/// A release that could not be started is tried again after so long: somebody may have repaired it.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Whether the name is taken is asked of the store, which may be away.
const ASK: Duration = Duration::from_secs(2);

/// What happened to a process.
#[derive(Debug)]
pub(super) enum Event {
    Up(WorkerName, Handle, How),
    Refused(WorkerName, Refused),
    Ended(WorkerName, Ended),
}

/// How it came to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Started,
    Adopted,
}

#[derive(Debug)]
enum State {
    /// To be started then.
    Waiting(Instant),
    Starting,
    Up(Handle, Instant),
    /// Told to stop, and killed at that time; `None` once it was.
    Stopping(Handle, Option<Instant>),
}

#[derive(Debug)]
struct Slot {
    release: Release,
    number: u32,
    state: State,
    backoff: Reconnect,
    /// How its process ended last.
    last: Option<String>,
}

/// The slots of this host.
#[derive(Debug)]
pub(super) struct Keeper {
    place: Arc<Place>,
    store: Arc<dyn Store>,
    slots: BTreeMap<WorkerName, Slot>,
    /// Releases that cannot be started, and when they are tried again.
    blocked: BTreeMap<Release, (Blocked, Instant)>,
    wish: Option<Wish>,
    events: mpsc::UnboundedSender<Event>,
    is_stopping: bool,
}

impl Keeper {
    pub(super) fn new(
        place: Arc<Place>,
        store: Arc<dyn Store>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            place,
            store,
            slots: BTreeMap::new(),
            blocked: BTreeMap::new(),
            wish: None,
            events,
            is_stopping: false,
        }
    }

    /// Takes over what another supervisor left running.
    pub(super) fn adopt(&mut self) -> std::io::Result<()> {
        for (name, mark, process) in self.place.survivors()? {
            let state = State::Starting;
            let slot =
                Slot { release: mark.release, number: mark.number, state, backoff: backoff(), last: None };
            self.slots.insert(name.clone(), slot);
            let handle = process.handle.clone();
            tokio::spawn(watched(process, name.clone(), self.events.clone()));
            self.up(&name, handle, How::Adopted);
        }
        Ok(())
    }

    pub(super) fn wish(&mut self, wish: Option<Wish>) {
        self.wish = wish;
    }

    /// Everything is to end.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// What stops is asked again: a worker then gives back what it runs at once.
    pub(super) fn hurry(&self) {
        for slot in self.slots.values() {
            if let State::Stopping(handle, _) = &slot.state {
                handle.ask();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn heard(&mut self, event: Event) {
        match event {
            Event::Up(name, handle, how) => self.up(&name, handle, how),
            Event::Refused(name, refused) => self.refused(&name, refused),
            Event::Ended(name, ended) => self.ended(&name, &ended),
        }
    }

    fn up(&mut self, name: &WorkerName, handle: Handle, how: How) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let (pid, release) = (handle.pid.as_raw_nonzero(), &slot.release);
        match how {
            How::Started => tracing::info!(worker = %name, %release, pid, "started"),
            How::Adopted => tracing::info!(worker = %name, %release, pid, "adopted: it was running already"),
        }
        self.blocked.remove(release);
        slot.state = State::Up(handle, instant());
    }

    fn refused(&mut self, name: &WorkerName, refused: Refused) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if refused.code == NAME_HELD {
            slot.state = State::Waiting(instant() + slot.backoff.next_delay());
            return;
        }
        let until = instant() + TRY_AGAIN;
        slot.state = State::Waiting(until);
        let release = slot.release.clone();
        self.block(release, refused.code, refused.why, until);
    }

    fn block(&mut self, release: Release, code: &'static str, why: String, until: Instant) {
        let blocked = Blocked { code: code.to_owned(), why };
        let known = self.blocked.insert(release.clone(), (blocked.clone(), until));
        if known.is_none_or(|(known, _)| known != blocked) {
            tracing::warn!(%release, code, why = blocked.why, "not started");
        }
    }

    fn ended(&mut self, name: &WorkerName, ended: &Ended) {
        let Some(mut slot) = self.slots.remove(name) else { return };
        let said = ended.said.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        let (worker, release, how) = (name, &slot.release, &ended.how);
        let State::Up(_, since) = slot.state else {
            tracing::info!(%worker, %release, "stopped: {how}{said}");
            return;
        };
        let lived = since.elapsed();
        if lived >= LIVED {
            slot.backoff.reset();
        }
        if !self.wants(&slot) {
            tracing::info!(%worker, %release, "ended: {how}{said}");
            return;
        }
        let delay = slot.backoff.next_delay();
        let (lived, again) = (human(lived), human(delay));
        tracing::warn!(%worker, %release, "ended after {lived}: {how}{said}; starts again in {again}");
        slot.last = Some(format!("{how}{said}"));
        slot.state = State::Waiting(instant() + delay);
        self.slots.insert(name.clone(), slot);
    }

    fn wanted(&self, release: &Release) -> u32 {
        if self.is_stopping {
            return 0;
        }
        self.wish.as_ref().and_then(|wish| wish.releases.get(release)).map_or(0, |wanted| wanted.workers)
    }

    fn wants(&self, slot: &Slot) -> bool {
        slot.number <= self.wanted(&slot.release)
    }

    /// Brings what is there nearer to what is wanted; answers when to look again without being told.
    pub(super) fn reconcile(&mut self) -> Option<Instant> {
        if !self.is_stopping {
            self.open();
        }
        self.close();
        self.start()
    }

    /// A slot for each worker that is wanted.
    fn open(&mut self) {
        let Some(wish) = self.wish.clone() else { return };
        self.blocked.retain(|release, _| wish.releases.contains_key(release));
        for (release, wanted) in &wish.releases {
            match &wanted.record {
                Ok(_) => {}
                Err(NoRecord::NotRegistered) => {
                    let why = "it is not registered: whoever started its workers keeps them".to_owned();
                    self.block(release.clone(), "NOT_REGISTERED", why, instant());
                }
                Err(NoRecord::Unreadable(why)) => {
                    self.block(release.clone(), "RECORD_UNREADABLE", why.clone(), instant());
                }
            }
            for number in 1..=wanted.workers {
                let Some(name) = name(&self.place.host, release, number) else { continue };
                self.slots.entry(name).or_insert_with(|| Slot {
                    release: release.clone(),
                    number,
                    state: State::Waiting(instant()),
                    backoff: backoff(),
                    last: None,
                });
            }
        }
    }

    /// What is not wanted is stopped, unless something is under way that may need it.
    fn close(&mut self) {
        let may_stop =
            self.is_stopping || self.wish.as_ref().is_some_and(|wish| wish.may_stop && !wish.is_away);
        let unwanted: Vec<WorkerName> =
            self.slots.iter().filter(|(_, slot)| !self.wants(slot)).map(|(name, _)| name.clone()).collect();
        for name in unwanted {
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            match &slot.state {
                State::Waiting(_) => drop(self.slots.remove(&name)),
                State::Up(handle, _) if may_stop => {
                    let handle = handle.clone();
                    tracing::info!(worker = %name, release = %slot.release, "stopping: it is not wanted any more");
                    handle.ask();
                    let grace = self.place.grace(&slot.release);
                    slot.state = State::Stopping(handle, Some(instant() + grace));
                }
                _ => {}
            }
        }
    }

    /// Starts what is due, and kills what did not stop in time.
    fn start(&mut self) -> Option<Instant> {
        let (now, mut next) = (instant(), None::<Instant>);
        let mut wait = |until: Instant| next = Some(next.map_or(until, |next| next.min(until)));
        for (name, slot) in &mut self.slots {
            match &mut slot.state {
                State::Stopping(handle, due) => match *due {
                    Some(at) if at <= now => {
                        tracing::warn!(worker = %name, release = %slot.release, "killed: it did not stop in time");
                        handle.kill();
                        *due = None;
                    }
                    Some(at) => wait(at),
                    None => {}
                },
                State::Waiting(at) => {
                    let wanted = self.wish.as_ref().and_then(|wish| wish.releases.get(&slot.release));
                    let Some(Wanted { record: Ok(record), .. }) = wanted else { continue };
                    // One that is started now could not reach the store either.
                    if self.is_stopping || self.wish.as_ref().is_some_and(|wish| wish.is_away) {
                        continue;
                    }
                    let held = self.blocked.get(&slot.release).map(|(_, until)| *until);
                    let at = held.map_or(*at, |until| until.max(*at));
                    if at > now {
                        wait(at);
                        continue;
                    }
                    slot.state = State::Starting;
                    let (place, store) = (Arc::clone(&self.place), Arc::clone(&self.store));
                    let (record, name, number) = (Arc::clone(record), name.clone(), slot.number);
                    tokio::spawn(run(place, store, record, name, number, self.events.clone()));
                }
                State::Starting | State::Up(..) => {}
            }
        }
        next
    }

    /// What is to be told of all this.
    pub(super) fn report(&self, told: &watch::Sender<Report>) {
        let mut releases: BTreeMap<Release, Running> = BTreeMap::new();
        let wish = self.wish.as_ref();
        for (release, wanted) in wish.into_iter().flat_map(|wish| &wish.releases) {
            let running = releases.entry(release.clone()).or_default();
            (running.role, running.wanted) = (Some(wanted.role), wanted.workers);
            running.blocked = self.blocked.get(release).map(|(blocked, _)| blocked.clone());
        }
        for slot in self.slots.values() {
            let running = releases.entry(slot.release.clone()).or_default();
            match slot.state {
                State::Up(..) => running.up += 1,
                State::Stopping(..) => running.stopping += 1,
                State::Waiting(_) => running.last.clone_from(&slot.last),
                State::Starting => {}
            }
        }
        told.send_if_modified(|there| {
            let changed = there.releases != releases;
            there.releases = releases;
            changed
        });
    }
}

fn backoff() -> Reconnect {
    Reconnect::new(FIRST, LAST)
}

/// `<host>-<release>-<n>`; where that is too long, a digest stands for most of it.
fn name(host: &str, release: &Release, number: u32) -> Option<WorkerName> {
    let whole = format!("{host}-{release}-{number}");
    if whole.len() <= MAX_NAME {
        return WorkerName::new(&whole).ok();
    }
    let digest: String = Sha256::digest(format!("{host}/{release}"))
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let start: String = host.chars().take(24).collect();
    WorkerName::new(&format!("{start}-{digest}-{number}")).ok()
}

/// The life of a process, from its start to its end.
async fn run(
    place: Arc<Place>,
    store: Arc<dyn Store>,
    record: Arc<ReleaseRecord>,
    name: WorkerName,
    number: u32,
    events: mpsc::UnboundedSender<Event>,
) {
    let (process, how) = match there(&place, &*store, &record.release, &name).await {
        Some(process) => (Ok(process), How::Adopted),
        None => {
            let of = name.clone();
            let started = tokio::task::spawn_blocking(move || place.start(&record, &of, number)).await;
            let failed = |error| Refused { code: "CANNOT_START", why: format!("{error}") };
            (started.map_err(failed).and_then(|started| started), How::Started)
        }
    };
    match process {
        Err(refused) => drop(events.send(Event::Refused(name, refused))),
        Ok(process) => {
            drop(events.send(Event::Up(name.clone(), process.handle.clone(), how)));
            watched(process, name, events).await;
        }
    }
}

async fn watched(process: Process, name: WorkerName, events: mpsc::UnboundedSender<Event>) {
    let ended = process.ended().await;
    drop(events.send(Event::Ended(name, ended)));
}

/// A worker of this name that somebody else started on this host, and that lives. A second one would take the name from it.
async fn there(place: &Place, store: &dyn Store, release: &Release, name: &WorkerName) -> Option<Process> {
    let workers = tokio::time::timeout(ASK, store.workers(&place.tier)).await.ok()?.ok()?;
    let seen = workers.into_iter().find(|seen| seen.presence.worker == *name)?;
    let same = seen.presence.host == crate::location::host()
        && seen.presence.release == *release
        && !seen.is_stale();
    if same { place.seen(seen.presence.pid, release, name) } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    #[test]
    fn every_worker_has_a_name_of_its_own_however_long_those_of_host_and_release_are() {
        let release = |text: &str| Release::new(text).unwrap();
        assert_eq!(name("web-1", &release("r1"), 3).unwrap().as_str(), "web-1-r1-3");
        let (long, other) = (format!("{}a", "r".repeat(63)), format!("{}b", "r".repeat(63)));
        let names = [name("web-1", &release(&long), 1), name("web-1", &release(&other), 1)];
        assert!(names.iter().all(Option::is_some) && names[0] != names[1], "{names:?}");
        assert!(name(&"h".repeat(300), &release(&long), u32::MAX).is_some());
    }
}
