//! Prompts that change while they are painted, as the A1111 web interface reads them: `[from:to:when]`, `[to:when]` and
//! `[from::when]` change at a step, or, where `when` has a decimal point, at a share of the steps; `[a|b]` takes turns.
//!
//! A bracket is one of these only where it is closed and all brackets in it are. Other brackets are text, which
//! `attention` reads; and a `|` that belongs to no turns makes the whole prompt text.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// How deep brackets that change may lie in each other; deeper ones are text.
const DEEPEST: usize = 50;
/// The most bytes that the texts of one prompt may have together.
const MOST_TEXT: usize = 1 << 18;

/// A prompt's texts, and which of them holds until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EditedPrompt {
    /// Each once.
    pub(crate) texts: Vec<String>,
    /// A step, counted from 0, up to which (included) the text of this index is painted; the last one holds on.
    pub(crate) turns: Vec<(usize, usize)>,
}

/// A part of a prompt.
#[derive(Debug, Clone)]
enum PromptPart {
    Text(String),
    Change { before: Vec<PromptPart>, after: Vec<PromptPart>, when: usize },
    Turns(Vec<Vec<PromptPart>>),
}

/// A bracket that is open, or, at the bottom, the prompt.
#[derive(Default)]
struct OpenBracket {
    bracket: String,
    /// What lies between its separators, and those.
    sections: Vec<Vec<PromptPart>>,
    separators: Vec<char>,
    /// How deep the deepest change in it lies.
    depth: usize,
}

impl OpenBracket {
    fn new(bracket: &str) -> OpenBracket {
        OpenBracket { bracket: bracket.to_owned(), sections: vec![vec![]], ..OpenBracket::default() }
    }

    fn push(&mut self, part: PromptPart) {
        match (self.sections.last_mut(), part) {
            (Some(section), PromptPart::Text(more)) => match section.last_mut() {
                Some(PromptPart::Text(text)) => text.push_str(&more),
                _ => section.push(PromptPart::Text(more)),
            },
            (Some(section), part) => section.push(part),
            (None, part) => self.sections.push(vec![part]),
        }
    }

    fn text(&mut self, text: &str) {
        self.push(PromptPart::Text(text.to_owned()));
    }

    fn separate(&mut self, separator: char) {
        self.separators.push(separator);
        self.sections.push(vec![]);
    }

    /// As text: its bracket, what is in it and its separators go to the one around it. Whether a `|` was among them.
    fn dissolve(self, around: &mut OpenBracket) -> bool {
        around.text(&self.bracket);
        around.depth = around.depth.max(self.depth);
        let turns = self.separators.contains(&'|');
        let separators = self.separators.into_iter().map(Some).chain([None]);
        for (section, separator) in self.sections.into_iter().zip(separators) {
            section.into_iter().for_each(|part| around.push(part));
            if let Some(separator) = separator {
                around.text(separator.encode_utf8(&mut [0; 4]));
            }
        }
        turns
    }

    /// What it is once it is closed; the bracket itself where that is nothing but text.
    fn close(mut self, steps: usize) -> std::result::Result<PromptPart, OpenBracket> {
        let [colons, turns] = [':', '|'].map(|separator| self.separators.iter().filter(|c| **c == separator).count());
        if self.bracket != "[" || self.depth >= DEEPEST {
            return Err(self);
        }
        if colons == 0 && turns > 0 {
            return Ok(PromptPart::Turns(self.sections));
        }
        let when = self.sections.last().and_then(|section| match &section[..] {
            [PromptPart::Text(number)] => when(number.trim(), steps),
            _ => None,
        });
        match (when, self.sections.len()) {
            (Some(when), 2 | 3) if turns == 0 => {
                self.sections.pop();
                let after = self.sections.pop().unwrap_or_default();
                let before = self.sections.pop().unwrap_or_default();
                Ok(PromptPart::Change { before, after, when })
            }
            _ => Err(self),
        }
    }

    /// Whether a prompt may hold it: emphasis, with a weight after one colon if the bracket is round.
    fn is_emphasis(&self) -> bool {
        match &self.separators[..] {
            [] => true,
            [':'] => self.bracket == "(",
            _ => false,
        }
    }
}

/// The step after which something changes: 0 is before the first.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn when(number: &str, steps: usize) -> Option<usize> {
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let value: f64 = number.parse().ok()?;
    let step = if number.contains('.') { value * steps as f64 } else { value };
    Some((step as usize).min(steps))
}

/// The texts of `prompt` over so many steps.
///
/// # Errors
///
/// `InvalidParam` with the key `field` where the texts together are too long.
pub(crate) fn edit(prompt: &str, steps: usize, field: &'static str) -> Result<EditedPrompt> {
    let as_it_is = || EditedPrompt { texts: vec![prompt.to_owned()], turns: vec![(steps, 0)] };
    let Some(parts) = parse(prompt, steps) else { return Ok(as_it_is()) };
    let mut ends = vec![steps];
    collect(&parts, steps, &mut ends);
    ends.sort_unstable();
    ends.dedup();
    let mut edited = EditedPrompt { texts: Vec::new(), turns: Vec::new() };
    let (mut known, mut bytes) = (HashMap::new(), 0);
    for end in ends {
        let mut text = String::new();
        write(&parts, end, &mut text);
        let index = *known.entry(text).or_insert_with_key(|text| {
            edited.texts.push(text.clone());
            bytes += text.len();
            edited.texts.len() - 1
        });
        edited.turns.push((end, index));
        if bytes > MOST_TEXT {
            let message = format!("its texts over {steps} steps have more than {MOST_TEXT} bytes together");
            return Err(Error::InvalidParam { field, message });
        }
    }
    Ok(edited)
}

