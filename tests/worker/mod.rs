//! The worker on a real SQLite store: what it promises, one named test each.

mod bench;
mod ends;
mod faulty;
mod jobs;
mod leases;
mod releases;
mod speed;
