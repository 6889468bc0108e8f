//! Outages that others had, replayed: one file per incident, named by whom it hit, when, and what broke.

mod collector;
mod supportbee_2016_instrumentation;
