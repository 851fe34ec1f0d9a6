//! What the parts of the syntax `a1111` share: a word in capitals that joins, and numbers.

use crate::unicode::is_word;

/// The parts of `text` between those places where `word` stands alone, no part of another word. There is always one.
pub(super) fn split_at_word<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        if !text[..at].ends_with(is_word) && !text[end..].starts_with(is_word) {
            parts.push(&text[start..at]);
            start = end;
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A number of digits, which may have a sign and a point.
pub(super) fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn words_stand_alone() {
        assert_eq!(split_at_word("", "AND"), [""]);
        assert_eq!(split_at_word("AND", "AND"), ["", ""]);
        assert_eq!(
            split_at_word("a AND b, (AND) SAND ANDY AND_ 1AND éAND", "AND"),
            ["a ", " b, (", ") SAND ANDY AND_ 1AND éAND"]
        );
    }

    #[test]
    fn numbers_are_plain() {
        for (text, wanted) in [("1", 1.0), ("+1.", 1.0), ("-.5", -0.5), ("00.25", 0.25)] {
            assert_eq!(number(text), Some(wanted), "{text}");
        }
        for text in ["", "+", ".", "1.2.3", "1e5", "inf", "nan", "+-1", " 1", "१"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn words_are_split_as_by_a_pattern(text in "(AND|BREAK|[ _a(\u{301}é१²]){0,12}") {
            for word in ["AND", "BREAK"] {
                // Python's `\b`.
                let pattern = Regex::new(&format!(r"(^|[^\p{{L}}\p{{N}}_]){word}($|[^\p{{L}}\p{{N}}_])")).unwrap();
                prop_assert_eq!(split_at_word(&text, word).len() > 1, pattern.is_match(&text));
                prop_assert_eq!(split_at_word(&text, word).join(word), text.as_str());
            }
        }
    }
}
