//! Tokens that were added to CLIP's vocabulary, by textual inversion most of all: older transformers list them in
//! `added_tokens.json`, newer ones in `tokenizer_config.json` (`added_tokens_decoder`) or `tokenizer.json`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use diffused_engine::bundle::AddedToken;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A token as `tokenizer_config.json` and `tokenizer.json` have it.
#[derive(Deserialize)]
struct ListedToken {
    content: String,
    /// Where it is in a list; in an object its key is the id.
    id: Option<u32>,
    /// Its text is found in the normalized prompt, in lower case for one.
    #[serde(default = "yes")]
    normalized: bool,
    /// It is found only between characters that are not of words.
    #[serde(default)]
    single_word: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    added_tokens_decoder: BTreeMap<u32, ListedToken>,
}

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<ListedToken>,
}

/// The tokens that `folder` adds to `vocab`, in the order of their ids, for a text encoder of `rows` tokens; what the
/// user should know of is added to `warnings`.
pub(super) fn open(
    folder: &Path,
    vocab: &HashMap<String, u32>,
    rows: usize,
    warnings: &mut Vec<String>,
) -> Result<Vec<AddedToken>> {
    let listed = listed(folder)?;
    let mut added = Vec::new();
    for (id, token) in &listed {
        let ListedToken { content, normalized, single_word, .. } = token;
        // CLIP's own special tokens are listed, too.
        if vocab.get(content) == Some(id) || content.is_empty() {
            continue;
        }
        if *id as usize >= rows {
            let has = format!("the text encoder has {rows} tokens");
            warnings.push(format!("the added token {content:?} is left out: its id is {id}, but {has}"));
            continue;
        }
        if *single_word {
            warnings.push(format!("the added token {content:?} is found within words, too"));
        }
        added.push(AddedToken { text: content.clone(), ids: vec![*id], exact: !normalized });
    }
    let known = vocab.values().chain(listed.keys()).max().map_or(0, |id| *id as usize + 1);
    if known < rows {
        let unnamed = rows - known;
        warnings
            .push(format!("the text encoder has {unnamed} tokens that the tokenizer lacks: no prompt can name them"));
    }
    join(&mut added);
    Ok(added)
}

/// The first of several vectors stands for all of them: a textual inversion `x` of three is the tokens `x`, `x_1` and
/// `x_2` (diffusers, `TextualInversionLoaderMixin.maybe_convert_prompt`).
pub(crate) fn join(added: &mut [AddedToken]) {
    let ids: HashMap<String, u32> =
        added.iter().filter_map(|token| Some((token.text.clone(), *token.ids.first()?))).collect();
    for token in added {
        let further = (1..).map_while(|number| ids.get(&format!("{}_{number}", token.text)));
        token.ids = token.ids.iter().take(1).chain(further).copied().collect();
    }
}

/// The tokens that the folder's files list, by their ids.
fn listed(folder: &Path) -> Result<BTreeMap<u32, ListedToken>> {
    let older: BTreeMap<String, u32> = read(&folder.join("added_tokens.json"))?.unwrap_or_default();
    let token = |content| ListedToken { content, id: None, normalized: true, single_word: false };
    let mut listed: BTreeMap<u32, ListedToken> = older.into_iter().map(|(text, id)| (id, token(text))).collect();
    if let Some(TokenizerJson { added_tokens }) = read(&folder.join("tokenizer.json"))? {
        listed.extend(added_tokens.into_iter().filter_map(|token| Some((token.id?, token))));
    }
    if let Some(TokenizerConfig { added_tokens_decoder }) = read(&folder.join("tokenizer_config.json"))? {
        listed.extend(added_tokens_decoder);
    }
    Ok(listed)
}

/// A JSON file; `None` where there is no such file.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|error| Error::file(path, format!("no list of added tokens: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, id: u32) -> AddedToken {
        AddedToken { text: text.into(), ids: vec![id], exact: false }
    }

    #[test]
    fn the_first_vector_stands_for_all() {
        let mut added = [token("cat", 7), token("cat_1", 8), token("cat_2", 9), token("cat_4", 10), token("dog_1", 11)];
        join(&mut added);
        let ids: Vec<&[u32]> = added.iter().map(|token| &token.ids[..]).collect();
        assert_eq!(ids, [&[7, 8, 9][..], &[8], &[9], &[10], &[11]]);
    }

    #[test]
    fn each_form_of_the_files_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let vocab = HashMap::from([("a".to_owned(), 0), ("<|endoftext|>".to_owned(), 1)]);
        let mut warnings = Vec::new();
        let open = |warnings: &mut Vec<String>| super::open(folder.path(), &vocab, 6, warnings).unwrap();
        write("added_tokens.json", r#"{"<old>": 2, "<|endoftext|>": 1}"#);
        write(
            "tokenizer.json",
            r#"{"added_tokens": [{"id": 3, "content": "<new>", "normalized": true}], "model": {}}"#,
        );
        write(
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"1": {"content": "<|endoftext|>", "normalized": false},
                "4": {"content": "<Exact>", "normalized": false}, "9": {"content": "<far>"}}}"#,
        );
        let exact = AddedToken { exact: true, ..token("<Exact>", 4) };
        assert_eq!(open(&mut warnings), [token("<old>", 2), token("<new>", 3), exact]);
        assert_eq!(warnings, ["the added token \"<far>\" is left out: its id is 9, but the text encoder has 6 tokens"]);
    }

    #[test]
    fn rows_without_a_token_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut warnings = Vec::new();
        open(folder.path(), &HashMap::from([("a".to_owned(), 0)]), 3, &mut warnings).unwrap();
        assert_eq!(warnings, ["the text encoder has 2 tokens that the tokenizer lacks: no prompt can name them"]);
    }
}
