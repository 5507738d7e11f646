//! What fate does beyond single rates: strikes at the moments that decide, cuts of one direction or of
//! one network, clocks that jump, and operators who say what is out of place.

use crate::operator::Pending;
use crate::world::{Happening, World};
use mirror_core::command::Command;
use mirror_core::io::Event;

/// What strikes at a moment that decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strike {
    /// A server loses power.
    Power(usize),
    /// An agent is killed.
    Kill(usize),
    /// Connections are reset.
    Reset,
    /// The network is cut.
    Cut,
}

impl World {
    /// A message or record that decides something is on its way: something may strike right then.
    pub(crate) fn moment(&mut self) {
        if !self.faults || !self.rng.chance(self.options.moment) {
            return;
        }
        let node = usize::from(self.rng.chance(500));
        let options = self.options;
        let kinds = [
            (options.power, Strike::Power(node)),
            (options.kill, Strike::Kill(node)),
            (options.reset, Strike::Reset),
            (options.cut, Strike::Cut),
        ];
        let possible: Vec<Strike> =
            kinds.into_iter().filter(|(rate, _)| *rate > 0).map(|(_, strike)| strike).collect();
        let pick = usize::try_from(self.rng.below(possible.len() as u64)).unwrap_or(0);
        if let Some(strike) = possible.get(pick) {
            let after = self.rng.below(600);
            self.schedule(after, Happening::Strike(*strike));
        }
    }

    pub(crate) fn strike(&mut self, strike: Strike) {
        if !self.faults {
            return;
        }
        match strike {
            Strike::Power(node) => self.kill(node, true),
            Strike::Kill(node) => self.kill(node, false),
            Strike::Reset => self.reset_connections(),
            Strike::Cut => self.cut(),
        }
    }

    /// The network is cut: both directions or one, the mirror's or the agents' or both.
    pub(crate) fn cut(&mut self) {
        let one_way = self.rng.chance(self.options.oneway);
        let node = usize::from(self.rng.chance(500));
        let paths = self.rng.chance(self.options.paths);
        let agents_only = paths && self.rng.chance(300);
        self.net.agents_cut = !paths || agents_only;
        self.net.cut = [!agents_only; 2];
        if one_way {
            self.net.cut[node] = false;
        }
        let (cut, agents) = (self.net.cut, self.net.agents_cut);
        self.log(|| format!("the network is cut: {cut:?}, the agents' own: {agents}"));
    }

    /// The clock of a server is set forward by seconds or hours, as after a suspension; that of the
    /// wall goes anywhere.
    pub(crate) fn clock_jumps(&mut self, node: usize) {
        let most = if self.rng.chance(300) { 20_000_000 } else { 20_000 };
        let ahead = self.rng.below(most);
        let wall = i64::try_from(self.rng.below(200_000)).unwrap_or(0) - 100_000;
        self.log(|| format!("server{}: the clock jumps by {ahead} ms", node + 1));
        self.nodes[node].ahead_ms += ahead;
        self.nodes[node].wall_off = wall;
        self.nodes[node].timer = u64::MAX;
        let incarnation = self.nodes[node].incarnation;
        self.tell(node, incarnation, Event::Timer);
    }

    /// The operator says anything at any time, but vouches for nothing.
    pub(crate) fn say_anything(&mut self, node: usize) {
        let peer_seen_active = self.seen_active(node);
        let any = self.rng.below(if self.options.force > 0 { 6 } else { 5 });
        // An operator does not activate or force what came from an image.
        let (command, pending) = match any {
            0 | 5 if self.nodes[node].restored => return,
            0 => (Command::Activate { peer_down: false, peer_seen_active }, Pending::Operator),
            1 => (Command::Deactivate, Pending::Operator),
            2 => (Command::Recover, Pending::Operator),
            3 => (Command::CancelRecovery, Pending::Operator),
            4 if self.options.stop > 0 => (Command::Shutdown, Pending::Stop),
            4 => (Command::Recover, Pending::Operator),
            _ if self.rng.chance(300) => (Command::Force { peer_seen_active }, Pending::Force),
            _ => return,
        };
        self.command_if_up(node, command, pending);
    }
}
