//! The tensors of a network under the names that its graph asks for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dtype::TensorDtype;
use super::file::TensorFile;
use super::folder::{self, FolderWeights};
use crate::error::{Error, Result};

/// What changes values after they were read: it is given the position of the first, in the order of the shape, and the
/// values.
pub(crate) type Change = Box<dyn Fn(usize, &mut [f32]) -> Result<()>>;

/// The tensors of a network.
pub(crate) struct Checkpoint {
    /// What an error of a missing tensor names.
    place: PathBuf,
    files: Vec<Arc<TensorFile>>,
    /// How the files were chosen, where that is worth a word.
    choice: Option<String>,
    tensors: BTreeMap<String, TensorView>,
}

/// A tensor of the network: rows of one in a file, rows in memory behind them, and changes to both.
struct TensorView {
    /// Where the rows are; `None`: all are in memory.
    stored: Option<Stored>,
    shape: Vec<usize>,
    added: Vec<f32>,
    changes: Vec<Change>,
}

/// Values of a file's tensor.
#[derive(Clone)]
struct Stored {
    file: usize,
    name: String,
    range: Range<usize>,
}

impl Checkpoint {
    /// Opens the weights in a network's `folder` (`stem.safetensors` and the like).
    ///
    /// # Errors
    ///
    /// No file that can be read, and two tensors of one name.
    pub(crate) fn open_folder(folder: &Path, stem: &str) -> Result<Checkpoint> {
        let FolderWeights { files, choice } = folder::open(folder, stem)?;
        Ok(Checkpoint { choice, ..Checkpoint::from_files(folder, files, |name| Some(name.to_owned()))? })
    }

    /// The tensors of `files` under other names; where `rename` returns `None` a tensor is left out. An error of a
    /// missing tensor names `place`.
    ///
    /// # Errors
    ///
    /// Two tensors of one name.
    pub(crate) fn from_files(
        place: &Path,
        files: Vec<Arc<TensorFile>>,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<Checkpoint> {
        let mut checkpoint =
            Checkpoint { place: place.to_owned(), files: Vec::new(), choice: None, tensors: BTreeMap::new() };
        for (file, opened) in files.iter().enumerate() {
            for (name, entry) in &opened.tensors {
                let Some(new) = rename(name) else { continue };
                let stored = Some(Stored { file, name: name.clone(), range: 0..entry.len() });
                let view = TensorView { stored, shape: entry.shape.clone(), added: Vec::new(), changes: Vec::new() };
                if let Some(TensorView { stored: Some(other), .. }) = checkpoint.tensors.insert(new, view) {
                    let message = match other.file == file {
                        true => format!("is there twice, also as {}", other.name),
                        false => "is in two files".to_owned(),
                    };
                    return Err(Error::tensor(&opened.path, name, message));
                }
            }
        }
        checkpoint.files = files;
        Ok(checkpoint)
    }

    /// Gives tensors other names; where `rename` returns `None` the tensor is left out.
    ///
    /// # Errors
    ///
    /// Two tensors of one name.
    pub(crate) fn rename(&mut self, rename: impl Fn(&str) -> Option<String>) -> Result<()> {
        for (old, view) in std::mem::take(&mut self.tensors) {
            let Some(new) = rename(&old) else { continue };
            if self.tensors.contains_key(&new) {
                return Err(self.error(&new, format!("is there twice, also as {old}")));
            }
            self.tensors.insert(new, view);
        }
        Ok(())
    }

    /// What the user should know of the files: a choice among several, one that is not what its name says.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        self.choice.iter().cloned().chain(self.files.iter().filter_map(|file| file.note()))
    }

