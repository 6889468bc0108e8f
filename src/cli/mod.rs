//! The command line, for our binary and for an app's own.

use std::process::ExitCode;

use crate::worker::Registry;

/// A program with all commands of `sluicegate`, and an app's own kinds.
#[derive(Debug, Default)]
pub struct App {
    registry: Registry,
}

impl App {
    /// A program that knows the built-in kinds only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind.
    #[must_use]
    pub fn job<H: crate::job::Handler>(self) -> Self {
        self
    }

    /// Adds a value that handlers get from `ctx.shared`.
    #[must_use]
    pub fn share<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.registry.share(value);
        self
    }

    /// Runs the command line of this process to its exit code.
    #[must_use]
    pub fn main(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}
