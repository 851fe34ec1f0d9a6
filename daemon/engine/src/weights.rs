//! A network's weights: streamed from the file in the plan's order, or kept where memory allows.
//!
//! A matrix passes through as blocks of whole panels, each checked against its checksum when it is read. Whether a
//! matrix is kept decides only how often it is read, never what is computed.

mod block;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use diffused_kernels::Panels;
use diffused_kernels::pack::Layout;

pub(crate) use crate::bundle::{WeightEntry, WeightShape as Shape, WeightsFile};
use block::Block;
use stream::{BUFFERS, GroupRead, Stream};

use crate::bundle::Source;
use crate::error::{Error, Result};

/// Which weights of a network stay in memory, and how far the others are read ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residency {
    /// Which matrices stay in memory once they were read.
    pub keep: Keep,
    /// Bytes of the buffers for reading ahead, each of which takes a block at least.
    pub ring: usize,
}

impl Residency {
    /// Everything stays.
    pub fn ample() -> Residency {
        Residency { keep: Keep::All, ring: RING }
    }

    /// Nothing stays.
    pub fn streamed() -> Residency {
        Residency { keep: Keep::Only(HashSet::new()), ring: RING }
    }
}

/// Bytes that are read ahead where nothing is said of memory.
const RING: usize = 4 << 20;

/// Which matrices stay in memory once they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// All of them, until they are forgotten.
    All,
    /// Those named, and only while the network runs.
    Only(HashSet<String>),
}

impl Keep {
    fn keeps(&self, name: &str) -> bool {
        match self {
            Keep::All => true,
            Keep::Only(names) => names.contains(name),
        }
    }
}

/// A matrix in memory.
pub(crate) struct Matrix {
    layout: Layout,
    /// All of its panels.
    bytes: Block,
}

impl Matrix {
    /// Hands the panels to `compute`.
    pub(crate) fn panels(&self, compute: impl FnOnce(&Panels)) {
        compute(&Panels { layout: self.layout, blocks: &[&self.bytes], first: 0 });
    }
}

/// The weights of one network.
pub(crate) struct Weights {
    file: Arc<WeightsFile>,
    residency: Residency,
    kept: HashMap<Arc<str>, Arc<Matrix>>,
    tables: HashMap<String, Arc<[f32]>>,
    stream: Option<Stream>,
}

impl Weights {
    /// Opens `NETWORK.weights`.
    pub(crate) fn open(source: &Source, network: &str) -> Result<Weights> {
        let file = Arc::new(WeightsFile::open(source, network)?);
        let residency = Residency::ample();
        Ok(Weights { file, residency, kept: HashMap::new(), tables: HashMap::new(), stream: None })
    }

    /// The file, for what needs shapes only.
    pub(crate) fn file(&self) -> &WeightsFile {
        &self.file
    }

    /// What tensor `name` holds.
    pub(crate) fn shape(&self, name: &str) -> Result<Shape> {
        Ok(self.file.entry(name)?.shape())
    }

    /// Starts reading ahead for `passes` runs of a plan that uses its matrices in the order of `names`. Of what is kept so far
    /// stays what is to be kept.
    pub(crate) fn begin(&mut self, names: &[Arc<str>], passes: usize, residency: Residency) -> Result<()> {
        self.stream = None;
        self.residency = residency;
        self.kept.retain(|name, _| self.residency.keep.keeps(name));
        let mut seen = HashSet::new();
        let first = self.reads(names, |name| {
            !self.kept.contains_key(name) && (seen.insert(name.to_owned()) || !self.residency.keep.keeps(name))
        })?;
        let rest = self.reads(names, |name| !self.residency.keep.keeps(name))?;
        if !first.is_empty() {
            self.stream = Some(Stream::start(self.file.clone(), first, rest, passes.saturating_sub(1))?);
        }
        Ok(())
    }

    /// Stops reading ahead and frees the ring, and what is kept only while the network runs.
    pub(crate) fn end(&mut self) {
        self.stream = None;
        if self.residency.keep != Keep::All {
            self.kept.clear();
            self.tables.clear();
        }
    }

    /// How many matrices are kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Frees everything that is kept.
    pub(crate) fn forget(&mut self) {
        self.end();
        self.kept.clear();
        self.tables.clear();
    }

