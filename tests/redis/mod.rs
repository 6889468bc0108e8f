//! Redis as it fails: the test kit (a real server whose clock is moved, and a wire with faults), and what the engine
//! makes of each fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a measurement prints"
)]

mod answers;
mod clock;
mod faults;
mod full;
mod kit;
mod overfull;
mod pipe;
pub(crate) mod proxy;
mod refusals;
pub(crate) mod resp;
mod restarts;
pub(crate) mod server;
mod site;
mod strangers;
mod tiers;
mod tls;
mod wires;
