//! Errors as a person reads them: `error: …`, `caused by: …`, a blank line, `hint: …`.

use super::exit::Exit;
use crate::client::EnqueueError;
use crate::config::ConfigError;
use crate::job::InvalidJob;
use crate::store::{ErrorKind, StoreError};

/// Why a command failed, and with which code it ends.
#[derive(Debug)]
pub(super) struct CliError {
    pub(super) exit: Exit,
    pub(super) message: String,
    pub(super) hints: Vec<String>,
    /// What sort of error of the store it is, if it is one.
    pub(super) store: Option<ErrorKind>,
}

/// What commands return.
pub(super) type CliResult = Result<Exit, CliError>;

impl CliError {
    pub(super) fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, message: message.to_string(), hints: Vec::new(), store: None }
    }

    pub(super) fn usage(message: impl std::fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let hints = error.hint.clone().into_iter().collect();
        Self { hints, ..Self::usage(error) }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let exit = match error.kind {
            ErrorKind::Unavailable | ErrorKind::Timeout => Exit::Unreachable,
            ErrorKind::Refused | ErrorKind::Unsupported => Exit::Usage,
            ErrorKind::Denied => Exit::Auth,
            _ => Exit::Error,
        };
        let hints = error.hint.clone().into_iter().collect();
        Self { hints, store: Some(error.kind), ..Self::new(exit, error) }
    }
}

impl From<InvalidJob> for CliError {
    fn from(error: InvalidJob) -> Self {
        Self::usage(error)
    }
}

impl From<EnqueueError> for CliError {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Invalid(error) => error.into(),
            EnqueueError::Store(error) => error.into(),
            EnqueueError::Unknown { id, .. } => Self::new(Exit::Unreachable, &error)
                .hint(format!("enqueue it again with `--id {id}`: that cannot store it twice")),
            EnqueueError::Failed { id, .. } => Self::new(Exit::Unreachable, &error)
                .hint(format!("run it again with `--id {id}` when its handler or the store can answer")),
            EnqueueError::Conflict(id) => {
                Self::new(Exit::Conflict, &error).hint(format!("see what it is: `sluicegate job show {id}`"))
            }
            EnqueueError::Held { holder, .. } => Self::new(Exit::Conflict, &error)
                .hint(format!("see the job that holds it: `sluicegate job show {holder}`")),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Pipe } else { Exit::Error };
        Self::new(exit, error)
    }
}
