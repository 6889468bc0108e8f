//! The worker on real stores: what it promises, one named test each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a measurement prints"
)]

pub(crate) mod bench;
mod counts;
mod ends;
pub(crate) mod faulty;
mod jobs;
mod leases;
mod orders;
mod outages;
mod proof;
mod releases;
mod tallies;
mod waits;
