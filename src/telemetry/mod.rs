//! Logs, traces and metrics. Nothing here may stop, slow or crash a job.

#[cfg(feature = "cli")]
mod logs;
#[cfg(feature = "otel")]
pub mod otel;

#[cfg(feature = "cli")]
pub use logs::{Logs, logs};
