//! A `.weights` file, opened and checked: every later read is inside the file and has a checksum to answer to.

use std::collections::BTreeMap;

use diffused_kernels::pack::{Format, Layout, PANEL};
use half::f16;
use xxhash_rust::xxh3::xxh3_64;

use super::Block;
use crate::bundle::{self, Index, PAGE, TensorKind};
use crate::error::Result;
use crate::source::{Source, SourceFile};

/// An index longer than this is no index (Stable Diffusion 1.5's has about 200 KB).
const MAX_INDEX: u64 = 64 << 20;

/// What a tensor holds, in the terms of the kernels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// Packed panels.
    Matrix {
        /// Of a panel.
        layout: Layout,
        /// Outputs.
        n: usize,
    },
    /// Rows of plain values, f16 or else f32.
    Table {
        /// Rows.
        rows: usize,
        /// Values of a row.
        columns: usize,
        /// Stored as f16.
        half: bool,
    },
}

impl Shape {
    /// Bytes that no block may cut: a panel or a row.
    fn unit(&self) -> Option<usize> {
        match *self {
            Shape::Matrix { layout, .. } => {
                layout.taps.checked_mul(layout.k)?.checked_mul(PANEL * 8).map(|_| layout.panel_bytes())
            }
            Shape::Table { columns, half, .. } => columns.checked_mul(if half { 2 } else { 4 }),
        }
    }

    fn bytes(&self) -> Option<usize> {
        let units = match *self {
            Shape::Matrix { n, .. } => n.div_ceil(PANEL),
            Shape::Table { rows, .. } => rows,
        };
        self.unit()?.checked_mul(units)
    }
}

/// A tensor of the file.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What it holds.
    pub(crate) shape: Shape,
    offset: u64,
    bytes: usize,
    block_bytes: usize,
    checksums: Vec<u64>,
}

impl Entry {
    /// Number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.checksums.len()
    }

    /// Bytes of block `index`.
    pub(crate) fn block_len(&self, index: usize) -> usize {
        self.block_bytes.min(self.bytes - index * self.block_bytes)
    }

    /// Index of a block's first panel or row.
    pub(crate) fn first_unit(&self, block: usize) -> usize {
        block * self.units_per_block()
    }

    /// Panels or rows of a block.
    pub(crate) fn units_per_block(&self) -> usize {
        self.block_bytes / self.shape.unit().unwrap_or(1)
    }

    /// Bytes of the whole tensor.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn checked(tensor: &bundle::Tensor, file_len: u64) -> Result<Entry, String> {
        let shape = shape(&tensor.kind)?;
        let (Some(unit), Some(bytes)) = (shape.unit(), shape.bytes()) else {
            return Err("its sizes overflow".into());
        };
        if unit == 0 || bytes == 0 {
            return Err("it is empty".into());
        }
        if !tensor.offset.is_multiple_of(PAGE) {
            return Err(format!("its offset {} is no multiple of {PAGE}", tensor.offset));
        }
        if tensor.offset.checked_add(bytes as u64).is_none_or(|end| end > file_len) {
            return Err(format!(
                "it needs {bytes} bytes from {} on, but the file ends at {file_len}; the file is cut off, copy it again",
                tensor.offset
            ));
        }
        if tensor.block_bytes == 0 || !tensor.block_bytes.is_multiple_of(unit) {
            return Err(format!("its blocks of {} bytes are not whole panels or rows of {unit}", tensor.block_bytes));
        }
        let checksums: Option<Vec<u64>> =
            tensor.checksums.iter().map(|hex| u64::from_str_radix(hex, 16).ok()).collect();
        let checksums = checksums.ok_or("a checksum is no hexadecimal number")?;
        if checksums.len() != bytes.div_ceil(tensor.block_bytes) {
            return Err(format!("{} checksums for {bytes} bytes", checksums.len()));
        }
        Ok(Entry { shape, offset: tensor.offset, bytes, block_bytes: tensor.block_bytes, checksums })
    }
}

fn shape(kind: &TensorKind) -> Result<Shape, String> {
    match kind {
        TensorKind::Matrix { format, n, k, taps } => {
            let format = match format.as_str() {
                "int8" => Format::Int8,
                "f16" => Format::F16,
                "f32" => Format::F32,
                other => return Err(format!("unknown matrix format \"{other}\"")),
            };
            if format == Format::Int8 && !k.is_multiple_of(4) {
                return Err(format!("int8 needs inputs in fours, not {k}"));
            }
            if *k == 0 || !matches!(taps, 1 | 9) {
                return Err(format!("{taps} taps of {k} inputs"));
            }
            Ok(Shape::Matrix { layout: Layout { format, k: *k, taps: *taps }, n: *n })
        }
        TensorKind::Table { format, rows, columns } => {
            let half = match format.as_str() {
                "f16" => true,
                "f32" => false,
                other => return Err(format!("unknown table format \"{other}\"")),
            };
            Ok(Shape::Table { rows: *rows, columns: *columns, half })
        }
    }
}

