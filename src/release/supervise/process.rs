//! One worker process: started from the shelf, or found still running. It outlives this process, and knows nothing of it.
//!
//! A process holds the lock on a file of its name as its standard input. So whoever comes next sees without a doubt, and
//! without the store, whether it lives: the kernel gives the lock up with the last process that holds it, however that ended.

use std::fs::{DirBuilder, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, getpgid, kill_process_group, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::log;
use crate::child::{how, telling_line};
use crate::config::Config;
use crate::names::{Release, Tier, WorkerName};
use crate::release::records::ReleaseRecord;
use crate::release::{Shelf, ShelfError, ShelfErrorKind, Staged};

/// How often the size of a log is looked at.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// What a worker needs beyond its own time-outs to say goodbye.
const GOODBYE: Duration = Duration::from_secs(10);

/// Where processes are started, and what they are told.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) tier: Tier,
    pub(super) host: String,
    pub(super) shelf: Shelf,
    /// The files that living processes hold.
    pub(super) run: PathBuf,
    /// A folder per release.
    pub(super) logs: PathBuf,
    /// This host's part of the configuration.
    pub(super) variables: Vec<(String, String)>,
    /// This host's file, for releases that bring none.
    pub(super) config: Option<PathBuf>,
}

/// Variables that mean this process, and not the ones it starts.
const OURS: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "SLUICEGATE_RELEASE"];

/// Who a process is, written into the file that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) release: Release,
    pub(super) number: u32,
}

/// Something of the process that had a name before still runs.
pub(super) const NAME_HELD: &str = "NAME_HELD";

/// Why nothing was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) why: String,
}

impl Refused {
    fn cannot(why: impl std::fmt::Display) -> Self {
        Self { code: "CANNOT_START", why: why.to_string() }
    }
}

impl From<ShelfError> for Refused {
    fn from(error: ShelfError) -> Self {
        let code = match error.kind {
            ShelfErrorKind::Unknown => "NOT_ON_SHELF",
            ShelfErrorKind::Damaged => "DAMAGED",
            _ => "SHELF_UNREADABLE",
        };
        Self { code, why: error.message }
    }
}

/// A living process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) handle: Handle,
    /// Nobody's child but of the one that started it: of those that were found, only the end is seen.
    child: Option<Child>,
    log: PathBuf,
}

/// By which a process is told to stop. What it names is never another one: a pid may come again, this does not.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) pid: Pid,
    fd: Arc<AsyncFd<OwnedFd>>,
}

impl Handle {
    fn of(pid: Pid) -> std::io::Result<Self> {
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        #[expect(deprecated, reason = "its successor is unsafe; an owned descriptor is what it asks for")]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { pid, fd: Arc::new(fd) })
    }

    /// Asks it to stop.
    pub(super) fn ask(&self) {
        self.tell(Signal::TERM);
    }

    /// Ends it, and all that it started.
    pub(super) fn kill(&self) {
        kill_process_group(self.pid, Signal::KILL).ok(); // it may have ended by itself
        self.tell(Signal::KILL);
    }

    fn tell(&self, signal: Signal) {
        match pidfd_send_signal(self.fd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(pid = self.pid.as_raw_nonzero(), ?signal, %error, "cannot signal a worker")
            }
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    /// In words.
    pub(super) how: String,
    /// What it said last, if it did not end well.
    pub(super) said: Option<String>,
}

impl Process {
    /// Waits for its end; meanwhile its log is kept small.
    pub(super) async fn ended(mut self) -> Ended {
        let mut every = tokio::time::interval(LOG_EVERY);
        loop {
            tokio::select! {
                over = self.handle.fd.readable() => match over {
                    Ok(_) => break,
                    Err(error) => return Ended { how: format!("it cannot be watched: {error}"), said: None },
                },
                _ = every.tick() => log::bound(&self.log).await,
            }
        }
        // Nothing of it may stay behind: the next one of its name would be the second. It is not reaped yet, so that its
        // number is still its own.
        kill_process_group(self.handle.pid, Signal::KILL).ok();
        let status = self.child.as_mut().map(Child::wait);
        match status {
            Some(Ok(status)) if status.success() => Ended { how: how(status), said: None },
            Some(Ok(status)) => {
                Ended { how: how(status), said: telling_line(&log::end(&self.log).unwrap_or_default()) }
            }
            Some(Err(error)) => Ended { how: format!("how is not known: {error}"), said: None },
            None => Ended { how: "ended".to_owned(), said: None },
        }
    }
}

impl Place {
    /// Makes the folders.
    pub(super) fn make(&self) -> std::io::Result<()> {
        let folders = [&self.run, &self.logs];
        folders
            .into_iter()
            .try_for_each(|folder| DirBuilder::new().recursive(true).mode(0o750).create(folder))
    }

    fn log(&self, release: &Release, name: &WorkerName) -> PathBuf {
        self.logs.join(release.as_str()).join(format!("{name}.log"))
    }

