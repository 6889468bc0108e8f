//! The program as people and pipelines meet it: the real binary, in a home of its own.

mod activate;
mod basics;
mod doctor;
mod from_file;
mod full_disk;
mod gate;
mod greens;
pub(crate) mod hands;
mod health;
mod jobs;
mod kit;
mod readme;
mod redis;
mod reds;
mod running;
pub(crate) mod sandbox;
mod settings;
mod stores;
mod systemd;
mod tiers;
mod workers;
