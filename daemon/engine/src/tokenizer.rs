//! Prompts to token ids, exactly as transformers' `CLIPTokenizer` makes them: another id is another image.
//!
//! The steps are those of its tokenizers pipeline: special tokens are cut out of the raw text; the rest is composed
//! (NFC), its whitespace becomes single blanks, and it is lower-cased character by character; added tokens are cut out
//! of that; what is left falls into words; each word's UTF-8 bytes, the last one marked as the end of a word,
//! are merged pair by pair in the order of `merges.txt` (byte pair encoding, Sennrich et al. 2016).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use unicode_normalization::UnicodeNormalization;

use crate::bundle::{AddedToken, Text};
use crate::unicode::{is_letter, is_number};

/// The start token as a prompt may spell it.
const START: &str = "<|startoftext|>";
/// The end token as a prompt may spell it; it also stands for what the vocabulary lacks.
const END: &str = "<|endoftext|>";
/// Words that are found before runs of characters of one kind.
const FIXED_WORDS: [&str; 9] = [START, END, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// A prompt's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// `Text::tokens` ids: start, words, end, padding.
    pub ids: Vec<u32>,
    /// Where the prompt has more tokens: its end that was left out, from the first word that did not wholly fit.
    pub left_out: Option<String>,
}

/// CLIP's tokenizer. With the 48,894 merges of Stable Diffusion it takes 2 MiB of memory.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    start: u32,
    end: u32,
    /// Id of a comma that is a word.
    comma: Option<u32>,
    /// Ids of the 256 bytes within a word.
    inner: Vec<u32>,
    /// Ids of the 256 bytes at a word's end.
    last: Vec<u32>,
    /// Which pairs become which token, sorted by pair.
    merges: Vec<((u32, u32), MergeRule)>,
    /// Added tokens that are found as they are spelled.
    exact: Vec<CutToken>,
    /// Added tokens whose text is normalized, as the prompt is.
    folded: Vec<CutToken>,
}

/// A text that is cut out of a prompt, and its ids.
#[derive(Debug, Clone)]
struct CutToken {
    text: String,
    ids: Vec<u32>,
}

/// What a pair becomes; of several possible merges the lowest rank comes first.
#[derive(Debug, Clone, Copy)]
struct MergeRule {
    rank: u32,
    id: u32,
}

impl Tokenizer {
    /// From the contents of `vocab.json` and `merges.txt`, and the manifest's added tokens.
    ///
    /// # Errors
    /// What is wrong with which of them, for people.
    pub fn new(vocab: &[u8], merges: &[u8], added: &[AddedToken]) -> Result<Tokenizer, String> {
        let vocab: HashMap<String, u32> = serde_json::from_slice(vocab)
            .map_err(|error| format!("vocab.json: {error}; expected tokens with their ids"))?;
        let merges = std::str::from_utf8(merges).map_err(|error| format!("merges.txt: {error}"))?;
        let special = |token| {
            vocab.get(token).copied().ok_or_else(|| format!("vocab.json: the special token {token} is missing"))
        };
        let (start, end) = (special(START)?, special(END)?);
        let byte = |suffix: &str| {
            let id = |char| vocab.get(&format!("{char}{suffix}")).copied().unwrap_or(end);
            byte_alphabet().map(id).collect()
        };
        let cut = |exact, spelled: fn(&str) -> String| {
            let tokens = added.iter().filter(move |token| token.exact == exact);
            tokens.map(|token| CutToken { text: spelled(&token.text), ids: token.ids.clone() }).collect()
        };
        Ok(Tokenizer {
            exact: cut(true, str::to_owned),
            folded: cut(false, normalized),
            start,
            end,
            comma: vocab.get(",</w>").copied(),
            inner: byte(""),
            last: byte("</w>"),
            merges: read_merges(merges, &vocab)?,
        })
    }

