//! Prompts that `AND` joins, as the A1111 web interface reads them: what the UNet predicts for each of them is added up, by
//! the weight that stands at its end (Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models").

use std::sync::LazyLock;

use regex::Regex;

/// Between two prompts.
static AND: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bAND\b").expect("a pattern"));
/// A prompt and its weight.
static WEIGHTED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?s)^(.*?)(?:\s*:\s*([-+]?(?:[0-9]+\.?|[0-9]*\.[0-9]+)))?\s*$").expect("a pattern"));

/// The prompts and their weights. A prompt alone is what it is, also where it ends in a number: "at 10:30".
pub(crate) fn split(prompt: &str) -> Vec<(&str, f64)> {
    let prompts: Vec<&str> = AND.split(prompt).collect();
    if prompts.len() < 2 {
        return vec![(prompt, 1.0)];
    }
    prompts.into_iter().map(weighted).collect()
}

fn weighted(prompt: &str) -> (&str, f64) {
    let Some(found) = WEIGHTED.captures(prompt) else { return (prompt, 1.0) };
    let text = found.get(1).map_or(prompt, |text| text.as_str());
    let weight = found.get(2).and_then(|weight| weight.as_str().parse().ok());
    (text, weight.unwrap_or(1.0))
}
