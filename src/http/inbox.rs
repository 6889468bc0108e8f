//! The local inbox of `dev`: one JSON file per message in a folder of its own, so that a person can also look at it
//! without us, and so that nothing is lost with the process.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use crate::handlers::{Inbox, InboxMessage};
use crate::ids::JobId;

/// Messages kept unless asked otherwise.
pub const KEEP: usize = 500;

/// An inbox in a folder. One process writes to it.
#[derive(Debug)]
pub struct FileInbox {
    dir: PathBuf,
    keep: usize,
    /// The names of the messages; they sort by time.
    names: Mutex<BTreeSet<String>>,
}

impl FileInbox {
    /// Opens the folder, creating it (for this user only: mails hold secrets); only the newest `keep` messages are
    /// kept.
    ///
    /// # Errors
    /// When the folder cannot be created or read.
    pub fn open(dir: impl AsRef<Path>, keep: usize) -> io::Result<Self> {
        let dir = dir.as_ref().to_owned();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&dir)? {
            if let Ok(name) = entry?.file_name().into_string()
                && is_message(&name)
            {
                names.insert(name);
            }
        }
        let inbox = Self { dir, keep: keep.max(1), names: Mutex::new(names) };
        inbox.trim(&mut inbox.names())?;
        Ok(inbox)
    }

    /// How many messages there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names().len()
    }

    /// The messages, newest first: those of one job, or all.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn list(&self, job: Option<JobId>, limit: usize) -> io::Result<Vec<InboxMessage>> {
        let names: Vec<String> = self.names().iter().rev().cloned().collect();
        let of_job = job.map(|job| format!("-{job}.json"));
        let mut messages = Vec::new();
        for name in names {
            if messages.len() >= limit {
                break;
            }
            if of_job.as_ref().is_some_and(|end| !name.ends_with(end)) {
                continue;
            }
            match fs::read(self.dir.join(&name)) {
                Ok(bytes) => messages.push(serde_json::from_slice(&bytes).map_err(|error| {
                    io::Error::other(format!("inbox message `{name}` is damaged, delete it: {error}"))
                })?),
                // Trimmed, or deleted by a person.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(messages)
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        match self.names.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    fn trim(&self, names: &mut BTreeSet<String>) -> io::Result<()> {
        while names.len() > self.keep
            && let Some(oldest) = names.pop_first()
        {
            match fs::remove_file(self.dir.join(&oldest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// `<milliseconds>-<job>.json`, or with a number between them when a job sent twice in one millisecond.
fn is_message(name: &str) -> bool {
    name.ends_with(".json") && name.starts_with(|first: char| first.is_ascii_digit())
}

impl Inbox for FileInbox {
    /// Written beside and renamed: a reader never sees half a message.
    fn keep(&self, message: InboxMessage) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(&message).map_err(io::Error::other)?;
        let mut names = self.names();
        let millis = message.at.ms().max(0);
        let free = (0_u32..)
            .map(|n| format!("{millis:014}-{n:04}-{}.json", message.job))
            .find(|n| !names.contains(n));
        let name = free.ok_or_else(|| io::Error::other("no free name for an inbox message"))?;
        let partial = self.dir.join(format!(".{name}.partial"));
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&bytes)?;
        drop(file);
        fs::rename(&partial, self.dir.join(&name))?;
        names.insert(name);
        self.trim(&mut names)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::Timestamp;

    fn message(job: JobId, ms: i64) -> InboxMessage {
        InboxMessage {
            job,
            kind: "notify.email".into(),
            at: Timestamp::from_ms(ms),
            to: "ada@example.org".into(),
            subject: format!("at {ms}"),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    #[test]
    fn the_newest_are_kept_in_order_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("inbox");
        let (inbox, job) = (FileInbox::open(&folder, 3).unwrap(), JobId::new());
        for ms in [50, 10, 30, 30, 20] {
            inbox.keep(message(job, ms)).unwrap();
        }
        let subjects = |inbox: &FileInbox| -> Vec<String> {
            inbox.list(None, 10).unwrap().into_iter().map(|message| message.subject).collect()
        };
        assert_eq!(subjects(&inbox), ["at 50", "at 30", "at 30"]);
        fs::write(folder.join(".x.json.partial"), "{").unwrap();
        let again = FileInbox::open(&folder, 3).unwrap();
        assert_eq!(subjects(&again), ["at 50", "at 30", "at 30"]);
        assert_eq!(again.list(Some(JobId::new()), 10).unwrap().len(), 0);
        assert_eq!(again.list(Some(job), 2).unwrap().len(), 2);
        fs::remove_file(folder.join(again.names().first().unwrap())).unwrap();
        assert_eq!(subjects(&again), ["at 50", "at 30"]);
    }
}
