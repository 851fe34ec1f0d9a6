//! Image files: encoded in the wanted format, or smaller where the broker's limit demands it, and kept on disk.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use diffused_engine::request::Parameters;
use image::RgbImage;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::contract::fault::{Code, Fault};
use crate::contract::request::FileFormat;
use crate::contract::topics::is_safe;
use crate::files::{self, write_atomically};

pub use formats::{infotext, text_of};

mod formats;
mod user_comment;

/// Qualities that are tried until a JPEG fits.
const QUALITIES: [u8; 6] = [95, 90, 80, 70, 50, 30];

/// An image as a file's bytes.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its format.
    pub format: FileFormat,
}

impl ImageFile {
    /// Reads a file that `Folder::store` wrote.
    pub fn read(path: &Path) -> io::Result<ImageFile> {
        let extension = path.extension().and_then(OsStr::to_str);
        let formats = [FileFormat::Png, FileFormat::Raw];
        let format = formats.into_iter().find(|format| extension == Some(format.extension()));
        Ok(ImageFile { bytes: fs::read(path)?, format: format.unwrap_or(FileFormat::Jpeg) })
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(&self.bytes))
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes `image` in `format`; the file carries `parameters`.
pub fn encode(image: &RgbImage, parameters: &Parameters, format: FileFormat) -> Result<ImageFile, Fault> {
    let text = infotext(parameters);
    let bytes = match format {
        FileFormat::Png => formats::png(image, &text)?,
        FileFormat::Jpeg => formats::jpeg(image, &text, QUALITIES[0])?,
        FileFormat::Raw => return Err(Fault::new(Code::Internal, "raw bytes are of a display alone")),
    };
    Ok(ImageFile { bytes, format })
}

/// The best JPEG of `image` that has at most `limit` bytes, and its quality. It carries `text`.
pub fn encode_within(image: &RgbImage, text: &str, limit: usize) -> Result<Option<(ImageFile, u8)>, Fault> {
    for quality in QUALITIES {
        let bytes = formats::jpeg(image, text, quality)?;
        if bytes.len() <= limit {
            return Ok(Some((ImageFile { bytes, format: FileFormat::Jpeg }, quality)));
        }
    }
    Ok(None)
}

/// In the folder of images: the names of the files that this program wrote, oldest first, one a line. Others are neither
/// replaced nor removed.
const RECORD: &str = ".diffused-pictures";

/// The folder in which images are kept, up to a number. Several threads may use it.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    keep: Arc<AtomicUsize>,
    /// Held by who writes the record.
    record: Arc<Mutex<()>>,
}

impl Folder {
    /// `path` exists; `keep` images stay in it.
    pub fn new(path: PathBuf, keep: usize) -> Folder {
        Folder { path, keep: Arc::new(keep.into()), record: Arc::default() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on so many images stay in it.
    pub fn set_keep(&self, keep: usize) {
        self.keep.store(keep, Ordering::Relaxed);
    }

    /// Whether images stay for longer than it takes to send them.
    pub fn keeps(&self) -> bool {
        self.keep.load(Ordering::Relaxed) > 0
    }

    /// Writes an image under a name that begins with `stem` and that no file has yet.
    pub fn store(&self, stem: &str, picture: &ImageFile) -> io::Result<PathBuf> {
        let writing = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.free_name(stem, picture.format.extension());
        // Before the image: a power cut between both leaves a name without a file, never a file without a name.
        let mut record = File::options().create(true).append(true).open(self.path.join(RECORD))?;
        record.write_all(format!("{name}\n").as_bytes())?;
        record.sync_data()?;
        drop(writing);
        let path = self.path.join(name);
        write_atomically(&path, &picture.bytes)?;
        Ok(path)
    }

    /// Removes our oldest images beyond the number that is kept, but for the `newest` and those `in_use`. A file that cannot be
    /// removed stays, with a warning in the log.
    pub fn prune(&self, newest: usize, in_use: &HashSet<PathBuf>) {
        let _writing = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.recorded().and_then(|names| {
            let before = names.len();
            let stay = self.remove_surplus(names, newest, in_use);
            if stay.len() == before {
                return Ok(());
            }
            let lines: String = stay.iter().map(|name| format!("{name}\n")).collect();
            write_atomically(&self.path.join(RECORD), lines.as_bytes())
        });
        if let Err(error) = outcome {
            warn!("old images stay: {}: {error}", self.path.join(RECORD).display());
        }
    }

    /// Removes what processes that were killed while they stored an image have left.
    pub fn remove_leftovers(&self) {
        let ours: HashSet<String> = self.recorded().unwrap_or_default().into_iter().collect();
        files::remove_leftovers(&self.path, |name| ours.contains(name));
    }

    /// The names in the record that can be ours, each once.
    fn recorded(&self) -> io::Result<Vec<String>> {
        let text = match fs::read_to_string(self.path.join(RECORD)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        let mut seen = HashSet::new();
        let names = text.lines().filter(|name| is_own_name(name) && seen.insert(*name));
        Ok(names.map(str::to_owned).collect())
    }

    /// `stem.extension`, with a number where there is such a file.
    fn free_name(&self, stem: &str, extension: &str) -> String {
        let numbered = (2..).map(|number| format!("{stem}-{number}.{extension}"));
        let mut names = std::iter::once(format!("{stem}.{extension}")).chain(numbered);
        names.find(|name| !self.path.join(name).exists()).unwrap_or_default()
    }

    /// Returns the names of those that stay.
    fn remove_surplus(&self, names: Vec<String>, newest: usize, in_use: &HashSet<PathBuf>) -> Vec<String> {
        let mut surplus = names.len().saturating_sub(self.keep.load(Ordering::Relaxed).max(newest));
        let mut stays = |name: &String| {
            let path = self.path.join(name);
            if surplus == 0 || in_use.contains(&path) {
                return true;
            }
            surplus -= 1;
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!("an old image stays: {}: {error}", path.display());
                    true
                }
                _ => false,
            }
        };
        names.into_iter().filter(|name| stays(name)).collect()
    }
}

/// Whether a line of the record can be a name that we gave: a plain file in the folder itself.
fn is_own_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.chars().all(is_safe)
}

