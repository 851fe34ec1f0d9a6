//! A bundle: the folder that model-prep writes and the engine runs.
//!
//! `bundle.json` (this module's `Manifest`), `tokenizer/vocab.json`, `tokenizer/merges.txt`, and for each network `NAME.onnx`
//! (a graph of `Layer`s without weights) and `NAME.weights`:
//!
//! - 8 bytes: the length `L` of the index, little-endian; `L` bytes: the index, JSON (`Index`); zeros to the next 4096.
//! - Then every tensor from a multiple of 4096 on, in order of first use. A matrix's blocks are whole panels
//!   (`diffused_kernels::pack`), a table's are whole rows; each block has its own XXH3-64 checksum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sampler;

/// The version of the bundle's format that this program reads.
pub const SCHEMA: u32 = 2;
/// Tensors and the first block start at multiples of this many bytes.
pub const PAGE: u64 = 4096;
/// Blocks of a tensor are as long as fits in this many bytes, but at least one panel pair or row.
pub const BLOCK: usize = 256 << 10;

/// The four networks' names, which are also their files' stems.
pub const NETWORKS: [&str; 4] = ["text_encoder", "unet", "vae_decoder", "vae_encoder"];

/// `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format's version: `SCHEMA`.
    pub schema: u32,
    /// The model's name, for people.
    pub name: String,
    /// SHA-256 over the source's weight files, in the order text encoder, UNet, VAE.
    pub source_sha256: String,
    /// The model family: `sd1`, `sd2`.
    pub family: String,
    /// How matrices are stored by default: `int8`, `f16` or `f32`.
    pub weights: String,
    /// The text encoder's sizes.
    pub text: Text,
    /// The latents' and pictures' sizes.
    pub picture: PictureSizes,
    /// How the UNet was trained and is sampled.
    pub sampling: sampler::Config,
    /// Prompts that show what the model can paint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
    /// SHA-256 of every other file of the bundle, by its path in it.
    pub files: BTreeMap<String, String>,
}

/// What the tokenizer and the text encoder need to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Tokens of a prompt, start and end included (77).
    pub tokens: usize,
    /// Id of the start token.
    pub bos: u32,
    /// Id of the end token.
    pub eos: u32,
    /// Id that fills up short prompts (SD 1: the end token; SD 2: 0).
    pub pad: u32,
    /// Width of an embedding.
    pub channels: usize,
    /// The words that the model was trained with, in lower case and sorted; `None`: it takes any words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<String>>,
}

impl Text {
    /// The words of `prompt` in lower case: its longest runs of letters.
    pub fn words_of(prompt: &str) -> impl Iterator<Item = String> {
        let runs = prompt.split(|c: char| !c.is_alphabetic()).filter(|run| !run.is_empty());
        runs.map(str::to_lowercase)
    }

    /// The words of `prompt` that the model was not trained with, each once, in the prompt's order. A model without a
    /// list of words knows all of them.
    pub fn unknown_words(&self, prompt: &str) -> Vec<String> {
        let mut unknown = Vec::new();
        let Some(known) = &self.words else { return unknown };
        for word in Text::words_of(prompt) {
            if known.binary_search(&word).is_err() && !unknown.contains(&word) {
                unknown.push(word);
            }
        }
        unknown
    }
}

/// Sizes of latents and pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureSizes {
    /// Default width and height, pixels.
    pub default: usize,
    /// Smallest width and height, pixels: the UNet's lowest level has a pixel.
    pub smallest: usize,
    /// Pixels per latent along an axis (8): widths and heights are multiples of it.
    pub factor: usize,
    /// Latent channels (4).
    pub latent_channels: usize,
    /// The UNet's input is latents times this, the decoder's divided by it.
    pub latent_scale: f64,
    /// Width of the guidance-scale embedding (LCM), if the UNet has one: a fourth input.
    pub guidance_embedding: Option<usize>,
}

/// What the front of a `.weights` file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Every tensor by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// A tensor in a `.weights` file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// From the start of the file, bytes; a multiple of `PAGE`.
    pub offset: u64,
    /// What it holds.
    pub kind: TensorKind,
    /// Bytes of every block but the last, which may be shorter.
    pub block_bytes: usize,
    /// XXH3-64 of each block, hexadecimal.
    pub checksums: Vec<String>,
}

/// The two kinds of tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum TensorKind {
    /// Panels, as `diffused_kernels::pack` lays them out.
    Matrix {
        /// `int8`, `f16` or `f32`.
        format: String,
        /// Outputs; GEGLU's are 16 values and 16 gates by turns.
        n: usize,
        /// Inputs of a tap.
        k: usize,
        /// 1 or 9.
        taps: usize,
    },
    /// Rows of plain values: embeddings, gamma and beta.
    Table {
        /// `f16` or `f32`.
        format: String,
        /// Rows.
        rows: usize,
        /// Values of a row.
        columns: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: Option<&[&str]>) -> Text {
        let words = words.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
        Text { tokens: 77, bos: 0, eos: 1, pad: 1, channels: 8, words }
    }

    #[test]
    fn unknown_words_are_named_once_and_in_order() {
        let text = text(Some(&["a", "house", "on", "red"]));
        assert_eq!(text.unknown_words("a RED house"), Vec::<String>::new());
        assert_eq!(text.unknown_words("Zebras, a red-hot house; zebras' café"), ["zebras", "hot", "café"]);
        assert_eq!(text.unknown_words(" 12 %, ... "), Vec::<String>::new());
    }

    #[test]
    fn a_model_without_a_list_knows_every_word() {
        assert_eq!(text(None).unknown_words("zebras in the fog"), Vec::<String>::new());
    }
}