    /// The ids of `text`, cut off or filled up to `sizes.tokens`. Any text has some; the empty one is start and end.
    pub fn encode(&self, text: &str, sizes: &Text) -> EncodedPrompt {
        let room = sizes.tokens.saturating_sub(2);
        let mut ids = vec![sizes.bos];
        let left_out = self.words(text, sizes.pad, room + 1, &mut ids);
        ids.push(sizes.eos);
        ids.resize(sizes.tokens, sizes.pad);
        EncodedPrompt { ids, left_out }
    }

    /// All ids of `text` without start, end and padding; `pad` is the padding's, which a text may spell.
    pub(crate) fn ids(&self, text: &str, pad: u32) -> Vec<u32> {
        let mut ids = Vec::new();
        self.words(text, pad, usize::MAX, &mut ids);
        ids
    }

    /// The id of a comma between words.
    pub(crate) fn comma(&self) -> Option<u32> {
        self.comma
    }

    /// Appends the ids of `text` without start and end until there are `most`; returns the text that had no room.
    fn words(&self, text: &str, pad: u32, most: usize, ids: &mut Vec<u32>) -> Option<String> {
        let mut tokens = self.specials(pad);
        tokens.extend(self.exact.iter().cloned());
        cut(text, &tokens, most, ids, |text, ids| {
            let text = normalized(text);
            cut(&text, &self.folded, most, ids, |text, ids| self.plain(text, most, ids))
        })
    }

    /// Tokens that stand for themselves wherever they occur in a prompt. To transformers the padding is one, too: SD 2
    /// pads with `!`, so there an exclamation mark is padding. A padding that is neither `END` nor one byte cannot be
    /// written in a prompt.
    fn specials(&self, pad: u32) -> Vec<CutToken> {
        let token = |text: &str, id| CutToken { text: text.to_owned(), ids: vec![id] };
        let mut specials = vec![token(START, self.start), token(END, self.end)];
        let byte = byte_alphabet().zip(&self.inner).find(|&(char, &id)| id == pad && id != self.end && char.is_ascii());
        specials.extend(byte.map(|(char, &id)| token(&char.to_string(), id)));
        specials
    }

    /// The same for a normalized text that holds no tokens which are cut out.
    fn plain(&self, text: &str, most: usize, ids: &mut Vec<u32>) -> Option<String> {
        for (mut start, clip_word) in clip_words(text) {
            for word in gpt2_words(clip_word) {
                if !append(ids, &self.merge(word.as_bytes()), most) {
                    return Some(text[start..].to_owned());
                }
                start += word.len();
            }
        }
        None
    }

    /// Byte pair encoding of one word: of all pairs of neighbours that have a merge, the one of the lowest rank, and of
    /// those the leftmost, becomes one token; again until no pair has a merge.
    fn merge(&self, word: &[u8]) -> Vec<u32> {
        let mut chain = Chain::new(self.bytes(word));
        let mut queue = BinaryHeap::new();
        let push = |queue: &mut BinaryHeap<_>, chain: &Chain, at: usize| {
            if let Some(merge) = chain.pair(at).and_then(|pair| self.rule(pair)) {
                queue.push(Reverse((merge.rank, at, merge.id)));
            }
        };
        (0..word.len()).for_each(|at| push(&mut queue, &chain, at));
        while let Some(Reverse((_, at, id))) = queue.pop() {
            // A neighbour may have been merged since this pair was queued.
            let current = chain.pair(at).and_then(|pair| self.rule(pair));
            if current.is_none_or(|merge| merge.id != id) {
                continue;
            }
            chain.join(at, id);
            push(&mut queue, &chain, at);
            if let Some(previous) = chain.links[at].previous {
                push(&mut queue, &chain, previous);
            }
        }
        chain.ids()
    }

    fn rule(&self, pair: (u32, u32)) -> Option<MergeRule> {
        let at = self.merges.binary_search_by_key(&pair, |(known, _)| *known).ok()?;
        Some(self.merges[at].1)
    }

    fn bytes(&self, word: &[u8]) -> Vec<u32> {
        let mut ids: Vec<u32> = word.iter().map(|&byte| self.inner[usize::from(byte)]).collect();
        if let (Some(id), Some(&byte)) = (ids.last_mut(), word.last()) {
            *id = self.last[usize::from(byte)];
        }
        ids
    }
}

