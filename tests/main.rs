//! The one integration test binary.

mod worker;
