//! Image files and where they are, on their way to the broker.

use std::path::PathBuf;

use crate::contract::request::FileFormat;
use crate::painting::pictures::ImageFile;

/// An image file and where it is.
#[derive(Debug, Clone)]
pub struct PlacedImage {
    /// Its format.
    pub format: FileFormat,
    /// Its length, bytes.
    pub len: usize,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Where it is.
    pub place: Place,
}

/// Where an image file is.
#[derive(Debug, Clone)]
pub enum Place {
    /// On disk.
    File(PathBuf),
    /// In memory: the disk did not take it.
    Memory(Vec<u8>),
}

impl PlacedImage {
    /// `file`, which is at `path` if it could be stored.
    pub fn new(file: ImageFile, path: Option<PathBuf>) -> PlacedImage {
        let (format, len, sha256) = (file.format, file.bytes.len(), file.sha256());
        PlacedImage { format, len, sha256, place: path.map_or(Place::Memory(file.bytes), Place::File) }
    }
}
