//! CLIP's own vocabulary, for models that bring none, as single files.
//!
//! It is OpenAI's (MIT licence), as the crate `instant-clip-tokenizer` carries it. That crate gives away each token's
//! text but not the merges; they follow from the order of the tokens. Byte pair encoding made token after token out of
//! two earlier ones, so the merges known before a token split its text into just these two.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use diffused_engine::tokenizer::byte_alphabet;
use flate2::read::GzDecoder;
use instant_clip_tokenizer::{Token, Tokenizer};
use serde_json::Map;

use super::tokenizer::{END, START};
use crate::error::{Error, Result};

/// Merges of CLIP; OpenAI's file has more, which are not used.
const MERGES: usize = 48_894;
/// Symbols before the first merge: the 256 bytes, within a word and at its end.
const SYMBOLS: usize = 512;
/// What marks a word's end.
const WORD_END: &str = "</w>";
/// The most bytes of `bpe_simple_vocab_16e6.txt`, which has 3 MB.
const MAX_TEXT: u64 = 16 << 20;

/// The contents of `vocab.json` and `merges.txt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClipVocabulary {
    pub(super) vocab: Vec<u8>,
    pub(super) merges: Vec<u8>,
}

impl ClipVocabulary {
    /// The one that this program carries.
    pub(super) fn carried() -> ClipVocabulary {
        let tokenizer = Tokenizer::new();
        let texts = (SYMBOLS..SYMBOLS + MERGES).map(|id| symbols(&token_bytes(&tokenizer, id)));
        ClipVocabulary::of_merges(&merges_of(texts))
    }

    /// OpenAI's `bpe_simple_vocab_16e6.txt`, packed (`.gz`) or not.
    pub(super) fn open(path: &Path) -> Result<ClipVocabulary> {
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        let packed = path.extension().is_some_and(|end| end == "gz");
        let mut bytes = Vec::new();
        let mut reader: Box<dyn Read> = if packed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
        reader.by_ref().take(MAX_TEXT).read_to_end(&mut bytes).map_err(Error::io(path))?;
        let refused = |message: String| Error::file(path, format!("not CLIP's bpe_simple_vocab_16e6.txt: {message}"));
        let text = String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8".into()))?;
        let mut merges = Vec::with_capacity(MERGES);
        for (number, line) in text.lines().enumerate().skip(1).take(MERGES) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                [first, second] => merges.push((first.to_owned(), second.to_owned())),
                _ => return Err(refused(format!("line {} is not a pair", number + 1))),
            }
        }
        match merges.len() {
            MERGES => Ok(ClipVocabulary::of_merges(&merges)),
            found => Err(refused(format!("it has {found} merges instead of {MERGES} or more"))),
        }
    }

    fn of_merges(merges: &[(String, String)]) -> ClipVocabulary {
        let bytes = byte_alphabet().map(String::from);
        let ends = byte_alphabet().map(|symbol| format!("{symbol}{WORD_END}"));
        let merged = merges.iter().map(|(first, second)| format!("{first}{second}"));
        let tokens = in_order_of_ids(bytes.zip(ends)).into_iter().chain(merged).chain([START.into(), END.into()]);
        let vocab: Map<_, _> = tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
        let lines = merges.iter().map(|(first, second)| format!("{first} {second}\n"));
        let merges = format!("#version: 0.2\n{}", lines.collect::<String>());
        ClipVocabulary { vocab: serde_json::Value::Object(vocab).to_string().into_bytes(), merges: merges.into_bytes() }
    }
}

/// The bytes in the order of their ids: printable ones first.
fn printable_first() -> impl Iterator<Item = u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    (0..=u8::MAX).filter(printable).chain((0..=u8::MAX).filter(move |byte| !printable(byte)))
}

/// The symbols of the bytes, which are given in the order of the bytes, in the order of their ids.
fn in_order_of_ids(symbols: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let (inner, last): (Vec<String>, Vec<String>) = symbols.unzip();
    let pick = |symbols: &[String]| -> Vec<String> {
        printable_first().filter_map(|byte| symbols.get(usize::from(byte)).cloned()).collect()
    };
    [pick(&inner), pick(&last)].concat()
}

/// Bytes as the vocabulary writes them, the mark of a word's end apart.
fn symbols(bytes: &[u8]) -> Vec<String> {
    let alphabet: Vec<char> = byte_alphabet().collect();
    let (inner, ends) = match bytes.strip_suffix(WORD_END.as_bytes()) {
        Some(inner) if !inner.is_empty() => (inner, true),
        _ => (bytes, false),
    };
    let symbol = |byte: &u8| alphabet.get(usize::from(*byte)).map(char::to_string).unwrap_or_default();
    let mut symbols: Vec<String> = inner.iter().map(symbol).collect();
    if let Some(last) = symbols.last_mut().filter(|_| ends) {
        last.push_str(WORD_END);
    }
    symbols
}

