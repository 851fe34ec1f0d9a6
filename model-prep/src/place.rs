//! Where a bundle goes, and what may be deleted there: what bears our mark, and nothing else.
//!
//! A bundle is written into `.NAME.partial` beside its place and moved there when it is whole. A bundle that is
//! replaced waits as `.NAME.old` until the new one is in its place. A run that was killed may leave either behind; the
//! next one clears them away if nothing is in them but files that a conversion writes. A run that a signal ends calls
//! `remove_unfinished` before.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use diffused_engine::bundle::NETWORKS;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};

/// The place of a bundle, checked: writing there deletes nothing but an older bundle.
pub(crate) struct OutputPlace {
    out: PathBuf,
    source: PathBuf,
    force: bool,
}

/// By what a `bundle.json` of any version is known as ours.
#[derive(Deserialize)]
struct Mark {
    #[serde(rename = "schema")]
    _schema: u32,
    files: BTreeMap<String, IgnoredAny>,
}

impl OutputPlace {
    /// The place `out` for a bundle made from `source`; with `force` a bundle that is there is replaced.
    ///
    /// # Errors
    ///
    /// What is there and may not be deleted: a file, a link, the source or a folder around it, a mount point, a folder
    /// that is not a bundle or that also holds something else, or, without `force`, a bundle.
    pub(crate) fn new(out: &Path, source: &Path, force: bool) -> Result<OutputPlace> {
        if out.file_name().is_none() {
            return Err(Error::file(
                out,
                "does not end in a folder's name; name the bundle's folder, such as ./bundle",
            ));
        }
        // Without a slash or dot at the end, which would follow a link.
        let place = OutputPlace { out: out.components().collect(), source: source.to_owned(), force };
        place.check()?;
        for leftover in [place.beside("partial"), place.beside("old")] {
            check_leftover(&leftover)?;
        }
        Ok(place)
    }

    /// `.NAME.suffix` in the same folder, from where a move is atomic.
    fn beside(&self, suffix: &str) -> PathBuf {
        let name = self.out.file_name().unwrap_or_default();
        self.out.with_file_name([".".as_ref(), name, ".".as_ref(), suffix.as_ref()].into_iter().collect::<OsString>())
    }

    /// Refuses to take a place where something lies that is not to be deleted.
    fn check(&self) -> Result<()> {
        let Some(found) = metadata(&self.out)? else { return Ok(()) };
        let refuse = |message: String| Err(Error::file(&self.out, message));
        if found.is_symlink() {
            return refuse("is a symbolic link; name the folder that it points to".into());
        }
        if !found.is_dir() {
            return refuse("is a file; choose another place".into());
        }
        let place = self.out.canonicalize().map_err(Error::io(&self.out))?;
        // Where the source is not there, opening it says so.
        if self.source.canonicalize().is_ok_and(|source| source.starts_with(&place)) {
            return refuse("is or holds the model that is to be converted; choose another place".into());
        }
        if let Some(parent) = place.parent() {
            let around = fs::metadata(parent).map_err(Error::io(parent))?;
            if around.dev() != found.dev() {
                return refuse("is a mount point, which cannot be replaced; name a folder in it".into());
            }
        }
        let Some(first) = foreign(&self.out, &|_| false)? else { return Ok(()) };
        let Some(mark) = mark(&self.out) else {
            return refuse(format!(
                "is already there and is not a bundle (it holds {first:?}), so it is not replaced; choose another place"
            ));
        };
        let listed = |file: &str| file == "bundle.json" || mark.files.contains_key(file);
        if let Some(file) = foreign(&self.out, &listed)? {
            return refuse(format!(
                "is already there and holds {file:?}, which is not part of the bundle; move that away, or choose \
                 another place"
            ));
        }
        match self.force {
            true => Ok(()),
            false => refuse("is already there; choose another place, or replace it with --force".into()),
        }
    }
}

/// The folders that this process writes bundles into.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Deletes what the conversions of this process have written so far: for a program that a signal ends. Conversions that
/// go on meanwhile fail.
pub fn remove_unfinished() {
    let folders = std::mem::take(&mut *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner));
    for folder in folders {
        // A file that is created meanwhile keeps the folder there.
        while folder.exists() && fs::remove_dir_all(&folder).is_err_and(|error| is_in_use(&error)) {}
    }
}

