//! Buffers that start on a cache line, as the kernels' loads like it, and that can be filled again and again.

use std::ops::{Deref, DerefMut, Range};

use crate::bundle::WeightsFile;
use crate::error::Result;

/// Alignment of a block's first byte.
const LINE: usize = 64;

/// Bytes aligned to a cache line.
#[derive(Debug, Default)]
pub(crate) struct Block {
    storage: Vec<u8>,
    start: usize,
    len: usize,
}

impl Block {
    /// Makes room for `len` bytes, whose content is whatever was there.
    pub(crate) fn resize(&mut self, len: usize) {
        if self.storage.len() < len + LINE {
            self.storage = vec![0; len + LINE];
            self.start = self.storage.as_ptr().align_offset(LINE).min(LINE);
        }
        self.len = len;
    }

    /// Reads block `index` of tensor `name` and checks it.
    pub(super) fn read(&mut self, file: &WeightsFile, name: &str, index: usize) -> Result<()> {
        self.resize(file.entry(name)?.block_len(index));
        file.read_block(name, index, self)
    }

    /// A copy of these bytes in no more memory than they need.
    fn copy_of(bytes: &[u8]) -> Block {
        let mut copy = Block::default();
        copy.resize(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }
}

/// Some blocks of a tensor that follow each other in it, in one buffer.
#[derive(Debug, Default)]
pub(super) struct BlockGroup {
    bytes: Block,
    /// Where each block lies; each starts on a cache line.
    places: Vec<Range<usize>>,
}

impl BlockGroup {
    /// Reads these blocks of tensor `name` and checks them.
    pub(super) fn read(&mut self, file: &WeightsFile, name: &str, blocks: Range<usize>) -> Result<()> {
        let entry = file.entry(name)?;
        self.places.clear();
        let mut end = 0;
        for index in blocks.clone() {
            let start = usize::next_multiple_of(end, LINE);
            end = start + entry.block_len(index);
            self.places.push(start..end);
        }
        self.bytes.resize(end);
        blocks
            .zip(&self.places)
            .try_for_each(|(index, place)| file.read_block(name, index, &mut self.bytes[place.clone()]))
    }

    /// The blocks' bytes.
    pub(super) fn blocks(&self) -> Vec<&[u8]> {
        self.places.iter().map(|place| &self.bytes[place.clone()]).collect()
    }

    /// A copy of each block.
    pub(super) fn copies(&self) -> impl Iterator<Item = Block> {
        self.places.iter().map(|place| Block::copy_of(&self.bytes[place.clone()]))
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
    fn a_copy_has_the_bytes_and_no_more() {
        let copy = Block::copy_of(&[1, 2, 3]);
        assert_eq!(*copy, [1, 2, 3]);
        assert_eq!(copy.storage.len(), 3 + LINE);
    }
}
