//! A file with tensors, in whichever container its first bytes show.
//!
//! Plain reads at an offset and not a memory map: what a conversion holds in memory is then what it asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use diffused_engine::hash::Sha256;

use super::container::Container;
use super::dtype::TensorDtype;
use super::{gguf, safetensors_header, torch};
use crate::error::{Error, Result};

/// Most bytes between the values of one read of a tensor that is not contiguous; where they lie farther apart, it is
/// read in pieces.
const MAX_SPAN: usize = 4 << 20;

/// Most values of a tensor that is read at once.
const MAX_WHOLE: usize = 1 << 26;

/// Most tensors of a file, dimensions of a tensor, and bytes of its name: what a damaged or hostile file may have us
/// keep. The largest published checkpoints have some thousands of tensors.
pub(super) const MAX_TENSORS: usize = 1 << 17;
pub(super) const MAX_DIMENSIONS: usize = 8;
pub(super) const MAX_NAME: usize = 1024;

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorEntry {
    /// The type of its values.
    pub(crate) dtype: TensorDtype,
    /// Its shape, as torch has it.
    pub(crate) shape: Vec<usize>,
    /// Values from one index of each dimension to the next; `None`: they follow each other in the shape's order.
    pub(crate) strides: Option<Vec<usize>>,
    /// Where its first value begins, bytes of the file.
    pub(crate) offset: u64,
}

impl TensorEntry {
    /// The number of its values.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a container's header says.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The tensors, by name. Each lies in the file, and its number of values is a `usize`.
    pub(crate) tensors: BTreeMap<String, TensorEntry>,
    /// What the file says of itself.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A file and the tensors in it.
#[derive(Debug)]
pub(crate) struct TensorFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What holds the tensors.
    pub(crate) container: Container,
    /// Its tensors, under the names that they have there.
    pub(crate) tensors: BTreeMap<String, TensorEntry>,
    /// What the file says of itself.
    pub(crate) metadata: BTreeMap<String, String>,
    file: File,
    state: FileState,
}

/// By what a file that changes is noticed.
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    len: u64,
    modified: Option<SystemTime>,
}

impl FileState {
    fn of(file: &File) -> std::io::Result<FileState> {
        let metadata = file.metadata()?;
        Ok(FileState { len: metadata.len(), modified: metadata.modified().ok() })
    }
}

