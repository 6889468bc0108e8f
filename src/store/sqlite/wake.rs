//! Wake-ups. Within a process a watch channel; between processes a small file that a writer touches *after* its commit
//! and that readers watch with inotify. The `-wal` file is no signal: it vanishes with its last connection and changes
//! before the rows are visible.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::store::Wake;

/// The path of the signal file of a store.
pub(super) fn signal_path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push("-signal");
    PathBuf::from(name)
}

/// Both ends of the signal.
#[derive(Debug)]
pub(super) struct Signal {
    file: Arc<File>,
    path: PathBuf,
    count: watch::Sender<u64>,
    watcher: Mutex<Option<watcher::Watcher>>,
}

impl Signal {
    pub(super) fn open(store: &Path) -> std::io::Result<Self> {
        let path = signal_path(store);
        let file =
            File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)?;
        Ok(Self { file: Arc::new(file), path, count: watch::Sender::new(0), watcher: Mutex::new(None) })
    }

    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Tells everyone, here and in other processes.
    pub(super) fn raise(&self) {
        self.count.send_modify(|count| *count += 1);
        if let Err(error) = self.file.write_at(b"!", 0) {
            // The others still look once a second.
            tracing::debug!(%error, "cannot touch the signal file");
        }
    }

    /// From now on nothing is missed.
    pub(super) fn subscribe(&self) -> Subscription {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if watcher.is_none() {
            match watcher::Watcher::start(&self.path, self.count.clone()) {
                Ok(started) => *watcher = Some(started),
                Err(error) => {
                    tracing::warn!(%error, "cannot watch the signal file: other processes wake this one only once a second")
                }
            }
        }
        let mut seen = self.count.subscribe();
        seen.mark_unchanged();
        Subscription { seen }
    }
}

#[derive(Debug)]
pub(super) struct Subscription {
    seen: watch::Receiver<u64>,
}

#[async_trait]
impl Wake for Subscription {
    async fn woken(&mut self, timeout: Duration) -> bool {
        matches!(tokio::time::timeout(timeout, self.seen.changed()).await, Ok(Ok(())))
    }
}

#[cfg(target_os = "linux")]
mod watcher {
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::path::Path;
    use std::sync::Arc;

    use rustix::fs::inotify;
    use tokio::sync::watch;

    /// A thread that turns inotify events into counts.
    #[derive(Debug)]
    pub(super) struct Watcher {
        inotify: Arc<OwnedFd>,
        watch: i32,
    }

    impl Watcher {
        pub(super) fn start(path: &Path, count: watch::Sender<u64>) -> std::io::Result<Self> {
            let fd = Arc::new(inotify::init(inotify::CreateFlags::CLOEXEC)?);
            let watch = inotify::add_watch(fd.as_fd(), path, inotify::WatchFlags::MODIFY)?;
            let reading = Arc::clone(&fd);
            std::thread::Builder::new().name("sqlite-wake".into()).stack_size(64 * 1024).spawn(move || {
                let mut buffer = [MaybeUninit::uninit(); 4096];
                let mut reader = inotify::Reader::new(reading.as_fd(), &mut buffer);
                loop {
                    match reader.next() {
                        Ok(event) if event.events().contains(inotify::ReadFlags::IGNORED) => return,
                        Ok(_) => count.send_modify(|count| *count += 1),
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => {
                            tracing::warn!(%error, "cannot read the signal: other processes wake this one only once a second");
                            return;
                        }
                    }
                }
            })?;
            Ok(Self { inotify: fd, watch })
        }
    }

    impl Drop for Watcher {
        fn drop(&mut self) {
            // Removing the watch raises IN_IGNORED, which ends the thread.
            if let Err(error) = inotify::remove_watch(self.inotify.as_fd(), self.watch) {
                tracing::debug!(%error, "cannot remove the watch");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod watcher {
    use std::path::Path;
    use tokio::sync::watch;

    #[derive(Debug)]
    pub(super) struct Watcher;

    impl Watcher {
        pub(super) fn start(_: &Path, _: watch::Sender<u64>) -> std::io::Result<Self> {
            Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "inotify is Linux only"))
        }
    }
}
