//! Tags that name an extra network, `<lora:name:1>`, and are no part of what is painted.

use crate::unicode::is_word;

/// `prompt` without its tags, and the tags.
pub(super) fn take_tags(prompt: &str) -> (String, Vec<String>) {
    let mut words = String::with_capacity(prompt.len());
    let mut tags = Vec::new();
    let mut rest = prompt;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        words.push_str(before);
        let (tag, after) = from.split_at(tag_len(from).unwrap_or(1));
        match tag {
            "<" => words.push('<'),
            tag => tags.push(tag.to_owned()),
        }
        rest = after;
    }
    (words + rest, tags)
}

/// The length in bytes of the tag that `text` begins with: `<`, a name, `:`, something, `>`.
fn tag_len(text: &str) -> Option<usize> {
    let (name, value) = text.strip_prefix('<')?.split_once(':')?;
    let end = value.find('>')?;
    (!name.is_empty() && name.chars().all(is_word) && end > 0).then_some(text.len() - value.len() + end + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn tags_are_taken_out() {
        let (words, tags) = take_tags("a <lora:a b:0.5>house<hypernet:x> <b> <a:> <:a> <<é_1:<>");
        assert_eq!(words, "a house <b> <a:> <:a> <");
        assert_eq!(tags, ["<lora:a b:0.5>", "<hypernet:x>", "<é_1:<>"]);
    }

    proptest! {
        #[test]
        fn tags_are_those_of_the_web_interface(text in "[<>:aé_ \n]{0,24}") {
            let pattern = Regex::new(r"<[\p{L}\p{N}_]+:[^>]+>").unwrap();
            let wanted: Vec<String> = pattern.find_iter(&text).map(|tag| tag.as_str().to_owned()).collect();
            prop_assert_eq!(take_tags(&text), (pattern.replace_all(&text, "").into_owned(), wanted));
        }
    }
}
