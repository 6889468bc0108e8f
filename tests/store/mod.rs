//! The conformance suite of the store seam: the same named tests for every engine and for every wrapper around one. A new
//! engine plugs in with a [`Harness`] and one line of `suite!`.

mod control;
mod files;
mod harness;
mod rules;
mod time;
mod waiting;

pub(crate) use harness::{Harness, ObservedSqlite, OnSqlite};

/// Makes one test per case and harness.
macro_rules! suite {
    ($($file:ident :: $case:ident),+ $(,)?) => {
        mod on_sqlite { $(#[tokio::test] async fn $case() { super::$file::$case(<super::OnSqlite as super::Harness>::new().await).await; })+ }
        mod on_observed_sqlite { $(#[tokio::test] async fn $case() { super::$file::$case(<super::ObservedSqlite as super::Harness>::new().await).await; })+ }
    };
}

suite! {
    rules::rule_01_conservation_the_census_equals_a_recount_after_random_steps,
    rules::rule_01_two_clients_that_write_at_once_meet_no_errors,
    rules::rule_01_two_claimers_never_get_the_same_job,
    rules::rule_02_fence_at_claim_no_activation_takes_nothing,
    rules::rule_02_fence_at_claim_another_release_takes_nothing,
    rules::rule_02_fence_at_claim_an_old_generation_of_the_active_release_is_served_and_told,
    rules::rule_02_fence_at_claim_a_generation_the_store_never_reached_is_refused,
    rules::rule_03_fence_at_settle_a_lost_lease_changes_nothing,
    rules::rule_03_fence_at_settle_twice_is_already_done,
    rules::rule_03_fence_at_settle_a_nonce_of_another_batch_changes_nothing,
    rules::rule_03_a_lost_lease_cannot_be_renewed,
    rules::rule_04_dead_man_reverts_at_the_poll_of_the_fallback_only,
    rules::rule_04_dead_man_spares_a_committed_activation,
    rules::rule_06_the_same_id_and_content_is_the_same_job,
    rules::rule_06_other_content_under_an_id_is_a_conflict,
    rules::rule_06_an_idempotency_key_is_remembered_for_a_day_after_its_job_is_gone,
    rules::rule_07_an_insert_says_what_it_survives,
    rules::rule_08_batches_over_the_limit_are_refused,
    rules::rule_08_a_claim_takes_no_more_than_it_asks_for,
    rules::rule_09_a_failure_costs_an_attempt_and_nothing_else_does,
    rules::rule_09_a_lost_worker_makes_suspects_that_run_alone,
    rules::rule_09_a_job_that_kills_its_worker_three_times_is_quarantined,
    rules::rule_09_a_fleet_that_keeps_dying_quarantines_nobody,
    time::rule_05_leases_end_by_the_stores_clock,
    time::rule_05_a_delayed_job_is_never_early_and_says_when_it_is_due,
    time::rule_05_a_renewed_lease_is_kept,
    time::rule_10_an_outage_is_not_a_crash,
    time::what_is_too_late_expires_instead_of_running,
    time::what_is_too_late_expires_in_a_sweep,
    time::completed_jobs_are_kept_an_hour,
    time::completed_jobs_are_kept_up_to_a_number_per_queue,
    time::dead_jobs_are_kept_for_thirty_days,
    waiting::a_unique_key_is_held_until_its_job_ends,
    waiting::a_unique_key_with_a_window_outlives_its_job,
    waiting::higher_priorities_go_first_and_lower_ones_do_not_starve,
    waiting::jobs_of_one_queue_go_in_order_and_what_is_handed_back_goes_first,
    waiting::a_worker_takes_only_from_its_queues,
    waiting::cancel_ends_what_waits_and_asks_what_runs,
    waiting::retry_gives_a_dead_job_a_fresh_set_of_attempts,
    waiting::parked_jobs_come_back_for_who_can_run_them,
    waiting::pages_go_through_everything_once_and_filters_hold,
    waiting::tiers_do_not_see_each_other,
    control::records_are_compared_and_set_and_versions_never_repeat,
    control::a_flip_is_compared_and_set_and_the_generation_only_rises,
    control::the_ledger_is_in_order,
    control::a_name_that_registers_again_takes_over_at_once,
    control::a_stopped_worker_is_gone,
    control::an_insert_a_schedule_and_a_flip_wake_the_other_client,
}