    /// The tensors' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of tensor `name`, if it is there.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.shape)
    }

    /// Makes rows of tensor `name` a tensor of their own, `new`: a matrix that holds several layers' is taken apart so.
    ///
    /// # Errors
    ///
    /// A tensor that is missing, has not so many rows or was changed already, and one that is named `new` already.
    pub(crate) fn slice_rows(&mut self, name: &str, rows: Range<usize>, new: &str) -> Result<()> {
        let missing = || self.error(name, "is missing");
        let view = self.tensors.get(name).ok_or_else(missing)?;
        let (Some(stored), true, true) = (&view.stored, view.added.is_empty(), view.changes.is_empty()) else {
            return Err(self.error(name, "was changed and cannot be taken apart"));
        };
        let there = view.shape.first().copied().unwrap_or(0);
        if rows.start > rows.end || rows.end > there {
            return Err(self.error(name, format!("has {there} rows; needed are {} to {}", rows.start, rows.end)));
        }
        let len: usize = view.shape.iter().skip(1).product();
        let first = stored.range.start;
        let range = first + rows.start * len..first + rows.end * len;
        let mut shape = view.shape.clone();
        shape.iter_mut().take(1).for_each(|size| *size = rows.len());
        let stored = Some(Stored { range, ..stored.clone() });
        let slice = TensorView { stored, shape, added: Vec::new(), changes: Vec::new() };
        match self.tensors.contains_key(new) {
            true => Err(self.error(new, format!("is there twice, also in {name}"))),
            false => {
                self.tensors.insert(new.to_owned(), slice);
                Ok(())
            }
        }
    }

    /// Leaves tensor `name` out.
    pub(crate) fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// A small tensor that is in no file, in place of one of that name.
    pub(crate) fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        let view = TensorView { stored: None, shape: shape.to_vec(), added: values, changes: Vec::new() };
        self.tensors.insert(name.to_owned(), view);
    }

    /// Adds rows behind the last of tensor `name`.
    ///
    /// # Errors
    ///
    /// A tensor that is missing, and values that are not whole rows.
    pub(crate) fn append_rows(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let error = |message: String| Error::tensor(&self.place, name, message);
        let Some(view) = self.tensors.get_mut(name) else { return Err(error("is missing".into())) };
        let len: usize = view.shape.iter().skip(1).product();
        let Some(rows) = view.shape.first_mut().filter(|_| len > 0 && values.len().is_multiple_of(len)) else {
            return Err(error(format!("has rows of {len} values; {} are to be added", values.len())));
        };
        *rows += values.len() / len;
        view.added.extend_from_slice(values);
        Ok(())
    }

    /// Has `change` change the values of tensor `name` whenever they are read, after the changes that it already has.
    ///
    /// # Errors
    ///
    /// A tensor that is missing.
    pub(crate) fn change(&mut self, name: &str, change: Change) -> Result<()> {
        match self.tensors.get_mut(name) {
            Some(view) => view.changes.push(change),
            None => return Err(self.error(name, "is missing")),
        }
        Ok(())
    }

    /// An error of tensor `name`, which may be missing.
    pub(crate) fn error(&self, name: &str, message: impl Into<String>) -> Error {
        let stored = self.tensors.get(name).and_then(|view| view.stored.as_ref());
        let file = stored.and_then(|stored| self.files.get(stored.file));
        match (file, stored) {
            (Some(file), Some(stored)) => Error::tensor(&file.path, &stored.name, message),
            _ => Error::tensor(&self.place, name, message),
        }
    }

    /// Checks that tensor `name` is there and has this shape; ones at the end of either do not matter, since a linear
    /// layer and a 1×1 convolution are the same.
    pub(crate) fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let Some(view) = self.tensors.get(name) else {
            return Err(self.error(name, format!("is missing; its shape should be {shape:?}")));
        };
        let stored = view.stored.as_ref().and_then(|stored| Some((self.files.get(stored.file)?, &stored.name)));
        if let Some(entry) = stored.and_then(|(file, name)| file.tensors.get(name)).filter(|e| !e.dtype.is_float()) {
            let supported = "F32, F16, BF16, F64, F8_E4M3, F8_E5M2";
            return Err(self.error(name, format!("holds {}; supported: {supported}", entry.dtype)));
        }
        if without_ones(&view.shape) != without_ones(shape) {
            return Err(self.error(name, format!("has the shape {:?} instead of {shape:?}", view.shape)));
        }
        Ok(())
    }

    /// Reads the values from `first` on.
    ///
    /// # Errors
    ///
    /// A tensor that is missing or too short, and a value that is not finite.
    pub(crate) fn read(&self, name: &str, first: usize, values: &mut [f32]) -> Result<()> {
        let view = self.tensors.get(name).ok_or_else(|| self.error(name, "is missing"))?;
        let stored = view.stored.as_ref().map_or(0, |stored| stored.range.len());
        let from_file = stored.saturating_sub(first).min(values.len());
        let (file_values, added) = values.split_at_mut(from_file);
        if let Some(stored) = view.stored.as_ref().filter(|_| from_file > 0) {
            let file = self.files.get(stored.file).ok_or_else(|| self.error(name, "is missing"))?;
            file.read(&stored.name, stored.range.start + first, file_values)?;
        }
        if !added.is_empty() {
            let start = (first + from_file) - stored;
            let short = || self.error(name, format!("has {} values", stored + view.added.len()));
            added.copy_from_slice(view.added.get(start..start + added.len()).ok_or_else(short)?);
        }
        view.changes.iter().try_for_each(|change| change(first, values))?;
        match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            Some((at, value)) => Err(self.error(name, format!("value {} is {value}", first + at))),
            None => Ok(()),
        }
    }

    /// The files that the tensors are in.
    pub(crate) fn files(&self) -> &[Arc<TensorFile>] {
        &self.files
    }

    /// The type in which most values are stored.
    pub(crate) fn main_dtype(&self) -> Option<TensorDtype> {
        let mut counts = BTreeMap::<String, (usize, TensorDtype)>::new();
        for stored in self.tensors.values().filter_map(|view| view.stored.as_ref()) {
            if let Some(entry) = self.files.get(stored.file).and_then(|file| file.tensors.get(&stored.name)) {
                counts.entry(entry.dtype.to_string()).or_insert((0, entry.dtype)).0 += stored.range.len();
            }
        }
        counts.into_values().max_by_key(|(count, _)| *count).map(|(_, dtype)| dtype)
    }
}

fn without_ones(shape: &[usize]) -> &[usize] {
    let end = shape.iter().rposition(|size| *size != 1).map_or(1, |last| last + 1);
    shape.get(..end).unwrap_or(shape)
}
