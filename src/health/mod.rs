//! Health: [`facts`] are gathered, [`rules`] judge them purely, a [`verdict`] is a value that faces render.
//!
//! Two questions, never one: *live* fails only for what a restart would fix; *ready* fails whenever this worker would
//! not move work. A store that is away, a long job, a standby or a quiet worker must not be restarted for it.

pub mod facts;
mod findings;
pub mod probe;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod tier;
pub mod verdict;

pub use facts::{Facts, Memory, Past, SlowQueue, Source};
pub use probe::{Ask, Probe, Thresholds};
pub use rules::judge;
pub use verdict::{Check, Status, Verdict};
