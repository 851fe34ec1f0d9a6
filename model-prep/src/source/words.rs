//! `words.txt` and `examples.txt`, which diffusers does not know: the words that a small model was trained with, and
//! prompts that show what it can paint. One a line; lines that begin with `#` are comments.

use std::io::ErrorKind;
use std::path::Path;

use diffused_engine::bundle::Text;

use crate::error::{Error, Result};

/// The words of `path`, in lower case and sorted; `None` where there is no such file, or the model is a file itself.
pub(crate) fn open(path: &Path) -> Result<Option<Vec<String>>> {
    let Some(lines) = lines(path)? else { return Ok(None) };
    if let Some(line) = lines.iter().find(|line| !line.chars().all(char::is_alphabetic)) {
        return Err(Error::file(path, format!("{line:?} is not one word; a word is letters alone, one word a line")));
    }
    let mut words: Vec<String> = lines.iter().map(|word| word.to_lowercase()).collect();
    words.sort();
    words.dedup();
    match words.is_empty() {
        true => Err(Error::file(path, "lists no words; delete it if the model knows all words")),
        false => Ok(Some(words)),
    }
}

/// The prompts of `path`, which may use only `words`; none where there is no such file.
pub(crate) fn examples(path: &Path, words: Option<&[String]>) -> Result<Vec<String>> {
    let examples = lines(path)?.unwrap_or_default();
    let known = |word: &String| words.is_none_or(|words| words.contains(word));
    for example in &examples {
        if let Some(word) = Text::words_of(example).find(|word| !known(word)) {
            return Err(Error::file(path, format!("{example:?} has the word {word:?}, which words.txt does not list")));
        }
    }
    Ok(examples)
}

/// The lines of a file that say something.
fn lines(path: &Path) -> Result<Option<Vec<String>>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        read => read.map_err(Error::io(path))?,
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(Some(lines.map(str::to_owned).collect()))
}
