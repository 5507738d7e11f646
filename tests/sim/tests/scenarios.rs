//! Every sequence that broke an earlier version of the rules holds with all rules in force, and is
//! noticed without those that close it (with `--features mutations`).

use mirror_sim::scenarios;

macro_rules! plays {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() {
            scenarios::find($name).expect("a scenario of this name").check();
        })*

        const PLAYED: &[&str] = &[$($name),*];
    };
}

plays! {
    missed_end_of_recovery: "missed-end-of-recovery";
    missed_end_of_recovery_fenced: "missed-end-of-recovery/fenced";
    flush_completes_alone: "flush-completes-alone";
    flush_completes_alone_deactivation: "flush-completes-alone/deactivation";
    flush_completes_alone_after_a_failover: "flush-completes-alone/after-a-failover";
    flush_completes_alone_after_a_restart: "flush-completes-alone/after-a-restart";
    flush_completes_alone_overtaken: "flush-completes-alone/overtaken";
    flush_completes_alone_before_the_adoption: "flush-completes-alone/before-the-adoption";
    stale_card: "stale-card";
    needless: "needless";
    needless_fenced: "needless/fenced";
    hot_mark_is_dirty: "hot-mark-is-dirty";
    hot_mark_is_dirty_flush_began_before_the_write_ended: "hot-mark-is-dirty/flush-began-before-the-write-ended";
    hot_mark_is_dirty_second_write_during_the_flush: "hot-mark-is-dirty/second-write-during-the-flush";
    hot_mark_is_dirty_failed_flush: "hot-mark-is-dirty/failed-flush";
    hot_mark_is_dirty_queued_clear: "hot-mark-is-dirty/queued-clear";
    hot_mark_is_dirty_clear_in_flight: "hot-mark-is-dirty/clear-in-flight";
    empty_side_wins: "empty-side-wins";
    empty_side_wins_half_copied: "empty-side-wins/half-copied";
    old_image: "old-image";
    old_image_rotten_copy: "old-image/rotten-copy";
    hours_old_standby: "hours-old-standby";
    equal_generations_crashed: "equal-generations/crashed";
    equal_generations_activated_and_only_read: "equal-generations/activated-and-only-read";
    equal_generations_read_as_absent: "equal-generations/read-as-absent";
    equal_generations_left_undecided: "equal-generations/left-undecided";
    equal_generations_both_active_in_turn: "equal-generations/both-active-in-turn";
    too_old_ancestor: "too-old-ancestor";
    ghost_io: "ghost-io";
    ghost_io_reissue: "ghost-io/reissue";
    ghost_io_time_out: "ghost-io/time-out";
    ghost_io_half_open: "ghost-io/half-open";
    error_then_break: "error-then-break";
    error_then_break_reboot: "error-then-break/reboot";
    error_then_break_bad_sector: "error-then-break/bad-sector";
    discard_differs: "discard-differs";
    buffer_changed_in_flight: "buffer-changed-in-flight";
    read_then_gone: "read-then-gone";
    read_then_gone_after_a_resume: "read-then-gone/after-a-resume";
    read_then_gone_settling_stopped: "read-then-gone/settling-stopped";
    credit_deadlock: "credit-deadlock";
    credit_deadlock_unreadable_source: "credit-deadlock/unreadable-source";
    credit_deadlock_hung_cluster_partition: "credit-deadlock/hung-cluster-partition";
    detach: "detach";
    detach_the_peer_knows: "detach/the-peer-knows";
    detach_new_agent: "detach/new-agent";
    detach_lost: "detach/lost";
    detach_no_record: "detach/no-record";
    detach_half_copied: "detach/half-copied";
    detach_peer_stops: "detach/peer-stops";
    restart_is_not_activation: "restart-is-not-activation";
    restart_is_not_activation_taken_over: "restart-is-not-activation/taken-over";
    restart_is_not_activation_other_boot: "restart-is-not-activation/other-boot";
    half_forced: "half-forced";
    half_forced_before_the_loser_knows: "half-forced/before-the-loser-knows";
    half_forced_one_server: "half-forced/one-server";
    ask_forgotten: "ask-forgotten";
    ask_forgotten_not_heard: "ask-forgotten/not-heard";
    grant_in_flight: "grant-in-flight";
    told_apart: "told-apart";
    told_apart_just_forced: "told-apart/just-forced";
    both_activate: "both-activate";
    second_line_flush_completes_alone: "second-line/flush-completes-alone";
    second_line_orphan_lands_late: "second-line/orphan-lands-late";
    second_line_force_over_an_image: "second-line/force-over-an-image";
}

#[test]
fn each_is_played() {
    let names: Vec<_> = scenarios::all().iter().map(|scenario| scenario.name).collect();
    assert_eq!(names, PLAYED, "the table and the tests name the same, in the same order");
}
