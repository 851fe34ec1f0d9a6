//! `tokenizer/`: CLIP's byte pair encoding. Vocabulary and merges go into the bundle as they are; here their sizes are
//! checked and the special tokens' ids found, which is where Stable Diffusion 1 (padding with the end token) and 2
//! (with token 0) differ. Folders that transformers 5 wrote have both in `tokenizer.json` alone.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use diffused_engine::bundle::{AddedToken, Family};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::added_tokens;
use super::clip_vocabulary::ClipVocabulary;
use super::keys::Keys;
use crate::error::{Error, Result};

/// The special tokens of CLIPTokenizer where the files are silent.
pub(super) const START: &str = "<|startoftext|>";
pub(super) const END: &str = "<|endoftext|>";

/// A tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenizerFiles {
    /// `vocab.json`, as it is.
    pub(crate) vocab: Vec<u8>,
    /// `merges.txt`, as it is.
    pub(crate) merges: Vec<u8>,
    /// Id of the start token.
    pub(crate) bos: u32,
    /// Id of the end token.
    pub(crate) eos: u32,
    /// Id that fills up short prompts.
    pub(crate) pad: u32,
    /// Tokens of a prompt.
    pub(crate) tokens: usize,
    /// Tokens beside the vocabulary's.
    pub(crate) added: Vec<AddedToken>,
    /// What the user should know of.
    pub(crate) warnings: Vec<String>,
}

/// What a tokenizer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenizerUse {
    /// Rows of the text encoder's token table.
    pub(crate) rows: usize,
    /// Most tokens of a prompt.
    pub(crate) positions: usize,
    /// The token that fills up short prompts where the tokenizer's files do not say it.
    pub(crate) pad: &'static str,
}

impl TokenizerUse {
    /// For a model of `family`: Stable Diffusion 2 was trained with token 0 behind short prompts.
    pub(crate) fn of(family: Family, rows: usize, positions: usize) -> TokenizerUse {
        TokenizerUse { rows, positions, pad: if family == Family::Sd2 { "!" } else { END } }
    }
}

impl TokenizerFiles {
    /// The tokenizer of the folder, file or bundle `path`.
    pub(crate) fn given(path: &Path, usage: TokenizerUse) -> Result<TokenizerFiles> {
        let inner = path.join("tokenizer");
        match path.is_dir() {
            true => TokenizerFiles::open(if inner.is_dir() { &inner } else { path }, usage),
            false => TokenizerFiles::clip(path, ClipVocabulary::open(path)?, usage),
        }
    }

    /// CLIP's own, for a model at `source` that brings none.
    pub(crate) fn carried(source: &Path, usage: TokenizerUse) -> Result<TokenizerFiles> {
        TokenizerFiles::clip(source, ClipVocabulary::carried(), usage)
    }

    fn clip(
        source: &Path,
        ClipVocabulary { vocab, merges }: ClipVocabulary,
        usage: TokenizerUse,
    ) -> Result<TokenizerFiles> {
        let ids = ids(source, &vocab, usize::MAX)?;
        if ids.len() > usage.rows {
            let (tokens, rows) = (ids.len(), usage.rows);
            let message =
                format!("the text encoder has {rows} tokens and CLIP's vocabulary {tokens}; give --tokenizer");
            return Err(Error::file(source, message));
        }
        let id = |token| ids.get(token).copied().unwrap_or_default();
        let (bos, eos, pad) = (id(START), id(END), id(usage.pad));
        let (tokens, added, warnings) = (usage.positions, Vec::new(), Vec::new());
        Ok(TokenizerFiles { vocab, merges, bos, eos, pad, tokens, added, warnings })
    }

    /// Reads `folder`, the `tokenizer` of a diffusers folder or of a bundle.
    pub(crate) fn open(folder: &Path, usage: TokenizerUse) -> Result<TokenizerFiles> {
        let files = Files::read(folder)?;
        let ids = ids(&files.vocab.0, &files.vocab.1, usage.rows)?;
        check_merges(&files.merges.0, &files.merges.1, &ids)?;
        let (special, tokens) = settings(folder, usage.positions)?;
        let id = |key: &str, default: &str| {
            let token = special.get(key).map_or(default, String::as_str);
            ids.get(token)
                .copied()
                .ok_or_else(|| Error::file(&files.vocab.0, format!("the token {token:?} ({key}) is missing")))
        };
        let (bos, eos) = (id("bos_token", START)?, id("eos_token", END)?);
        let pad = id("pad_token", usage.pad)?;
        let mut warnings = Vec::new();
        let added = added_tokens::open(folder, &ids, usage.rows, &mut warnings)?;
        Ok(TokenizerFiles { bos, eos, pad, tokens, added, warnings, vocab: files.vocab.1, merges: files.merges.1 })
    }
}

