//! Releases, through the real binary and through the library: what may stand on the shelf, what the store knows of it, and
//! what may leave.

mod deploy;
mod deployers;
mod describe;
mod disk;
mod doomed;
mod kit;
mod prune;
mod records;
mod refusals;
mod register;
mod shelf;
mod shop;
mod supervise;
