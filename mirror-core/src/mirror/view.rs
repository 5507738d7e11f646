//! Status: what this side knows of both (manual §11.10.2-3).

use super::Mirror;
use super::agree::are_apart;
use super::detach::Detach;
use super::link::Link;
use super::session::Role;
use crate::direction::{Outcome, Row};
use crate::marks::Marks;
use crate::record::Record;
use crate::status::{
    Color, LinkStatus, Marked, MirrorStatus, Phase, Range, RecoveryStatus, SideStatus,
};
use crate::units::{Extent, Now, REGION_BYTES, regions_in};
use crate::wire::Beat;

/// Share of `marked` regions in a mirror of `size` bytes, in percent, rounded up.
fn percent_up(marked: u32, size: u64) -> u8 {
    let regions = u64::from(regions_in(size));
    if regions == 0 {
        return 0;
    }
    let percent = (u64::from(marked) * 100).div_ceil(regions).min(100);
    u8::try_from(percent).unwrap_or(100)
}

fn time(seconds: i64) -> Option<i64> {
    (seconds != 0).then_some(seconds)
}

fn place(extent: Extent) -> Range {
    Range { offset: extent.offset, len: extent.len }
}

impl Mirror {
    pub(super) fn beat(&self) -> Beat {
        let copying = self.session().and_then(|s| s.copying.as_ref());
        let record = &self.meta.record;
        Beat {
            active: self.active,
            disk_error: self.device_failed,
            break_time: record.break_time,
            update_time: record.update_time,
            marked: self.owed_regions(),
            copied: copying.map_or(0, |c| c.copied),
            total: copying.map_or(0, |c| c.total),
            elapsed: copying.map_or(0, |c| self.now.mono.since(c.started)),
        }
    }

    /// Regions that this side would have to give to the other.
    fn owed_regions(&self) -> u32 {
        if self.meta.record.owes_all {
            return regions_in(self.meta.record.size);
        }
        match self.session() {
            Some(session) if session.role == Role::Equal => 0,
            Some(session) if session.dirty.is_some() => {
                session.dirty.as_ref().map_or(0, crate::bitmap::Bitmap::count)
            }
            _ => self.meta.marks.as_ref().map_or(0, Marks::wanted_count),
        }
    }

    pub(super) fn view(&self, now: Now) -> MirrorStatus {
        let (mine, theirs) = self.colors();
        let phase = self.phase(mine, theirs);
        let mut local = self.local_status(mine);
        let mut peer = self.peer_status(theirs);
        hide_stale(&mut local, peer.color);
        hide_stale(&mut peer, local.color);
        let total = local
            .difference_percent
            .unwrap_or(0)
            .saturating_add(peer.difference_percent.unwrap_or(0));
        let me = self.side.index();
        let sides = if me == 0 { [local, peer] } else { [peer, local] };
        let both_active = sides.iter().all(|s| s.active == Some(true));
        MirrorStatus {
            phase,
            sides,
            local: me,
            total_difference_percent: if phase == Phase::Normal { 0 } else { total.min(100) },
            recovery: self.recovery_status(now),
            link: self.link_status(),
            session: self.meta.record.session.0,
            verdict: self.last_verdict.map(|v| v.row.name().to_owned()),
            size: self.meta.record.size,
            block: self.meta.record.block,
            separated: self.is_separated(),
            both_active,
            needs_force: self.needs_force(),
            constructing: self.meta.record.is_constructing(),
        }
    }

    /// The marked places of this side, the first `limit` ranges by name.
    pub(super) fn marked_places(&self, limit: usize) -> Marked {
        let size = self.meta.record.size;
        let mut marked = Marked::default();
        let whole = Extent::new(0, size);
        if self.meta.record.owes_all {
            return Marked { bytes: size, ranges: vec![place(whole)], more: 0 };
        }
        let Some(marks) = &self.meta.marks else { return marked };
        let mut next = marks.next_wanted(0);
        while let Some(first) = next {
            let mut end = first + 1;
            while end < marks.regions() && marks.wanted().get(end) {
                end += 1;
            }
            let offset = u64::from(first) * REGION_BYTES;
            let len = (u64::from(end) * REGION_BYTES).min(size) - offset;
            marked.bytes += len;
            if marked.ranges.len() < limit {
                marked.ranges.push(place(Extent::new(offset, len)));
            } else {
                marked.more += 1;
            }
            next = marks.next_wanted(end);
        }
        marked
    }

    fn link_status(&self) -> LinkStatus {
        match self.link {
            Link::Down { .. } => LinkStatus::Down,
            Link::Agree(_) => LinkStatus::Negotiating,
            Link::Parked(_) => LinkStatus::Parked,
            Link::Session(_) => LinkStatus::Session,
        }
    }

    fn is_separated(&self) -> bool {
        let told = matches!(&self.link, Link::Parked(p) if are_apart(&p.mine, &p.theirs));
        self.apart || told
    }

    fn needs_force(&self) -> bool {
        matches!(&self.link, Link::Parked(parked) if parked.verdict.outcome == Outcome::Refuse)
    }

    /// A recovery is under way (or about to be) in this session.
    fn is_recovering(&self) -> bool {
        self.session().is_some_and(|s| {
            s.copying.as_ref().is_some_and(super::copying::Copying::is_running)
                || s.target.as_ref().is_some_and(|t| !t.is_stopped())
        })
    }

    fn phase(&self, mine: Color, theirs: Color) -> Phase {
        if self.is_recovering() {
            Phase::Recovering
        } else if self.meta.record.generation.is_none() {
            Phase::NoConstruction
        } else if mine == Color::Green && theirs == Color::Green {
            Phase::Normal
        } else {
            Phase::Abnormal
        }
    }

