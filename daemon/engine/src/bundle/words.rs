//! The words of a prompt, and which of them a model was trained with.

use std::cmp::Reverse;

use super::manifest::Text;

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
        for word in Text::words_of(&self.without_added(prompt)) {
            if known.binary_search(&word).is_err() && !unknown.contains(&word) {
                unknown.push(word);
            }
        }
        unknown
    }

    /// `prompt` in lower case with blanks in the place of added tokens.
    fn without_added(&self, prompt: &str) -> String {
        let mut added: Vec<String> = self.added.iter().map(|token| token.text.to_lowercase()).collect();
        added.sort_by_key(|text| Reverse(text.len()));
        added.iter().fold(prompt.to_lowercase(), |rest, text| rest.replace(text, " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::AddedToken;

    fn text(words: Option<&[&str]>) -> Text {
        let words = words.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
        Text {
            tokens: 77,
            bos: 0,
            eos: 1,
            pad: 1,
            channels: 8,
            second: None,
            words,
            added: Vec::new(),
            clip_skip: None,
        }
    }

    #[test]
    fn unknown_words_are_named_once_and_in_order() {
        let text = text(Some(&["a", "house", "on", "red"]));
        assert_eq!(text.unknown_words("a RED house"), Vec::<String>::new());
        assert_eq!(text.unknown_words("Zebras, a red-hot house; zebras' café"), ["zebras", "hot", "café"]);
        assert_eq!(text.unknown_words(" 12 %, ... "), Vec::<String>::new());
    }

    #[test]
    fn added_tokens_are_known_words() {
        let mut text = text(Some(&["a", "house"]));
        let added = |text: &str| AddedToken { text: text.into(), ids: vec![8], exact: false };
        text.added = vec![added("<Cat-Toy>"), added("<cat-toy>_1"), added("neg")];
        assert_eq!(text.unknown_words("a <cat-toy>_1house <CAT-TOY>, NEG"), Vec::<String>::new());
        assert_eq!(text.unknown_words("a cat-toy"), ["cat", "toy"]);
    }

    #[test]
    fn a_model_without_a_list_knows_every_word() {
        assert_eq!(text(None).unknown_words("zebras in the fog"), Vec::<String>::new());
    }
}
