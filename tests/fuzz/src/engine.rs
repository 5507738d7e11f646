//! One target under libFuzzer; `FUZZ_TARGET` names it (see `scripts/fuzz`).
#![no_main]
#![allow(unsafe_code)] // the engine calls the target through C, and so do others `getrandom`

use libfuzzer_sys::fuzz_target;
use mirror_fuzz::Target;
use std::sync::OnceLock;

static TARGET: OnceLock<&Target> = OnceLock::new();

fn target() -> &'static Target {
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        mirror_fuzz::find(&name).expect("FUZZ_TARGET names a target")
    })
}

/// In place of the C library's: the keys of hash maps are the same in each process. They decide the
/// order in which a map is walked, and with it which code an input reaches: a run could not be
/// repeated from its seed otherwise.
#[unsafe(no_mangle)]
extern "C" fn getrandom(buf: *mut u8, len: usize, _flags: u32) -> isize {
    // SAFETY: the caller has `len` bytes at `buf`, as for the function of the C library.
    unsafe { std::ptr::write_bytes(buf, 0x5a, len) };
    len.cast_signed()
}

fuzz_target!(|bytes: &[u8]| {
    (target().run)(bytes);
});
