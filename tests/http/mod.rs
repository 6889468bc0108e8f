//! The HTTP faces, over real sockets. Hostile rows are named by their number in the list of hostile inputs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod api;
pub(crate) mod faulty;
mod gate;
mod guard;
mod inbox;
pub(crate) mod kit;
mod limits;
mod metrics;
mod probes;
mod tallies;
mod wire;
