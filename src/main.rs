//! Argv to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluicegate::cli::App::new().main()
}
