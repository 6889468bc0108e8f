//! Outages that others had, replayed: one file per incident, named by whom it hit, when, and what broke.

mod airflow_63580_ping_while_nothing_is_consumed;
mod collector;
mod pgbus_386_answered_by_the_old_process;
mod sidekiq_611_quieted_and_forgotten;
mod sidekiq_alive_31_probes_that_kill;
mod statuspage_2017_inactive_tier;
mod supportbee_2016_every_job_fails;
mod supportbee_2016_instrumentation;
