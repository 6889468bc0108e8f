//! What workers write: appended to one file each, which stays small. The file is theirs: a pipe through this process would
//! break when this process ends, and they must not.

use std::fs::{DirBuilder, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file that is larger is put aside, in the place of the one that was put aside before.
const MOST: u64 = 10 * 1024 * 1024;
/// How much of its end is read for what went wrong.
const END: u64 = 4_096;

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// Opens it for a process that starts.
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    }
    if std::fs::metadata(path).is_ok_and(|there| there.len() >= MOST) {
        std::fs::rename(path, aside(path))?;
    }
    File::options().create(true).append(true).mode(0o640).open(path)
}

/// Puts the log of a process that goes on writing aside. It has the file open, so the file must stay: it is copied and
/// emptied. What is written between the two is lost.
pub(super) async fn bound(path: &Path) {
    if !std::fs::metadata(path).is_ok_and(|there| there.len() >= MOST) {
        return;
    }
    let path = path.to_owned();
    let put = move || -> std::io::Result<()> {
        std::fs::copy(&path, aside(&path))?;
        File::options().write(true).open(&path)?.set_len(0)
    };
    match tokio::task::spawn_blocking(put).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the log of a worker cannot be put aside"),
        Err(error) => tracing::warn!(%error, "the log of a worker was not put aside"),
    }
}

/// Its end.
pub(super) fn end(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(end)
}
