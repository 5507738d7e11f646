//! One target under libFuzzer; `FUZZ_TARGET` names it (see `scripts/fuzz`).
#![no_main]
#![allow(unsafe_code)] // the engine calls the target through C

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

fuzz_target!(|bytes: &[u8]| {
    (target().run)(bytes);
});