/// An open `.weights` file; any thread may read its blocks.
#[derive(Debug)]
pub(crate) struct WeightsFile {
    file: SourceFile,
    entries: BTreeMap<String, Entry>,
}

impl WeightsFile {
    /// Opens `NETWORK.weights`, reads its index and checks every entry.
    pub(crate) fn open(source: &Source, network: &str) -> Result<WeightsFile> {
        let file = source.open(&format!("{network}.weights"))?;
        let len = file.len()?;
        let index = read_index(&file, len)?;
        let entries = index
            .tensors
            .iter()
            .map(|(name, tensor)| match Entry::checked(tensor, len) {
                Ok(entry) => Ok((name.clone(), entry)),
                Err(message) => Err(file.corrupt(format!("tensor {name}: {message}"))),
            })
            .collect::<Result<_>>()?;
        Ok(WeightsFile { file, entries })
    }

    /// The tensor called `name`.
    pub(crate) fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| self.file.corrupt(format!("tensor {name} is missing")))
    }

    /// Reads one block into `block` and checks it.
    pub(crate) fn read_block(&self, name: &str, index: usize, block: &mut Block) -> Result<()> {
        let entry = self.entry(name)?;
        block.resize(entry.block_len(index));
        self.file.read_exact_at(block, entry.offset + (index * entry.block_bytes) as u64)?;
        if xxh3_64(block) != entry.checksums[index] {
            let message = format!("tensor {name}: block {index} does not match its checksum; copy the bundle again");
            return Err(self.file.corrupt(message));
        }
        Ok(())
    }

    /// A small table as f32, row by row.
    pub(crate) fn read_table(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        let Shape::Table { half, .. } = entry.shape else {
            return Err(self.file.corrupt(format!("tensor {name} is a matrix, not a table")));
        };
        let mut values = Vec::with_capacity(entry.bytes / if half { 2 } else { 4 });
        let mut block = Block::default();
        for index in 0..entry.blocks() {
            self.read_block(name, index, &mut block)?;
            extend_f32(&mut values, &block, half);
        }
        Ok(values)
    }

    /// The rows `ids` of a table that is too large to load: only the blocks that hold them are read.
    pub(crate) fn read_rows(&self, name: &str, ids: &[usize]) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        let Shape::Table { rows, columns, half } = entry.shape else {
            return Err(self.file.corrupt(format!("tensor {name} is a matrix, not a table")));
        };
        if let Some(id) = ids.iter().find(|id| **id >= rows) {
            return Err(self.file.corrupt(format!("tensor {name} has {rows} rows, but row {id} is asked for")));
        }
        let mut by_block: Vec<usize> = (0..ids.len()).collect();
        by_block.sort_by_key(|&at| ids[at]);
        let mut values = vec![0.0; ids.len() * columns];
        let (mut block, mut loaded) = (Block::default(), None);
        let mut row = Vec::with_capacity(columns);
        let row_bytes = columns * if half { 2 } else { 4 };
        for at in by_block {
            let (index, within) = (ids[at] / entry.units_per_block(), ids[at] % entry.units_per_block());
            if loaded != Some(index) {
                self.read_block(name, index, &mut block)?;
                loaded = Some(index);
            }
            row.clear();
            extend_f32(&mut row, &block[within * row_bytes..(within + 1) * row_bytes], half);
            values[at * columns..(at + 1) * columns].copy_from_slice(&row);
        }
        Ok(values)
    }
}

fn read_index(file: &SourceFile, len: u64) -> Result<Index> {
    let mut front = [0; 8];
    if len < front.len() as u64 {
        return Err(file.corrupt("the file is too short to be a weights file; copy it again"));
    }
    file.read_exact_at(&mut front, 0)?;
    let index_len = u64::from_le_bytes(front);
    if index_len > MAX_INDEX || index_len > len - front.len() as u64 {
        return Err(file
            .corrupt(format!("an index of {index_len} bytes in a file of {len} makes no sense; copy the file again")));
    }
    let mut json = vec![0; index_len as usize];
    file.read_exact_at(&mut json, front.len() as u64)?;
    serde_json::from_slice(&json).map_err(|error| file.corrupt(format!("the index is not as expected: {error}")))
}

fn extend_f32(values: &mut Vec<f32>, bytes: &[u8], half: bool) {
    if half {
        values.extend(bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()));
    } else {
        values.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
    }
}
