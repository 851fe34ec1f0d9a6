//! Cancelling kernels that are running, from any other thread.
//!
//! A thread watches one flag at a time. Once that is set, kernels on the thread leave out the tasks that they have not
//! begun, and return soon. What they have not written keeps its old values, so that outputs are initialised as ever but
//! hold anything: whoever cancels throws them away. A flag is never cleared while a thread watches it; so whoever sees
//! [`is_cancelled`] false after a kernel, on the thread that called it, has the whole result.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

thread_local! {
    static FLAG: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// From now on this thread watches `flag`. All threads of a pool must watch the same one while kernels run there.
pub fn watch(flag: Arc<AtomicBool>) {
    FLAG.set(Some(flag));
}

/// Whether this thread's flag is set.
pub fn is_cancelled() -> bool {
    FLAG.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)))
}

/// A kernel's loop over its tasks.
pub(crate) trait Tasks: ParallelIterator {
    /// Does `task` with each item, on all threads of the pool; once this is cancelled, with no more of them.
    fn for_each_task(self, task: impl Fn(Self::Item) + Send + Sync) {
        self.for_each(|item| {
            if !is_cancelled() {
                task(item);
            }
        });
    }
}

impl<I: ParallelIterator> Tasks for I {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_thread_begins_no_task_after_the_flag_is_set() {
        const THREADS: usize = 3;
        let flag: Arc<AtomicBool> = Arc::default();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap();
        pool.broadcast(|_| watch(flag.clone()));
        let begun = AtomicUsize::new(0);
        pool.install(|| {
            (0..1000).into_par_iter().with_max_len(1).for_each_task(|_| {
                flag.store(true, Ordering::SeqCst);
                begun.fetch_add(1, Ordering::SeqCst);
            });
            assert!(is_cancelled());
        });
        let begun = begun.into_inner();
        assert!((1..=THREADS).contains(&begun), "{begun} tasks");
    }
}
