//! The one integration test binary.

mod cli;
mod http;
mod worker;