impl TokenizerFiles {
    /// The id of a token of the vocabulary.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        let ids: HashMap<String, u32> = serde_json::from_slice(&self.vocab).ok()?;
        ids.get(token).copied()
    }

    /// It makes the same tokens of a prompt, padding aside.
    pub(super) fn splits_as(&self, other: &TokenizerFiles) -> bool {
        let ids = |files: &TokenizerFiles| serde_json::from_slice::<HashMap<String, u32>>(&files.vocab).ok();
        let lines = |files: &TokenizerFiles| {
            let lines = files.merges.split(|byte| *byte == b'\n').map(|line| line.trim_ascii().to_owned());
            lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
        };
        let sizes = |files: &TokenizerFiles| (files.bos, files.eos, files.tokens);
        ids(self) == ids(other)
            && lines(self) == lines(other)
            && sizes(self) == sizes(other)
            && self.added == other.added
    }

    /// The vocabulary's tokens and their ids.
    pub(crate) fn ids(&self) -> Result<HashMap<String, u32>> {
        ids(Path::new("vocab.json"), &self.vocab, usize::MAX)
    }
}

/// `vocab.json` and `merges.txt`, each with the file that it was read from.
struct Files {
    vocab: (PathBuf, Vec<u8>),
    merges: (PathBuf, Vec<u8>),
}

impl Files {
    fn read(folder: &Path) -> Result<Files> {
        let (vocab, together) = (folder.join("vocab.json"), folder.join("tokenizer.json"));
        if !vocab.exists() && together.exists() {
            return Files::split(together);
        }
        let read = |path: PathBuf| std::fs::read(&path).map_err(Error::io(&path)).map(|bytes| (path.clone(), bytes));
        Ok(Files { vocab: read(vocab)?, merges: read(folder.join("merges.txt"))? })
    }

    /// Of `tokenizer.json`, as the tokenizers library writes it.
    fn split(path: PathBuf) -> Result<Files> {
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let Together { model: TokenizerModel { vocab, merges } } = serde_json::from_slice(&bytes)
            .map_err(|error| Error::file(&path, format!("no byte pair encoding: {error}")))?;
        let pairs = merges.iter().map(|merge| match merge {
            Merge::Line(line) => format!("{line}\n"),
            Merge::Pair(first, second) => format!("{first} {second}\n"),
        });
        let merges = format!("#version: 0.2\n{}", pairs.collect::<String>());
        let vocab = serde_json::to_vec(&vocab).map_err(|error| Error::file(&path, error.to_string()))?;
        Ok(Files { vocab: (path.clone(), vocab), merges: (path, merges.into_bytes()) })
    }
}

/// What is needed of `tokenizer.json`.
#[derive(Deserialize)]
struct Together {
    model: TokenizerModel,
}

#[derive(Deserialize)]
struct TokenizerModel {
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

/// A merge, in the older form and in the newer one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

fn ids(path: &Path, vocab: &[u8], vocabulary: usize) -> Result<HashMap<String, u32>> {
    let ids: HashMap<String, u32> = serde_json::from_slice(vocab)
        .map_err(|error| Error::file(path, format!("no object of tokens and ids: {error}")))?;
    match ids.iter().find(|(_, id)| **id as usize >= vocabulary) {
        Some((token, id)) => Err(Error::file(
            path,
            format!("the token {token:?} has the id {id}, but text_encoder/config.json's vocab_size is {vocabulary}"),
        )),
        None => Ok(ids),
    }
}

fn check_merges(path: &Path, merges: &[u8], ids: &HashMap<String, u32>) -> Result<()> {
    let text = std::str::from_utf8(merges).map_err(|_| Error::file(path, "not UTF-8"))?;
    let header = |line: &str| line.starts_with("#version");
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !header(line)) {
        let known = match line.split(' ').collect::<Vec<_>>()[..] {
            [first, second] => ids.contains_key(&format!("{first}{second}")),
            _ => false,
        };
        if !known {
            return Err(Error::file(
                path,
                format!("line {}: {line:?} is not a pair that makes a known token", number + 1),
            ));
        }
    }
    Ok(())
}

/// The special tokens and the tokens of a prompt. As in transformers, what `special_tokens_map.json` says goes before
/// what `tokenizer_config.json` says.
fn settings(folder: &Path, positions: usize) -> Result<(HashMap<String, String>, usize)> {
    let (mut special, mut tokens) = (HashMap::new(), positions);
    let config = folder.join("tokenizer_config.json");
    if config.exists() {
        let mut keys = Keys::open(&config)?;
        keys.only("do_lower_case", &[json!(true), Value::Null])?;
        if let Some(length) = keys.some("model_max_length").and_then(|length| length.as_u64()) {
            tokens = positions.min(usize::try_from(length).unwrap_or(usize::MAX));
        }
        add_special(&mut special, |key| keys.take(key));
    }
    let map = folder.join("special_tokens_map.json");
    if map.exists() {
        let bytes = std::fs::read(&map).map_err(Error::io(&map))?;
        let mut map: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|error| Error::file(&map, format!("no JSON object: {error}")))?;
        add_special(&mut special, |key| map.remove(key));
    }
    Ok((special, tokens))
}

/// Tokens are strings, or objects with their `content`.
fn add_special(special: &mut HashMap<String, String>, mut take: impl FnMut(&str) -> Option<Value>) {
    for key in ["bos_token", "eos_token", "pad_token"] {
        let value = take(key).unwrap_or_default();
        if let Some(token) = value.as_str().or_else(|| value.get("content")?.as_str()) {
            special.insert(key.to_owned(), token.to_owned());
        }
    }
}
