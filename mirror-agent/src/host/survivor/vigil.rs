//! How long a device may be without a server. No I/O and no clock here.

use std::collections::HashMap;
use std::time::Duration;

/// What becomes of a device at one look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// It is served, or there is none.
    Fine,
    /// It waits for a server, for so long already.
    Waits(Duration),
    /// It has waited long enough: stop it.
    Over(Duration),
}

/// Before what could not be stopped is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Remembers since when each device waits.
#[derive(Debug, Default)]
pub struct Vigil {
    waiting: HashMap<String, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Duration,
    /// When it was given up last.
    over: Option<Duration>,
    /// There was a look at it in this round.
    seen: bool,
}

impl Vigil {
    /// Looks at a device, which waits for a server or not, at `now` (from any fixed point on). With a
    /// `patience` of zero it may wait for ever. One that still waits after it was given up is given
    /// up again.
    pub fn look(
        &mut self,
        device: &str,
        waits: bool,
        patience: Duration,
        now: Duration,
    ) -> Patience {
        if !waits {
            self.waiting.remove(device);
            return Patience::Fine;
        }
        let new = || Waiting { since: now, over: None, seen: true };
        let waiting = self.waiting.entry(device.to_owned()).or_insert_with(new);
        waiting.seen = true;
        let waited = now.saturating_sub(waiting.since);
        let is_over = !patience.is_zero() && waited >= patience;
        if !is_over || waiting.over.is_some_and(|last| now < last + AGAIN) {
            return Patience::Waits(waited);
        }
        waiting.over = Some(now);
        Patience::Over(waited)
    }

    /// Nothing can be told of a device in this round: what is known of it stays.
    pub fn unknown(&mut self, device: &str) {
        if let Some(waiting) = self.waiting.get_mut(device) {
            waiting.seen = true;
        }
    }

    /// Ends a round of looks: what was not looked at is gone. Another device may get its name, and
    /// has not waited yet.
    pub fn end_round(&mut self) {
        self.waiting.retain(|_, waiting| std::mem::take(&mut waiting.seen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_device_without_a_server_is_given_up_after_its_time() {
        let mut vigil = Vigil::default();
        let mut at = |waits, now| vigil.look("md1", waits, S(60), S(now));
        assert_eq!(at(false, 0), Patience::Fine);
        assert_eq!(at(true, 100), Patience::Waits(S(0)));
        assert_eq!(at(true, 159), Patience::Waits(S(59)));
        // A new agent: the next death begins anew.
        assert_eq!(at(false, 159), Patience::Fine);
        assert_eq!(at(true, 161), Patience::Waits(S(0)));
        assert_eq!(at(true, 221), Patience::Over(S(60)));
        assert_eq!(at(false, 222), Patience::Fine);
    }

    #[test]
    fn what_could_not_be_stopped_is_tried_again_soon() {
        let mut vigil = Vigil::default();
        let mut at = |now| vigil.look("md1", true, S(3600), S(now));
        assert_eq!(at(0), Patience::Waits(S(0)));
        assert_eq!(at(3600), Patience::Over(S(3600)));
        assert_eq!(at(3601), Patience::Waits(S(3601)));
        assert_eq!(at(3610), Patience::Over(S(3610)));
    }

    #[test]
    fn a_device_that_is_gone_leaves_nothing_to_the_next_of_its_name() {
        let mut vigil = Vigil::default();
        vigil.look("nbd0", true, S(60), S(0));
        vigil.end_round();
        vigil.unknown("nbd0");
        vigil.end_round();
        assert_eq!(vigil.look("nbd0", true, S(60), S(50)), Patience::Waits(S(50)));
        vigil.end_round();
        // Not there any more.
        vigil.end_round();
        assert_eq!(vigil.look("nbd0", true, S(60), S(100)), Patience::Waits(S(0)));
    }

    #[test]
    fn each_mirror_has_its_own_time_and_zero_is_for_ever() {
        let mut vigil = Vigil::default();
        assert_eq!(vigil.look("a", true, S(0), S(0)), Patience::Waits(S(0)));
        assert_eq!(vigil.look("b", true, S(5), S(3)), Patience::Waits(S(0)));
        assert_eq!(vigil.look("b", true, S(5), S(8)), Patience::Over(S(5)));
        assert_eq!(vigil.look("a", true, S(0), S(9999)), Patience::Waits(S(9999)));
    }
}
