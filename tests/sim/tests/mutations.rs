//! Power to find: with a rule of the core dropped, some seed of a bounded number fails. (Needs
//! `--features mutations`; best with `--release`.)

use mirror_core::rules::{Rule, drop_rule};
use mirror_sim::converge::run_seed;
use mirror_sim::options::Options;

/// No faults but a few, at high rates.
fn quiet() -> Options {
    let mut options = Options::everything();
    for (name, rate) in options.kinds() {
        if name != "steps" {
            *rate = 0;
        }
    }
    Options { switch: 400, ..options }
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

fn hard_crashes() -> Options {
    Options { kill: 100, power: 150, reset: 150, cut: 100, recovery: 60, ..quiet() }
}

fn forces() -> Options {
    Options { kill: 100, force: 150, reset: 100, cut: 150, power: 30, ..quiet() }
}

fn bad_disks() -> Options {
    let base = Options { kill: 100, power: 100, reset: 100, stop: 100, ..quiet() };
    Options { data_error: 800, hang: 300, ..base }
}

fn survivors() -> Options {
    let base =
        Options { survive: 250, switch: 500, cut: 100, reset: 60, unanswered: 100, ..quiet() };
    Options { suspend: 60, power: 40, vouch: 60, ..base }
}

fn false_claims() -> Options {
    Options { kill: 100, power: 150, stop: 60, claim: 500, recovery: 60, cut: 60, ..quiet() }
}

/// The first seed that fails without `rule`; with it, that seed holds.
fn finds(rule: Rule, options: Options, seeds: u64) {
    drop_rule(Some(rule));
    let found = (1..=seeds).find_map(|seed| Some((seed, run_seed(seed, options).err()?.0)));
    drop_rule(None);
    let Some((seed, text)) = found else { panic!("nothing notices that {rule:?} is dropped") };
    println!("{}: seed {seed}: {text}", rule.name());
    if let Err((text, _)) = run_seed(seed, options) {
        panic!("seed {seed} fails with every rule in force, too: {text}");
    }
}

macro_rules! finds {
    ($($name:ident: $rule:ident in $options:expr, $seeds:literal;)*) => {
        $(#[test]
        fn $name() {
            finds(Rule::$rule, $options, $seeds);
        })*
    };
}

finds! {
    intent_first: IntentFirst in crashes(), 20;
    clear_late: ClearLate in everything(), 60;
    dirty_at_start: DirtyAtStart in everything(), 200;
    break_record: BreakRecord in crashes(), 40;
    flush_alone: FlushAlone in everything(), 900;
    inconsistent_first: InconsistentFirst in hard_crashes(), 2000;
    flush_copied: FlushCopied in everything(), 40;
    card_freezes: CardFreezes in crashes(), 3000;
    flush_both: FlushBoth in crashes(), 20;
    fua_both: FuaBoth in everything(), 150;
    overlap: Overlap in crashes(), 20;
    settle_active: SettleActive in crashes(), 200;
    settle_uninterrupted: SettleUninterrupted in crashes(), 150;
    abnormal_source: AbnormalSource in everything(), 900;
    abnormal_active: AbnormalActive in everything(), 500;
    stop_behind: StopBehind in everything(), 2000;
    grant: Grant in crashes(), 20;
    was_active: WasActive in crashes(), 2500;
    split_brain: SplitBrain in crashes(), 60;
    both_active: BothActive in crashes(), 200;
    conn_frames: ConnFrames in everything(), 40;
    damaged_dirty: DamagedDirty in everything(), 60;
    force_flushes: ForceFlushes in forces(), 700;
    may_hold: MayHold in forces(), 700;
    settle_incomplete: SettleIncomplete in bad_disks(), 700;
    resume_active: ResumeActive in false_claims(), 60;
    resume_boot: ResumeBoot in false_claims(), 200;
    resume_yields: ResumeYields in survivors(), 40;
    resume_unflushed: ResumeUnflushed in survivors(), 300;
}
