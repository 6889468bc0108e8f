//! Evidence: whether a release may keep the work, judged by first attempts of jobs that really ran and by canaries.
//!
//! - [`observed`]: what is known before, and what is seen
//! - [`judge`]: remembers what it has seen, and says whose fault a failure is; `find`: findings and the verdict, in words
//! - [`canaries`]: which canaries are still missing
//! - [`sprt`]: the sequential test of one stream; [`exact`]: bounds and explanations
//! - [`history`]: how a release did, for whoever is compared with it later
//! - [`verdict`]: the answer, a value
//!
//! A kind, a worker and a kind on a worker are judged each for itself, never pooled: one kind of ten that always fails,
//! with 3 % of the traffic, passes a pooled test in 91 % of runs. That makes many tests, so the chance to fail a good
//! release is divided among them ([`sprt::FALSE_FAIL`]).

pub mod canaries;
pub mod exact;
mod find;
pub mod history;
pub mod judge;
pub mod observed;
pub mod sprt;
#[cfg(test)]
mod tests;
pub mod verdict;

pub use canaries::Wanted;
pub use history::History;
pub use judge::Judge;
pub use observed::{Canaries, Hands, Observed, Outcomes, Pairs, Terms};
pub use sprt::Count;
pub use verdict::{Decision, Finding, Stream, Verdict};
