//! The I/O thread: it reads the next blocks while the current ones are computed with.
//!
//! The order of reads is known from the plan, so the thread simply walks it, through a fixed number of buffers that
//! go round: empty ones come back to it over one channel, filled ones leave over another. Memory is bounded by the
//! number of buffers, and the thread ends when the other side hangs up. A buffer takes as many blocks as fit: each handover
//! may wake a thread, and each buffer that is computed with ends with all threads waiting for the last.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::WeightsFile;
use super::block::Block;
use crate::cancel;
use crate::error::{Error, Result};

/// The buffers: one is computed with, and one is filled. More would be smaller.
pub(super) const BUFFERS: usize = 2;

/// One read: some blocks of a tensor.
#[derive(Debug, Clone)]
pub(super) struct GroupRead {
    pub(super) name: Arc<str>,
    pub(super) blocks: Range<usize>,
}

/// Blocks that arrive in the order of the reads.
pub(super) struct Stream {
    empty: Option<Sender<Block>>,
    filled: Receiver<(GroupRead, Result<Block>)>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// Starts reading `first`, then `rest` for `repeats` times.
    pub(super) fn start(
        file: Arc<WeightsFile>,
        first: Vec<GroupRead>,
        rest: Vec<GroupRead>,
        repeats: usize,
    ) -> Result<Stream> {
        let (empty, empties) = channel::<Block>();
        let (fill, filled) = channel();
        for _ in 0..BUFFERS {
            empty.send(Block::default()).expect("the receiver is held above");
        }
        let read_all = move || {
            for read in first.into_iter().chain((0..repeats).flat_map(|_| rest.clone())) {
                let Ok(mut group) = empties.recv() else { return };
                let group = group.read(&file, &read.name, read.blocks.clone()).map(|()| group);
                let failed = group.is_err();
                if fill.send((read, group)).is_err() || failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("weights".into()).spawn(read_all);
        let thread = thread.map_err(|error| Error::Internal(format!("no thread for reading weights: {error}")))?;
        Ok(Stream { empty: Some(empty), filled, thread: Some(thread) })
    }

    /// The next blocks, of `name` from block `first` on, and which they are. A slow disk has seconds of work in a matrix, so that
    /// this can be cancelled before each buffer.
    pub(super) fn next(&self, name: &str, first: usize) -> Result<(Range<usize>, Block)> {
        cancel::check()?;
        let Ok((read, group)) = self.filled.recv() else {
            return Err(Error::Internal(format!("{name}, block {first}, is not in the plan's order")));
        };
        let group = group?;
        if (&*read.name, read.blocks.start) != (name, first) {
            let planned = format!("{}, block {}", read.name, read.blocks.start);
            return Err(Error::Internal(format!("{name}, block {first}, was wanted where the plan has {planned}")));
        }
        Ok((read.blocks, group))
    }

    /// Gives a buffer back to be filled again.
    pub(super) fn recycle(&self, group: Block) {
        if let Some(empty) = &self.empty {
            // The thread may already have read everything.
            let _ = empty.send(group);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.empty = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already shown itself as a missing block.
            let _ = thread.join();
        }
    }
}
