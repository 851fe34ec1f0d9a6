//! Random seeds and ids: nothing secret hangs on them, so the standard library's hash keys are random enough.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// 64 bits that differ from call to call and from run to run.
fn bits() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(CALLS.fetch_add(1, Ordering::Relaxed))
}

/// A seed of 32 bits, which every JSON reader and every other program for Stable Diffusion can hold.
pub fn seed() -> u64 {
    bits() >> 32
}

/// A job's id.
pub fn id() -> String {
    format!("{:012x}", bits() >> 16)
}

/// A number from 0 to 1.
pub fn fraction() -> f64 {
    bits() as f64 / u64::MAX as f64
}