/// Cuts `tokens` out of `text` from left to right, where several begin at the same place the longest, and appends their
/// ids and those that `between` finds in the text around them, until there are `most`; returns the text that had no
/// room.
fn cut(
    text: &str,
    tokens: &[CutToken],
    most: usize,
    ids: &mut Vec<u32>,
    between: impl Fn(&str, &mut Vec<u32>) -> Option<String>,
) -> Option<String> {
    let mut rest = text;
    loop {
        let found = tokens.iter().filter_map(|token| Some((rest.find(&token.text)?, token)));
        let found = found.min_by_key(|(at, token)| (*at, Reverse(token.text.len())));
        let (plain, from_token) = rest.split_at(found.map_or(rest.len(), |(at, _)| at));
        if let Some(left_out) = between(plain, ids) {
            return Some(left_out + from_token);
        }
        let (_, token) = found?;
        if !append(ids, &token.ids, most) {
            return Some(from_token.to_owned());
        }
        rest = &from_token[token.text.len()..];
    }
}

/// Appends `found` until there are `most` ids; whether all had room.
fn append(ids: &mut Vec<u32>, found: &[u32], most: usize) -> bool {
    let room = most - ids.len();
    ids.extend(found.iter().take(room));
    found.len() <= room
}

/// Composed, with single blanks, in lower case.
fn normalized(text: &str) -> String {
    let mut normalized = String::with_capacity(text.len());
    for char in text.nfc() {
        match char.is_whitespace() {
            true if normalized.ends_with(' ') => {}
            true => normalized.push(' '),
            false => normalized.extend(char.to_lowercase()),
        }
    }
    normalized
}

/// What CLIP's words are runs of; numbers are words of one character.
#[derive(PartialEq, Eq)]
enum CharClass {
    Letter,
    Number,
    Blank,
    Other,
}

impl CharClass {
    fn of(char: char) -> CharClass {
        match char {
            _ if is_letter(char) => CharClass::Letter,
            _ if is_number(char) => CharClass::Number,
            _ if char.is_whitespace() => CharClass::Blank,
            _ => CharClass::Other,
        }
    }
}

/// CLIP's words of `text` and where each starts. Whitespace lies between words and belongs to none.
fn clip_words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let start = text.len() - rest.len();
        let (word, after) = rest.split_at(clip_word_len(rest));
        rest = after;
        (!word.is_empty()).then_some((start, word))
    })
}

/// The length in bytes of CLIP's word that `text` begins with.
fn clip_word_len(text: &str) -> usize {
    if let Some(word) = FIXED_WORDS.iter().find(|word| text.starts_with(**word)) {
        return word.len();
    }
    let Some(first) = text.chars().next() else { return 0 };
    match CharClass::of(first) {
        CharClass::Number => first.len_utf8(),
        class => text.find(|char| CharClass::of(char) != class).unwrap_or(text.len()),
    }
}

/// GPT-2's words, which transformers looks for within CLIP's: each is one of those, but for special tokens that a
/// prompt spells in capitals.
fn gpt2_words(clip_word: &str) -> impl Iterator<Item = &str> {
    let parts = match clip_word {
        START | END => [&clip_word[..2], &clip_word[2..clip_word.len() - 2], &clip_word[clip_word.len() - 2..]],
        word => [word, "", ""],
    };
    parts.into_iter().filter(|part| !part.is_empty())
}

/// A word's tokens as a list that stays in place when two of them become one.
struct Chain {
    links: Vec<ChainLink>,
}

/// A token and its neighbours; `id` is `None` once it was joined with the one before it.
struct ChainLink {
    id: Option<u32>,
    previous: Option<usize>,
    next: Option<usize>,
}

impl Chain {
    fn new(ids: Vec<u32>) -> Chain {
        let count = ids.len();
        let link = |(at, id): (usize, u32)| ChainLink {
            id: Some(id),
            previous: at.checked_sub(1),
            next: Some(at + 1).filter(|&next| next < count),
        };
        Chain { links: ids.into_iter().enumerate().map(link).collect() }
    }

