//! The contract of the store port, run over every implementation of it: one `contract!` line each.
//!
//! What only one implementation promises is tested in the module of its name.

#![expect(clippy::panic, reason = "a test of a store fails by panicking, in its helpers too")]

mod crash;
mod embedded;
mod kit;
mod model;
mod redis;
mod suite;

/// Runs the whole suite over one implementation.
macro_rules! contract {
    ($module:ident, $subject:ty) => {
        contract!(@list contract, $module, $subject);
    };
    (at_once $module:ident, $subject:ty) => {
        contract!(@list contract_at_once, $module, $subject);
    };
    (@list $run:ident, $module:ident, $subject:ty) => {
        $run!($module, $subject: a_value_has_the_version_of_its_commit, a_commit_is_whole_or_nothing, expects_are_judged,
            fences_are_judged, a_right_is_never_given_back, a_repeated_call_is_answered_as_before, a_refused_call_is_not_remembered,
            the_order_of_judgement_is_fixed, ranges_come_in_pages, due_entries_are_set_moved_and_cleared, events_keep_their_order,
            events_keep_their_data, a_log_wakes_who_waits, an_earlier_due_entry_wakes_who_waits, writers_race_for_one_counter,
            projects_do_not_see_each_other, the_host_has_a_space_of_its_own, hostile_commits_change_nothing, everything_survives_reopening,
            what_is_due_survives_reopening);
    };
    ($module:ident, $subject:ty: $($test:ident),+) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::suite::$test::<$subject>().await;
            })+

            #[test]
            fn it_behaves_as_the_model() {
                crate::model::compare::<$subject>();
            }
        }
    };
}

/// Runs the whole suite in one test, over servers that are dear to start.
macro_rules! contract_at_once {
    ($module:ident, $subject:ty: $($test:ident),+) => {
        mod $module {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn all_of_it() {
                $(println!("{}", stringify!($test));
                crate::suite::$test::<$subject>().await;)+
            }
        }
    };
}

contract!(embedded_contract, crate::embedded::Embedded);
contract!(redis_contract, crate::redis::Single);
contract!(at_once sentinel_contract, crate::redis::Sentinel);
contract!(at_once cluster_contract, crate::redis::Clustered);
