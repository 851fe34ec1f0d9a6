//! A text as chunks of the length that the text encoder reads, as the A1111 web interface cuts them: a word that has no
//! room begins the next chunk, and where a comma is near, so does all that follows it.

use crate::bundle::Text;
use crate::prompt::attention::WeightedPart;
use crate::tokenizer::Tokenizer;

/// How many tokens of a chunk's end go to the next one at most, so that this begins after a comma.
const COMMA_REACH: usize = 20;

/// As many tokens as the text encoder reads, and what each one weighs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WeightedTokens {
    /// `Text::tokens` ids: start, words, end, padding.
    pub(crate) ids: Vec<u32>,
    /// As many weights; 1 where nothing else is said.
    pub(crate) weights: Vec<f32>,
}

impl WeightedTokens {
    /// A chunk that holds no words.
    pub(crate) fn empty(sizes: &Text) -> WeightedTokens {
        WeightedTokens { ids: vec![], weights: vec![] }.bounded(sizes)
    }

    /// With start, end and padding around the words.
    fn bounded(self, sizes: &Text) -> WeightedTokens {
        let mut ids = [&[sizes.bos], &self.ids[..], &[sizes.eos]].concat();
        let mut weights = [&[1.0], &self.weights[..]].concat();
        ids.resize(sizes.tokens, sizes.pad);
        weights.resize(sizes.tokens, 1.0);
        WeightedTokens { ids, weights }
    }
}

/// Chunks being filled.
struct Filling<'a> {
    sizes: &'a Text,
    chunks: Vec<WeightedTokens>,
    /// The last chunk's words.
    last: WeightedTokens,
    /// The place of the last comma among them.
    comma: Option<usize>,
}

impl Filling<'_> {
    /// Words of a chunk.
    fn room(&self) -> usize {
        self.sizes.tokens.saturating_sub(2).max(1)
    }

    fn end_chunk(&mut self) {
        let words = std::mem::replace(&mut self.last, WeightedTokens { ids: vec![], weights: vec![] });
        self.chunks.push(words.bounded(self.sizes));
        self.comma = None;
    }

    /// Makes room for `count` tokens, the first of which is `id`.
    fn make_room(&mut self, id: u32, count: usize, comma: Option<u32>) {
        let len = self.last.ids.len();
        if comma == Some(id) {
            self.comma = Some(len);
        } else if let Some(at) = self.comma.filter(|at| len == self.room() && len - at <= COMMA_REACH) {
            let (ids, weights) = (self.last.ids.split_off(at + 1), self.last.weights.split_off(at + 1));
            self.end_chunk();
            self.last = WeightedTokens { ids, weights };
        }
        let len = self.last.ids.len();
        if len == self.room() || len > 0 && len + count > self.room() {
            self.end_chunk();
        }
    }
}

/// The chunks of `parts`, at least one. The tokens that one added text becomes stay together where a chunk has room for
/// them.
pub(crate) fn fill(parts: &[WeightedPart], tokenizer: &Tokenizer, sizes: &Text) -> Vec<WeightedTokens> {
    let last = WeightedTokens { ids: vec![], weights: vec![] };
    let mut filling = Filling { sizes, chunks: vec![], last, comma: None };
    for part in parts {
        let (words, weight) = match part {
            WeightedPart::Break => {
                filling.end_chunk();
                continue;
            }
            WeightedPart::Words(words, weight) => (words, *weight as f32),
        };
        let ids = tokenizer.ids(words, sizes.pad);
        let mut rest = &ids[..];
        while let Some(&id) = rest.first() {
            let count = together(rest, sizes).min(filling.room());
            filling.make_room(id, count, tokenizer.comma());
            filling.last.ids.extend(&rest[..count]);
            filling.last.weights.resize(filling.last.ids.len(), weight);
            rest = &rest[count..];
        }
    }
    if !filling.last.ids.is_empty() || filling.chunks.is_empty() {
        filling.end_chunk();
    }
    filling.chunks
}

/// How many of the first `ids` belong to one added text; 1 where they are words of the vocabulary.
fn together(ids: &[u32], sizes: &Text) -> usize {
    let added = sizes.added.iter().filter(|added| added.ids.len() > 1 && ids.starts_with(&added.ids));
    added.map(|added| added.ids.len()).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::AddedToken;
    use crate::prompt::attention::weigh;

    const VOCAB: &str = r#"{"a</w>": 1, "b</w>": 2, ",</w>": 3, "<|startoftext|>": 8, "<|endoftext|>": 9}"#;

    /// The ids of each chunk of `text` without start and end, and the weights of the first.
    fn chunks(text: &str) -> (Vec<Vec<u32>>, Vec<f32>) {
        let added = vec![AddedToken { text: "toy".into(), ids: vec![5, 6, 7], exact: false }];
        let tokenizer = Tokenizer::new(VOCAB.as_bytes(), b"", &added).unwrap();
        let (second, words, clip_skip) = (None, None, None);
        let sizes = Text { tokens: 10, bos: 8, eos: 9, pad: 0, channels: 4, second, words, added, clip_skip };
        let chunks = fill(&weigh(text), &tokenizer, &sizes);
        let weights = chunks[0].weights.clone();
        for chunk in &chunks {
            assert_eq!((chunk.ids.len(), chunk.weights.len(), chunk.ids[0]), (10, 10, 8), "{text}");
        }
        let words = |chunk: WeightedTokens| chunk.ids[1..].iter().copied().take_while(|id| *id != 9).collect();
        (chunks.into_iter().map(words).collect(), weights)
    }

    #[test]
    fn what_has_no_room_begins_the_next_chunk() {
        assert_eq!(chunks("").0, [Vec::<u32>::new()]);
        assert_eq!(chunks("a b a b a b a b").0, [[1, 2, 1, 2, 1, 2, 1, 2]]);
        assert_eq!(chunks("a b a b a b a b a").0, [vec![1, 2, 1, 2, 1, 2, 1, 2], vec![1]]);
        assert_eq!(chunks("a BREAK b").0, [vec![1], vec![2]]);
        assert_eq!(chunks("a BREAK ").0, [[1]]);
        assert_eq!(chunks("BREAK a").0, [vec![], vec![1]]);
    }

    #[test]
    fn a_comma_that_is_near_takes_what_follows_along() {
        assert_eq!(chunks("a b, a b a b b b a").0, [vec![1, 2, 3], vec![1, 2, 1, 2, 2, 2, 1]]);
        assert_eq!(chunks("a b a b a b a, b").0, [vec![1, 2, 1, 2, 1, 2, 1, 3], vec![2]]);
        assert_eq!(chunks("a b a b a b a b, b").0, [vec![1, 2, 1, 2, 1, 2, 1, 2], vec![3, 2]]);
    }

    #[test]
    fn an_added_text_stays_in_one_chunk() {
        assert_eq!(chunks("a b a b a b toy").0, [vec![1, 2, 1, 2, 1, 2], vec![5, 6, 7]]);
        assert_eq!(chunks("a b a b a toy").0, [[1, 2, 1, 2, 1, 5, 6, 7]]);
    }

    #[test]
    fn each_token_has_its_parts_weight() {
        assert_eq!(chunks("a (b:1.5) [a]").1, [1.0, 1.0, 1.5, (1.0 / 1.1) as f32, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    }
}
