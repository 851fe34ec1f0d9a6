//! Picture files: made in the wanted format, made smaller where the broker wants that, kept on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use diffused_engine::request::Parameters;
use image::RgbImage;
use sha2::{Digest, Sha256};

use crate::fault::Fault;
use crate::request::Format;

mod formats;

/// Qualities that are tried until a JPEG fits.
const QUALITIES: [u8; 6] = [95, 90, 80, 70, 50, 30];

/// A picture as a file's bytes.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its format.
    pub format: Format,
}

impl Encoded {
    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(&self.bytes))
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes `image` in `format`; a PNG carries `parameters`.
pub fn encode(image: &RgbImage, parameters: &Parameters, format: Format) -> Result<Encoded, Fault> {
    let bytes = match format {
        Format::Png => formats::png(image, parameters)?,
        Format::Jpeg => formats::jpeg(image, QUALITIES[0])?,
    };
    Ok(Encoded { bytes, format })
}

/// The best JPEG of `image` that has at most `limit` bytes, and its quality.
pub fn encode_within(image: &RgbImage, limit: usize) -> Result<Option<(Encoded, u8)>, Fault> {
    for quality in QUALITIES {
        let bytes = formats::jpeg(image, quality)?;
        if bytes.len() <= limit {
            return Ok(Some((Encoded { bytes, format: Format::Jpeg }, quality)));
        }
    }
    Ok(None)
}

/// The folder in which pictures are kept, up to a number.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    keep: usize,
}

impl Folder {
    /// `path` exists; `keep` pictures stay in it.
    pub fn new(path: PathBuf, keep: usize) -> Folder {
        Folder { path, keep }
    }

    /// Writes the picture number `n` of the job `id` and removes the oldest beyond the number that is kept.
    pub fn store(&self, id: &str, n: u64, picture: &Encoded) -> io::Result<PathBuf> {
        let path = self.path.join(format!("{id}-{n}.{}", picture.format.extension()));
        write_atomically(&path, &picture.bytes)?;
        self.prune(&path)?;
        Ok(path)
    }

    fn prune(&self, newest: &Path) -> io::Result<()> {
        let mut others: Vec<(SystemTime, PathBuf)> = vec![];
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.path() != newest && entry.file_type()?.is_file() {
                others.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        others.sort();
        let surplus = (others.len() + 1).saturating_sub(self.keep.max(1));
        others.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// A file name made of the prompt's words and the seed, which no file in `folder` has yet.
pub fn free_name(folder: &Path, prompt: &str, seed: u64) -> PathBuf {
    let words = prompt.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let stem: Vec<String> = words.take(8).map(str::to_lowercase).collect();
    let mut stem = stem.join("-");
    stem.truncate(60);
    let stem = if stem.is_empty() { "picture".to_owned() } else { stem };
    let names = std::iter::once(format!("{stem}-{seed}.png"));
    let mut names = names.chain((2..).map(|n| format!("{stem}-{seed}-{n}.png"))).map(|name| folder.join(name));
    names.find(|path| !path.exists()).unwrap_or_else(|| folder.join("picture.png"))
}

/// Writes a file so that there is never half of one, not even after a power cut.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pictures_go() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = Folder::new(folder.path().to_owned(), 2);
        let picture = Encoded { bytes: vec![1, 2, 3], format: Format::Png };
        let paths: Vec<PathBuf> = (0..4).map(|n| pictures.store("job", n, &picture).unwrap()).collect();
        assert_eq!(fs::read(&paths[3]).unwrap(), [1, 2, 3]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn pictures_are_named_after_their_prompts() {
        let folder = tempfile::tempdir().unwrap();
        let name = |prompt: &str| {
            let path = free_name(folder.path(), prompt, 7);
            path.file_name().unwrap().to_string_lossy().into_owned()
        };
        assert_eq!(name("A large, red house!"), "a-large-red-house-7.png");
        assert_eq!(name("../../etc/passwd"), "etc-passwd-7.png");
        assert_eq!(name("家"), "picture-7.png");
        std::fs::write(folder.path().join("a-cat-7.png"), b"").unwrap();
        assert_eq!(name("a cat"), "a-cat-7-2.png");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_atomically(&folder.path().join("taken"), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn sha256_is_the_standards() {
        let empty = Encoded { bytes: vec![], format: Format::Png };
        assert_eq!(empty.sha256(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
