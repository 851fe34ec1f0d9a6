//! A `.weights` file, opened and checked, so that every later read is inside the file and has a checksum to answer to;
//! and how such a file is written, block by block, so that memory holds one block and no more.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::f16;

use super::index::{LENGTH, WeightEntry, WeightShape, WeightsIndex};
use super::source::{Source, SourceFile};
use crate::error::{Error, Result};
use crate::hash::xxh3;

/// The longest index, bytes (Stable Diffusion 1.5's has about 200 KB).
const MAX_INDEX: u64 = 16 << 20;

/// An open `.weights` file; any thread may read its blocks.
#[derive(Debug)]
pub struct WeightsFile {
    file: SourceFile,
    index: WeightsIndex,
}

impl WeightsFile {
    /// Opens `NETWORK.weights`, reads its index and checks every entry.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt`, naming the tensor where one is known; `Io`.
    pub fn open(source: &Source, network: &str) -> Result<WeightsFile> {
        let file = source.open(&format!("{network}.weights"))?;
        let len = file.len()?;
        let mut front = [0; LENGTH];
        if len < LENGTH as u64 {
            return Err(file.corrupt("the file is too short to be a weights file; copy it again"));
        }
        file.read_exact_at(&mut front, 0)?;
        let index_len = u64::from_le_bytes(front);
        let fits = index_len <= MAX_INDEX && index_len <= len - LENGTH as u64;
        let Some(fitting) = usize::try_from(index_len).ok().filter(|_| fits) else {
            let message = format!("an index of {index_len} bytes in a file of {len} is too long; copy the file again");
            return Err(file.corrupt(message));
        };
        let mut json = vec![0; fitting];
        file.read_exact_at(&mut json, LENGTH as u64)?;
        let index = WeightsIndex::parse(&json, len).map_err(|message| file.corrupt(message))?;
        Ok(WeightsFile { file, index })
    }

    /// A file of which only the index is known; it has no blocks to read.
    pub(crate) fn without_values(index: WeightsIndex) -> WeightsFile {
        WeightsFile { file: SourceFile::empty("weights"), index }
    }

    /// What the file holds.
    pub fn index(&self) -> &WeightsIndex {
        &self.index
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt` if it is not there.
    pub fn entry(&self, name: &str) -> Result<&WeightEntry> {
        self.index.entry(name).ok_or_else(|| self.corrupt(name, "is missing"))
    }

    /// Reads block `index` of tensor `name` into `block`, which has its length, and checks it.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt` if the block does not match its checksum; `Io`.
    pub fn read_block(&self, name: &str, index: usize, block: &mut [u8]) -> Result<()> {
        let found = self.entry(name)?.block(index);
        let (offset, checksum) = found.ok_or_else(|| self.corrupt(name, &format!("has no block {index}")))?;
        self.file.read_exact_at(block, offset)?;
        match xxh3(block) == checksum {
            true => Ok(()),
            false => {
                Err(self.corrupt(name, &format!("block {index} does not match its checksum; copy the bundle again")))
            }
        }
    }

    /// Reads tensor `name` through, block by block.
    ///
    /// # Errors
    ///
    /// As [`WeightsFile::read_block`]; those of `each`.
    pub fn each_block<E: From<Error>>(
        &self,
        name: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let entry = self.entry(name)?;
        let mut block = Vec::new();
        for index in 0..entry.blocks() {
            block.resize(entry.block_len(index), 0);
            self.read_block(name, index, &mut block)?;
            each(&block)?;
        }
        Ok(())
    }

    /// A small table as f32, row by row.
    pub(crate) fn read_table(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        let WeightShape::Table { half, .. } = entry.shape() else {
            return Err(self.corrupt(name, "is a matrix, not a table"));
        };
        let mut values = Vec::with_capacity(entry.bytes() / if half { 2 } else { 4 });
        self.each_block::<Error>(name, |block| {
            extend_f32(&mut values, block, half);
            Ok(())
        })?;
        Ok(values)
    }

    /// The rows `ids` of a table that is too large to load: only the blocks that hold them are read.
    pub(crate) fn read_rows(&self, name: &str, ids: &[usize]) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        let WeightShape::Table { rows, columns, half } = entry.shape() else {
            return Err(self.corrupt(name, "is a matrix, not a table"));
        };
        if let Some(id) = ids.iter().find(|id| **id >= rows) {
            return Err(self.corrupt(name, &format!("has {rows} rows, but row {id} is needed")));
        }
        let row_bytes = entry.shape().unit_bytes();
        let mut values = vec![0.0; ids.len() * columns];
        let mut places: Vec<(usize, &mut [f32])> = ids.iter().copied().zip(values.chunks_exact_mut(columns)).collect();
        places.sort_by_key(|(id, _)| *id);
        let (mut block, mut loaded) = (Vec::new(), None);
        let mut row = Vec::with_capacity(columns);
        for (id, place) in places {
            let (index, within) = (id / entry.units_per_block(), id % entry.units_per_block());
            if loaded != Some(index) {
                block.resize(entry.block_len(index), 0);
                self.read_block(name, index, &mut block)?;
                loaded = Some(index);
            }
            row.clear();
            extend_f32(&mut row, block.get(within * row_bytes..(within + 1) * row_bytes).unwrap_or_default(), half);
            place.copy_from_slice(&row);
        }
        Ok(values)
    }

