//! A job-queue worker runtime that proves it is running. The README is the way in; this page is the map.
//!
//! A module imports from lower floors and from its own folder, never upwards (`tests/floors.rs` keeps that true):
//!
//! | floor | rooms |
//! |---|---|
//! | 0 words | [`ids`], [`clock`], [`names`], [`location`], [`retry`], [`job`], [`activation`] |
//! | 1 | `config`: defaults < file < environment < flags |
//! | 2 | [`store`]: the seam, its engines, the wrapper that measures them |
//! | 3 | [`client`] (enqueue), `worker` (claim, run, settle), `handlers` (the built-in kinds), `health` |
//! | 6 faces | `http`, `telemetry`, `cli`: they translate and decide nothing |
//!
//! `handlers` and `health` may look at `worker`, and at nothing else on their floor.

pub mod activation;
pub mod clock;
pub mod ids;
pub mod job;
pub mod location;
pub mod names;
pub mod retry;

#[cfg(feature = "cli")]
pub mod config;

pub mod store;

pub mod client;
#[cfg(feature = "worker")]
pub mod worker;

#[cfg(feature = "handlers")]
pub mod handlers;
#[cfg(feature = "worker")]
pub mod health;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "cli")]
pub mod telemetry;

pub use client::{Client, EnqueueError, Enqueued};
pub use ids::JobId;
#[cfg(feature = "worker")]
pub use job::{Context, Handler, JobResult, Outcome};
pub use job::{Job, NewJob};
