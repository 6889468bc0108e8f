//! The real binary, as a person or a script meets it: output, exit codes, configuration, signals.

mod config;
mod jobs;
mod readme;
mod running;
mod sandbox;
mod usage;
