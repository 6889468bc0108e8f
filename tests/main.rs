//! The one integration test binary.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::let_underscore_must_use,
    clippy::disallowed_methods,
    reason = "tests may panic and print"
)]

#[macro_use]
mod both;
mod bypass;
mod chaos;
mod cli;
mod floors;
mod handlers;
mod http;
mod postmortems;
mod redis;
mod release;
mod store;
mod worker;
