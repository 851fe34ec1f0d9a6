//! Textual inversions: files of embeddings that a word of a prompt stands for (Gal et al. 2022), which become rows of
//! the text encoders' token tables. Several embeddings are several tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use diffused_engine::bundle::AddedToken;

use super::NamedNetwork;
use crate::error::{Error, Result};
use crate::options::EmbeddingOption;
use crate::tensors::TensorFile;

/// The text encoders' token table.
const TABLE: &str = "embeddings.token_embedding.weight";
/// Most embeddings of a word: as many as a prompt has tokens.
const MOST: usize = 75;
/// Keys that name a text encoder of Stable Diffusion XL.
const ENCODERS: [(&str, &str); 4] = [
    ("clip_l", "text_encoder"),
    ("clip_g", "text_encoder_2"),
    ("text_encoders_0", "text_encoder"),
    ("text_encoders_1", "text_encoder_2"),
];
/// The keys of Automatic1111's files.
const UNNAMED: [&str; 2] = ["emb_params", "string_to_param.*"];

/// A textual inversion.
pub(super) struct Embedding {
    file: Arc<TensorFile>,
    /// What a prompt calls it.
    word: String,
    /// The file's key for each text encoder.
    keys: BTreeMap<&'static str, String>,
    /// Tokens that it becomes.
    count: usize,
}

impl Embedding {
    /// Opens the file of `option`.
    pub(super) fn open(option: &EmbeddingOption) -> Result<Embedding> {
        let file = Arc::new(TensorFile::open(&option.path)?);
        let fault = |message: String| Error::file(&option.path, message);
        let (keys, own_name) = keys(&file).map_err(fault)?;
        let stem = option.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let word = option.word.clone().or(own_name).or(stem).unwrap_or_default();
        if word.trim().is_empty() {
            return Err(fault("its name is empty; give --embedding FILE=WORD".into()));
        }
        let counts = keys.values().map(|key| size(&file, key).map(|(count, _)| count)).collect::<Result<Vec<_>>>()?;
        let count = counts.first().copied().unwrap_or(0);
        if count == 0 || count > MOST || counts.iter().any(|other| *other != count) {
            return Err(fault(format!(
                "holds {counts:?} embeddings; supported are 1 to {MOST}, as many for each encoder"
            )));
        }
        Ok(Embedding { file, word, keys, count })
    }

    /// Its file.
    pub(super) fn file(&self) -> Arc<TensorFile> {
        Arc::clone(&self.file)
    }

    /// Adds its rows behind the token tables of the text encoders of `networks`, which have `rows` rows; the tokens
    /// that they are: as in diffusers, `word` for all and `word_1`, `word_2` and so on for each further one. `taken`
    /// says which texts are tokens already.
    pub(super) fn add(
        &self,
        networks: &mut [NamedNetwork],
        rows: usize,
        taken: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<AddedToken>> {
        let encoders = networks.iter_mut().filter(|(name, _)| name.starts_with("text_encoder"));
        let mut left = self.keys.clone();
        for (name, checkpoint) in encoders {
            let key =
                left.remove(*name).ok_or_else(|| self.fault(format!("holds nothing for {name}{}", self.advice())))?;
            let (_, width) = size(&self.file, &key)?;
            let (there, wanted) = match checkpoint.shape(TABLE) {
                Some(&[there, wanted]) => (there, wanted),
                _ => return Err(checkpoint.error(TABLE, "is missing, or no table")),
            };
            if there != rows {
                return Err(checkpoint.error(TABLE, format!("has {there} rows instead of {rows}")));
            }
            if width != wanted {
                let message = format!("has embeddings of {width} values; those of this model's {name} have {wanted}");
                return Err(Error::tensor(&self.file.path, &key, message + self.advice()));
            }
            checkpoint.append_rows(TABLE, &self.file.read_all(&key)?)?;
        }
        if let Some(key) = left.values().next() {
            return Err(Error::tensor(
                &self.file.path,
                key,
                format!("is for a text encoder that this model lacks{}", self.advice()),
            ));
        }
        let id =
            |index: usize| u32::try_from(rows + index).map_err(|_| self.fault("has too many tokens before it".into()));
        let ids = (0..self.count).map(id).collect::<Result<Vec<u32>>>()?;
        let token = |index: usize| {
            let text = if index == 0 { self.word.clone() } else { format!("{}_{index}", self.word) };
            let ids = ids.get(index..).unwrap_or_default();
            AddedToken {
                text,
                ids: ids.get(..if index == 0 { ids.len() } else { 1 }).unwrap_or_default().to_vec(),
                exact: false,
            }
        };
        let tokens: Vec<AddedToken> = (0..self.count).map(token).collect();
        match tokens.iter().find(|token| taken(&token.text)) {
            Some(AddedToken { text, .. }) => Err(self
                .fault(format!("{text:?} is a token of this model already; name it otherwise: --embedding FILE=WORD"))),
            None => Ok(tokens),
        }
    }

    fn fault(&self, message: String) -> Error {
        Error::file(&self.file.path, message)
    }

    /// What the file was made for, where its keys and widths tell.
    fn advice(&self) -> &'static str {
        let widths: Vec<usize> =
            self.keys.values().filter_map(|key| size(&self.file, key).ok()).map(|size| size.1).collect();
        match (self.keys.contains_key("text_encoder_2"), &widths[..]) {
            (true, _) => "; it was made for Stable Diffusion XL",
            (false, [768]) => "; it was made for Stable Diffusion 1",
            (false, [1024]) => "; it was made for Stable Diffusion 2",
            _ => "",
        }
    }
}

/// The key for each text encoder, and the word where the file names it.
fn keys(file: &TensorFile) -> Result<(BTreeMap<&'static str, String>, Option<String>), String> {
    let has = |key: &str| file.tensors.contains_key(key);
    let encoders: BTreeMap<&'static str, String> =
        ENCODERS.iter().filter(|(key, _)| has(key)).map(|(key, network)| (*network, (*key).to_owned())).collect();
    if !encoders.is_empty() {
        return Ok((encoders, None));
    }
    if let Some(key) = UNNAMED.into_iter().find(|key| has(key)) {
        let name = file.metadata.get("name").filter(|_| key != "emb_params").cloned();
        return Ok((BTreeMap::from([("text_encoder", key.to_owned())]), name));
    }
    match file.tensors.keys().collect::<Vec<_>>()[..] {
        [key] => Ok((BTreeMap::from([("text_encoder", key.clone())]), Some(key.clone()))),
        [] => Err("holds no tensors".into()),
        [first, ..] => Err(format!(
            "is not a textual inversion: it holds {} tensors, {first} for one (a LoRA is given as --lora)",
            file.tensors.len()
        )),
    }
}

/// The embeddings of tensor `key` and their width.
fn size(file: &TensorFile, key: &str) -> Result<(usize, usize)> {
    match file.tensors.get(key).map(|tensor| &tensor.shape[..]) {
        Some(&[width]) => Ok((1, width)),
        Some(&[count, width]) => Ok((count, width)),
        shape => Err(Error::tensor(&file.path, key, format!("has the shape {shape:?}; embeddings are rows"))),
    }
}
