//! The real program against a real broker: what a client sees on MQTT, in the contract's order, in good and bad times.
//!
//! Where there is no `mosquitto`, which `tests/run` installs, these tests are reported as ignored, with the reason.

use std::process::ExitCode;

use diffused_tests::mqtt::has_broker;
use libtest_mimic::{Arguments, Trial};

mod doctor;
mod durable;
mod fleet;
mod home;
mod jobs;
mod larger;
mod muse;
mod panels;
mod previews;
mod refusals;
mod requests;
mod scripted;
mod secure;
mod times;
mod unit;
mod verbs;
mod versions;
mod web;

/// Tests, named as their functions are.
macro_rules! trials {
    ($($module:ident::$name:ident),+ $(,)?) => {
        vec![$(Trial::test(concat!(stringify!($module), "::", stringify!($name)), || { $module::$name(); Ok(()) })),+]
    };
}

fn main() -> ExitCode {
    let missing = !has_broker();
    if missing {
        eprintln!("e2e: SKIPPED, mosquitto is not installed: the service was NOT tested against a broker");
    }
    let trials = trials![
        jobs::a_prompt_becomes_a_picture,
        jobs::a_seed_gives_the_same_bytes_again_and_pictures_count_up,
        jobs::plain_text_is_a_prompt_and_its_seed_is_told,
        jobs::a_picture_becomes_another,
        jobs::a_masked_part_is_repainted_and_the_rest_stays,
        jobs::answers_go_to_the_response_topic_too,
        jobs::messages_travel_as_the_document_says,
        jobs::a_broker_of_small_messages_gets_a_jpeg,
        home::home_assistant_is_told_of_the_device_and_the_broker_forgets_it_afterwards,
        home::activity_follows_a_job,
        home::the_health_comes_again_once_the_entities_of_a_description_are_there,
        home::settings_act_on_plain_prompts_alone_and_outlive_the_process,
        home::a_job_that_was_moved_keeps_its_place_over_a_restart,
        larger::a_second_pass_keeps_to_its_plan,
        larger::an_upscaler_keeps_to_its_plan,
        muse::a_muse_paints_by_itself_and_knows_its_turn_after_a_restart,
        muse::wildcards_are_drawn_from_the_seed,
        refusals::an_image_over_a_limit_that_was_not_announced_comes_as_a_smaller_one_or_as_its_path,
        scripted::a_broker_that_hangs_up_on_images_gets_all_else,
        scripted::a_broker_whose_refusals_are_unknown_gets_all_else,
        scripted::a_broker_that_is_full_gets_all_else_over_one_connection,
        scripted::a_service_that_may_not_subscribe_is_offline,
        scripted::an_acknowledgement_that_never_comes_holds_up_nothing_for_ever,
        scripted::a_broker_that_confirms_nothing_does_not_hold_up_the_end,
        scripted::refused_connections_are_explained_once,
        scripted::return_codes_of_mqtt_3_are_named,
        scripted::ended_connections_are_explained_once,
        scripted::a_broker_of_mqtt_3_is_named,
        scripted::a_broker_that_wants_no_pings_is_served,
        scripted::a_broker_that_keeps_nothing_is_sent_nothing_to_keep,
        refusals::a_smaller_copy_outlives_a_kill_and_is_repeated,
        scripted::an_image_that_is_refused_is_kept_where_none_are,
        refusals::where_even_the_result_is_too_large_the_ending_says_so,
        refusals::brokers_without_retain_or_qos_1_are_served,
        versions::the_whole_way_over_mqtt_3,
        versions::a_message_that_is_too_large_for_mqtt_3_is_thrown_away_once,
        doctor::a_good_broker_is_well_and_its_service_is_not_disturbed,
        doctor::a_device_of_the_same_name_is_told,
        doctor::limits_of_messages_are_told_or_found_out,
        doctor::rules_that_keep_us_from_writing_or_reading_are_found,
        doctor::what_a_broker_lacks_is_told,
        doctor::refused_subscriptions_and_short_sessions_are_told,
        doctor::why_a_broker_cannot_be_used_is_told,
        fleet::shared_prompts_are_painted_once_each_and_by_all_devices,
        secure::tls_with_an_authority_of_ones_own,
        secure::a_broker_that_wants_a_certificate_gets_ours,
        secure::faults_of_tls_are_explained,
        secure::websockets_plain_and_encrypted,
        requests::a_request_over_the_limit_is_answered,
        requests::bad_requests_are_refused_and_good_ones_served,
        requests::what_only_the_sampler_knows_is_refused_before_the_jobs_that_wait,
        requests::what_has_no_effect_is_a_warning_in_the_result,
        requests::broken_and_huge_init_images_are_refused,
        panels::what_a_display_shows_is_published_and_kept,
        panels::the_configuration_has_a_display_for_every_request,
        panels::an_output_that_the_broker_does_not_take_has_a_path,
        previews::what_an_image_looks_like_is_published_while_it_is_painted,
        previews::whatever_is_painted_has_previews,
        previews::the_configuration_has_previews_for_every_request,
        requests::a_retained_request_is_refused,
        requests::late_requests_expire,
        requests::commands_are_answered,
        requests::a_self_test_paints_the_same_bytes_each_time,
        requests::waiting_and_running_jobs_are_cancelled,
        requests::a_full_queue_says_so,
        durable::a_stopped_service_goes_on_with_its_jobs,
        durable::accepted_jobs_outlive_a_kill_and_paint_the_same,
        durable::what_was_not_delivered_is_sent_after_a_restart,
        durable::a_repeated_request_is_answered_with_the_job_that_there_is,
        durable::what_was_cancelled_may_be_asked_for_again,
        durable::a_job_goes_on_from_the_step_that_is_on_disk,
        durable::a_pause_outlives_the_process,
        durable::an_init_image_outlives_the_process_and_goes_with_its_job,
        durable::a_job_that_ends_the_process_twice_is_not_tried_again,
        durable::a_second_service_on_the_folder_is_refused,
        durable::a_damaged_journal_costs_the_damaged_lines_alone,
        durable::the_images_of_a_job_stay_until_the_next_however_few_are_kept,
        durable::with_no_images_kept_there_are_none_once_they_were_sent,
        durable::many_repeats_are_each_acknowledged,
        durable::a_retry_that_is_rejected_is_answered_under_its_id,
        durable::old_images_go_while_jobs_run_one_after_the_other,
        times::a_broker_that_comes_late_is_found,
        times::a_result_survives_a_broker_that_forgets_everything,
        times::a_job_in_a_long_operator_is_put_aside_at_once,
        times::the_broker_speaks_for_a_killed_service,
        times::a_request_published_while_the_service_is_away_is_served,
        times::a_reload_with_a_broken_file_changes_nothing,
        times::state_and_info_greet_a_new_client,
        times::a_model_that_is_damaged_while_the_service_runs_fails_its_jobs_alone,
        unit::it_is_ready_once_it_has_a_broker_and_tells_of_reloads,
        unit::a_board_without_a_broker_is_ready_too,
        unit::a_worker_that_hangs_is_not_covered_up_before_the_watchdog,
        unit::a_reload_takes_over_what_it_can_and_names_the_rest,
        unit::heat_makes_a_job_pause_and_changes_nothing_else,
        unit::no_password_is_in_the_log_and_no_prompt_below_debug,
        unit::a_job_writes_little_to_the_card,
        unit::an_idle_service_holds_little_memory,
        verbs::submit_waits_and_writes_the_images,
        verbs::the_same_submission_again_fetches_the_image,
        verbs::a_smaller_copy_is_named_after_its_format,
        verbs::what_cannot_be_painted_is_told_with_its_reason,
        verbs::a_queue_is_listed_paused_and_cancelled,
        verbs::a_job_is_watched_to_its_end,
        verbs::a_device_is_described,
        verbs::who_does_not_answer_is_named,
        verbs::a_submission_survives_a_broker_that_restarts,
        verbs::a_submission_survives_a_device_that_is_killed,
        verbs::a_submission_that_missed_its_images_gets_them_again,
        verbs::an_interrupted_submission_leaves_the_job,
        web::pictures_are_painted_in_the_web_apis_words,
        web::what_the_device_is_is_listed_and_settings_are_obeyed,
        web::a_job_is_followed_and_interrupted,
        web::two_clients_at_once_get_their_own_pictures,
        web::what_strangers_send_is_answered_and_hurts_nobody,
        web::elsewhere_a_token_is_needed,
        web::a_client_that_hangs_up_leaves_its_job,
        web::whether_the_device_is_there_is_in_the_log,
        web::a_client_that_waits_is_told_of_the_end,
        web::what_a_silent_device_did_not_take_in_time_is_not_painted_later,
        web::a_broker_or_device_that_is_gone_is_told_and_found_again,
    ];
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(missing)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
