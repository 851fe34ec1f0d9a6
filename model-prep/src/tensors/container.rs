//! What a file is, by its first bytes: its name may say anything.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::safetensors_header::MAX_HEADER;
use crate::error::{Error, Result};

/// What holds a file's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    /// safetensors.
    Safetensors,
    /// torch's zip archive with a pickle.
    Torch,
    /// GGUF, of ggml and stable-diffusion.cpp.
    Gguf,
}

/// Beginnings of files that are something else, and what is said of them.
const OTHERS: [(&[u8], &str); 8] = [
    (
        b"version https://git-lfs",
        "is a Git LFS pointer and not the file that it stands for; fetch that with `git lfs pull`",
    ),
    (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", OLD_TORCH),
    (
        b"\x80",
        "is a pickle by itself, which is not read; of torch's files those are that torch 1.6 or newer saved, and safetensors is best",
    ),
    (b"PK", "is a damaged or empty zip archive; copy it again"),
    (b"\x89HDF", "is an HDF5 file; take the model's .safetensors file"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
];

const OLD_TORCH: &str = "is in the format that torch had before version 1.6, which is not read; take the model's .safetensors \
                         file, or have torch load and save this one";

impl Container {
    /// What the file `path` of `len` bytes is.
    ///
    /// # Errors
    ///
    /// What it is instead, and what to do.
    pub(crate) fn find(path: &Path, file: &File, len: u64) -> Result<Container> {
        let refuse = |message: &str| Err(Error::file(path, message));
        if file.metadata().map_err(Error::io(path))?.is_dir() {
            return refuse("is a folder; a file is needed here");
        }
        if len == 0 {
            return refuse("is empty; copy or download it again");
        }
        let mut bytes = vec![0; usize::try_from(len.min(512)).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0).map_err(Error::io(path))?;
        let length = bytes.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        if length <= MAX_HEADER || bytes.get(8) == Some(&b'{') {
            return Ok(Container::Safetensors);
        }
        if bytes.starts_with(b"PK\x03\x04") {
            return Ok(Container::Torch);
        }
        if bytes.starts_with(b"GGUF") {
            return Ok(Container::Gguf);
        }
        if let Some((_, message)) = OTHERS.iter().find(|(start, _)| bytes.starts_with(start)) {
            return refuse(message);
        }
        match bytes.trim_ascii_start().first() {
            Some(b'<') => {
                refuse("is a web page (a download that needs a login, or a link to a page); download the file itself")
            }
            Some(b'{' | b'[') => refuse("is JSON text; a file with weights is needed here"),
            _ => refuse(&format!(
                "is not a whole file with weights ({len} bytes): known are safetensors, torch's .ckpt, .bin and .pt, and GGUF; \
                 copy or download it again"
            )),
        }
    }

    /// A file of this kind may be called so.
    pub(crate) fn has_ending(self, path: &Path) -> bool {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match self {
            Container::Safetensors => !matches!(ending.as_str(), "ckpt" | "bin" | "pt" | "pth" | "gguf"),
            Container::Torch => !matches!(ending.as_str(), "safetensors" | "gguf"),
            Container::Gguf => !matches!(ending.as_str(), "safetensors" | "ckpt" | "bin" | "pt" | "pth"),
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Container::Safetensors => "a safetensors file",
            Container::Torch => "a torch file (zip and pickle)",
            Container::Gguf => "a GGUF file",
        })
    }
}
