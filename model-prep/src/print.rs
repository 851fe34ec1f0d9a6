//! What the command line prints: tables for people.

use std::collections::BTreeMap;
use std::io::{Result, Write};

use diffused_engine::bundle::Manifest;
use diffused_engine::memory_plan::{mib, sum_of_peaks, work_of};
use indicatif::HumanBytes;
use model_prep::{Difference, Inspection, Plan, SAME_OPTIONS, added_words};

/// The formats of stored values, a column each.
const FORMATS: [&str; 3] = ["int8", "f16", "f32"];

/// A bundle in figures.
pub(crate) fn inspection(out: &mut impl Write, inspection: &Inspection) -> Result<()> {
    recognised(out, inspection)?;
    manifest(out, &inspection.manifest, inspection.source.is_none())?;
    writeln!(out, "\n{:14}{:>10}{:>9}{:>12}{:>12}{:>12}", "network", "operators", "tensors", "int8", "f16", "f32")?;
    let mut sums = BTreeMap::new();
    for network in &inspection.networks {
        for (format, bytes) in &network.bytes {
            *sums.entry(*format).or_default() += bytes;
        }
        row(out, network.name, network.operators, network.tensors, &network.bytes)?;
    }
    let (operators, tensors) =
        inspection.networks.iter().fold((0, 0), |sum, n| (sum.0 + n.operators, sum.1 + n.tensors));
    row(out, "together", operators, tensors, &sums)?;
    match inspection.source {
        Some(_) => writeln!(out, "\nnot converted yet: model-prep convert makes this bundle"),
        None => writeln!(out, "\nall checksums match"),
    }
}

/// What a source is, and what is to be known of it.
fn recognised(out: &mut impl Write, inspection: &Inspection) -> Result<()> {
    let Some((recognised, warnings)) = &inspection.source else { return Ok(()) };
    writeln!(out, "{recognised}")?;
    warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

/// What painting with a source would need.
pub(crate) fn plan(out: &mut impl Write, plan: &Plan, engine: diffused_engine::Options) -> Result<()> {
    let Plan { inspection, parameters, memory, smallest, work } = plan;
    recognised(out, inspection)?;
    let bytes: u64 = inspection.networks.iter().flat_map(|network| network.bytes.values()).sum();
    let (name, within) = (&inspection.manifest.name, engine.memory.map(|bytes| format!(" in {:.1} MiB", mib(bytes))));
    let guidance = if parameters.cfg_scale > 1.0 { "with guidance" } else { "without guidance" };
    let (width, height, within) = (parameters.width, parameters.height, within.unwrap_or_default());
    writeln!(out, "{name}, {width} x {height}, {guidance}{within}; the bundle takes {}", HumanBytes(bytes))?;
    write!(out, "{memory}")?;
    writeln!(out, "{}", sum_of_peaks(engine.process()))?;
    writeln!(out, "The smallest budget for this is {} MiB.", smallest >> 20)?;
    writeln!(out, "The image takes {}.", work_of(*work, parameters.steps))
}

fn row(out: &mut impl Write, name: &str, operators: usize, tensors: usize, bytes: &BTreeMap<&str, u64>) -> Result<()> {
    write!(out, "{name:14}{operators:>10}{tensors:>9}")?;
    for format in FORMATS {
        let bytes = bytes.get(format).map_or("-".to_owned(), |bytes| HumanBytes(*bytes).to_string());
        write!(out, "{bytes:>12}")?;
    }
    writeln!(out)
}

fn manifest(out: &mut impl Write, manifest: &Manifest, checksums: bool) -> Result<()> {
    let (picture, sampling) = (&manifest.picture, &manifest.sampling);
    writeln!(out, "model     {} ({}, weights in {})", manifest.name, manifest.family, manifest.weights.name())?;
    if checksums {
        writeln!(out, "source    sha256 {}", manifest.source_sha256)?;
    }
    let (default, smallest, multiple) = (picture.default, picture.smallest, picture.factor);
    writeln!(out, "pictures  {default}×{default} by default, sides from {smallest} in multiples of {multiple}")?;
    writeln!(out, "prompts   {} tokens to {} channels", manifest.text.tokens, manifest.text.channels)?;
    if let Some(upscaler) = &manifest.upscaler {
        writeln!(out, "upscaler  {}, to {} times the width and height", upscaler.name, upscaler.scale)?;
    }
    let added = added_words(&manifest.text.added);
    if !added.is_empty() {
        writeln!(out, "words     {} (added to the vocabulary)", added.join(", "))?;
    }
    let (sampler, prediction) = (word(&sampling.default), word(&sampling.prediction));
    let (steps, guidance) = (sampling.steps, sampling.cfg_scale);
    writeln!(out, "sampling  {sampler}, {steps} steps, guidance {guidance}, predicts {prediction}")
}

/// A value as the manifest spells it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What stands above the lines of a comparison.
pub(crate) fn difference_header(out: &mut impl Write) -> Result<()> {
    writeln!(out, "{:14}{:6}{:>10}{:>10}  tensor", "network", "format", "error", "snr")
}

/// One line of a comparison.
pub(crate) fn difference(out: &mut impl Write, difference: &Difference) -> Result<()> {
    let Difference { network, tensor, format, relative } = difference;
    let snr = if *relative == 0.0 { "exact".to_owned() } else { format!("{:.1} dB", difference.snr()) };
    writeln!(out, "{network:14}{:6}{relative:>10.2e}{snr:>10}  {tensor}", format.name())
}

/// What is said of tensors that are less like the source than `min_snr` decibels.
pub(crate) fn too_far_off(worst: &[String], tensors: usize, min_snr: f64) -> String {
    const LISTED: usize = 5;
    let listed = worst.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = worst.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} of {tensors} tensors are below {min_snr} dB: {listed}{more}; {SAME_OPTIONS}", worst.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_tensors_are_counted_and_not_all_named() {
        let names = |count: usize| (0..count).map(|i| format!("t{i}")).collect::<Vec<_>>();
        assert!(too_far_off(&names(2), 9, 30.0).starts_with("2 of 9 tensors are below 30 dB: t0, t1; a bundle"));
        assert!(too_far_off(&names(7), 9, 30.0).contains(": t0, t1, t2, t3, t4 and 2 more; "));
    }
}
