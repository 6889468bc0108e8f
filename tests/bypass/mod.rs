//! Jobs that their caller runs itself (StatusPage, July 2017: pages were stale because their cache was busted by the tier that
//! was down): from the Rust client, the command line and the API.

mod client;
mod faces;
mod kit;
mod outages;
mod refusals;
