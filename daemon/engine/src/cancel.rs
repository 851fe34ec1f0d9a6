//! Cancelling a painting. Its observer's flag is watched by the threads of the pool, so that kernels that are running
//! leave out what is left of their work; each run of a network is checked before its result is used.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diffused_kernels::cancel;

use crate::error::{Error, Result};

/// From now on `flag` cancels what the threads of `workers` do.
pub(crate) fn watch(workers: &rayon::ThreadPool, flag: &Arc<AtomicBool>) {
    workers.broadcast(|_| cancel::watch(flag.clone()));
}

/// `Cancelled` once the flag is set, which it remains: what kernels have made since then is arbitrary.
pub(crate) fn check() -> Result<()> {
    if cancel::is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}
