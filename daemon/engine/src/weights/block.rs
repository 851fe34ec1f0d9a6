//! A buffer that starts on a cache line, as the kernels' loads like it, and that can be filled again and again.

use std::ops::{Deref, DerefMut};

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

    /// A copy in no more memory than it needs.
    pub(crate) fn exact(&self) -> Block {
        let mut exact = Block::default();
        exact.resize(self.len);
        exact.copy_from_slice(self);
        exact
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
    fn an_exact_copy_has_the_bytes_and_no_more() {
        let mut block = Block::default();
        block.resize(1000);
        block.resize(3);
        block.copy_from_slice(&[1, 2, 3]);
        let exact = block.exact();
        assert_eq!(*exact, [1, 2, 3]);
        assert_eq!(exact.storage.len(), 3 + LINE);
    }
}