/// A file name for an image in `format`, made of the prompt's words and the seed, which no file in `folder` has yet.
pub fn free_name(folder: &Path, prompt: &str, seed: u64, format: FileFormat) -> PathBuf {
    let words = prompt.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let stem: Vec<String> = words.take(8).map(str::to_lowercase).collect();
    let mut stem = stem.join("-");
    stem.truncate(60);
    let stem = if stem.is_empty() { "picture".to_owned() } else { stem };
    let extension = format.extension();
    let numbered = (2..).map(|number| format!("{stem}-{seed}-{number}.{extension}"));
    let mut names = std::iter::once(format!("{stem}-{seed}.{extension}")).chain(numbered).map(|name| folder.join(name));
    names.find(|path| !path.exists()).unwrap_or_default()
}

/// Where what a display shows is written beside the image at `path`.
pub fn panel_path(path: &Path, format: FileFormat) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-panel.{}", format.extension()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores images of the job `job`, each followed by what ends a job.
    fn store(folder: &Folder, count: u64) -> Vec<PathBuf> {
        let picture = ImageFile { bytes: vec![1, 2, 3], format: FileFormat::Png };
        let store = |n| {
            let path = folder.store(&format!("job-{n}"), &picture).unwrap();
            folder.prune(0, &HashSet::new());
            path
        };
        (0..count).map(store).collect()
    }

    /// The folder's files, the record left out.
    fn files(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != RECORD).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_pictures_go() {
        let folder = tempfile::tempdir().unwrap();
        let paths = store(&Folder::new(folder.path().to_owned(), 2), 4);
        assert_eq!(fs::read(&paths[3]).unwrap(), [1, 2, 3]);
        assert_eq!(files(folder.path()), ["job-2.png", "job-3.png"]);
        Folder::new(folder.path().to_owned(), 0).prune(0, &HashSet::new());
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[test]
    fn pictures_in_use_stay() {
        let folder = tempfile::tempdir().unwrap();
        let paths = store(&Folder::new(folder.path().to_owned(), 4), 4);
        let in_use = HashSet::from([paths[0].clone(), paths[3].clone()]);
        Folder::new(folder.path().to_owned(), 0).prune(0, &in_use);
        assert_eq!(files(folder.path()), ["job-0.png", "job-3.png"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_others_left_is_not() {
        let folder = tempfile::tempdir().unwrap();
        store(&Folder::new(folder.path().to_owned(), 4), 1);
        for name in ["job-0.png.12.tmp", "holiday.png.12.tmp"] {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        Folder::new(folder.path().to_owned(), 4).remove_leftovers();
        assert_eq!(files(folder.path()), ["holiday.png.12.tmp", "job-0.png"]);
    }

    #[test]
    fn files_of_others_are_neither_removed_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["taxes.pdf", "photo-0.png", "job-3.png"] {
            fs::write(folder.path().join(name), "precious").unwrap();
        }
        let paths = store(&Folder::new(folder.path().to_owned(), 2), 4);
        assert_eq!(files(folder.path()), ["job-2.png", "job-3-2.png", "job-3.png", "photo-0.png", "taxes.pdf"]);
        assert_eq!(fs::read(folder.path().join("job-3.png")).unwrap(), b"precious");
        assert_eq!(fs::read(&paths[3]).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_picture_that_cannot_be_removed_does_not_hinder_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = Folder::new(folder.path().to_owned(), 1);
        let first = store(&pictures, 1).remove(0);
        fs::remove_file(&first).unwrap();
        fs::create_dir(&first).unwrap(); // a folder is not removed as a file is
        let picture = ImageFile { bytes: vec![4], format: FileFormat::Png };
        for n in 1..4 {
            assert_eq!(fs::read(pictures.store(&format!("job-{n}"), &picture).unwrap()).unwrap(), [4]);
            pictures.prune(0, &HashSet::new());
        }
        assert_eq!(files(folder.path()), ["job-0.png", "job-3.png"]);
    }

    #[test]
    fn the_same_name_again_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = Folder::new(folder.path().to_owned(), 5);
        let picture = ImageFile { bytes: vec![7], format: FileFormat::Png };
        let long = "x".repeat(64);
        let paths = [(); 2].map(|()| pictures.store(&long, &picture).unwrap());
        assert_ne!(paths[0], paths[1]);
        assert!(paths.iter().all(|path| path.exists()));
    }

    #[test]
    fn pictures_are_named_after_their_prompts() {
        let folder = tempfile::tempdir().unwrap();
        let name = |prompt: &str| {
            let path = free_name(folder.path(), prompt, 7, FileFormat::Png);
            path.file_name().unwrap().to_string_lossy().into_owned()
        };
        assert_eq!(name("A large, red house!"), "a-large-red-house-7.png");
        assert_eq!(name("../../etc/passwd"), "etc-passwd-7.png");
        assert_eq!(name("家"), "picture-7.png");
        std::fs::write(folder.path().join("a-cat-7.png"), b"").unwrap();
        assert_eq!(name("a cat"), "a-cat-7-2.png");
    }

    #[test]
    fn sha256_is_the_standards() {
        let empty = ImageFile { bytes: vec![], format: FileFormat::Png };
        assert_eq!(empty.sha256(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
