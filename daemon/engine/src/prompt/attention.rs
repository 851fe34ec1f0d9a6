//! Weights of a prompt's words as the A1111 web interface reads them: `(word)` is 1.1, `[word]` its inverse, `(word:1.3)`
//! what it says, brackets within brackets multiply, and a backslash takes a bracket's meaning away. Any text can be read:
//! a bracket that nothing closes weighs the rest of the text, one that nothing opened is text.

use super::words::{number, split_at_word};

/// The weight of a round bracket without a number; a square one has the inverse.
const BRACKET: f64 = 1.1;

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WeightedPart {
    /// Words of one weight.
    Words(String, f64),
    /// `BREAK`: what follows begins a chunk.
    Break,
}

/// A prompt being read: its parts, and which of them lie in brackets that are open.
#[derive(Default)]
struct Brackets {
    parts: Vec<WeightedPart>,
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Brackets {
    fn words(&mut self, text: &str) {
        let texts = split_at_word(text, "BREAK");
        let last = texts.len() - 1;
        for (i, words) in texts.into_iter().enumerate() {
            let words = if i < last { words.trim_end() } else { words };
            let words = if i > 0 { words.trim_start() } else { words };
            if i > 0 {
                self.parts.push(WeightedPart::Break);
            }
            self.parts.push(WeightedPart::Words(words.to_owned(), 1.0));
        }
    }

    /// Weighs all parts from `start` on.
    fn weigh(&mut self, start: usize, factor: f64) {
        for part in &mut self.parts[start..] {
            if let WeightedPart::Words(_, weight) = part {
                *weight *= factor;
            }
        }
    }

    /// Takes the beginning of `text` in; returns the rest.
    fn take<'a>(&mut self, text: &'a str) -> &'a str {
        let special = |c: char| ['\\', '(', ')', '[', ']', ':'].contains(&c);
        let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
        match first {
            "\\" => {
                let escaped = rest.chars().next().filter(|c| special(*c) && *c != ':').map_or(0, char::len_utf8);
                self.parts.push(WeightedPart::Words(rest[..escaped].to_owned(), 1.0));
                return &rest[escaped..];
            }
            "(" => self.round.push(self.parts.len()),
            "[" => self.square.push(self.parts.len()),
            ":" => {
                if let Some((weight, len)) = weighted_end(rest) {
                    let (end, rest) = text.split_at(1 + len);
                    match self.round.pop() {
                        Some(start) => self.weigh(start, weight),
                        None => self.words(end),
                    }
                    return rest;
                }
                self.words(first);
            }
            ")" | "]" => {
                let (open, factor) =
                    if first == ")" { (&mut self.round, BRACKET) } else { (&mut self.square, 1.0 / BRACKET) };
                match open.pop() {
                    Some(start) => self.weigh(start, factor),
                    None => self.words(first),
                }
            }
            _ => {
                let run = text.find(special).unwrap_or(text.len());
                self.words(&text[..run]);
                return &text[run..];
            }
        }
        rest
    }
}

/// The weight after a colon and the length in bytes up to the bracket that it closes, included.
fn weighted_end(text: &str) -> Option<(f64, usize)> {
    let (weight, _) = text.split_once(')')?;
    Some((number(weight.trim()).filter(|weight| weight.is_finite())?, weight.len() + 1))
}

/// The parts of `text`, neighbours of one weight joined. There is always one.
pub(crate) fn weigh(text: &str) -> Vec<WeightedPart> {
    let mut brackets = Brackets::default();
    let mut rest = text;
    while !rest.is_empty() {
        rest = brackets.take(rest);
    }
    for start in std::mem::take(&mut brackets.round) {
        brackets.weigh(start, BRACKET);
    }
    for start in std::mem::take(&mut brackets.square) {
        brackets.weigh(start, 1.0 / BRACKET);
    }
    if brackets.parts.is_empty() {
        brackets.words("");
    }
    joined(brackets.parts)
}

fn joined(parts: Vec<WeightedPart>) -> Vec<WeightedPart> {
    let mut joined: Vec<WeightedPart> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(WeightedPart::Words(before, same)), WeightedPart::Words(words, weight)) if *same == weight => {
                before.push_str(&words);
            }
            (_, part) => joined.push(part),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(String, f64)> {
        let words = |part| match part {
            WeightedPart::Words(words, weight) => (words, weight),
            WeightedPart::Break => ("BREAK".into(), -1.0),
        };
        weigh(text).into_iter().map(words).collect()
    }

    fn check(text: &str, wanted: &[(&str, f64)]) {
        let wanted: Vec<_> = wanted.iter().map(|(text, weight)| ((*text).to_owned(), *weight)).collect();
        assert_eq!(words(text), wanted, "{text}");
    }

    #[test]
    fn brackets_weigh_what_is_in_them() {
        check("a house", &[("a house", 1.0)]);
        check("", &[("", 1.0)]);
        check("a (red) house", &[("a ", 1.0), ("red", 1.1), (" house", 1.0)]);
        check("a (red: 1.5 ) [house]", &[("a ", 1.0), ("red", 1.5), (" ", 1.0), ("house", 1.0 / 1.1)]);
        check("((a)(b))", &[("ab", 1.1 * 1.1)]);
        check("(a [b:0.5])", &[("a ", 1.1), ("b:0.5", 1.0)]);
        check("(a\nBREAK b:2)", &[("a", 2.0), ("BREAK", -1.0), ("b", 2.0)]);
        check("BREAKFAST", &[("BREAKFAST", 1.0)]);
    }

    #[test]
    fn blanks_around_breaks_are_dropped() {
        check(
            " a BREAK\tb\nBREAK BREAK c ",
            &[(" a", 1.0), ("BREAK", -1.0), ("b", 1.0), ("BREAK", -1.0), ("", 1.0), ("BREAK", -1.0), ("c ", 1.0)],
        );
        check(" a_BREAK 1BREAK ", &[(" a_BREAK 1BREAK ", 1.0)]);
    }

    #[test]
    fn what_is_not_a_bracket_is_text() {
        check(r"\(a\) \[b\] c\\ \d", &[(r"(a) [b] c\ d", 1.0)]);
        check("a) b] (c", &[("a) b] ", 1.0), ("c", 1.1)]);
        check("10:30) a:b", &[("10:30) a:b", 1.0)]);
        check("(a:1.2.3) b", &[("a:1.2.3", 1.1), (" b", 1.0)]);
        check("(a:.)", &[("a:.", 1.1)]);
    }
}
