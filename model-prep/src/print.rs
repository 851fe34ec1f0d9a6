//! What the command line prints: tables for people.

use diffused_engine::bundle::Manifest;
use indicatif::HumanBytes;
use model_prep::{Difference, Inspection};

/// A bundle in figures.
pub(crate) fn inspection(inspection: &Inspection) {
    manifest(&inspection.manifest);
    println!("\n{:14}{:>10}{:>9}{:>12}{:>12}{:>12}", "network", "operators", "tensors", "int8", "f16", "f32");
    for network in &inspection.networks {
        print!("{:14}{:>10}{:>9}", network.name, network.operators, network.tensors);
        for format in ["int8", "f16", "f32"] {
            let bytes = network.bytes.get(format).copied().unwrap_or(0);
            print!("{:>12}", HumanBytes(bytes).to_string());
        }
        println!();
    }
    println!("\nall checksums match");
}

fn manifest(manifest: &Manifest) {
    let (picture, sampling) = (&manifest.picture, &manifest.sampling);
    println!("model     {} ({}, weights in {})", manifest.name, manifest.family, manifest.weights);
    println!("source    sha256 {}", manifest.source_sha256);
    println!(
        "pictures  {0}×{0} by default, sides in multiples of {1}",
        picture.default,
        picture.factor * picture.latent_multiple
    );
    println!("prompts   {} tokens to {} channels", manifest.text.tokens, manifest.text.channels);
    println!(
        "sampling  {}, {} steps, guidance {}, predicts {}",
        word(&sampling.default),
        sampling.steps,
        sampling.cfg_scale,
        word(&sampling.prediction)
    );
}

/// A value as the manifest spells it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// One line of a comparison.
pub(crate) fn difference(difference: &Difference) {
    let Difference { network, tensor, format, relative } = difference;
    let snr = if *relative == 0.0 { "exact".to_owned() } else { format!("{:.1} dB", difference.snr()) };
    println!("{network:14}{format:6}{relative:>10.2e}{snr:>10}  {tensor}");
}
