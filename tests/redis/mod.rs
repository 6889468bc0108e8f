//! The test kit for Redis: a real server whose clock is moved, and a wire with faults.

mod clock;
mod faults;
mod kit;
mod overfull;
mod pipe;
pub(crate) mod proxy;
pub(crate) mod resp;
pub(crate) mod server;
mod tls;
