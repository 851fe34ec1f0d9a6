//! A bundle: the folder that model-prep writes and the engine runs. Both read and write it through this module.
//!
//! `bundle.json` (`Manifest`), `tokenizer/vocab.json`, `tokenizer/merges.txt`, and for each network that the model has
//! (`NETWORKS`) `NAME.onnx`, a graph of `Layer`s without weights, and `NAME.weights`:
//!
//! - 8 bytes: the length `L` of the index, little-endian; `L` bytes: the index, JSON (`WeightsIndex`); zeros to the
//!   next 4096.
//! - Then every tensor from a multiple of 4096 on, in order of first use. A matrix's blocks are whole panels
//!   (`diffused_kernels::pack`), a table's are whole rows; each block has its own XXH3-64 checksum.
//!
//! Nothing of a bundle is trusted: a file is parsed into a type that only its parser makes, which refuses what no model
//! has by naming the file, the key or tensor, the value and what is allowed.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

mod autoencoder;
mod family;
mod index;
mod limits;
mod manifest;
mod source;
mod weights;
mod words;

pub use autoencoder::AutoencoderKind;
pub use family::Family;
pub use index::{WeightEntry, WeightShape, WeightsIndex};
pub use limits::{MAX_CFG_SCALE, MAX_CLIP_SKIP, MAX_SIDE, MAX_STEPS};
#[cfg(test)]
pub(crate) use manifest::tests::sample;
pub use manifest::{AddedToken, Manifest, ManifestFields, PictureSizes, SecondText, Text, UpscalerFields};
pub use source::Source;
pub use weights::{EncodeUnit, NewTensor, WeightsFile, write_weights, write_weights_index};

use crate::error::{Error, Result};
use crate::hash::{Sha256, sha256};
use crate::quantized::QuantizedValues;

/// The version of the bundle's format that is written. Since version 3 a matrix may be in phases, since version 4 attention to a
/// text in int8.
pub const SCHEMA: u32 = 4;
/// The oldest version of the bundle's format that this program reads.
const OLDEST_SCHEMA: u32 = 2;
/// Tensors and the first block start at multiples of this many bytes.
pub const PAGE: u64 = 4096;
/// Blocks of a tensor are as long as fits in this many bytes, but at least one panel pair or row.
pub const BLOCK: usize = 256 << 10;

/// The names of all networks that a bundle may hold, which are also their files' stems. A bundle holds those that its
/// manifest lists (`Manifest::has`).
pub const NETWORKS: [&str; 8] = [
    "text_encoder",
    "text_encoder_2",
    "unet",
    "vae_decoder",
    "vae_encoder",
    "tiny_decoder",
    "tiny_encoder",
    "upscaler",
];

/// The networks that every bundle holds, beside one of `DECODERS` at least.
const REQUIRED: [&str; 2] = ["text_encoder", "unet"];
/// The networks that make pixels of latents.
const DECODERS: [&str; 2] = ["vae_decoder", "tiny_decoder"];
/// The networks that make latents of pixels.
const ENCODERS: [&str; 2] = ["vae_encoder", "tiny_encoder"];

/// The files that every bundle has beside `bundle.json` and its networks, by their paths in it.
const TOKENIZER_FILES: [&str; 2] = ["tokenizer/merges.txt", "tokenizer/vocab.json"];

/// The files of a bundle of these networks beside `bundle.json`, by their paths in it.
pub fn files<'a>(networks: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let networks = networks.into_iter().flat_map(network_files);
    TOKENIZER_FILES.into_iter().map(str::to_owned).chain(networks).collect()
}

/// A network's graph and weights, by their paths in the bundle.
fn network_files(network: &str) -> [String; 2] {
    [format!("{network}.onnx"), format!("{network}.weights")]
}

/// Bytes that are read of a file at once to form its checksum.
const CHUNK: usize = 1 << 20;

/// A bundle whose `bundle.json` was read and checked.
pub struct Bundle {
    pub(crate) source: Source,
    /// What `bundle.json` says.
    pub manifest: Manifest,
    /// SHA-256 of `bundle.json`, hexadecimal.
    pub sha256: String,
    /// Counts what the networks quantize, where somebody wants to know.
    pub(crate) quantized: Option<QuantizedValues>,
}

#[cfg(test)]
impl Bundle {
    /// The demo model's.
    pub(crate) fn demo() -> Bundle {
        Bundle::open(Source::Folder(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo"))).unwrap()
    }
}

impl Bundle {
    /// Reads `bundle.json` and checks everything in it.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt` where the file is missing, of another version or says what no model has; `Io`.
    pub fn open(source: Source) -> Result<Bundle> {
        let bytes = source.read("bundle.json").map_err(|error| source.not_a_bundle().unwrap_or(error))?;
        let manifest = Manifest::parse(&bytes)
            .map_err(|message| Error::ModelCorrupt { path: source.path("bundle.json"), message })?;
        Ok(Bundle { sha256: sha256(&bytes), source, manifest, quantized: None })
    }

    /// Reads a whole small file and compares it with its checksum in `bundle.json`.
    pub(crate) fn read(&self, file: &str) -> Result<Vec<u8>> {
        let bytes = self.source.read(file)?;
        self.compare(file, &sha256(&bytes))?;
        Ok(bytes)
    }

    /// Reads every file through and compares it with its checksum in `bundle.json`.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt` with the first file that differs or is missing; `Io`.
    pub fn check_files(&self) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        for file in self.manifest.files.keys() {
            let opened = self.source.open(file)?;
            let (mut hash, mut at, len) = (Sha256::default(), 0, opened.len()?);
            while at < len {
                let part = usize::try_from(len - at).map_or(CHUNK, |left| left.min(CHUNK));
                let part = chunk.get_mut(..part).unwrap_or_default();
                opened.read_exact_at(part, at)?;
                hash.update(part);
                at += part.len() as u64;
            }
            self.compare(file, &hash.finish())?;
        }
        Ok(())
    }

    fn compare(&self, file: &str, sha256: &str) -> Result<()> {
        let corrupt = |message: &str| Error::ModelCorrupt { path: self.source.path(file), message: message.into() };
        let listed = self.manifest.files.get(file).ok_or_else(|| corrupt("bundle.json does not list this file"))?;
        match listed.eq_ignore_ascii_case(sha256) {
            true => Ok(()),
            false => Err(corrupt("does not match its checksum in bundle.json; copy the bundle again")),
        }
    }
}
