//! The index of a `.weights` file: which tensors it holds, where, and with which checksums. All sizes are computed here.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use diffused_kernels::pack::{Format, Layout, PANEL, PHASES};
use serde::{Deserialize, Serialize};

use super::{BLOCK, NewTensor, PAGE};

/// The most inputs of a tap, and values of a row: more would overflow the int8 products' sums in i32.
const MAX_INPUTS: usize = 1 << 17;
/// The most outputs of a matrix, and rows of a table.
const MAX_OUTPUTS: usize = 1 << 24;
/// Bytes of the index's length before the index.
pub(super) const LENGTH: usize = 8;

/// What a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightShape {
    /// Packed panels.
    Matrix {
        /// Of a panel.
        layout: Layout,
        /// Outputs; GEGLU's are 16 values and 16 gates by turns.
        n: usize,
    },
    /// Rows of plain values, f16 or else f32: embeddings, gamma and beta.
    Table {
        /// Rows.
        rows: usize,
        /// Values of a row.
        columns: usize,
        /// Stored as f16.
        half: bool,
    },
}

impl WeightShape {
    /// How its values are stored.
    pub fn format(&self) -> Format {
        match *self {
            WeightShape::Matrix { layout, .. } => layout.format,
            WeightShape::Table { half: true, .. } => Format::F16,
            WeightShape::Table { half: false, .. } => Format::F32,
        }
    }

    /// Panels or rows, which no block cuts.
    pub fn units(&self) -> usize {
        match *self {
            WeightShape::Matrix { n, .. } => n.div_ceil(PANEL),
            WeightShape::Table { rows, .. } => rows,
        }
    }

    /// Bytes of a panel or row.
    pub fn unit_bytes(&self) -> usize {
        match *self {
            WeightShape::Matrix { layout, .. } => layout.panel_bytes(),
            WeightShape::Table { columns, half, .. } => columns * if half { 2 } else { 4 },
        }
    }

    /// Bytes of all panels or rows.
    ///
    /// # Errors
    ///
    /// A size that no model has; within these limits no size in bytes overflows.
    fn checked_bytes(&self) -> Result<usize, String> {
        let within = |what: &str, value: usize, most: usize| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(format!("{what} is {value}; allowed is 1 to {most}")),
        };
        match *self {
            WeightShape::Matrix { layout: Layout { format, k, taps }, n } => {
                within("n", n, MAX_OUTPUTS)?;
                within("k", k, MAX_INPUTS)?;
                if !matches!(taps, 1 | PHASES | 9) {
                    return Err(format!("taps is {taps}; allowed are 1, {PHASES} and 9"));
                }
                if format == Format::Int8 && !k.is_multiple_of(4) {
                    return Err(format!("k is {k}; int8 needs a multiple of 4"));
                }
            }
            WeightShape::Table { rows, columns, .. } => {
                within("rows", rows, MAX_OUTPUTS)?;
                within("columns", columns, MAX_INPUTS)?;
            }
        }
        self.unit_bytes().checked_mul(self.units()).ok_or_else(|| "its sizes overflow".into())
    }
}

/// A tensor of the file; its blocks lie one after the other from `offset` on, inside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightEntry {
    shape: WeightShape,
    offset: u64,
    bytes: usize,
    block_bytes: usize,
    checksums: Vec<u64>,
}

