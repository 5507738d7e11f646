//! A device of the kernel's is written to when memory runs out. If serving such a write waited for
//! memory, it would wait for itself.

use super::{FrontEndSpec, sys};

/// Readies this thread, and the memory of the process, for `spec`. What is refused is logged: the
/// device works without it, as long as there is memory.
pub(super) fn ready_for(spec: &FrontEndSpec) {
    if matches!(spec, FrontEndSpec::NbdSocket { .. }) {
        return; // its clients are programs
    }
    if let Err(e) = sys::serve_writeback() {
        tracing::warn!("not marked as serving a block device (CAP_SYS_RESOURCE): {e}");
    }
    if let Err(e) = sys::lock_memory() {
        tracing::warn!("memory is not locked (CAP_IPC_LOCK): {e}");
    }
}
