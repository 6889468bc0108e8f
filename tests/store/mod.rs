//! The conformance suite of the store seam: the same named tests for every engine, and for every wrapper around one.
//! The rules are those of `src/store/mod.rs`. A new engine is a [`bench::Harness`] and one line at the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a seed is printed"
)]

mod attempts;
pub(crate) mod bench;
mod canaries;
mod control;
mod edges;
mod fences;
mod files;
mod flow;
mod inserts;
mod look;
mod model;
mod observed;
mod pauses;

/// One test for every name: on a store where `r1` is active, or on one where nothing is.
macro_rules! each {
    ($harness:ty; $($start:ident $file:ident: $($name:ident)+;)+) => {$($(
        #[tokio::test]
        async fn $name() {
            Box::pin(super::$file::$name(Rig::$start::<$harness>().await)).await;
        }
    )+)+};
}

/// The whole suite for one engine.
macro_rules! conformance {
    ($engine:ident: $harness:ty) => {
        mod $engine {
            use super::bench::*;
            each! { $harness;
                new fences:
                    rule_02_fence_at_claim_without_an_activation_nobody_is_served;
                new canaries:
                    rule_02_a_tier_without_an_activation_has_canaries_too;
                active canaries:
                    rule_02_an_inactive_worker_is_given_its_own_canaries_and_nothing_else
                    rule_02_a_canary_of_another_worker_is_not_taken
                    rule_02_a_superseded_worker_is_given_no_canary
                    rule_02_a_claim_of_jobs_takes_no_canary_and_tells_of_it
                    rule_04_a_claim_of_canaries_does_not_fire_the_dead_man
                    canaries_are_in_no_census_and_in_a_page_only_when_they_are_named
                    rule_08_a_canary_does_not_wait_behind_a_backlog
                    rule_09_a_canary_of_a_lost_worker_expires_and_charges_nobody
                    rule_09_a_takeover_ends_the_canaries_of_the_old_process
                    rule_09_canaries_tell_nothing_of_the_fleet
                    canaries_that_nobody_takes_expire
                    rule_03_canaries_are_settled_once_and_under_their_lease
                    a_canary_that_is_given_back_waits_in_its_lane_again
                    a_canary_of_its_own_worker_wakes_nobody
                    rule_06_a_canary_is_inserted_once
                    a_canary_without_a_worker_is_refused_and_nobody_can_name_their_queue
                    canaries_can_be_called_off_and_do_not_come_back
                    canaries_that_ended_are_kept_an_hour
                    canaries_that_ended_are_kept_in_bounded_number;
                active pauses:
                    pauses_hold_at_once_wherever_a_job_stands
                    pauses_leave_other_queues_and_what_runs_alone
                    pauses_lapse_by_store_time_and_the_next_claim_serves
                    pauses_that_lapse_wake_who_waits
                    pauses_answer_what_stood_before_and_are_in_the_ledger
                    pauses_of_a_queue_that_nobody_knows_hold_from_its_first_job_on
                    pauses_do_not_matter_to_canaries
                    pauses_are_bounded
                    controls_have_a_revision_that_beats_tell_and_wake_who_waits
                    receipts_are_records_of_their_own;
                active fences:
                    rule_02_fence_at_claim_another_release_takes_nothing
                    rule_02_fence_at_claim_an_old_generation_of_the_same_release_is_told_and_served
                    rule_02_fence_at_claim_a_newer_generation_than_the_stores_is_refused
                    rule_02_fence_at_claim_a_flip_stops_the_old_release_at_once
                    rule_02_fence_at_claim_a_claim_of_none_only_asks
                    rule_02_a_flip_must_expect_the_present_generation
                    rule_02_two_flips_at_once_have_one_winner
                    rule_03_fence_at_settle_a_lost_nonce_changes_nothing
                    rule_03_fence_at_settle_a_made_up_nonce_settles_nothing
                    rule_03_fence_at_settle_twice_is_already
                    rule_03_twice_in_one_call_is_ok_and_already
                    rule_03_a_partly_settled_lease_still_holds_the_rest
                    rule_03_a_renewal_keeps_a_lease_and_a_lost_one_says_so
                    rule_03_renewals_are_answered_in_order
                    rule_03_two_clients_that_claim_at_once_never_get_the_same_job
                    rule_04_dead_man_reverts_at_the_fallbacks_poll_only
                    rule_04_dead_man_fires_when_there_is_nothing_to_take
                    rule_04_dead_man_is_disarmed_by_a_confirmation
                    rule_04_a_commit_keeps_the_generation_and_disarms_the_dead_man
                    rule_04_whoever_lost_its_lock_changes_no_activation
                    rule_04_a_commit_must_name_the_present_generation
                    rule_04_a_commit_and_extensions_at_once_end_committed
                    rule_04_an_extension_moves_the_deadline_and_nothing_else
                    rule_04_a_stale_extension_undoes_no_commit
                    rule_04_a_stale_extension_loses_to_a_later_one
                    rule_04_an_extension_comes_too_late_after_the_dead_man
                    rule_04_the_dead_man_and_an_extension_at_once_have_one_winner
                    rule_04_a_flip_is_not_kept_out_by_extensions
                    rule_05_store_time_counts_for_leases_and_answers
                    rule_05_store_time_is_the_same_for_two_clients;
                active flow:
                    order_is_first_in_first_out
                    priorities_the_higher_goes_first
                    priorities_most_of_a_claim_goes_to_the_highest_and_the_lower_is_not_starved
                    priorities_small_claims_do_not_starve_the_lower_either
                    priorities_hold_for_a_suspect_too
                    hand_back_goes_to_the_head_in_order
                    expiry_at_claim
                    expiry_at_claim_reaches_what_is_behind_it
                    expiry_at_sweep_from_every_waiting_state
                    delays_and_next_due
                    delays_a_time_that_has_passed_is_now
                    delays_what_is_due_goes_to_the_tail_in_order_of_time
                    a_claimed_job_says_since_when_it_could_run
                    cancel_what_waits_at_once
                    cancel_what_runs_by_asking_its_worker
                    cancel_a_wish_does_not_outlive_its_attempt
                    retry_brings_the_ended_back_with_fresh_attempts
                    retry_of_what_waits_is_now
                    bulk_answers_in_order
                    inline_what_its_caller_ran_is_completed
                    inline_what_a_worker_holds_or_a_person_ended_is_left
                    inline_what_its_caller_could_not_do_is_handed_over
                    inline_completed_jobs_are_kept_within_bounds
                    unparking_of_an_unknown_kind_waits_for_who_knows_it
                    unparking_of_the_undecodable_waits_for_another_build
                    unparking_of_the_uncertain_and_the_asked_is_for_people
                    a_parked_job_that_is_cancelled_is_not_parked;
                new control:
                    tiers_are_known_by_an_activation_a_worker_or_a_job;
                active control:
                    tiers_that_are_only_asked_about_are_not_known
                    tiers_stay_known_when_their_jobs_have_ended
                    records_compare_and_set
                    records_never_repeat_a_version
                    records_two_writers_at_once_have_one_winner
                    records_that_are_kept_for_a_time_vanish
                    records_are_listed_by_key
                    ledger_is_in_order_without_gaps
                    wake_ups_of_another_client
                    wake_ups_within_one_client
                    wake_ups_by_what_a_sweep_promotes
                    wake_ups_before_the_wait_are_not_missed
                    wake_ups_time_out
                    retention_by_count
                    retention_by_age
                    retention_counts_from_the_end_of_a_second_life;
                active edges:
                    rule_03_one_settle_of_several_leases_is_answered_in_order
                    unique_keys_with_a_window_longer_than_the_retention_are_held_as_long
                    rule_08_a_claim_that_took_everything_does_not_say_more
                    rule_08_a_claim_that_met_only_what_is_too_late_says_that_there_is_more
                    rule_08_asking_for_nothing_tells_whether_something_waits
                    rule_09_a_suspect_that_ends_properly_is_no_suspect_any_more
                    rule_09_what_was_to_be_cancelled_is_not_run_again_after_a_crash
                    a_claim_that_fails_leaves_nothing_behind;
                active model:
                    rule_01_conservation_a_model_agrees_after_every_random_step;
                active look:
                    pages_are_newest_first_and_complete
                    pages_refuse_a_token_that_is_none
                    pages_are_filtered
                    a_large_batch_completes_like_each_of_its_jobs
                    pages_find_a_needle_behind_many
                    census_tells_the_oldest_wait
                    census_tells_what_is_due
                    census_counts_per_queue_and_kind
                    census_equals_a_full_recount_after_random_operations;
                active attempts:
                    rule_09_attempts_a_failure_costs_one
                    rule_09_attempts_snooze_park_and_return_cost_nothing
                    rule_09_attempts_the_story_is_bounded
                    rule_09_attempts_a_crash_makes_suspects_and_charges_nobody
                    rule_09_attempts_a_suspect_given_back_is_still_a_suspect
                    rule_09_attempts_a_killer_is_quarantined_and_its_neighbours_are_not_charged
                    rule_09_attempts_a_lone_killer_is_quarantined
                    rule_09_attempts_a_fleet_that_fails_again_and_again_quarantines_nobody
                    rule_09_attempts_a_failure_after_a_crash_is_charged_as_a_failure_only
                    rule_10_an_outage_is_not_a_crash
                    rule_10_an_outage_before_the_first_sweep_is_none_either
                    rule_10_without_an_outage_the_lost_are_rescued_when_their_lease_ends
                    presence_a_new_process_takes_over_and_the_old_leases_are_rescued_at_once
                    presence_is_listed_aged_and_removed_at_a_stop
                    presence_a_takeover_ends_what_was_to_be_cancelled;
                active inserts:
                    rule_01_conservation_an_inserted_job_is_found_as_it_was_given
                    rule_01_conservation_through_every_state
                    rule_01_conservation_a_second_client_sees_it
                    rule_01_conservation_with_many_callers_of_two_clients_at_once
                    tiers_do_not_see_each_other
                    rule_06_idempotent_insert_the_same_again_is_the_same_job
                    rule_06_idempotent_insert_other_content_is_a_conflict
                    rule_06_idempotent_insert_twice_in_one_batch
                    rule_06_idempotent_insert_of_a_large_batch_that_repeats_itself
                    rule_06_idempotent_insert_by_two_clients_at_once
                    rule_06_idempotency_key_is_remembered_a_day_after_completion_and_no_longer
                    rule_06_idempotency_key_is_remembered_when_trimmed_by_count
                    rule_07_honest_outcomes_an_insert_tells_its_durability
                    rule_08_bounded_steps_batches_over_the_limit_are_refused_whole
                    rule_08_bounded_steps_max_is_honoured
                    rule_08_bounded_steps_a_sweep_does_at_most_a_batch_of_each_and_says_that_there_is_more
                    rule_08_bounded_steps_unparking_says_that_there_is_more
                    unique_keys_are_held_until_the_job_ends
                    unique_keys_within_one_batch
                    unique_keys_with_a_window_are_held_past_the_end
                    unique_keys_with_named_states_are_held_in_those_only
                    unique_keys_are_held_again_by_a_job_that_is_retried
                    rule_06_the_same_id_is_the_same_job_even_when_another_holds_its_unique_key
                    a_worker_is_given_its_own_queues_only;
            }
        }
    };
}

conformance!(sqlite: Sqlite);
conformance!(observed_sqlite: Measured<Sqlite>);
conformance!(redis: Redis);
conformance!(observed_redis: Measured<Redis>);
conformance!(proxied_redis: Proxied);
conformance!(observed_proxied_redis: Measured<Proxied>);
