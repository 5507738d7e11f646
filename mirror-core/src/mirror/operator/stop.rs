//! The end: of serving the device, and of this process.

use super::{Closing, Flush, Stopping, Suspending};
use crate::command::{Done, Refusal};
use crate::io::{CommandId, DataOp};
use crate::mirror::app::Origin;
use crate::mirror::meta::Then;
use crate::mirror::{Mirror, Owner};
use crate::rules::{Rule, holds};
use crate::units::Extent;
use crate::wire::Message;

impl Mirror {
    pub(super) fn begin_deactivation(&mut self, id: CommandId) {
        if !self.active || self.operator.is_closing() {
            self.reply(id, Err(Refusal::NotActive));
            return;
        }
        self.operator.closing = Some((Some(id), Closing::Draining));
    }

    pub(super) fn advance_deactivation(&mut self) {
        let Some((_, Closing::Draining)) = self.operator.closing else { return };
        // The card in an agreement says *active*. The flush of a good device would wait, too.
        if !self.app.is_empty() || self.link.is_agreeing() {
            return;
        }
        self.set_closing(Closing::Flushing);
        if self.fails_io() || !self.active {
            self.deactivate_flushed(false);
        } else {
            self.begin_flush(Origin::Deactivate);
            self.advance_waiting();
        }
    }

    fn set_closing(&mut self, to: Closing) {
        if let Some((_, closing)) = &mut self.operator.closing {
            *closing = to;
        }
    }

    /// The flush is over. When it failed, the disk has failed, and the device is closed as it is.
    pub(in crate::mirror) fn deactivate_flushed(&mut self, ok: bool) {
        self.set_closing(Closing::Recording);
        if ok && self.is_mirroring() {
            self.clear_clean_marks(usize::MAX);
        }
        self.meta.record.active = false;
        if self.meta.failed {
            self.deactivation_recorded();
        } else {
            self.meta.persist_then(Then::Deactivated);
        }
    }

    pub(in crate::mirror) fn deactivation_recorded(&mut self) {
        let Some((id, _)) = self.operator.closing.take() else { return };
        self.active = false;
        self.shut = false;
        self.last_write = None;
        self.send(Message::Deactivated);
        self.end_detach();
        if let Some(id) = id {
            self.reply(id, Ok(Done::Deactivated));
        }
        self.card_changed();
    }

    pub(in crate::mirror) fn begin_stop(&mut self, id: CommandId) {
        if self.operator.suspended {
            self.reply(id, Err(Refusal::Stopping));
            return;
        }
        if self.is_stopped() {
            self.reply(id, Ok(Done::Stopped));
            return;
        }
        if let Some((earlier, stage)) = self.operator.stopping {
            // The stop goes on from where it is; it is answered to whoever asked last.
            self.operator.stopping = Some((id, stage));
            self.reply(earlier, Err(Refusal::Stopping));
            return;
        }
        self.operator.stopping = Some((id, Stopping::Deactivating));
        // One that is being recorded takes effect, and is ended like any other.
        if !self.operator.is_recording_activation() {
            self.refuse_activation(Refusal::Stopping);
        }
        self.refuse_force();
        self.close_to_stop();
    }

    /// A device that is served is closed before a stop.
    pub(super) fn close_to_stop(&mut self) {
        let stops = matches!(self.operator.stopping, Some((_, Stopping::Deactivating)));
        if stops && self.active && self.operator.closing.is_none() {
            self.operator.closing = Some((None, Closing::Draining));
        }
    }

    /// A force that waits gives way to a stop; one that has begun is recorded and answered first.
    fn refuse_force(&mut self) {
        if let Some(forcing) = self.operator.forcing.take_if(|f| f.flush == Flush::Due) {
            self.reply(forcing.id, Err(Refusal::Stopping));
        }
    }

    /// The stop was answered: there is nothing left to do.
    fn is_stopped(&self) -> bool {
        matches!(self.operator.stopping, Some((_, Stopping::Stopped)))
    }

    pub(in crate::mirror) fn take_suspend(&mut self, id: CommandId) {
        if self.is_stopped() {
            self.reply(id, Ok(Done::Stopped));
            return;
        }
        self.refuse_force();
        let earlier = match (&mut self.operator.suspending, &mut self.operator.stopping) {
            (Some((waits, _)), _) | (None, Some((waits, _))) => Some(std::mem::replace(waits, id)),
            (None, None) => {
                self.operator.suspending = Some((id, Suspending::Draining));
                self.operator.suspended = true;
                None
            }
        };
        if let Some(earlier) = earlier {
            self.reply(earlier, Err(Refusal::Stopping));
        }
    }

    pub(in crate::mirror) fn stop_suspended(&mut self) {
        if let Some((id, _)) = self.operator.suspending.take() {
            self.begin_stop_flush(id);
        }
    }

    pub(super) fn advance_stop(&mut self) {
        let Some((id, Stopping::Deactivating)) = self.operator.stopping else { return };
        // A force that has begun is recorded and answered first.
        let forcing = self.operator.is_forcing();
        let closing = self.active || self.operator.is_closing();
        let activating = self.operator.is_recording_activation();
        if closing || activating || forcing || self.link.is_agreeing() {
            return;
        }
        self.begin_stop_flush(id);
    }

    fn begin_stop_flush(&mut self, id: CommandId) {
        self.operator.stopping = Some((id, Stopping::Flushing));
        if self.device_failed {
            self.stop_flush_done(false);
        } else {
            self.submit(Owner::StopFlush, DataOp::Flush, Extent::default());
        }
    }

    pub(in crate::mirror) fn stop_flush_done(&mut self, ok: bool) {
        let Some((id, _)) = self.operator.stopping else { return };
        if !ok && holds(Rule::ErrorFails) {
            // What the flush gave up is gone from the cache, and the next one will not tell.
            self.disk_failed(false, "flush", 0);
        }
        self.operator.stopping = Some((id, Stopping::Recording));
        // A grant may just be on its way to the disk.
        let granted = self.meta.record.peer_active;
        let peer_active = self.session().is_some_and(|s| s.peer_active || granted);
        // A peer without a disk does not go on.
        let serves = self.session().is_some_and(|s| s.serves_detached);
        // A standby that stops while its peer goes on knows that it falls behind.
        self.meta.record.behind |= peer_active && !serves && holds(Rule::StopBehind);
        // After a crash this flush is not the one that was missed: only a session heals that.
        self.meta.record.clean_stop = ok && !peer_active && self.uninterrupted;
        if self.meta.failed {
            self.stop_recorded();
        } else {
            self.meta.persist_then(Then::Stopped);
        }
    }

    pub(in crate::mirror) fn stop_recorded(&mut self) {
        let Some((id, _)) = self.operator.stopping else { return };
        self.operator.stopping = Some((id, Stopping::Stopped));
        let clean = !self.device_failed;
        self.send(Message::Bye { clean });
        self.drop_link("this server stops");
        self.reply(id, Ok(Done::Stopped));
    }
}