    /// The token at `at` and the one after it, if both are there.
    fn pair(&self, at: usize) -> Option<(u32, u32)> {
        let link = &self.links[at];
        Some((link.id?, self.links[link.next?].id?))
    }

    /// Makes the token at `at` and the one after it `id`.
    fn join(&mut self, at: usize, id: u32) {
        self.links[at].id = Some(id);
        let Some(gone) = self.links[at].next else { return };
        self.links[gone].id = None;
        let next = self.links[gone].next;
        self.links[at].next = next;
        if let Some(next) = next {
            self.links[next].previous = Some(at);
        }
    }

    fn ids(&self) -> Vec<u32> {
        self.links.iter().filter_map(|link| link.id).collect()
    }
}

/// The characters by which a byte-level vocabulary spells the bytes 0 to 255: themselves where they can be seen in
/// Latin-1, the others, counted in order, from U+0100 on.
pub fn byte_alphabet() -> impl Iterator<Item = char> {
    let mut hidden = 0x100..;
    (0..=u8::MAX).map(move |byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => hidden.next().and_then(char::from_u32).unwrap_or_default(),
    })
}

/// A pair of tokens and what it becomes.
type RankedPair = ((u32, u32), MergeRule);

/// The pairs of `merges.txt`, one a line, best first.
fn read_merges(text: &str, vocab: &HashMap<String, u32>) -> Result<Vec<RankedPair>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.trim().is_empty());
    let mut merges = Vec::new();
    for (rank, line) in lines {
        let fault = |what: String| format!("merges.txt, line {}: {what}", rank + 1);
        let (a, b) = line.trim_end().split_once(' ').ok_or_else(|| fault("expected two tokens".into()))?;
        let id = |token: &str| vocab.get(token).copied().ok_or_else(|| fault(format!("{token} is not in vocab.json")));
        let pair = (id(a)?, id(b)?);
        merges.push((pair, MergeRule { rank: rank as u32, id: id(&format!("{a}{b}"))? }));
    }
    // Of a pair that is listed twice the last line counts, as in transformers.
    merges.sort_by_key(|(pair, rule)| (*pair, Reverse(rule.rank)));
    merges.dedup_by_key(|(pair, _)| *pair);
    merges.shrink_to_fit();
    Ok(merges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    /// As transformers spells it.
    const CLIP_WORDS: &str =
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

    proptest! {
        #[test]
        fn words_are_clips(text in r"(<\|startoftext\|>|<\|endoftext\|>|'(s|t|re|ve|m|ll|d)|\p{L}|\p{N}|\s|\PC){0,20}") {
            let pattern = Regex::new(CLIP_WORDS).unwrap();
            let wanted: Vec<_> = pattern.find_iter(&text).map(|word| (word.start(), word.as_str())).collect();
            prop_assert_eq!(clip_words(&text).collect::<Vec<_>>(), wanted);
        }
    }

    fn message(vocab: &str, merges: &[u8]) -> String {
        Tokenizer::new(vocab.as_bytes(), merges, &[]).unwrap_err()
    }

    #[test]
    fn the_alphabet_has_256_letters() {
        let mut letters: Vec<char> = byte_alphabet().collect();
        assert_eq!((letters[0], letters[usize::from(b'a')], letters[usize::from(b' ')]), ('Ā', 'a', 'Ġ'));
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), 256);
    }

    #[test]
    fn faults_of_the_files_are_named() {
        let vocab = r#"{"a": 0, "b": 1, "ab": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}"#;
        assert!(Tokenizer::new(vocab.as_bytes(), b"#version: 0.2\na b\n", &[]).is_ok());
        assert!(message("[]", b"").starts_with("vocab.json: "));
        assert_eq!(message(r#"{"a": 0}"#, b""), "vocab.json: the special token <|startoftext|> is missing");
        assert!(message(vocab, b"\xff").starts_with("merges.txt: "));
        assert_eq!(message(vocab, b"#version: 0.2\nab"), "merges.txt, line 2: expected two tokens");
        assert_eq!(message(vocab, b"a b\na c"), "merges.txt, line 2: c is not in vocab.json");
    }
}