impl WeightEntry {
    /// What it holds.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// From the start of the file, bytes; a multiple of `PAGE`.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the whole tensor.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.checksums.len()
    }

    /// Bytes of block `index`; the last one may be shorter than the others.
    pub fn block_len(&self, index: usize) -> usize {
        self.block_bytes.min(self.bytes - index * self.block_bytes)
    }

    /// Panels or rows of a block.
    pub fn units_per_block(&self) -> usize {
        self.block_bytes / self.shape.unit_bytes()
    }

    /// Index of a block's first panel or row.
    pub fn first_unit(&self, block: usize) -> usize {
        block * self.units_per_block()
    }

    /// Where block `index` lies in the file, and its checksum.
    pub(super) fn block(&self, index: usize) -> Option<(u64, u64)> {
        let checksum = self.checksums.get(index)?;
        Some((self.offset + index as u64 * self.block_bytes as u64, *checksum))
    }

    pub(super) fn set_checksum(&mut self, index: usize, checksum: u64) {
        if let Some(place) = self.checksums.get_mut(index) {
            *place = checksum;
        }
    }

    /// A tensor that is to be written: blocks as long as fits, of GEGLU whole pairs of panels.
    fn new(tensor: &NewTensor) -> Result<WeightEntry, String> {
        let bytes = tensor.shape.checked_bytes()?;
        let (least, unit) = (if tensor.pairs { 2 } else { 1 }, tensor.shape.unit_bytes());
        let block_bytes = (BLOCK / unit / least).max(1) * least * unit;
        let checksums = vec![0; bytes.div_ceil(block_bytes)];
        Ok(WeightEntry { shape: tensor.shape, offset: 0, bytes, block_bytes, checksums })
    }

    fn parse(tensor: RawTensor, file_len: u64) -> Result<WeightEntry, String> {
        let RawTensor { offset, kind, block_bytes, checksums } = tensor;
        let shape = kind.shape()?;
        // What a unit has is only known not to overflow once the whole has been checked.
        let bytes = shape.checked_bytes()?;
        let unit = shape.unit_bytes();
        if !offset.is_multiple_of(PAGE) {
            return Err(format!("its offset is {offset}; allowed are multiples of {PAGE}"));
        }
        if offset.checked_add(bytes as u64).is_none_or(|end| end > file_len) {
            return Err(format!(
                "it needs {bytes} bytes from {offset} on, but the file ends at {file_len}; the file is cut off, copy it \
                 again"
            ));
        }
        let most = BLOCK.max(2 * unit);
        if block_bytes == 0 || block_bytes > most || !block_bytes.is_multiple_of(unit) {
            return Err(format!("block_bytes is {block_bytes}; allowed are multiples of {unit} up to {most}"));
        }
        let blocks = bytes.div_ceil(block_bytes);
        if checksums.len() != blocks {
            return Err(format!("it has {} checksums for {blocks} blocks", checksums.len()));
        }
        Ok(WeightEntry { shape, offset, bytes, block_bytes, checksums })
    }
}

/// The tensors of a `.weights` file by name: inside the file, apart from each other, of sizes that a model can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsIndex {
    entries: BTreeMap<String, WeightEntry>,
}

impl WeightsIndex {
    /// Parses the index of a file of `file_len` bytes. Allocates no more than a few times the length of `json`.
    ///
    /// # Errors
    ///
    /// What is wrong with the JSON or with a tensor, by name.
    pub fn parse(json: &[u8], file_len: u64) -> Result<WeightsIndex, String> {
        let raw: RawIndex =
            serde_json::from_slice(json).map_err(|error| format!("the index is not as expected: {error}"))?;
        let mut entries = BTreeMap::new();
        for (name, tensor) in raw.tensors {
            let entry = WeightEntry::parse(tensor, file_len).map_err(|message| format!("tensor {name}: {message}"))?;
            entries.insert(name, entry);
        }
        let mut places: Vec<(&str, &WeightEntry)> = entries.iter().map(|(name, entry)| (&**name, entry)).collect();
        places.sort_by_key(|(_, entry)| entry.offset);
        let (mut before, mut end) = ("the index", (LENGTH + json.len()) as u64);
        for (name, entry) in places {
            if entry.offset < end {
                return Err(format!("tensor {name}: it begins at {}, but {before} ends at {end}", entry.offset));
            }
            (before, end) = (name, entry.offset + entry.bytes as u64);
        }
        Ok(WeightsIndex { entries })
    }

    /// The tensor called `name`.
    pub fn entry(&self, name: &str) -> Option<&WeightEntry> {
        self.entries.get(name)
    }

    pub(super) fn entry_mut(&mut self, name: &str) -> Option<&mut WeightEntry> {
        self.entries.get_mut(name)
    }

