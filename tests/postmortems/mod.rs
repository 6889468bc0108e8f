//! Outages that others had, replayed: one file per incident, named by whom it hit, when, and what broke.

mod collector;
mod statuspage_2017_inactive_tier;
mod supportbee_2016_instrumentation;