impl TensorFile {
    /// Opens the file `path`.
    ///
    /// # Errors
    ///
    /// Whatever is not a whole file of tensors, by what it is instead.
    pub(crate) fn open(path: &Path) -> Result<TensorFile> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let state = FileState::of(&file).map_err(Error::io(path))?;
        let container = Container::find(path, &file, state.len)?;
        let contents = match container {
            Container::Safetensors => safetensors_header::read(path, &mut file, state.len),
            Container::Torch => torch::read(path, &file, state.len),
            Container::Gguf => gguf::read(path, &file, state.len),
        };
        let Contents { tensors, metadata } = contents?;
        Ok(TensorFile { path: path.to_owned(), container, tensors, metadata, file, state })
    }

    /// Reads values of tensor `name` from value `first` on, in the order of its shape.
    ///
    /// # Errors
    ///
    /// A tensor that is missing or too short, and a value that is not finite.
    pub(crate) fn read(&self, name: &str, first: usize, values: &mut [f32]) -> Result<()> {
        let error = |message: String| Error::tensor(&self.path, name, message);
        let Some(entry) = self.tensors.get(name) else { return Err(error("is missing".into())) };
        if entry.dtype.block_bytes() == 0 {
            return Err(error(format!("holds {}, which is not read", entry.dtype)));
        }
        if first.saturating_add(values.len()) > entry.len() {
            return Err(error(format!("has {} values; asked for are {} from {first} on", entry.len(), values.len())));
        }
        match &entry.strides {
            None => self.read_blocks(entry, first, values)?,
            Some(strides) => self.read_strided(entry, strides, first, values)?,
        }
        match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            Some((at, value)) => Err(error(format!("value {} is {value}", first + at))),
            None => Ok(()),
        }
    }

    /// Values that follow each other, in whole blocks.
    fn read_blocks(&self, entry: &TensorEntry, first: usize, values: &mut [f32]) -> Result<()> {
        let (block, size) = (entry.dtype.block_values(), entry.dtype.block_bytes());
        let (start, end) = (first / block, (first + values.len()).div_ceil(block));
        let mut bytes = vec![0; (end - start) * size];
        self.read_bytes(entry.offset + (start * size) as u64, &mut bytes)?;
        if (first, values.len()) == (start * block, (end - start) * block) {
            entry.dtype.decode(&bytes, values);
            return Ok(());
        }
        let mut whole = vec![0.0; (end - start) * block];
        entry.dtype.decode(&bytes, &mut whole);
        values.iter_mut().zip(whole.iter().skip(first - start * block)).for_each(|(value, from)| *value = *from);
        Ok(())
    }

    /// Values that lie apart: read with all between them, unless that is much.
    fn read_strided(&self, entry: &TensorEntry, strides: &[usize], first: usize, values: &mut [f32]) -> Result<()> {
        let places: Vec<usize> =
            (first..first + values.len()).map(|value| place(&entry.shape, strides, value)).collect();
        let (Some(start), Some(end)) = (places.iter().min(), places.iter().max()) else { return Ok(()) };
        let size = entry.dtype.block_bytes();
        if (end - start) * size > MAX_SPAN && values.len() > 1 {
            let half = values.len() / 2;
            let (before, behind) = values.split_at_mut(half);
            self.read_strided(entry, strides, first, before)?;
            return self.read_strided(entry, strides, first + half, behind);
        }
        let mut span = vec![0; (end - start + 1) * size];
        self.read_bytes(entry.offset + (start * size) as u64, &mut span)?;
        for (value, place) in values.iter_mut().zip(&places) {
            let bytes = span.get((place - start) * size..).unwrap_or_default();
            entry.dtype.decode(bytes, std::slice::from_mut(value));
        }
        Ok(())
    }

    fn read_bytes(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|cause| match cause.kind() {
            ErrorKind::UnexpectedEof => self.changed(),
            _ => Error::io(&self.path)(cause),
        })
    }

    /// All values of tensor `name`, which should be a small one.
    ///
    /// # Errors
    ///
    /// Those of `read`, and a tensor that is not small.
    pub(crate) fn read_all(&self, name: &str) -> Result<Vec<f32>> {
        let len = self.tensors.get(name).map_or(0, TensorEntry::len);
        if len > MAX_WHOLE {
            return Err(Error::tensor(
                &self.path,
                name,
                format!("has {len} values; at most {MAX_WHOLE} are read at once"),
            ));
        }
        let mut values = vec![0.0; len];
        self.read(name, 0, &mut values)?;
        Ok(values)
    }

    /// What the user should know: that the file is not what its name says.
    pub(crate) fn note(&self) -> Option<String> {
        let (path, container) = (self.path.display(), self.container);
        (!container.has_ending(&self.path))
            .then(|| format!("{path}: is {container}, whatever its name says, and was read so"))
    }

    /// Adds the file to a checksum.
    ///
    /// # Errors
    ///
    /// A file that has changed since it was opened.
    pub(crate) fn hash(&self, hash: &mut Sha256) -> Result<()> {
        crate::files::add_file(hash, &self.path)?;
        match FileState::of(&self.file).map_err(Error::io(&self.path))? == self.state {
            true => Ok(()),
            false => Err(self.changed()),
        }
    }

    fn changed(&self) -> Error {
        Error::file(&self.path, "has changed while it was read; try again once nothing writes to it")
    }
}

/// Where value `value`, counted in the shape's order, lies by these strides.
fn place(shape: &[usize], strides: &[usize], mut value: usize) -> usize {
    let mut place = 0;
    for (size, stride) in shape.iter().zip(strides).rev() {
        place += value % size * stride;
        value /= size;
    }
    place
}
