//! What every block front end is to the loop that drives it.

use crate::sys::{Completion, Submitter};
use mirror_core::buf::Buf;
use mirror_core::io::{Request, RequestError, RequestId};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the requests of the next front end begin to be numbered: an answer to a request of one that
/// is gone must never be taken for another's.
pub(crate) fn first_request() -> u64 {
    static FRONT_ENDS: AtomicU64 = AtomicU64::new(0);
    FRONT_ENDS.fetch_add(1, Ordering::Relaxed) << 40
}

/// A block front end on a mirror's ring.
///
/// The loop hands every completion of the front end's own operations to [`on_cqe`](Self::on_cqe)
/// and every answer of the core to [`complete`](Self::complete). Both may bring new requests: an
/// answer makes room for one that waited. Requests are aligned to the block size, within the
/// device and at most [`MAX_EXTENT_BYTES`](mirror_core::units::MAX_EXTENT_BYTES) long; their
/// number and bytes in flight are bounded, and beyond that the application waits.
///
/// A `&mut dyn Submitter` always is the one of this front end's owner number
/// ([`Owner`](crate::sys::Owner)), so tokens need only be unique within the front end.
pub trait FrontEnd {
    /// Begins to serve. Called once.
    ///
    /// # Errors
    /// The interface cannot be opened (socket path in use, no such driver).
    fn start(&mut self, ring: &mut dyn Submitter) -> io::Result<()>;

    /// Whether it serves by now; `None` while that is still open. An error is told once, and the
    /// front end is to be stopped then.
    fn opened(&mut self) -> Option<io::Result<()>> {
        Some(Ok(()))
    }

    /// Something that went wrong since it was asked last, for the operator.
    fn complaint(&mut self) -> Option<String> {
        None
    }

    /// An operation of this front end ended; new requests are appended to `out`.
    fn on_cqe(&mut self, cqe: Completion, ring: &mut dyn Submitter, out: &mut Vec<Request>);

    /// The core's answer to a request; new requests are appended to `out`. An answer to a request
    /// that is not known (any more) is ignored.
    fn complete(
        &mut self,
        id: RequestId,
        result: Result<Option<Buf>, RequestError>,
        ring: &mut dyn Submitter,
        out: &mut Vec<Request>,
    );

    /// The mirror has `size` bytes from now on; it never shrinks. Whether what is open sees that is
    /// another matter: an NBD client learns the size when it connects, and a block device is told by
    /// its driver ([`ublk::grow`](crate::ublk::grow), [`nbd::kernel::grow`](crate::nbd::kernel::grow)).
    fn grow(&mut self, size: u64) {
        let _ = size;
    }

    /// Lends the memory of a request that reads: whoever reads for it may have the bytes put
    /// straight there ([`Op::ReadStraight`](crate::sys::Op), with this index), and answers without
    /// bytes then. `None`: this request's memory is not to be had.
    ///
    /// What is lent comes back by [`given_back`](Self::given_back), when nothing writes there any
    /// more; until then no other bytes are put there, and an answer that has some waits.
    fn lend(&mut self, id: RequestId) -> Option<u16> {
        let _ = id; // has none
        None
    }

    /// What [`lend`](Self::lend) gave is not used any more.
    fn given_back(&mut self, id: RequestId, ring: &mut dyn Submitter) {
        let _ = (id, ring);
    }

    /// From now on the device fails: what is there and what comes is answered with
    /// [`RequestError::Inactive`] and nothing reaches the core any more. The front end stays open;
    /// to serve again it is stopped and another one started.
    fn fail(&mut self, ring: &mut dyn Submitter);

    /// Reads no new requests; those in flight are still answered, then the interface closes.
    /// Called again, it does not wait for clients to take their answers.
    fn stop(&mut self, ring: &mut dyn Submitter);

    /// Whether all is answered and closed after [`stop`](Self::stop), or nobody need wait for the rest.
    fn is_stopped(&self) -> bool;

    /// Whether there is no such rest, once it [is stopped](Self::is_stopped). Otherwise the front end
    /// still gets completions, also such as are not its own, and what it has lent, until it is over; the
    /// next one may be opened beside it.
    fn is_over(&self) -> bool {
        self.is_stopped()
    }
}
