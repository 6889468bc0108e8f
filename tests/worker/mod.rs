//! The worker on real stores: what it promises, one named test each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a measurement prints"
)]

mod bench;
mod ends;
mod faulty;
mod jobs;
mod leases;
mod orders;
mod outages;
mod proof;
mod releases;
