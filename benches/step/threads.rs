//! When the threads of the engine's pool work and when they wait, seen from outside: a thread of the bench reads again and
//! again whether the kernel has them run or sleep. So the engine is the one that is shipped, without a line for this.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::now;

/// Between two looks. With what a look and waking up take it is some 0.15 ms: shorter waits are seen by chance, each as
/// often as its length deserves.
const PERIOD: Duration = Duration::from_micros(100);

/// A thread of the pool.
pub(super) struct PoolThread {
    /// The system's number.
    pub(super) id: u64,
    /// Its name in the pool.
    pub(super) name: String,
    /// One after the other, without gaps.
    pub(super) spans: Vec<ThreadSpan>,
    stat: File,
}

/// A time in which a thread did the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct ThreadSpan {
    /// Seconds since the program's start.
    pub(super) from: f64,
    /// Likewise.
    pub(super) to: f64,
    /// Whether it sleeps.
    pub(super) waits: bool,
}

impl PoolThread {
    /// The engine's threads, as they are now.
    fn all() -> Result<Vec<PoolThread>> {
        let mut threads = vec![];
        for task in fs::read_dir("/proc/self/task")? {
            let path = task?.path();
            let name = fs::read_to_string(path.join("comm"))?.trim().to_owned();
            if name.starts_with("engine-") {
                let id = path.file_name().and_then(|id| id.to_str()?.parse().ok()).context("a thread's number")?;
                threads.push(PoolThread { id, name, spans: vec![], stat: File::open(path.join("stat"))? });
            }
        }
        ensure!(!threads.is_empty(), "the engine has no threads");
        threads.sort_by_key(|thread| thread.id);
        Ok(threads)
    }

    /// Looks at what it does.
    fn look(&mut self) -> Result<()> {
        let mut text = [0; 512];
        let len = self.stat.read_at(&mut text, 0)?;
        // After the name in brackets: `R` runs or could, `S` sleeps.
        let end = text[..len].iter().rposition(|byte| *byte == b')').context("a thread's state")?;
        let (waits, at) = (text[end + 2] != b'R', now().wall);
        match self.spans.last_mut() {
            Some(last) if last.waits == waits => last.to = at,
            last => {
                let from = last.map_or(at, |last| last.to);
                self.spans.push(ThreadSpan { from, to: at, waits });
            }
        }
        Ok(())
    }

    /// Seconds between `from` and `to` in which it waits.
    pub(super) fn waiting(&self, from: f64, to: f64) -> f64 {
        let first = self.spans.partition_point(|span| span.to <= from);
        let within = self.spans[first..].iter().take_while(|span| span.from < to).filter(|span| span.waits);
        within.map(|span| span.to.min(to) - span.from.max(from)).sum()
    }
}

/// Watches the threads until it is stopped.
pub(super) struct ThreadWatch {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<Result<Vec<PoolThread>>>,
}

impl ThreadWatch {
    /// Watches the threads that the engine has now.
    pub(super) fn start() -> Result<ThreadWatch> {
        let (stop, mut threads) = (Arc::<AtomicBool>::default(), PoolThread::all()?);
        let stopped = stop.clone();
        let watching = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                threads.iter_mut().try_for_each(PoolThread::look)?;
                thread::sleep(PERIOD);
            }
            Ok(threads)
        });
        Ok(ThreadWatch { stop, watching })
    }

    /// What they did meanwhile.
    pub(super) fn stop(self) -> Result<Vec<PoolThread>> {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.join().map_err(|_| anyhow!("the watch has panicked"))?
    }
}
