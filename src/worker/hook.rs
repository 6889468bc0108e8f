//! The activation hook: a command of the release that each worker runs after the switch and before its first claim, and
//! rehearses while it stands by. Its exit code alone proves nothing; a hook that is missing, hangs or fails proves that
//! this worker must not claim.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::state::Core;
use crate::child::{Group, how, last_line, tail};
use crate::clock::human;
use crate::names::shown_long;

/// After its end, what it left running may hold its output open for no longer than this.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// The command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The program and its arguments; no shell.
    pub command: Vec<String>,
    /// It must end within this.
    pub timeout: Duration,
}

/// Why it is run; the hook reads it from `SLUICEGATE_PHASE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is active yet: check what can be checked.
    Rehearse,
    /// The release is active: register, and whatever else it takes.
    Activate,
}

impl Phase {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rehearse => "rehearse",
            Self::Activate => "activate",
        }
    }
}

/// Runs it.
///
/// # Errors
/// Says in words what went wrong, with the end of what the hook wrote.
pub(super) async fn run(core: &Core, hook: &Hook, phase: Phase, generation: u64) -> Result<(), String> {
    let [program, arguments @ ..] = hook.command.as_slice() else { return Ok(()) };
    let mut command = Command::new(program);
    let program = shown_long(program);
    command
        .args(arguments)
        .env("SLUICEGATE_PHASE", phase.as_str())
        .env("SLUICEGATE_TIER", core.options.tier.as_str())
        .env("SLUICEGATE_RELEASE", core.release.as_str())
        .env("SLUICEGATE_WORKER", core.options.name.as_str())
        .env("SLUICEGATE_GENERATION", generation.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program}: not found"),
        _ => format!("{program}: {error}"),
    })?;
    let group = Group(child.id());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let whole = async {
        let mut output =
            std::pin::pin!(async { tokio::join!(tail(out, &mut said), tail(err, &mut complained)) });
        let ended = tokio::select! {
            ended = child.wait() => ended,
            _ = &mut output => return child.wait().await,
        };
        tokio::time::timeout(LAST_OUTPUT, output).await.ok();
        ended
    };
    let ended = tokio::time::timeout(hook.timeout, whole).await;
    drop(group);
    let last = last_line(&complained).or_else(|| last_line(&said));
    let why = match ended {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => how(status),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("did not end within {}, and was killed", human(hook.timeout)),
    };
    Err(match last {
        Some(last) => format!("{program}: {why}: {last}"),
        None => format!("{program}: {why}"),
    })
}
