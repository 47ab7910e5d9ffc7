//! The store's conformance suite: what every store must do, each case run against SQLite on a real disk.
//!
//! Invariant: a case knows only the trait; it opens its store through the function it is given, as often as it likes.

mod breakers;
mod crash;
pub mod fixtures;
mod intake;
mod ledger;
mod notices;
mod people;
mod random;
mod runs;
mod sqlite;

use nightshift::store::{SqliteOptions, SqliteStore, Store};
use std::path::Path;
use std::sync::Arc;

/// Opens the store of a case: the same one each time it is called, once the earlier one is closed.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Store>;

fn sqlite(dir: &Path) -> Arc<dyn Store> {
    let options = SqliteOptions::new(dir.join("store.db"));
    Arc::new(SqliteStore::open(options, fixtures::start()).unwrap())
}

macro_rules! conformance {
    ($($module:ident :: { $($case:ident),* $(,)? })*) => {
        mod on_sqlite {
            $($(
                #[tokio::test]
                async fn $case() {
                    let dir = tempfile::tempdir().unwrap();
                    super::$module::$case(&|| super::sqlite(dir.path())).await;
                }
            )*)*
        }
    };
}

conformance! {
    intake::{
        a_new_event_opens_an_episode_an_incident_a_run_and_a_notice,
        the_same_event_again_changes_a_counter_and_nothing_else,
        an_end_and_the_same_start_again_reopen_the_episode_without_a_second_run,
        a_newer_start_after_an_end_is_a_new_episode_with_a_new_run,
        an_event_that_no_rule_matches_is_an_incident_by_the_catch_all,
        a_muted_event_makes_no_incident,
        a_rule_without_a_runbook_tells_in_any_mode,
        a_rule_is_silent_below_the_mode_from_which_it_notifies,
        an_ignored_event_makes_no_incident_and_has_its_reason,
        an_alert_that_joins_an_open_incident_leaves_a_line_and_raises_it,
        two_events_with_one_bucket_share_a_run,
        a_rule_with_repeat_acts_at_the_nth_time,
        gaps_are_entries,
        the_earliest_start_is_kept,
        a_batch_with_duplicates_counts_each_once,
        episodes_that_fell_silent_are_found_and_ended,
        many_batches_at_once_are_all_kept,
        an_operation_that_was_undone_gives_no_number_away,
    }
    runs::{
        a_step_is_begun_ended_and_final,
        a_write_under_an_old_epoch_is_fenced,
        a_final_run_never_changes,
        a_cancelled_run_still_learns_how_its_open_step_ended,
        what_a_cancelled_run_left_open_is_due_until_somebody_has_stopped_it,
        a_disruptive_step_reserves_its_node_until_the_run_ends,
        no_step_reaches_further_than_what_was_pinned_with_the_text,
        a_cordon_by_any_name_is_remembered_until_it_is_taken_back,
        a_frozen_rule_holds_the_step_and_says_so_once,
        an_outcome_that_is_too_large_is_refused_and_changes_nothing,
        a_tick_of_a_schedule_starts_one_run,
        a_stuck_run_keeps_its_node_until_a_person_lets_go,
        a_node_that_a_run_has_just_left_counts_for_what_was_read_before,
        a_step_is_not_performed_again_while_all_is_frozen,
        a_run_is_found_as_it_was_left,
        a_parked_run_is_due_at_its_time_and_not_before,
        a_run_held_for_an_alert_that_ended_goes_on_at_once_if_it_fires_again_meanwhile,
        what_a_runbook_says_reaches_the_channel,
    }
    breakers::{
        three_remedies_that_failed_trip_the_breaker_and_a_person_resets_it,
        undo_and_giving_back_pass_a_breaker_that_has_tripped,
        a_failure_before_anything_was_done_trips_nothing,
        one_symptom_on_many_nodes_trips_a_breaker_of_its_own,
        a_complaint_that_comes_and_goes_is_held_until_it_was_steady,
    }
    people::{
        two_persons_release_a_freeze_where_two_must,
        a_question_for_two_is_answered_by_two_different_persons,
        an_approval_is_decided_once,
        an_answer_after_expiry_is_no,
        nobody_answering_ends_the_run_at_the_tick,
        a_stranger_may_not_approve,
        a_question_of_a_step_is_answered_into_its_outcome,
        freezes_are_set_listed_and_lifted,
        an_incident_is_acknowledged_once,
    }
    notices::{
        a_delivery_settles_the_notice_until_something_happens,
        a_question_between_the_look_and_the_judgement_is_not_put_off,
        news_between_the_look_and_the_judgement_are_looked_at,
        a_question_that_comes_during_a_delivery_waits_for_no_pace,
        a_question_that_comes_before_a_turn_is_recorded_waits_for_no_turn,
        a_first_message_that_waits_is_due_with_the_first_news,
        a_question_after_a_refusal_is_tried_at_once,
        nothing_to_send_settles_the_notice_and_leaves_no_entry,
        what_a_channel_has_nothing_to_say_of_is_looked_at_at_the_same_pace,
        a_hold_that_lasts_is_recorded_once_more_and_people_wait_for_it,
        a_failing_channel_is_noted_once_and_tried_later,
        a_turn_that_comes_later_is_no_failure,
        a_refused_notice_rests_until_something_new_happens,
        a_crash_while_sending_says_it_may_have_arrived,
    }
    ledger::{
        checkpoints_proofs_and_export_verify,
        every_changed_byte_of_an_export_is_noticed_and_named,
        a_redacted_body_is_gone_everywhere_and_the_proof_holds,
        old_rows_are_swept_and_the_ledger_still_verifies,
    }
}
