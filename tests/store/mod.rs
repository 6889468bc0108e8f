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

mod bench;
mod fences;
mod inserts;

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
                    rule_05_store_time_counts_for_leases_and_answers
                    rule_05_store_time_is_the_same_for_two_clients;
                active inserts:
                    rule_01_conservation_an_inserted_job_is_found_as_it_was_given
                    rule_01_conservation_through_every_state
                    rule_01_conservation_a_second_client_sees_it
                    tiers_do_not_see_each_other
                    rule_06_idempotent_insert_the_same_again_is_the_same_job
                    rule_06_idempotent_insert_other_content_is_a_conflict
                    rule_06_idempotent_insert_twice_in_one_batch
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
                    rule_06_the_same_id_is_the_same_job_even_when_another_holds_its_unique_key
                    a_worker_is_given_its_own_queues_only;
            }
        }
    };
}

conformance!(sqlite: Sqlite);
conformance!(observed_sqlite: Measured<Sqlite>);
