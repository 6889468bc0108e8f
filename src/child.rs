//! Processes that this one starts: all that they start ends with them, what they write is read within bounds, and how they
//! ended is told in words.

use std::process::ExitStatus;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::names::shown_long;

/// How much of what a child writes is kept: the end.
const KEEP: usize = 2_048;

/// A process group, by its leader; killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Group(pub(crate) Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            // It may have ended by itself.
            rustix::process::kill_process_group(leader, rustix::process::Signal::KILL).ok();
        }
    }
}

/// How it ended, in words.
pub(crate) fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended for a reason unknown".to_owned(),
    }
}

/// Reads to the end and keeps the last part.
pub(crate) async fn tail(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut part = [0; 1_024];
    while let Ok(read @ 1..) = from.read(&mut part).await {
        kept.extend_from_slice(part.get(..read).unwrap_or_default());
        let over = kept.len().saturating_sub(KEEP);
        kept.drain(..over);
    }
}

/// The line that says what went wrong: the first that claims to, else the last that says something.
#[cfg(feature = "cli")]
pub(crate) fn telling_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let claims = text.lines().map(str::trim).find_map(|line| line.strip_prefix("error: "));
    claims.map(shown_long).or_else(|| last_line(bytes))
}

/// The last line that says something.
pub(crate) fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(shown_long)
}
