//! The one integration test binary.

mod http;
mod worker;