    fn colors(&self) -> (Color, Color) {
        if self.is_recovering() {
            return (Color::Yellow, Color::Yellow);
        }
        if self.device_failed && self.detach != Detach::No {
            return (Color::Red, Color::Green);
        }
        if self.device_failed {
            return (Color::Red, Color::Gray);
        }
        match &self.link {
            Link::Session(session) => match session.role {
                Role::Equal if session.serves_detached => (Color::Green, Color::Red),
                Role::Equal => (Color::Green, Color::Green),
                Role::Source => (Color::Green, Color::Red),
                Role::Target => (Color::Red, Color::Green),
            },
            Link::Parked(parked) => match (parked.verdict.outcome, parked.verdict.row) {
                (Outcome::Copy { source, .. }, _) if source == self.side => {
                    (Color::Green, Color::Red)
                }
                (Outcome::Copy { .. }, _) => (Color::Red, Color::Green),
                (Outcome::InSync, _) => (Color::Green, Color::Green),
                (Outcome::Refuse, Row::DiskFailed) => (self.color_without_contact(), Color::Red),
                (Outcome::Refuse, _) => (Color::Red, Color::Red),
            },
            Link::Down { .. } | Link::Agree(_) => {
                (self.color_without_contact(), self.peer_color_without_contact())
            }
        }
    }

    fn color_without_contact(&self) -> Color {
        let record = &self.meta.record;
        if record.generation.is_none() {
            Color::Gray
        } else if record.inconsistent.is_some() || record.behind {
            Color::Red
        } else if self.active || is_lone(record) || self.loss.is_some() {
            Color::Green
        } else if record.peer_active {
            Color::Red
        } else {
            Color::Green
        }
    }

    fn peer_color_without_contact(&self) -> Color {
        let record = &self.meta.record;
        let known_old = record.generation.is_some() && (is_lone(record) || record.peer_behind);
        if known_old { Color::Red } else { Color::Gray }
    }

    fn local_status(&self, color: Color) -> SideStatus {
        let record = &self.meta.record;
        let size = record.size;
        SideStatus {
            color,
            active: Some(self.active),
            last_update: time(record.update_time),
            break_time: time(record.break_time),
            disk_error: Some(self.device_failed),
            marked_regions: Some(self.owed_regions()),
            difference_percent: Some(percent_up(self.owed_regions(), size)),
            generation: record.generation.map(|g| g.to_string()),
        }
    }

    fn peer_status(&self, color: Color) -> SideStatus {
        let (beat, record) = match &self.link {
            Link::Session(session) => (session.beat, &session.theirs.record),
            Link::Parked(parked) => (parked.beat, &parked.theirs.record),
            Link::Down { .. } | Link::Agree(_) => return unknown_side(color),
        };
        let active = match &self.link {
            Link::Session(session) => session.peer_active,
            _ => beat.active,
        };
        SideStatus {
            color,
            active: Some(active),
            last_update: time(beat.update_time).or_else(|| time(record.update_time)),
            break_time: time(beat.break_time).or_else(|| time(record.break_time)),
            disk_error: Some(beat.disk_error || record.disk_error),
            marked_regions: Some(beat.marked),
            difference_percent: Some(percent_up(beat.marked, record.size)),
            generation: record.generation.map(|g| g.to_string()),
        }
    }

    fn recovery_status(&self, now: Now) -> Option<RecoveryStatus> {
        let session = self.session()?;
        let (me, other) = (self.side.index(), self.side.other().index());
        if let Some(copying) = session.copying.as_ref().filter(|c| c.is_running()) {
            let elapsed = now.mono.since(copying.started);
            let progress = (copying.copied, copying.total, elapsed);
            return Some(recovery(me, other, copying.kind(), progress));
        }
        let target = session.target.as_ref().filter(|t| !t.is_stopped())?;
        let progress = (session.beat.copied, session.beat.total, session.beat.elapsed);
        Some(recovery(other, me, target.kind(), progress))
    }
}

/// The record says that the peer is out of date.
fn is_lone(record: &Record) -> bool {
    record.owes_all || !record.bases.contains(&record.generation)
}

/// The manual shows neither times nor a difference for a side that is merely old.
fn hide_stale(side: &mut SideStatus, other: Color) {
    if side.color == Color::Red && other == Color::Green {
        side.last_update = None;
        side.break_time = None;
        side.difference_percent = None;
    }
}

fn unknown_side(color: Color) -> SideStatus {
    SideStatus {
        color,
        active: None,
        last_update: None,
        break_time: None,
        disk_error: None,
        marked_regions: None,
        difference_percent: None,
        generation: None,
    }
}

fn recovery(
    source: usize,
    target: usize,
    kind: crate::status::CopyKind,
    (copied, total, elapsed_ms): (u64, u64, u64),
) -> RecoveryStatus {
    let percent = copied.saturating_mul(100).checked_div(total).unwrap_or(0).min(100);
    let left = total.saturating_sub(copied);
    let remain_ms = (copied > 0).then(|| {
        u64::try_from(u128::from(left) * u128::from(elapsed_ms) / u128::from(copied.max(1)))
            .unwrap_or(u64::MAX)
    });
    RecoveryStatus {
        source,
        target,
        kind,
        percent: u8::try_from(percent).unwrap_or(100),
        used_seconds: elapsed_ms / 1000,
        remain_seconds: remain_ms.map(|ms| ms.div_ceil(1000)),
        copied_bytes: copied,
        total_bytes: total,
    }
}
