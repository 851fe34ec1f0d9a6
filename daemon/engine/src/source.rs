//! Where a bundle's bytes come from: a folder on disk or the program itself, which carries the demo model.
//!
//! Files are read with `pread` and not mapped: resident memory stays what the planner says, and a failing SD card
//! is an error and not a SIGBUS.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::bundle::{Manifest, SCHEMA};
use crate::error::{Error, Result};

/// A bundle's place.
#[derive(Debug, Clone)]
pub enum Source {
    /// A folder.
    Folder(PathBuf),
    /// Files inside the program: path within the bundle, contents.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Source {
    /// How messages name `file`.
    pub fn path(&self, file: &str) -> PathBuf {
        match self {
            Source::Folder(folder) => folder.join(file),
            Source::Embedded(_) => Path::new("(built-in model)").join(file),
        }
    }

    /// Opens `file`, a path within the bundle.
    pub(crate) fn open(&self, file: &str) -> Result<SourceFile> {
        let path = self.path(file);
        let missing = |message: String| Error::ModelCorrupt { path: path.clone(), message };
        let content = match self {
            Source::Folder(_) => match File::open(&path) {
                Ok(opened) => Content::Disk(opened),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(missing("the file is missing; copy the whole bundle again".into()));
                }
                Err(source) => return Err(Error::Io { path, source }),
            },
            Source::Embedded(files) => match files.iter().find(|(name, _)| *name == file) {
                Some((_, bytes)) => Content::Memory(bytes),
                None => return Err(missing("the program was built without this file".into())),
            },
        };
        Ok(SourceFile { path, content })
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        let opened = self.open(file)?;
        let mut bytes = vec![0; opened.len()? as usize];
        opened.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A bundle whose `bundle.json` was read and understood.
pub struct Bundle {
    pub(crate) source: Source,
    /// What `bundle.json` says.
    pub manifest: Manifest,
    /// SHA-256 of `bundle.json`, hexadecimal.
    pub sha256: String,
}

impl Bundle {
    /// Reads `bundle.json` and checks its version.
    pub fn open(source: Source) -> Result<Bundle> {
        let bytes = source.read("bundle.json")?;
        let manifest =
            manifest(&bytes).map_err(|message| Error::ModelCorrupt { path: source.path("bundle.json"), message })?;
        Ok(Bundle { sha256: sha256(&bytes), source, manifest })
    }

    /// Reads a whole small file and checks it against its checksum in `bundle.json`.
    pub(crate) fn read(&self, file: &str) -> Result<Vec<u8>> {
        let bytes = self.source.read(file)?;
        let corrupt = |message: &str| Error::ModelCorrupt { path: self.source.path(file), message: message.into() };
        let listed = self.manifest.files.get(file).ok_or_else(|| corrupt("bundle.json does not list this file"))?;
        if !listed.eq_ignore_ascii_case(&sha256(&bytes)) {
            return Err(corrupt("the file does not match its checksum in bundle.json; copy the bundle again"));
        }
        Ok(bytes)
    }
}

/// Reads the version before the rest, whose form depends on it.
fn manifest(bytes: &[u8]) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let version: Version =
        serde_json::from_slice(bytes).map_err(|error| format!("not a bundle's manifest: {error}"))?;
    if version.schema != SCHEMA {
        let schema = version.schema;
        return Err(format!("the bundle has schema {schema}, this program reads {SCHEMA}; convert the model again"));
    }
    serde_json::from_slice(bytes).map_err(|error| format!("not as expected: {error}"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An open file of a bundle; any thread may read it.
#[derive(Debug)]
pub(crate) struct SourceFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Disk(File),
    Memory(&'static [u8]),
}

impl SourceFile {
    /// Length in bytes.
    pub(crate) fn len(&self) -> Result<u64> {
        match &self.content {
            Content::Disk(file) => Ok(file.metadata().map_err(|source| self.io(source))?.len()),
            Content::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match &self.content {
            Content::Disk(file) => file.read_exact_at(buffer, offset).map_err(|source| self.io(source)),
            Content::Memory(bytes) => {
                let part = usize::try_from(offset).ok().and_then(|start| bytes.get(start..)?.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or_else(|| self.io(io::ErrorKind::UnexpectedEof.into()))?);
                Ok(())
            }
        }
    }

    /// An error of this file's contents.
    pub(crate) fn corrupt(&self, message: impl Into<String>) -> Error {
        Error::ModelCorrupt { path: self.path.clone(), message: message.into() }
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }
}
