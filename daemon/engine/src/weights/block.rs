//! Bytes of weights that start on a cache line, as the kernels' loads like it.

use std::ops::{Deref, DerefMut, Range};

use crate::bundle::WeightsFile;
use crate::cancel;
use crate::error::Result;

/// Alignment of a block's first byte.
const LINE: usize = 64;

/// Bytes that start on a cache line.
#[derive(Debug, Default)]
pub(crate) struct Block {
    storage: Vec<u8>,
    start: usize,
    len: usize,
}

impl Block {
    /// An empty one with room for `len` bytes.
    pub(super) fn with_room(len: usize) -> Block {
        let mut storage: Vec<u8> = Vec::with_capacity(len + LINE);
        let start = storage.as_ptr().align_offset(LINE).min(LINE);
        storage.resize(start, 0);
        Block { storage, start, len: 0 }
    }

    /// Adds `bytes`, for which it was made with room.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.storage.truncate(self.start + self.len);
        self.storage.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Makes room for `len` bytes, whose content is whatever was there.
    fn resize(&mut self, len: usize) {
        if self.storage.len() < self.start + len {
            self.storage = vec![0; len + LINE];
            self.start = self.storage.as_ptr().align_offset(LINE).min(LINE);
        }
        self.len = len;
    }

    /// Reads these blocks of tensor `name`, which follow each other in it, and checks them.
    pub(super) fn read(&mut self, file: &WeightsFile, name: &str, blocks: Range<usize>) -> Result<()> {
        let entry = file.entry(name)?;
        self.resize(blocks.clone().map(|index| entry.block_len(index)).sum());
        let mut rest = &mut **self;
        for index in blocks {
            cancel::check()?;
            let (block, after) = rest.split_at_mut(entry.block_len(index));
            file.read_block(name, index, block)?;
            rest = after;
        }
        Ok(())
    }
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stay_aligned_whatever_their_history() {
        let mut block = Block::default();
        for len in [1, 4096, 64, 100_000, 0] {
            block.resize(len);
            assert_eq!(block.len(), len);
            assert_eq!(block.as_ptr().align_offset(LINE), 0);
        }
    }

    #[test]
    fn what_is_added_follows_in_the_room_there_is() {
        let mut block = Block::with_room(5);
        let first = block.as_ptr();
        block.add(&[1, 2, 3]);
        block.add(&[4, 5]);
        assert_eq!(*block, [1, 2, 3, 4, 5]);
        assert_eq!((block.as_ptr(), block.storage.capacity()), (first, 5 + LINE));
        assert_eq!(first.align_offset(LINE), 0);
    }
}
