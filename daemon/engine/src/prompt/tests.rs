//! Prompts against the A1111 web interface's own parser (`tests/goldens/make_prompts.py`).

use serde::Deserialize;

use super::attention::{WeightedPart, weigh};
use super::editing::edit;
use super::joining;

const CASES: &str = include_str!("../../tests/goldens/prompts.json");
/// The steps of the goldens.
const STEPS: usize = 10;

/// What the web interface reads.
#[derive(Deserialize)]
struct Case {
    prompt: String,
    /// Texts and their weights.
    parts: Vec<(String, f64)>,
    /// Up to which step which text.
    texts: Vec<(usize, String)>,
    /// Where `AND` is in it: the prompts that it joins, and their weights.
    #[serde(default)]
    joined: Vec<(String, f64)>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(CASES).unwrap()
}

#[test]
fn weights_are_a1111s() {
    let mut wrong = vec![];
    for Case { prompt, mut parts, .. } in cases() {
        // A break that is weighed with the brackets around it is a word to the web interface, by mistake.
        parts.iter_mut().filter(|(text, weight)| text == "BREAK" && *weight < 0.0).for_each(|part| part.1 = -1.0);
        let found: Vec<_> = weigh(&prompt)
            .into_iter()
            .map(|part| match part {
                WeightedPart::Words(words, weight) => (words, weight),
                WeightedPart::Break => ("BREAK".to_owned(), -1.0),
            })
            .collect();
        let near = |(a, b): (&(String, f64), &(String, f64))| a.0 == b.0 && (a.1 - b.1).abs() <= 1e-12 * b.1.abs();
        if found.len() != parts.len() || !found.iter().zip(&parts).all(near) {
            wrong.push(format!("{prompt:?}: {found:?}, not {parts:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn changes_are_a1111s() {
    let mut wrong = vec![];
    for Case { prompt, texts, .. } in cases() {
        let found = edit(&prompt, STEPS, "prompt").unwrap();
        let found: Vec<_> = found.turns.iter().map(|(end, text)| (*end, found.texts[*text].clone())).collect();
        if found != texts {
            wrong.push(format!("{prompt:?}: {found:?}, not {texts:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn joined_prompts_are_a1111s() {
    let joined: Vec<Case> = cases().into_iter().filter(|case| case.joined.len() > 1).collect();
    assert!(joined.len() > 5);
    for Case { prompt, joined, .. } in joined {
        let found: Vec<_> =
            joining::split(&prompt).into_iter().map(|(text, weight)| (text.to_owned(), weight)).collect();
        assert_eq!(found, joined, "{prompt:?}");
    }
}
