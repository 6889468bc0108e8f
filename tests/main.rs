//! The one integration test binary.

mod http;
mod store;
mod worker;
