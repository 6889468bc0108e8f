//! Releases, where they stand, and how they take over. It meets workers in the store only, so it can judge and switch one that is
//! older, newer or wedged.
//!
//! - [`description`], [`records`]: what a release runs, and what the store knows of it
//! - `register`: from a folder onto the shelf and into the store; `incoming` while it is copied, `describe` what it runs
//! - `shelf`: the releases on this host; `manifest` what they are; `tree` how files are read and copied; `prune` which may go
//! - [`deploy`]: plan, stage, preflight, canary, activate, verify, commit, retain; [`evidence`] decides
//! - [`rollback`]: one flip to a release that still runs
//! - `supervise`: keeps the workers of a host as they are wanted
//! - [`activate`]: switches a tier by hand

pub mod activate;
pub mod deploy;
#[cfg(feature = "cli")]
mod describe;
pub mod description;
#[cfg(feature = "cli")]
mod error;
pub mod evidence;
#[cfg(feature = "cli")]
mod incoming;
#[cfg(feature = "cli")]
pub mod manifest;
#[cfg(feature = "cli")]
pub mod prune;
#[cfg(feature = "cli")]
mod recipe;
pub mod records;
#[cfg(feature = "cli")]
pub mod register;
pub mod rollback;
#[cfg(feature = "cli")]
pub mod shelf;
#[cfg(feature = "cli")]
pub mod supervise;
#[cfg(feature = "cli")]
mod tree;

#[cfg(feature = "cli")]
pub use error::{ShelfError, ShelfErrorKind};
#[cfg(feature = "cli")]
pub use manifest::Manifest;
#[cfg(feature = "cli")]
pub use shelf::{Shelf, Staged};
