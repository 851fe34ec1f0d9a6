//! Checksums of files that may be larger than memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use diffused_engine::hash::Sha256;

use crate::error::{Error, Result};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// SHA-256 of a file, hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::default();
    add_file(&mut hash, path)?;
    Ok(hash.finish())
}

/// Adds a file to a checksum.
pub(crate) fn add_file(hash: &mut Sha256, path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk).map_err(Error::io(path))? {
            0 => return Ok(()),
            n => hash.update(&chunk[..n]),
        }
    }
}