    /// Hands the panels of matrix `name` to `compute`: all at once where they are kept, else some blocks at a time, while others
    /// are read.
    pub(crate) fn panels(&mut self, name: &str, mut compute: impl FnMut(&Panels)) -> Result<()> {
        if self.kept.contains_key(name) || self.residency.keep.keeps(name) {
            self.whole(name)?.panels(compute);
            return Ok(());
        }
        let (entry, layout) = self.matrix_entry(name)?;
        let stream = self.stream(name)?;
        let mut done = 0;
        while done < entry.blocks() {
            let (blocks, group) = stream.next(name, done)?;
            compute(&Panels { layout, blocks: &[&group], first: entry.first_unit(done) });
            stream.recycle(group);
            done = blocks.end;
        }
        Ok(())
    }

    /// The whole of matrix `name`, when it is its turn.
    pub(crate) fn whole(&mut self, name: &str) -> Result<Arc<Matrix>> {
        if let Some(matrix) = self.kept.get(name) {
            return Ok(matrix.clone());
        }
        let (entry, layout) = self.matrix_entry(name)?;
        let stream = self.stream(name)?;
        let (mut bytes, mut done) = (Block::with_room(entry.bytes()), 0);
        while done < entry.blocks() {
            let (blocks, group) = stream.next(name, done)?;
            bytes.add(&group);
            stream.recycle(group);
            done = blocks.end;
        }
        Ok(self.keep(name, Matrix { layout, bytes }))
    }

    fn stream(&self, name: &str) -> Result<&Stream> {
        self.stream.as_ref().ok_or_else(|| Error::Internal(format!("{name} is not being read")))
    }

    /// Keeps `matrix` if it is to be kept.
    fn keep(&mut self, name: &str, matrix: Matrix) -> Arc<Matrix> {
        let matrix = Arc::new(matrix);
        if self.residency.keep.keeps(name) {
            self.kept.insert(name.into(), matrix.clone());
        }
        matrix
    }

    /// The whole of matrix `name`, for work that reads it again and again; it is read at once and not by the stream.
    pub(crate) fn matrix(&mut self, name: &str) -> Result<Arc<Matrix>> {
        if let Some(matrix) = self.kept.get(name) {
            return Ok(matrix.clone());
        }
        let (entry, layout) = self.matrix_entry(name)?;
        let mut bytes = Block::default();
        bytes.read(&self.file, name, 0..entry.blocks())?;
        Ok(self.keep(name, Matrix { layout, bytes }))
    }

    fn matrix_entry(&self, name: &str) -> Result<(&WeightEntry, Layout)> {
        let entry = self.file.entry(name)?;
        match entry.shape() {
            Shape::Matrix { layout, .. } => Ok((entry, layout)),
            Shape::Table { .. } => Err(Error::Internal(format!("{name} is a table, not a matrix"))),
        }
    }

    /// A small table (gamma and beta, positions) as f32; kept.
    pub(crate) fn table(&mut self, name: &str) -> Result<Arc<[f32]>> {
        if let Some(table) = self.tables.get(name) {
            return Ok(table.clone());
        }
        let table: Arc<[f32]> = self.file.read_table(name)?.into();
        self.tables.insert(name.to_owned(), table.clone());
        Ok(table)
    }

    /// The rows `ids` of a table of any size.
    pub(crate) fn rows(&self, name: &str, ids: &[usize]) -> Result<Vec<f32>> {
        self.file.read_rows(name, ids)
    }

    /// The reads of the wanted matrices, each of as many blocks as a buffer takes.
    fn reads(&self, names: &[Arc<str>], mut wanted: impl FnMut(&str) -> bool) -> Result<Vec<GroupRead>> {
        let mut reads = Vec::new();
        for name in names.iter().filter(|name| wanted(name)) {
            let entry = self.file.entry(name)?;
            let together = blocks_together(entry, self.residency.ring);
            let starts = (0..entry.blocks()).step_by(together);
            let read = |start| GroupRead { name: name.clone(), blocks: start..entry.blocks().min(start + together) };
            reads.extend(starts.map(read));
        }
        Ok(reads)
    }
}

/// Blocks of a tensor that one of the ring's buffers takes: of panels whole pairs if it can, which is what the kernels take at once.
fn blocks_together(entry: &WeightEntry, ring: usize) -> usize {
    let most = (ring / BUFFERS / entry.block_len(0)).max(1);
    if most > 1 && !entry.units_per_block().is_multiple_of(2) { most / 2 * 2 } else { most }
}