    /// Starts one, if the release is what was registered and nobody has the name.
    pub(super) fn start(
        &self,
        record: &ReleaseRecord,
        name: &WorkerName,
        number: u32,
    ) -> Result<Process, Refused> {
        let staged = self.shelf.verified(record)?;
        let mark = Mark { release: record.release.clone(), number };
        let (path, file) = (self.log(&record.release, name), self.run.join(name.as_str()));
        let Some(held) = hold(&file, Some(&mark)).map_err(Refused::cannot)? else {
            // It lives, whoever started it.
            return match self.holder(&file).map_err(Refused::cannot)? {
                Some(pid) => self.found(pid, path).map_err(Refused::cannot),
                None => {
                    Err(Refused { code: NAME_HELD, why: format!("a process still holds the name `{name}`") })
                }
            };
        };
        let log =
            log::open(&path).map_err(|error| Refused::cannot(format!("{}: {error}", path.display())))?;
        let mut command = self.command(&staged, &record.release, name);
        let errors = log.try_clone().map_err(Refused::cannot)?;
        command
            .stdin(Stdio::from(held))
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors))
            .process_group(0);
        let spawned = command.spawn();
        drop(command); // it holds the lock, too
        let mut child =
            spawned.map_err(|error| Refused::cannot(format!("{}: {error}", staged.program.display())))?;
        match Handle::of(Pid::from_child(&child)) {
            Ok(handle) => Ok(Process { handle, child: Some(child), log: path }),
            Err(error) => {
                // What cannot be watched must not run.
                child.kill().and_then(|()| child.wait()).map_err(Refused::cannot)?;
                Err(Refused::cannot(error))
            }
        }
    }

    /// A process that somebody else started.
    fn found(&self, pid: Pid, log: PathBuf) -> std::io::Result<Process> {
        Ok(Process { handle: Handle::of(pid)?, child: None, log })
    }

    /// The process of a worker that the store has seen living on this host, unless it has ended since, and another one has its
    /// number.
    pub(super) fn seen(&self, pid: u32, release: &Release, name: &WorkerName) -> Option<Process> {
        let says = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        says.split(|byte| *byte == 0).find(|word| *word == name.as_str().as_bytes())?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        self.found(pid, self.log(release, name)).ok()
    }

    fn command(&self, staged: &Staged, release: &Release, name: &WorkerName) -> Command {
        let mut command = Command::new(&staged.program);
        for variable in OURS {
            command.env_remove(variable);
        }
        command.current_dir(&staged.folder).envs(self.variables.iter().cloned());
        if !staged.hook.is_empty() {
            command.env("SLUICEGATE__WORKER__ACTIVATION_HOOK", serde_json::json!(staged.hook).to_string());
        }
        command.arg("work").args(&staged.args);
        match staged.config.as_ref().or(self.config.as_ref()) {
            Some(config) => command.arg("--config").arg(config),
            None => command.env_remove("SLUICEGATE_CONFIG"),
        };
        command.args(["--tier", self.tier.as_str(), "--release", release.as_str(), "--name", name.as_str()]);
        command.args(["--health-listen", "127.0.0.1:0"]);
        command
    }

    /// For how long a worker of a release may stop before it is killed: its own time-outs, and some more.
    pub(super) fn grace(&self, release: &Release) -> Duration {
        let manifest = self.shelf.manifest(release).ok().flatten();
        let own =
            manifest.and_then(|manifest| manifest.config).map(|path| self.shelf.path(release).join(path));
        let config = own.or_else(|| self.config.clone());
        match Config::load(config.as_deref(), Vec::new()) {
            Ok(config) => {
                config.span("worker.shutdown_timeout") + config.span("worker.cancel_grace") + GOODBYE
            }
            // What it was started with is not known any more: long enough for any usual one.
            Err(_) => Duration::from_secs(60) + GOODBYE,
        }
    }

    /// The processes that a supervisor before this one left running.
    pub(super) fn survivors(&self) -> std::io::Result<Vec<(WorkerName, Mark, Process)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.run)? {
            let path = entry?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| WorkerName::new(name).ok());
            let Some(name) = name else { continue };
            if hold(&path, None)?.is_some() {
                continue; // nobody has it: the lock goes with the file that was just opened
            }
            let mark: Mark = match serde_json::from_str(&std::fs::read_to_string(&path)?) {
                Ok(mark) => mark,
                Err(error) => {
                    tracing::warn!(worker = %name, %error, "a process holds this name, and does not say of which release it is");
                    continue;
                }
            };
            match self.holder(&path)? {
                Some(pid) => {
                    let process = self.found(pid, self.log(&mark.release, &name))?;
                    found.push((name, mark, process));
                }
                None => {
                    tracing::warn!(worker = %name, "its process is gone, and something that it started still runs")
                }
            }
        }
        Ok(found)
    }

    /// The process that holds a file as its standard input. What such a process left behind is ended.
    fn holder(&self, path: &Path) -> std::io::Result<Option<Pid>> {
        let wanted = std::fs::metadata(path)?;
        for entry in std::fs::read_dir("/proc")? {
            let process = entry?;
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            // One that has ended meanwhile, or belongs to another user, is not it.
            let (Some(pid), Ok(held)) = (pid, std::fs::metadata(process.path().join("fd/0"))) else {
                continue;
            };
            if (held.dev(), held.ino()) != (wanted.dev(), wanted.ino()) {
                continue;
            }
            match getpgid(Some(pid)) {
                Ok(group) if group == pid => return Ok(Some(pid)),
                Ok(group) => kill_process_group(group, Signal::KILL).unwrap_or_default(),
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// Locks the file of a name, and writes down who holds it; `None` while somebody else does.
fn hold(path: &Path, mark: Option<&Mark>) -> std::io::Result<Option<File>> {
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).mode(0o640).open(path)?;
    match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    if let Some(mark) = mark {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(serde_json::to_string(mark)?.as_bytes())?;
        file.rewind()?;
    }
    Ok(Some(file))
}

/// One supervisor per tier and host; the second is told of the first. The lock goes with the process, however it ends.
///
/// # Errors
/// Who holds it, or why nobody can tell.
pub(super) fn only_one(path: &Path) -> Result<File, Held> {
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).mode(0o640).open(path)?;
    if flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut by = String::new();
        file.read_to_string(&mut by)?;
        return Err(Held::By(by.trim().to_owned()));
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Why this is not the one.
#[derive(Debug)]
pub(super) enum Held {
    /// By a process of this number.
    By(String),
    Disk(std::io::Error),
}

impl From<std::io::Error> for Held {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error)
    }
}
