//! A byte pair encoding of CLIP's form and size, with made-up merges: CLIP's own comes with a model, not with us.
//!
//! CLIP's vocabulary is the 256 bytes, the same at the end of a word, one token a merge, and two special tokens.

use std::fmt::Write;

use serde_json::{Map, Value};

/// CLIP's vocabulary.
const VOCABULARY: usize = 49408;
/// Marks the end of a word.
const END: &str = "</w>";

/// `vocab.json` and `merges.txt`.
pub(super) fn files() -> (String, String) {
    let bytes = byte_characters();
    let ends = bytes.iter().map(|byte| format!("{byte}{END}"));
    let mut tokens: Vec<String> = bytes.iter().map(char::to_string).chain(ends).collect();
    let merges: Vec<(String, String)> = pairs().take(VOCABULARY - tokens.len() - 2).collect();
    tokens.extend(merges.iter().map(|(first, second)| format!("{first}{second}")));
    tokens.extend(["<|startoftext|>", "<|endoftext|>"].map(str::to_owned));
    let vocab: Map<String, Value> = tokens.into_iter().zip((0u32..).map(Value::from)).collect();
    let mut lines = String::from("#version: 0.2\n");
    for (first, second) in merges {
        let _ = writeln!(lines, "{first} {second}");
    }
    (Value::Object(vocab).to_string(), lines)
}

/// GPT-2's printable character for each byte, in CLIP's order: those that are printable stand for themselves and come
/// first, the others follow as characters from 256 on.
fn byte_characters() -> Vec<char> {
    let printable = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let others = 256 - printable.clone().count();
    printable.chain((256..).map_while(char::from_u32).take(others)).collect()
}

/// Pairs of tokens that exist by then: words of two letters, three, and four.
fn pairs() -> impl Iterator<Item = (String, String)> {
    let letters = || ('a'..='z').map(String::from);
    let longer = |words: Vec<String>| {
        let next = move |word: String| letters().map(move |letter| (word.clone(), letter));
        words.into_iter().flat_map(next).flat_map(|(word, letter)| {
            let end = format!("{letter}{END}");
            [(word.clone(), letter), (word, end)]
        })
    };
    let two: Vec<String> = letters().flat_map(|a| letters().map(move |b| format!("{a}{b}"))).collect();
    let three: Vec<String> = two.iter().flat_map(|ab| letters().map(move |c| format!("{ab}{c}"))).collect();
    longer(letters().collect()).chain(longer(two)).chain(longer(three))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_vocabulary_has_clips_size_and_order() {
        let (vocab, merges) = files();
        let vocab: Map<String, Value> = serde_json::from_str(&vocab).unwrap();
        assert_eq!(vocab.len(), VOCABULARY);
        for (token, id) in [("!", 0), ("~", 93), ("!</w>", 256), ("aa", 512), ("<|endoftext|>", 49407)] {
            assert_eq!(vocab[token], id, "{token}");
        }
        let pairs: BTreeSet<&str> = merges.lines().skip(1).collect();
        assert_eq!(pairs.len(), VOCABULARY - 514);
    }
}