/// The bytes of token `id`. `Tokenizer::decode` returns text, in which broken characters are replaced; so tokens that
/// begin or end within a character are decoded between the bytes that it lacks.
fn token_bytes(tokenizer: &Tokenizer, id: usize) -> Vec<u8> {
    const BEFORE: [&[u8]; 7] = [&[], &[0xc3], &[0xe1], &[0xe1, 0x80], &[0xf1], &[0xf1, 0x80], &[0xf1, 0x80, 0x80]];
    const AFTER: [&[u8]; 9] = [
        &[],
        &[0x80],
        &[0x80, 0x80],
        &[0x80, 0x80, 0x80],
        &[0xa0],
        &[0xa0, 0x80],
        &[0x90],
        &[0x90, 0x80],
        &[0x90, 0x80, 0x80],
    ];
    let token = |id: usize| u16::try_from(id).ok().and_then(|id| Token::from_u16(id, tokenizer));
    let byte = |byte: &u8| token(printable_first().position(|other| other == *byte)?);
    let text = |before: &[u8], after: &[u8]| {
        let tokens = before.iter().map(byte).chain([token(id)]).chain(after.iter().map(byte));
        tokenizer.decode(tokens.flatten())
    };
    let plain = text(&[], &[]);
    let whole = BEFORE.iter().flat_map(|before| AFTER.iter().map(move |after| (*before, *after))).find_map(
        |(before, after)| {
            let text = text(before, after);
            let bytes = text.as_bytes().strip_prefix(before)?.strip_suffix(after)?.to_vec();
            (!text.contains(char::REPLACEMENT_CHARACTER)).then_some(bytes)
        },
    );
    // Where nothing makes it whole, the token is the replacement character itself. Tokens have no blanks.
    let bytes = whole.unwrap_or(plain.into_bytes());
    match bytes.split_last() {
        Some((b' ', inner)) => [inner, WORD_END.as_bytes()].concat(),
        _ => bytes,
    }
}

/// The two earlier tokens that each of `texts`, split into symbols, was made of.
fn merges_of(texts: impl Iterator<Item = Vec<String>>) -> Vec<(String, String)> {
    let mut ranks = HashMap::<(String, String), usize>::new();
    let mut merges = Vec::with_capacity(MERGES);
    for mut parts in texts {
        while parts.len() > 2 {
            let pairs = parts.windows(2).enumerate().filter_map(|(at, pair)| {
                let [first, second] = pair else { return None };
                Some((*ranks.get(&(first.clone(), second.clone()))?, at))
            });
            let Some((_, at)) = pairs.min() else { break };
            let second = parts.remove(at + 1);
            if let Some(first) = parts.get_mut(at) {
                first.push_str(&second);
            }
        }
        if let [first, second] = &parts[..] {
            let pair = (first.clone(), second.clone());
            ranks.insert(pair.clone(), merges.len());
            merges.push(pair);
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use diffused_engine::hash::sha256;
    use flate2::write::GzEncoder;

    use super::*;

    /// The first line and the 48,894 merges of OpenAI's file.
    #[test]
    fn the_merges_are_openais() {
        let ClipVocabulary { vocab, merges } = ClipVocabulary::carried();
        assert_eq!(sha256(&merges), "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a");
        let vocab: HashMap<String, u32> = serde_json::from_slice(&vocab).unwrap();
        assert_eq!(vocab.len(), 49_408);
        let ids = ["!", "Ń", "!</w>", "in", "hello</w>", "<|startoftext|>", "<|endoftext|>"].map(|token| vocab[token]);
        assert_eq!(ids, [0, 255, 256, 512, 3306, 49_406, 49_407]);
    }

    #[test]
    fn openais_file_is_the_same_vocabulary() {
        let carried = ClipVocabulary::carried();
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = (folder.path().join("vocab.txt"), folder.path().join("vocab.txt.gz"));
        // Of the file's further merges one is enough.
        let text = [&carried.merges[..], b"a b\n"].concat();
        std::fs::write(&plain, &text).unwrap();
        let mut encoder = GzEncoder::new(std::fs::File::create(&packed).unwrap(), flate2::Compression::fast());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap();
        assert_eq!(ClipVocabulary::open(&plain).unwrap(), carried);
        assert_eq!(ClipVocabulary::open(&packed).unwrap(), carried);
        std::fs::write(&plain, "#version\na b\n").unwrap();
        let error = ClipVocabulary::open(&plain).unwrap_err().to_string();
        assert!(error.ends_with("it has 1 merges instead of 48894 or more"), "{error}");
    }
}
