//! Power to find: with a rule of the core dropped, some seed of a bounded number fails. (Needs
//! `--features mutations`; best with `--release`.)

use mirror_core::rules::{Rule, drop_rules};
use mirror_sim::converge::run_seed;
use mirror_sim::options::Options;
use mirror_sim::scenarios;

/// No faults but a few, at high rates.
fn quiet() -> Options {
    Options { switch: 400, ..Options::none() }
}

/// Agents and their devices die together.
fn before(options: Options) -> Options {
    Options { survive: 0, suspend: 0, unanswered: 0, claim: 0, ..options }
}

fn everything() -> Options {
    before(Options::everything())
}

fn crashes() -> Options {
    before(Options { force: 0, ..Options::all() })
}

/// Copies that take long, between crashes.
fn slow_copies() -> Options {
    Options { kill: 100, power: 150, reset: 300, slow: 100, switch: 500, ..Options::none() }
}

/// Caches are lost all the time, and the operator knows who is off.
fn lost_caches() -> Options {
    Options { power: 250, cut: 200, vouch: 100, switch: 500, ..Options::none() }
}

fn survivors() -> Options {
    let base =
        Options { survive: 250, switch: 500, cut: 100, reset: 60, unanswered: 100, ..quiet() };
    Options { suspend: 60, power: 40, vouch: 60, ..base }
}

fn false_claims() -> Options {
    Options { kill: 100, power: 150, stop: 60, claim: 500, recovery: 60, cut: 60, ..quiet() }
}

/// Forces that are lost with the server that they were given to.
fn lost_forces() -> Options {
    Options {
        force: 300,
        power: 150,
        reset: 100,
        cut: 150,
        slow: 50,
        switch: 500,
        ..Options::none()
    }
}

/// Records and bitmaps rot, and power goes while they are being written.
fn rot() -> Options {
    Options { rot: 1000, power: 150, kill: 100, reset: 100, moment: 300, ..quiet() }
}

fn bad_sectors() -> Options {
    Options { kill: 100, reset: 100, cut: 100, read_error: 20_000, ..quiet() }
}

/// A disk that fails is used again.
fn failing_disks() -> Options {
    Options { kill: 150, reset: 100, power: 50, data_error: 1000, ..quiet() }
}

fn growing() -> Options {
    Options { grow: 200, kill: 60, power: 60, reset: 100, cut: 60, ..quiet() }
}

fn fenced() -> Options {
    Options { fenced: 1000, cut: 150, kill: 60, reset: 100, ..quiet() }
}

/// The first seed that fails without `rule`; with it, that seed holds.
fn finds(rule: Rule, options: Options, seeds: u64) {
    drop_rules(&[rule]);
    let found = (1..=seeds).find_map(|seed| Some((seed, run_seed(seed, options).err()?.0)));
    drop_rules(&[]);
    let Some((seed, text)) = found else { panic!("nothing notices that {rule:?} is dropped") };
    println!("{}: seed {seed}: {text}", rule.name());
    if let Err((text, _)) = run_seed(seed, options) {
        panic!("seed {seed} fails with every rule in force, too: {text}");
    }
}

/// Rules that cover for each other: the scenario holds as long as one of them is in force. (That it
/// fails without all of them is shown with the other scenarios.)
#[test]
fn a_second_line_holds_alone() {
    let second = scenarios::all().into_iter().filter(|s| s.name.starts_with("second-line/"));
    for scenario in second {
        let lines = scenario
            .closed
            .iter()
            .flat_map(|closed| closed.by.iter().map(|last| (closed.by, last)));
        for (all, last) in lines {
            let dropped: Vec<Rule> = all.iter().copied().filter(|r| r != last).collect();
            drop_rules(&dropped);
            let played = scenario.play(false).result;
            drop_rules(&[]);
            assert_eq!(played, Ok(()), "{} with {last:?} only", scenario.name);
        }
    }
}

/// Rules that no bounded number of seeds finds: a scenario does.
const BY_SCENARIO: &[Rule] = &[
    Rule::SettleActivation,
    Rule::ReadsWait,
    Rule::ResumeReads,
    Rule::BlankUnsure,
    Rule::SessionFrames,
    Rule::Drain,
    Rule::ReachBack,
    Rule::ForceOwes,
];

macro_rules! finds {
    ($($name:ident: $rule:ident in $options:expr, $seeds:literal;)*) => {
        $(#[test]
        fn $name() {
            finds(Rule::$rule, $options, $seeds);
        })*

        const BY_SEED: &[Rule] = &[$(Rule::$rule,)*];
    };
}

finds! {
    intent_first: IntentFirst in crashes(), 20;
    clear_late: ClearLate in Options::everything(), 200;
    dirty_at_start: DirtyAtStart in Options::everything(), 300;
    break_record: BreakRecord in crashes(), 30;
    flush_alone: FlushAlone in lost_caches(), 1000;
    inconsistent_first: InconsistentFirst in everything(), 20;
    flush_copied: FlushCopied in everything(), 20;
    card_freezes: CardFreezes in crashes(), 700;
    flush_both: FlushBoth in crashes(), 20;
    fua_both: FuaBoth in everything(), 1000;
    overlap: Overlap in crashes(), 20;
    settle_active: SettleActive in crashes(), 1500;
    settle_uninterrupted: SettleUninterrupted in crashes(), 200;
    abnormal_source: AbnormalSource in everything(), 900;
    abnormal_active: AbnormalActive in everything(), 300;
    stop_behind: StopBehind in everything(), 100;
    grant: Grant in crashes(), 20;
    was_active: WasActive in crashes(), 20;
    split_brain: SplitBrain in crashes(), 20;
    both_active: BothActive in crashes(), 80;
    conn_frames: ConnFrames in everything(), 20;
    damaged_dirty: DamagedDirty in everything(), 60;
    force_flushes: ForceFlushes in lost_forces(), 700;
    settle_incomplete: SettleIncomplete in slow_copies(), 1500;
    resume_active: ResumeActive in false_claims(), 40;
    resume_boot: ResumeBoot in false_claims(), 300;
    resume_yields: ResumeYields in survivors(), 20;
    resume_unflushed: ResumeUnflushed in survivors(), 60;
    told_may_hold: ToldMayHold in Options::everything(), 20;
    note_newer: NoteNewer in Options::everything(), 2000;
    activation_first: ActivationFirst in Options::everything(), 20;
    restored: Restored in Options::everything(), 40;
    peer_was_active: PeerWasActive in crashes(), 150;
    two_copies: TwoCopies in rot(), 4000;
    repair_first: RepairFirst in rot(), 250;
    error_kept: ErrorKept in failing_disks(), 80;
    clean_peer_read: CleanPeerRead in bad_sectors(), 100;
    is_fenced: Fenced in fenced(), 20;
    grown_dirty: GrownDirty in growing(), 20;
    grown_incomplete: GrownIncomplete in growing(), 20;
    grown_both: GrownBoth in growing(), 2000;
}

/// No rule is left out: each is noticed by seeds or by a scenario.
#[test]
fn every_rule_is_noticed() {
    let scenarios = scenarios::all();
    let closing: Vec<Rule> =
        scenarios.iter().flat_map(|s| s.closed).flat_map(|closed| closed.by).copied().collect();
    for rule in BY_SCENARIO {
        assert!(closing.contains(rule), "no scenario is closed by {rule:?}");
    }
    for rule in Rule::ALL {
        let noticed = BY_SEED.contains(rule) || closing.contains(rule);
        assert!(noticed, "nothing shows that {rule:?} is needed");
    }
}
