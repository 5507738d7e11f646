//! What bad hardware and those who repair it do: disks replaced, partitions zeroed, images restored,
//! bytes that rot. Only one server of a run is struck by what cannot be undone.

use crate::world::World;
use mirror_core::record::Record;

/// The numbers of the sessions show that one of the two was restored: they differ by more than an
/// offer that nobody took up. (In words of its own, so that it does not share a fault of the core.)
fn is_told_by_its_sessions(a: &Record, b: &Record) -> bool {
    let opened = |r: &Record| if r.session_open { r.session.0 } else { r.session.0 - 1 };
    let offered_both = !a.session_open && !b.session_open && a.session == b.session;
    let apart = opened(a).abs_diff(opened(b));
    // One that has opened n, and the other was offered n by it.
    let within =
        |n: &Record, m: &Record| n.session_open && !m.session_open && n.session == m.session;
    let agree = apart == 0 || (apart == 1 && (within(a, b) || within(b, a)));
    offered_both || !agree
}

impl World {
    /// A second connection comes up while the first may still be open at both ends.
    pub(crate) fn second_connection(&mut self) {
        if self.net.cut == [false; 2] && self.nodes.iter().all(|n| n.mirror.is_some()) {
            self.log(|| "another connection comes up".to_owned());
            self.connect();
        }
    }

    pub(crate) fn hardware(&mut self) {
        let weak = self.weak;
        if self.has_failed(weak) && self.rng.chance(150) {
            self.kill(weak, false);
        }
        let node = &self.nodes[weak];
        if node.mirror.is_some() || node.landing > 0 || node.device {
            return;
        }
        if self.rng.chance(self.options.image * 10) {
            self.restore_image(weak);
        }
        if self.rng.chance(self.options.blank * 10) {
            self.replace(weak);
        }
    }

    /// The mirror on `node` has given its disk up.
    pub(crate) fn has_failed(&self, node: usize) -> bool {
        let now = self.now();
        self.nodes[node].mirror.as_ref().is_some_and(|m| {
            let status = m.status(now);
            status.sides[status.local].disk_error == Some(true)
        })
    }

    /// What happens to the partitions of `node` before its agent starts.
    pub(crate) fn before_start(&mut self, node: usize) {
        if self.record_of(node).is_some_and(|r| r.disk_error) {
            self.replace(node);
        }
        if self.faults && self.rng.chance(self.options.rot) {
            let (nodes, rng) = (&mut self.nodes, &mut self.rng);
            if let Some(what) = nodes[node].rot(rng) {
                self.log(|| format!("server{}: a byte of {what} rots", node + 1));
            }
        }
    }

    fn record_of(&self, node: usize) -> Option<Record> {
        self.nodes[node].durable_record().ok().flatten()
    }

    /// The disks of `node`, whose agent does not run, are replaced by new ones, or its cluster
    /// partition is zeroed. What only they had is gone, which must not be more than what this
    /// side had completed alone or was still copying to the other.
    fn replace(&mut self, node: usize) {
        let Some(record) = self.record_of(node) else { return };
        let keep_data = self.rng.chance(500);
        self.log(|| {
            let what = if keep_data { "cluster partition is" } else { "disks are" };
            format!("server{}: the {what} new", node + 1)
        });
        self.give_up(node, &record);
        self.nodes[node].replace_disks(keep_data);
        self.image = None;
        // It may have been the only one that had recorded a larger size.
        let blocks = self.mirrored_blocks().unwrap_or(0);
        self.oracle.forget_from(blocks);
    }

    /// What is on the disks of `node` counts no more.
    fn give_up(&mut self, node: usize, record: &Record) {
        let other = 1 - node;
        self.promises.gave_up(node);
        self.oracle.interrupted(node, true);
        let lone = std::mem::replace(&mut self.oracle.lone[node], false);
        let was_alone = record.owes_all || !record.bases.contains(&record.generation);
        let half = self.record_of(other).is_none_or(|r| r.inconsistent.is_some() || r.behind);
        let lacks = self.lacks(other);
        if lone || was_alone || half {
            // What it had flushed alone counts no more, even if the other has it in its cache.
            let lacks_when_off = self.lacks_in(self.nodes[other].data.durable());
            // The word that outlawed the other went with it.
            if lacks.or(lacks_when_off).is_some() || self.oracle.outlawed[other] {
                let content = self.possible_content(other);
                self.oracle.declare(other, content);
                self.oracle.outlawed[other] = false;
            }
        } else if let Some(lacks) = lacks {
            self.fail(format!("server{} was whole, they said, and {lacks}", other + 1));
        }
    }

    /// Takes an image of both partitions of `node`, or restores one that is old enough to be
    /// told from the present.
    fn restore_image(&mut self, node: usize) {
        let Some((data, cluster)) = self.image.clone() else {
            // A server that is off can be copied consistently.
            let node = &self.nodes[node];
            self.image = Some((node.data.clone(), node.cluster.clone()));
            return;
        };
        let (Some(present), Some(theirs)) = (self.record_of(node), self.record_of(1 - node)) else {
            return;
        };
        let now = (self.nodes[node].data.clone(), self.nodes[node].cluster.clone());
        (self.nodes[node].data, self.nodes[node].cluster) = (data, cluster);
        let old = self.record_of(node);
        let tells = |old: &Record| {
            is_told_by_its_sessions(old, &theirs) && !old.disk_error && old.device == present.device
        };
        let Some(old) = old.filter(tells) else {
            (self.nodes[node].data, self.nodes[node].cluster) = now;
            return;
        };
        self.log(|| {
            let (old, new) = (old.session.0, present.session.0);
            format!("server{}: restored from session {old}, was in {new}", node + 1)
        });
        self.give_up(node, &present);
        self.nodes[node].restored = true;
    }
}
