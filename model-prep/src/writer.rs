//! Writes a `.weights` file, weight by weight and block by block, so that memory holds one block and no more.
//!
//! The index comes first in the file but is known last, when all checksums are; its length does not depend on them, so
//! room is left for it and it is written at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use diffused_engine::bundle::{Index, PAGE, Tensor};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::parameter::Parameter;
use crate::source::Checkpoint;

/// Writes `parameters` of `source` to `path`; `progress` is told of every block's bytes.
pub(crate) fn write(
    path: &Path,
    parameters: &[Parameter],
    source: &Checkpoint,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let file = File::create_new(path).map_err(Error::io(path))?;
    let mut index = lay_out(parameters);
    for parameter in parameters {
        let Some(tensor) = index.tensors.get_mut(&parameter.name) else { continue };
        tensor.checksums = write_tensor(path, &file, parameter, tensor.offset, source, progress)?;
    }
    let end = parameters.last().map_or(0, |last| index.tensors[&last.name].offset + last.bytes());
    file.set_len(end).map_err(Error::io(path))?;
    file.write_all_at(&front(&index), 0).map_err(Error::io(path))?;
    file.sync_all().map_err(Error::io(path))
}

/// The index with every offset, and with checksums of zero.
fn lay_out(parameters: &[Parameter]) -> Index {
    let mut index = Index { tensors: BTreeMap::new() };
    for parameter in parameters {
        let blocks = parameter.units().div_ceil(parameter.units_per_block());
        let tensor = Tensor {
            offset: 0,
            kind: parameter.kind(),
            block_bytes: parameter.units_per_block() * parameter.unit_bytes(),
            checksums: vec![checksum(&[]); blocks],
        };
        index.tensors.insert(parameter.name.clone(), tensor);
    }
    // Offsets lengthen the index that they depend on; a second round settles them.
    let mut start = 0;
    loop {
        let mut offset = start;
        for parameter in parameters {
            if let Some(tensor) = index.tensors.get_mut(&parameter.name) {
                tensor.offset = offset;
                offset = (offset + parameter.bytes()).next_multiple_of(PAGE);
            }
        }
        let needed = (front(&index).len() as u64).next_multiple_of(PAGE);
        if needed <= start {
            return index;
        }
        start = needed;
    }
}

/// The index and its length.
fn front(index: &Index) -> Vec<u8> {
    let json = serde_json::to_vec(index).unwrap_or_default();
    [&(json.len() as u64).to_le_bytes(), &*json].concat()
}

fn write_tensor(
    path: &Path,
    file: &File,
    parameter: &Parameter,
    mut offset: u64,
    source: &Checkpoint,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<String>> {
    let unit = parameter.unit_bytes();
    let mut checksums = Vec::new();
    let mut block = Vec::new();
    for first in (0..parameter.units()).step_by(parameter.units_per_block()) {
        let units = parameter.units_per_block().min(parameter.units() - first);
        block.resize(units * unit, 0);
        for (i, out) in block.chunks_exact_mut(unit).enumerate() {
            parameter.encode(source, first + i, out)?;
        }
        file.write_all_at(&block, offset).map_err(Error::io(path))?;
        offset += block.len() as u64;
        checksums.push(checksum(&block));
        progress(block.len() as u64);
    }
    Ok(checksums)
}

/// A block's checksum as the index has it.
pub(crate) fn checksum(block: &[u8]) -> String {
    format!("{:016x}", xxh3_64(block))
}
