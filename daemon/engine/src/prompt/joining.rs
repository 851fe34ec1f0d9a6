//! Prompts that `AND` joins, as the A1111 web interface reads them: what the UNet predicts for each of them is added up, by
//! the weight that stands at its end (Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models").

use super::words::{number, split_at_word};

/// The prompts and their weights. A prompt alone is what it is, also where it ends in a number: "at 10:30".
pub(crate) fn split(prompt: &str) -> Vec<(&str, f64)> {
    let prompts = split_at_word(prompt, "AND");
    if prompts.len() < 2 {
        return vec![(prompt, 1.0)];
    }
    prompts.into_iter().map(weighted).collect()
}

/// A prompt without blanks at its end, and the number after its last colon.
fn weighted(prompt: &str) -> (&str, f64) {
    let found = prompt.rsplit_once(':').and_then(|(text, weight)| Some((text, number(weight.trim())?)));
    let (text, weight) = found.unwrap_or((prompt, 1.0));
    (text.trim_end(), weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    /// As the web interface spells it.
    const WEIGHTED: &str = r"(?s)^(.*?)(?:\s*:\s*([-+]?(?:[0-9]+\.?|[0-9]*\.[0-9]+)))?\s*$";

    proptest! {
        #[test]
        fn weights_are_those_of_the_web_interface(text in "[a:.05+ \n-]{0,12}") {
            let found = Regex::new(WEIGHTED).unwrap().captures(&text).unwrap();
            let weight = found.get(2).map_or(1.0, |weight| weight.as_str().parse().unwrap());
            prop_assert_eq!(weighted(&text), (found.get(1).unwrap().as_str(), weight));
        }
    }
}
