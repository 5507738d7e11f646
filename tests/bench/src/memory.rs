//! Copies in memory.

use crate::samples::Samples;
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

/// Copies of `size` bytes, one after the other.
pub(crate) fn copies(size: u32, length: Duration) -> Samples {
    let from = vec![1_u8; size as usize];
    let mut to = vec![0_u8; size as usize];
    let copied: Result<Samples, Infallible> = Samples::take(length, size, || {
        to.copy_from_slice(black_box(&from));
        black_box(&to);
        Ok(())
    });
    match copied {
        Ok(samples) => samples,
        Err(never) => match never {},
    }
}
