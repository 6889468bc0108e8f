//! A server's wall clock that a test moves forward; how is told in `shift.c`.

use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

const SOURCE: &str = include_str!("shift.c");

pub(super) struct Clock {
    path: PathBuf,
    file: File,
    /// Microseconds; what the file says.
    shift: Mutex<i64>,
}

impl Clock {
    /// One that goes right, until it is moved.
    pub(super) fn new(folder: &Path) -> Self {
        let path = folder.join("shift");
        let file = OpenOptions::new().write(true).create_new(true).open(&path).expect("a file");
        file.write_all_at(&0_i64.to_ne_bytes(), 0).expect("written");
        Self { path, file, shift: Mutex::new(0) }
    }

    /// Makes a program live by it.
    pub(super) fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("REDIS_CLOCK_SHIFT", &self.path);
    }

    pub(super) fn pass(&self, time: Duration) {
        let mut shift = self.shift.lock().unwrap();
        *shift += i64::try_from(time.as_micros()).expect("no such long time");
        self.file.write_all_at(&shift.to_ne_bytes(), 0).expect("written");
    }
}

/// Compiled once for all test processes. They run at the same time: each gives the file its name only when it is whole.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        SOURCE.hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = folder.join(format!("shift-{:016x}.so", hasher.finish()));
        if !library.exists() {
            let own = folder.join(format!("shift-{}", std::process::id()));
            let (source, built) = (own.with_extension("c"), own.with_extension("so"));
            std::fs::create_dir_all(folder).expect("a folder");
            std::fs::write(&source, SOURCE).expect("written");
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-O2", "-o"]);
            let status = compiler.arg(&built).arg(&source).status().expect("`cc` (package gcc) runs");
            assert!(status.success(), "`cc` failed: {status}");
            std::fs::rename(&built, &library).expect("renamed");
            std::fs::remove_file(&source).expect("removed");
        }
        library
    })
}
