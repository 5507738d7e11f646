//! What must hold for every pair of cards, said again without looking at how `judge` does it.

use mirror_core::direction::{Mode, Outcome, Row, Verdict, judge};
use mirror_core::record::{Card, Record};
use mirror_core::units::Side;

/// Session numbers that one history can have left: equal (at most one of them an offer), or one
/// side has offered the next.
fn numbers_fit(a: &Record, b: &Record) -> bool {
    let (a_no, b_no) = (a.session.0, b.session.0);
    (a_no == b_no && (a.session_open || b.session_open))
        || (a_no == b_no + 1 && !a.session_open)
        || (b_no == a_no + 1 && !b.session_open)
}

fn knows(x: &Record, y: &Record) -> bool {
    let had = |g| x.ancestors.contains(g) || x.bases.contains(&Some(g));
    let named = y.generation.is_some_and(had) || voids(x, y);
    let turned = y.inconsistent.is_some_and(|i| had(i.toward) || x.generation == Some(i.toward));
    named || turned
}

/// The force on `x` named the generation of `y`, which was not activated since.
fn voids(x: &Record, y: &Record) -> bool {
    let since = x.forced_at.is_some_and(|f| y.activation >= f);
    y.generation.is_some_and(|g| x.overruled.contains(g)) && !since
}

fn overrules(x: &Card, y: &Card) -> bool {
    let earlier = x.record.forced_at.is_some_and(|f| y.record.activation < f);
    earlier && !y.active && y.record.forced_at.is_none() && !knows(&y.record, &x.record)
}

fn has_part(card: &Card) -> bool {
    card.record.inconsistent.is_some() || card.record.behind
}

/// Panics if the verdict on the pair breaks a rule; returns it.
pub(crate) fn check(a: &Card, b: &Card) -> Verdict {
    let verdict = judge(a, b);
    assert_eq!(verdict, judge(b, a), "not symmetric: {a:?} {b:?}");
    let breach = breach(a, b, verdict);
    assert!(breach.is_none(), "{}: {verdict:?}\n{a:#?}\n{b:#?}", breach.unwrap_or_default());
    verdict
}

fn breach(a: &Card, b: &Card, verdict: Verdict) -> Option<&'static str> {
    let (ra, rb) = (&a.record, &b.record);
    if verdict.outcome != Outcome::Refuse {
        if ra.side == rb.side || ra.disk_error || rb.disk_error || (a.active && b.active) {
            return Some("a session that must not open");
        }
        if ra.generation.is_some() && rb.generation.is_some() && ra.mirror != rb.mirror {
            return Some("two mirrors in one session");
        }
    }
    let by_side = |side| if ra.side == side { (a, b) } else { (b, a) };
    match verdict.outcome {
        Outcome::Copy { source, mode } => {
            let (source, target) = by_side(source);
            copy_breach(source, target, mode)
        }
        Outcome::InSync => in_sync_breach(a, b),
        Outcome::Refuse => None,
    }
    .or_else(|| row_breach(a, b, verdict))
}

fn copy_breach(source: &Card, target: &Card, mode: Mode) -> Option<&'static str> {
    let (rs, rt) = (&source.record, &target.record);
    if target.active {
        return Some("an active side as target");
    }
    if rs.inconsistent.is_some() {
        return Some("a half-copied source");
    }
    if mode == Mode::Initial {
        let both = rs.generation.is_none() && rt.generation.is_none();
        return (!both).then_some("an initial construction over a history");
    }
    let Some(generation) = rs.generation else { return Some("a source without history") };
    if rs.behind {
        return Some("a source that is behind");
    }
    let by_force = voids(rs, rt) || overrules(source, target);
    let lost = rt.generation.is_some() && !numbers_fit(rs, rt) && rs.session <= rt.session;
    if lost && !(by_force && mode == Mode::Full) {
        return Some("a restored source");
    }
    let held = rt.inconsistent.map(|i| i.toward).or(rt.generation);
    let reaches = held.is_some() && (rs.bases.contains(&held) || held == Some(generation));
    let counts = reaches && !rs.owes_all && numbers_fit(rs, rt);
    match mode {
        Mode::Full | Mode::Initial => None,
        Mode::Difference => (!counts).then_some("a difference that the marks do not hold"),
        Mode::Settle { .. } if rt.generation != rs.generation || !counts => {
            Some("settling what is not equal")
        }
        Mode::Settle { complete } => {
            let whole = target.uninterrupted && rt.inconsistent.is_none();
            let whole = whole && rs.size == rt.size;
            (complete && !whole).then_some("complete, but interrupted")
        }
    }
}

fn in_sync_breach(a: &Card, b: &Card) -> Option<&'static str> {
    let (ra, rb) = (&a.record, &b.record);
    let equal = ra.generation.is_some() && ra.generation == rb.generation;
    let clean = a.marked + b.marked == 0 && ra.inconsistent.is_none() && rb.inconsistent.is_none();
    let owed = ra.owes_all || rb.owes_all || (ra.behind && rb.behind);
    let grows = ra.size != rb.size;
    (!equal || !clean || grows || owed || !numbers_fit(ra, rb)).then_some("in sync, but it is not")
}

/// Which row it must be, where one sentence says so.
fn row_breach(a: &Card, b: &Card, verdict: Verdict) -> Option<&'static str> {
    let (ra, rb) = (&a.record, &b.record);
    let early = matches!(
        verdict.row,
        Row::SameSide | Row::ForeignMirror | Row::DiskFailed | Row::SizeMismatch
    );
    if early || ra.generation.is_none() || rb.generation.is_none() {
        return None;
    }
    if ra.generation != rb.generation {
        let a_over_b = knows(ra, rb) || overrules(a, b);
        let b_over_a = knows(rb, ra) || overrules(b, a);
        let split = a_over_b == b_over_a;
        if split != (verdict.row == Row::SplitBrain) {
            return Some("split brain is what has no order, and nothing else");
        }
        let newer: Side = if a_over_b { ra.side } else { rb.side };
        let wrong_way = verdict.source().is_some_and(|source| source != newer);
        return wrong_way.then_some("the older over the newer");
    }
    let usual = !has_part(a) && !has_part(b) && !ra.owes_all && !rb.owes_all;
    let usual = usual && numbers_fit(ra, rb) && !(a.active && b.active);
    let grows = ra.size != rb.size;
    if usual && !grows && a.marked + b.marked == 0 && verdict.outcome != Outcome::InSync {
        return Some("equal and without marks, but not in sync");
    }
    if usual && verdict.outcome == Outcome::Refuse {
        return Some("a needless refusal between equal sides");
    }
    None
}
