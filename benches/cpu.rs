//! Processor time, which hardly minds what else the machine does.

use rustix::time::{ClockId, clock_gettime};

/// Seconds that all threads of this process have run, those included that have ended.
pub(crate) fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}
