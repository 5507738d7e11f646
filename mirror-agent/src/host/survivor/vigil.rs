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

/// Remembers since when each mirror's device waits.
#[derive(Debug, Default)]
pub struct Vigil {
    since: HashMap<String, Duration>,
}

impl Vigil {
    /// Looks at the device of `mirror`, which waits for a server or not, at `now` (from any fixed
    /// point on). With a `patience` of zero it may wait for ever.
    pub fn look(
        &mut self,
        mirror: &str,
        waits: bool,
        patience: Duration,
        now: Duration,
    ) -> Patience {
        if !waits {
            self.since.remove(mirror);
            return Patience::Fine;
        }
        let since = *self.since.entry(mirror.to_owned()).or_insert(now);
        let waited = now.saturating_sub(since);
        if patience.is_zero() || waited < patience {
            return Patience::Waits(waited);
        }
        self.since.remove(mirror);
        Patience::Over(waited)
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
    fn each_mirror_has_its_own_time_and_zero_is_for_ever() {
        let mut vigil = Vigil::default();
        assert_eq!(vigil.look("a", true, S(0), S(0)), Patience::Waits(S(0)));
        assert_eq!(vigil.look("b", true, S(5), S(3)), Patience::Waits(S(0)));
        assert_eq!(vigil.look("b", true, S(5), S(8)), Patience::Over(S(5)));
        assert_eq!(vigil.look("a", true, S(0), S(9999)), Patience::Waits(S(9999)));
    }
}
