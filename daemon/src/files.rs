//! Files that survive a power cut whole: written beside their place, brought to the disk, then renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// Writes a file so that there is never half of one, not even after a power cut.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_parts_atomically(path, &[bytes])
}

/// The same of a file that is `parts` one after the other.
pub fn write_parts_atomically(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = temporary(path);
    let written = File::create(&temporary).and_then(|mut file| {
        parts.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)));
    placed.and_then(|()| sync_folder(path))
}

/// Tries whether a file of these `bytes` can be brought to the disk in `folder`; it is removed at once.
pub fn try_write(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = temporary(&folder.join(".diffused-try"));
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Writes a file so that nobody reads half of one. What is soon replaced need not be on the disk: a power cut may take it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let placed = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    placed.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// The longest name to which something is added: most file systems take 255 bytes.
const MAX_NAME: usize = 200;

/// Where a file is until it is whole: beside its place, under a name that begins with its own, or, where that is long,
/// with a checksum of it.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut name = match name.len() {
        ..=MAX_NAME => name.to_owned(),
        _ => format!("{:016x}", xxh3_64(name.as_encoded_bytes())).into(),
    };
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Removes what processes that were killed while they wrote a file in `folder` have left, if its name is one of `ours`.
pub fn remove_leftovers(folder: &Path, ours: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().and_then(unfinished).is_some_and(&ours) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The name of the file that was to become of the temporary file `name`.
fn unfinished(name: &str) -> Option<&str> {
    let (name, process) = name.strip_suffix(".tmp")?.rsplit_once('.')?;
    (!process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// Brings the name of the file at `path` to the disk. Does nothing where its folder may be written to but not read.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).map_or(Ok(()), |folder| folder.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "a.12.tmp", "a.x.tmp", "a..tmp", "b.12.tmp", "a.12.tmp.x"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        remove_leftovers(folder.path(), |name| name == "a");
        assert!(!folder.path().join("a.12.tmp").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    }

    #[test]
    fn a_try_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        try_write(folder.path(), b"x").unwrap();
        assert!(try_write(&folder.path().join("missing"), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_atomically(&folder.path().join("taken"), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
