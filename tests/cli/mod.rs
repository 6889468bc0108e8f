//! The program as people and pipelines meet it: the real binary, in a home of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod basics;
mod jobs;
mod kit;
mod settings;
mod stores;