/// The prompt's parts; `None` where all of it is text.
fn parse(prompt: &str, steps: usize) -> Option<Vec<PromptPart>> {
    let mut open = vec![OpenBracket::new("")];
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let (token, after) = rest.split_at(first.len_utf8());
        rest = after;
        match first {
            '(' | '[' => open.push(OpenBracket::new(token)),
            ')' | ']' => close(&mut open, token, steps)?,
            ':' | '|' if open.len() > 1 => open.last_mut()?.separate(first),
            '|' => return None,
            '\\' => {
                let escaped = after.chars().next().filter(|c| *c != '\n')?;
                open.last_mut()?.text(&format!("\\{escaped}"));
                rest = &after[escaped.len_utf8()..];
            }
            _ => open.last_mut()?.text(token),
        }
    }
    dissolve(&mut open)?;
    Some(open.pop()?.sections.concat())
}

/// Closes the last bracket that is open; where `bracket` does not fit it, or what is in it is not of a kind that may lie
/// in brackets, all that are open are text.
fn close(open: &mut Vec<OpenBracket>, bracket: &str, steps: usize) -> Option<()> {
    let fits = open.last().is_some_and(|last| [("(", ")"), ("[", "]")].contains(&(&last.bracket, bracket)));
    if !fits {
        dissolve(open)?;
        open.last_mut()?.text(bracket);
        return Some(());
    }
    let last = open.pop()?;
    let depth = last.depth + 1;
    let around = open.last_mut()?;
    match last.close(steps) {
        Ok(part) => {
            around.depth = around.depth.max(depth);
            around.push(part);
        }
        Err(text) => {
            let emphasis = text.is_emphasis();
            if text.dissolve(around) {
                return None;
            }
            if !emphasis {
                dissolve(open)?;
            }
            open.last_mut()?.text(bracket);
        }
    }
    Some(())
}

/// Makes all brackets that are open text; `None` where a `|` is in them.
fn dissolve(open: &mut Vec<OpenBracket>) -> Option<()> {
    let brackets = open.split_off(1);
    brackets.into_iter().all(|bracket| !bracket.dissolve(&mut open[0])).then_some(())
}

/// Adds the steps at which `parts` change.
fn collect(parts: &[PromptPart], steps: usize, ends: &mut Vec<usize>) {
    for part in parts {
        match part {
            PromptPart::Text(_) => {}
            PromptPart::Change { before, after, when } => {
                ends.extend(Some(*when).filter(|when| *when > 0));
                collect(before, steps, ends);
                collect(after, steps, ends);
            }
            PromptPart::Turns(turns) => {
                ends.extend(1..=steps);
                turns.iter().for_each(|turn| collect(turn, steps, ends));
            }
        }
    }
}

/// Adds the text of `parts` up to the step `end`.
fn write(parts: &[PromptPart], end: usize, text: &mut String) {
    for part in parts {
        match part {
            PromptPart::Text(words) => text.push_str(words),
            PromptPart::Change { before, after, when } => write(if end <= *when { before } else { after }, end, text),
            PromptPart::Turns(turns) => write(&turns[(end - 1) % turns.len()], end, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prompt: &str, wanted: &[(usize, &str)]) {
        let EditedPrompt { texts, turns } = edit(prompt, 10, "prompt").unwrap();
        let found: Vec<_> = turns.iter().map(|(end, text)| (*end, &*texts[*text])).collect();
        assert_eq!(found, wanted, "{prompt}");
    }

    #[test]
    fn a_bracket_changes_at_its_step() {
        check("a house", &[(10, "a house")]);
        check("a [b:3]", &[(3, "a "), (10, "a b")]);
        check("a [b::3] c", &[(3, "a b c"), (10, "a  c")]);
        check("[a:b:0.5]", &[(5, "a"), (10, "b")]);
        check("[a:b: 1. ]", &[(10, "a")]);
        check("[a:b:99][c:d:-1]", &[(10, "ad")]);
        check("([a:(b:1.2):3]:1.3)", &[(3, "(a:1.3)"), (10, "((b:1.2):1.3)")]);
        check("a[b:[c:d:2]:1]e", &[(1, "abe"), (2, "ace"), (10, "ade")]);
    }

    #[test]
    fn turns_are_taken_at_each_step() {
        let EditedPrompt { texts, turns } = edit("[fe|]male", 3, "prompt").unwrap();
        assert_eq!((texts, turns), (vec!["female".into(), "male".into()], vec![(1, 0), (2, 1), (3, 0)]));
    }

    #[test]
    fn brackets_that_do_not_fit_are_text() {
        check("((a][:b:c [d:3]", &[(3, "((a][:b:c "), (10, "((a][:b:c d")]);
        check("[a:b:c:3] [d:x]", &[(10, "[a:b:c:3] [d:x]")]);
        check("a|b [c:d:3]", &[(10, "a|b [c:d:3]")]);
        check("(a|b) [c:d:3]", &[(10, "(a|b) [c:d:3]")]);
        check(r"[a\:b:3] \[c:d:4\]", &[(3, r" \[c:d:4\]"), (10, r"a\:b \[c:d:4\]")]);
        check("[a:b:3] \\", &[(10, "[a:b:3] \\")]);
    }

    #[test]
    fn hostile_prompts_are_read_or_refused() {
        let deep = format!("{}a{}", "[".repeat(10_000), ":1]".repeat(10_000));
        assert!(edit(&deep, 10, "prompt").is_ok());
        let long = format!("[a|b|c|d|e|f|g] [a|b|c|d|e|f|g|h|i|j|k] [1|2|3|4|5|6|7|8|9] {}", "x".repeat(15_000));
        let error = edit(&long, 1000, "negative_prompt").unwrap_err();
        assert!(error.to_string().starts_with("negative_prompt: "), "{error}");
    }
}
