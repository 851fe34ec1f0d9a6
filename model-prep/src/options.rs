//! What the user says of a model beside where it is: what its files leave open, or what is to be taken instead.

use std::path::PathBuf;

use diffused_engine::sampler::{Prediction, SamplerKind};

/// What is not in the source, or is to be other than it says.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct SourceOptions {
    /// The default sampler, instead of the one that the source names.
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<SamplerKind>,
    /// What the UNet predicts, where the source does not say it or says it wrongly: epsilon or v.
    #[arg(long, value_name = "epsilon|v", value_parser = prediction)]
    pub prediction: Option<Prediction>,
    /// Leave out the text encoder's last N - 1 layers; many anime models want 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=12))]
    pub clip_skip: Option<u16>,
    /// The tokenizer: a diffusers folder, its tokenizer folder, a bundle, or bpe_simple_vocab_16e6.txt.gz.
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Of a single file: take configurations and tokenizer from a diffusers folder instead of the family's own.
    #[arg(long, value_name = "FOLDER")]
    pub config: Option<PathBuf>,
    /// Tell of what fits nothing instead of refusing it.
    #[arg(long)]
    pub lenient: bool,
}

/// A prediction type by its names on model cards.
fn prediction(text: &str) -> Result<Prediction, String> {
    match text {
        "epsilon" | "eps" => Ok(Prediction::Epsilon),
        "v" | "v_prediction" | "v-prediction" => Ok(Prediction::VPrediction),
        _ => Err("known are epsilon and v".into()),
    }
}