fn is_in_use(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound)
}

/// A bundle that is not whole yet; dropped before `finish`, it is deleted.
pub(crate) struct Partial {
    place: OutputPlace,
    /// The folder that is written into.
    pub(crate) path: PathBuf,
    /// Held while this run writes.
    _lock: File,
}

impl Partial {
    /// Creates the folder, in place of one that a killed run left.
    ///
    /// # Errors
    ///
    /// If another run is writing to the same place.
    pub(crate) fn create(place: OutputPlace) -> Result<Partial> {
        let path = place.beside("partial");
        if metadata(&path)?.is_some() {
            let _lock = lock(&path)?;
            remove_leftover(&path)?;
        }
        fs::create_dir_all(path.join("tokenizer")).map_err(Error::io(&path))?;
        let lock = lock(&path)?;
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        Ok(Partial { place, path, _lock: lock })
    }

    /// Deletes a file, which is to be written again.
    pub(crate) fn remove(&self, file: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::remove_file(&path).map_err(Error::io(&path))
    }

    /// Moves the bundle to its place, after checking once more what lies there.
    pub(crate) fn finish(self) -> Result<()> {
        self.place.check()?;
        let (out, old) = (&self.place.out, self.place.beside("old"));
        let replaces = metadata(out)?.is_some() && foreign(out, &|_| false)?.is_some();
        if replaces {
            remove_leftover(&old)?;
            fs::rename(out, &old).map_err(Error::io(out))?;
        }
        if let Err(error) = fs::rename(&self.path, out) {
            if replaces {
                fs::rename(&old, out).map_err(Error::io(&old))?;
            }
            return Err(Error::io(out)(error));
        }
        match replaces {
            true => fs::remove_dir_all(&old).map_err(Error::io(&old)),
            false => remove_leftover(&old),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `finish` there is nothing left; after an error what is left is of no use, and the error is what
        // matters.
        let _ = fs::remove_dir_all(&self.path);
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.path);
    }
}

fn lock(folder: &Path) -> Result<File> {
    let file = File::open(folder).map_err(Error::io(folder))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::file(folder, "another run is writing to the same place; wait for it, or choose another place"))
        }
        Err(TryLockError::Error(cause)) => Err(Error::io(folder)(cause)),
    }
}

/// Refuses a folder of a leftover's name that a conversion did not write.
fn check_leftover(path: &Path) -> Result<()> {
    let Some(found) = metadata(path)? else { return Ok(()) };
    let message = if found.is_dir() {
        match foreign(path, &|file| is_bundle_file(file))? {
            None => return Ok(()),
            Some(file) => format!("holds {file:?}, which a conversion does not write"),
        }
    } else {
        "is not a folder".to_owned()
    };
    Err(Error::file(path, format!("is in the way: it {message}; move it away")))
}

/// Deletes what a killed run left, if it is there.
fn remove_leftover(path: &Path) -> Result<()> {
    check_leftover(path)?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// Whether a conversion writes a file of this name.
fn is_bundle_file(file: &str) -> bool {
    let network = |ending| file.strip_suffix(ending).is_some_and(|stem| NETWORKS.contains(&stem));
    matches!(file, "bundle.json" | "tokenizer/vocab.json" | "tokenizer/merges.txt")
        || network(".onnx")
        || network(".weights")
}

/// The mark of the bundle in `folder`, if there is one.
fn mark(folder: &Path) -> Option<Mark> {
    serde_json::from_slice(&fs::read(folder.join("bundle.json")).ok()?).ok()
}

/// The first file or link in `folder`, by its path in it, that is not `ours`.
fn foreign(folder: &Path, ours: &dyn Fn(&str) -> bool) -> Result<Option<String>> {
    let mut found: Option<String> = None;
    let mut folders = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let entry = entry.map_err(Error::io(&folder))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(Error::io(&folder))?.is_dir() {
                folders.push((format!("{name}/"), entry.path()));
            } else if !ours(&name) && found.as_ref().is_none_or(|first| name < *first) {
                found = Some(name);
            }
        }
    }
    Ok(found)
}

/// What lies at `path`, a link not followed; `None` where there is nothing.
fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}
