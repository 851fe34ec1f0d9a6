//! Where a bundle's bytes come from: a folder on disk or the program itself, which carries the demo model.
//!
//! Files are read with `pread` and not mapped: resident memory stays what the planner says, and a failing SD card
//! is an error and not a SIGBUS.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file that is read whole is not longer than this, bytes; the largest known, a vocabulary, has a mebibyte.
const MAX_FILE: u64 = 64 << 20;

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

    /// Bytes of it that are part of the program: its pages, which are in memory once they were read.
    pub(crate) fn embedded_bytes(&self) -> u64 {
        match self {
            Source::Folder(_) => 0,
            Source::Embedded(files) => files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
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

    /// What people give instead of a bundle, and what to do with it; `None` of a folder that has a `bundle.json`.
    pub(super) fn not_a_bundle(&self) -> Option<Error> {
        let Source::Folder(folder) = self else { return None };
        if folder.is_file() {
            let message = "is a file; a bundle is a folder, which model-prep convert makes of a model";
            return Some(Error::ModelCorrupt { path: folder.clone(), message: message.into() });
        }
        let path = self.path("bundle.json");
        let message = match (folder.try_exists(), path.try_exists()) {
            (Ok(false), _) => "there is no such folder; give the folder of a bundle",
            (_, Ok(false)) => {
                "the file is missing, so this is not a whole bundle; model-prep convert makes one of a model; of a bundle \
                 that was copied, copy all files again"
            }
            _ => return None,
        };
        Some(Error::ModelCorrupt { path, message: message.into() })
    }

    /// The whole of a small file.
    pub(crate) fn read(&self, file: &str) -> Result<Vec<u8>> {
        let opened = self.open(file)?;
        let len = opened.len()?;
        let fits = usize::try_from(len).ok().filter(|_| len <= MAX_FILE);
        let message = || format!("the file has {len} bytes; allowed are {MAX_FILE}; copy it again");
        let mut bytes = vec![0; fits.ok_or_else(|| opened.corrupt(message()))?];
        opened.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
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
    /// A file of no bytes.
    pub(super) fn empty(name: &str) -> SourceFile {
        SourceFile { path: name.into(), content: Content::Memory(&[]) }
    }

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
