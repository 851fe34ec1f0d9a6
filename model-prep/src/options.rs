//! What the user says of a model beside where it is: what its files leave open, or what is to be taken instead.

use std::path::PathBuf;
use std::str::FromStr;

use diffused_engine::sampler::{Prediction, SamplerKind};

/// The headings of the options in the program's help.
const ADDED: &str = "Added to the model";
const UNSAID: &str = "What the source does not say, or says wrongly";
const DEFAULTS: &str = "Defaults of requests";

/// What is not in the source, or is to be other than it says.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct SourceOptions {
    /// Merge a LoRA, LoCon, LoHa, LoKr or DoRA [default strength: 1]; repeatable.
    #[arg(long, value_name = "FILE[:STRENGTH]", help_heading = ADDED)]
    pub lora: Vec<LoraOption>,
    /// Add a textual inversion as WORD [default: its own name]; repeatable.
    #[arg(long, value_name = "FILE[=WORD]", help_heading = ADDED)]
    pub embedding: Vec<EmbeddingOption>,
    /// Another autoencoder instead of the model's, or TAESD beside it.
    #[arg(long, value_name = "PATH", help_heading = ADDED)]
    pub vae: Option<PathBuf>,
    /// An upscaler, realesr-general-x4v3.pth or its like, for larger pictures.
    #[arg(long, value_name = "FILE", help_heading = ADDED)]
    pub upscaler: Option<PathBuf>,
    /// Leave out what of a LoRA fits nothing, instead of refusing it.
    #[arg(long, help_heading = ADDED)]
    pub lenient: bool,
    /// What the UNet predicts.
    #[arg(long, value_name = "epsilon|v", value_parser = prediction, help_heading = UNSAID)]
    pub prediction: Option<Prediction>,
    /// Leave out the text encoder's last N - 1 layers; many anime models want 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=12), help_heading = UNSAID)]
    pub clip_skip: Option<u16>,
    /// Tokenizer: a folder, a bundle or bpe_simple_vocab_16e6.txt.gz.
    #[arg(long, value_name = "PATH", help_heading = UNSAID)]
    pub tokenizer: Option<PathBuf>,
    /// Of a single file: configurations and tokenizer of a diffusers folder.
    #[arg(long, value_name = "FOLDER", help_heading = UNSAID)]
    pub config: Option<PathBuf>,
    /// Sampler: ddim, pndm, euler, euler_ancestral, dpmpp_2m, dpmpp_2m_karras, lcm.
    #[arg(long, value_name = "NAME", help_heading = DEFAULTS)]
    pub sampler: Option<SamplerKind>,
}

/// A prediction type by its names on model cards.
fn prediction(text: &str) -> Result<Prediction, String> {
    match text {
        "epsilon" | "eps" => Ok(Prediction::Epsilon),
        "v" | "v_prediction" | "v-prediction" => Ok(Prediction::VPrediction),
        _ => Err("known are epsilon and v".into()),
    }
}

/// A LoRA to merge.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraOption {
    /// The file.
    pub path: PathBuf,
    /// What its change is multiplied by.
    pub strength: f32,
}

impl FromStr for LoraOption {
    type Err = String;

    fn from_str(text: &str) -> Result<LoraOption, String> {
        let strength = |text: &str| text.parse().ok().filter(|strength: &f32| strength.is_finite());
        let (path, strength) = match text.rsplit_once(':') {
            Some((path, end)) if !path.is_empty() && !end.contains('/') => {
                let strength = strength(end).ok_or_else(|| format!("the strength {end:?} is not a number"))?;
                (path, strength)
            }
            _ => (text, 1.0),
        };
        Ok(LoraOption { path: path.into(), strength })
    }
}

/// A textual inversion to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingOption {
    /// The file.
    pub path: PathBuf,
    /// What prompts call it; `None`: what the file says.
    pub word: Option<String>,
}

impl FromStr for EmbeddingOption {
    type Err = String;

    fn from_str(text: &str) -> Result<EmbeddingOption, String> {
        match text.rsplit_once('=').filter(|(_, word)| !word.contains('/')) {
            Some((_, "")) => Err("the word after = is missing".into()),
            Some((path, word)) => Ok(EmbeddingOption { path: path.into(), word: Some(word.into()) }),
            None => Ok(EmbeddingOption { path: text.into(), word: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_follows_the_files_name() {
        let lora = |path: &str, strength| Ok(LoraOption { path: path.into(), strength });
        assert_eq!("a/b.safetensors".parse(), lora("a/b.safetensors", 1.0));
        assert_eq!("a/b.safetensors:0.75".parse(), lora("a/b.safetensors", 0.75));
        assert_eq!("b:-1".parse(), lora("b", -1.0));
        assert_eq!("c:/b".parse(), lora("c:/b", 1.0));
        for wrong in ["b:", "b:x", "b:inf", "b:NaN"] {
            assert!(wrong.parse::<LoraOption>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_word_follows_the_files_name() {
        let embedding =
            |path: &str, word: Option<&str>| Ok(EmbeddingOption { path: path.into(), word: word.map(Into::into) });
        assert_eq!("a/neg.pt".parse(), embedding("a/neg.pt", None));
        assert_eq!("a/neg.pt=bad hands".parse(), embedding("a/neg.pt", Some("bad hands")));
        assert_eq!("a=b/neg.pt".parse(), embedding("a=b/neg.pt", None));
        assert!("a=".parse::<EmbeddingOption>().is_err());
    }
}