    /// Every tensor, by name.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &WeightEntry)> {
        self.entries.iter().map(|(name, entry)| (&**name, entry))
    }

    /// Where the last tensor ends.
    pub(super) fn end(&self) -> u64 {
        self.entries.values().map(|entry| entry.offset + entry.bytes as u64).max().unwrap_or(0)
    }

    /// The index of a file that is to be written, its checksums still zero: tensors in the order of `tensors`.
    pub(super) fn lay_out(tensors: &[NewTensor]) -> Result<WeightsIndex, String> {
        let mut index = WeightsIndex { entries: BTreeMap::new() };
        for tensor in tensors {
            let NewTensor { name, .. } = tensor;
            let entry = WeightEntry::new(tensor).map_err(|message| format!("tensor {name}: {message}"))?;
            if index.entries.insert(name.clone(), entry).is_some() {
                return Err(format!("tensor {name}: it is there twice"));
            }
        }
        // Offsets lengthen the index that they depend on; a second round settles them.
        let mut start = 0;
        loop {
            let mut offset = start;
            for tensor in tensors {
                if let Some(entry) = index.entries.get_mut(&tensor.name) {
                    entry.offset = offset;
                    offset = (offset + entry.bytes as u64).next_multiple_of(PAGE);
                }
            }
            let needed = (index.front().len() as u64).next_multiple_of(PAGE);
            if needed <= start {
                return Ok(index);
            }
            start = needed;
        }
    }

    /// What a file begins with: the index's length, then the index.
    pub(super) fn front(&self) -> Vec<u8> {
        let tensors = self.entries.iter().map(|(name, entry)| (name.clone(), RawTensor::of(entry))).collect();
        let json = serde_json::to_vec(&RawIndex { tensors }).expect("an index has only strings as keys");
        [&(json.len() as u64).to_le_bytes(), &*json].concat()
    }
}

/// The index as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIndex {
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    offset: u64,
    kind: RawKind,
    block_bytes: usize,
    #[serde(with = "checksums")]
    checksums: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
enum RawKind {
    Matrix {
        #[serde(with = "format_name")]
        format: Format,
        n: usize,
        k: usize,
        taps: usize,
    },
    Table {
        #[serde(with = "format_name")]
        format: Format,
        rows: usize,
        columns: usize,
    },
}

impl RawTensor {
    fn of(entry: &WeightEntry) -> RawTensor {
        let kind = match entry.shape {
            WeightShape::Matrix { layout: Layout { format, k, taps }, n } => RawKind::Matrix { format, n, k, taps },
            WeightShape::Table { rows, columns, .. } => RawKind::Table { format: entry.shape.format(), rows, columns },
        };
        let WeightEntry { offset, block_bytes, ref checksums, .. } = *entry;
        RawTensor { offset, kind, block_bytes, checksums: checksums.clone() }
    }
}

impl RawKind {
    fn shape(&self) -> Result<WeightShape, String> {
        match *self {
            RawKind::Matrix { format, n, k, taps } => Ok(WeightShape::Matrix { layout: Layout { format, k, taps }, n }),
            RawKind::Table { format: Format::Int8, .. } => Err("format is int8; a table has f16 or f32".into()),
            RawKind::Table { format, rows, columns } => {
                Ok(WeightShape::Table { rows, columns, half: format == Format::F16 })
            }
        }
    }
}

/// A `Format` as its name.
pub(super) mod format_name {
    use diffused_kernels::pack::Format;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::bundle) fn serialize<S: Serializer>(format: &Format, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(format.name())
    }

    pub(in crate::bundle) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Format, D::Error> {
        let name = String::deserialize(from)?;
        let found = Format::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| D::Error::unknown_variant(&name, &["int8", "f16", "f32"]))
    }
}

/// Checksums as 16 hexadecimal digits each.
mod checksums {
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    use crate::hash::parse_block_checksum;

    pub(super) fn serialize<S: Serializer>(checksums: &[u64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(checksums.iter().map(|checksum| format!("{checksum:016x}")))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Vec<u64>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("checksums of 16 hexadecimal digits each")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u64>, A::Error> {
                let mut checksums = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    let parsed = parse_block_checksum(&text);
                    checksums.push(parsed.ok_or_else(|| {
                        A::Error::custom(format_args!("the checksum {text:?} is not 16 hexadecimal digits"))
                    })?);
                }
                Ok(checksums)
            }
        }
        from.deserialize_seq(List)
    }
}
