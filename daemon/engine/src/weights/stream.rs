//! The I/O thread: it reads the next blocks while the current ones are computed with.
//!
//! The order of reads is known from the plan, so the thread simply walks it, through a fixed number of buffers that
//! go round: empty ones come back to it over one channel, filled ones leave over another. Memory is bounded by the
//! number of buffers, and the thread ends when the other side hangs up.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::{Block, WeightsFile};
use crate::cancel;
use crate::error::{Error, Result};

/// One read: a tensor's name and a block's index.
pub(super) type BlockRead = (Arc<str>, usize);

/// Blocks that arrive in the order of the reads.
pub(super) struct Stream {
    empty: Option<Sender<Block>>,
    filled: Receiver<(BlockRead, Result<Block>)>,
    buffers: usize,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// Starts reading `first`, then `rest` for `repeats` times, `buffers` blocks ahead at most.
    pub(super) fn start(
        file: Arc<WeightsFile>,
        first: Vec<BlockRead>,
        rest: Vec<BlockRead>,
        repeats: usize,
        buffers: usize,
    ) -> Result<Stream> {
        let (empty, empties) = channel::<Block>();
        let (fill, filled) = channel();
        for _ in 0..buffers {
            empty.send(Block::default()).expect("the receiver is held above");
        }
        let read_all = move || {
            for read in first.into_iter().chain((0..repeats).flat_map(|_| rest.clone())) {
                let Ok(mut block) = empties.recv() else { return };
                let block = block.read(&file, &read.0, read.1).map(|()| block);
                let failed = block.is_err();
                if fill.send((read, block)).is_err() || failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("weights".into()).spawn(read_all);
        let thread = thread.map_err(|error| Error::Internal(format!("no thread for reading weights: {error}")))?;
        Ok(Stream { empty: Some(empty), filled, buffers, thread: Some(thread) })
    }

    /// Half of the ring's blocks, at least 1: so many can be in use while as many others are read.
    pub(super) fn half(&self) -> usize {
        (self.buffers / 2).max(1)
    }

    /// The next block, which must be `name`'s block `index`. A slow disk has seconds of work in a matrix, so that this can be
    /// cancelled before each block.
    pub(super) fn next(&self, name: &str, index: usize) -> Result<Block> {
        cancel::check()?;
        let Ok((read, block)) = self.filled.recv() else {
            return Err(Error::Internal(format!("{name}, block {index}, is not in the plan's order")));
        };
        if block.is_ok() && (&*read.0, read.1) != (name, index) {
            let message = format!("{name}, block {index}, was wanted where the plan has {}, block {}", read.0, read.1);
            return Err(Error::Internal(message));
        }
        block
    }

    /// Gives a buffer back to be filled again.
    pub(super) fn recycle(&self, block: Block) {
        if let Some(empty) = &self.empty {
            // The thread may already have read everything.
            let _ = empty.send(block);
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
