//! A job-queue worker runtime that proves it is running. The README is the way in; this page is the map.
//!
//! A module imports from lower floors and from its own folder, never upwards (`tests/floors` keeps that true):
//!
//! | floor | rooms |
//! |---|---|
//! | 0 words | [`ids`], [`clock`], [`names`], [`histogram`], [`location`], [`retry`], [`job`], [`activation`] |
//! | 1 | `config`: defaults < file < environment < flags; `https`: the connections of those who send by HTTP |
//! | 2 | [`store`]: the seam, its engines, the wrapper that measures them |
//! | 3 | [`client`] (enqueue), `worker` (claim, run, settle) |
//! | 4 | `handlers` (the built-in kinds), `health` (facts, rules, verdict) |
//! | 5 | `release`: how releases take over |
//! | 6 faces | `http`, `telemetry`: they translate and decide nothing |
//! | 7 | `cli`: the face that starts the others |
//!
//! A room imports nothing from another room of its own floor.

pub mod activation;
pub mod clock;
pub mod histogram;
pub mod ids;
pub mod job;
pub mod location;
pub mod names;
pub mod retry;

#[cfg(feature = "cli")]
pub mod config;
#[cfg(any(feature = "handlers", feature = "otel"))]
mod https;

pub mod store;

pub mod client;
#[cfg(feature = "worker")]
pub mod worker;

#[cfg(feature = "handlers")]
pub mod handlers;
#[cfg(feature = "worker")]
pub mod health;
#[cfg(feature = "worker")]
pub mod release;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod http;
#[cfg(any(feature = "cli", feature = "otel"))]
pub mod telemetry;

#[cfg(feature = "worker")]
pub use client::Handlers;
pub use client::{Client, EnqueueError, Enqueued, Way};
pub use ids::JobId;
pub use job::{Bypass, Job, NewJob};
#[cfg(feature = "worker")]
pub use job::{Context, Handler, JobResult, Outcome};