    fn corrupt(&self, name: &str, message: &str) -> Error {
        self.file.corrupt(format!("tensor {name}: {message}"))
    }
}

fn extend_f32(values: &mut Vec<f32>, bytes: &[u8], half: bool) {
    if half {
        values.extend(bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()));
    } else {
        values.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
    }
}

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub shape: WeightShape,
    /// No block may cut a pair of panels (GEGLU's values and gates).
    pub pairs: bool,
}

/// Writes one panel or row: the tensor's number, the panel's or row's in it, and its bytes.
pub type EncodeUnit<'a, E> = dyn FnMut(usize, usize, &mut [u8]) -> Result<(), E> + 'a;

/// Writes a `.weights` file of `tensors`, in their order, to `path`, where there must be none. `encode` fills in the
/// bytes; `progress` is called with the bytes of each block.
///
/// The index comes first in the file but is known last, when all checksums are; its length does not depend on them, so
/// room is left for it and it is written at the end.
///
/// # Errors
///
/// `Io`, `ModelCorrupt` for a tensor of an impossible size, and those of `encode`.
pub fn write_weights<E: From<Error>>(
    path: &Path,
    tensors: &[NewTensor],
    encode: &mut EncodeUnit<E>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), E> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let mut index =
        WeightsIndex::lay_out(tensors).map_err(|message| Error::ModelCorrupt { path: path.to_owned(), message })?;
    let file = File::create_new(path).map_err(failed)?;
    let mut block = Vec::new();
    for (number, tensor) in tensors.iter().enumerate() {
        let Some(entry) = index.entry_mut(&tensor.name) else { continue };
        let unit = tensor.shape.unit_bytes();
        for at in 0..entry.blocks() {
            block.resize(entry.block_len(at), 0);
            for (unit, out) in (entry.first_unit(at)..).zip(block.chunks_exact_mut(unit)) {
                encode(number, unit, out)?;
            }
            if let Some((offset, _)) = entry.block(at) {
                file.write_all_at(&block, offset).map_err(failed)?;
            }
            entry.set_checksum(at, xxh3(&block));
            progress(block.len() as u64);
        }
    }
    file.set_len(index.end()).map_err(failed)?;
    file.write_all_at(&index.front(), 0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(())
}

/// Writes a `.weights` file of `tensors` without their values to `path`, where there must be none: what is asked of a
/// model's sizes is answered by it. On most disks it takes no room beside its index.
///
/// # Errors
///
/// `Io`, and `ModelCorrupt` for a tensor of an impossible size.
pub fn write_weights_index(path: &Path, tensors: &[NewTensor]) -> Result<()> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let index =
        WeightsIndex::lay_out(tensors).map_err(|message| Error::ModelCorrupt { path: path.to_owned(), message })?;
    let file = File::create_new(path).map_err(failed)?;
    file.set_len(index.end()).map_err(failed)?;
    file.write_all_at(&index.front(), 0).map_err(failed)
}
