//! Autoencoders that are given beside a model, `--vae`.

use std::fs;
use std::path::PathBuf;

use diffused_engine::bundle::Manifest;
use model_prep::{Options, SourceOptions, convert};
use serde_json::json;
use tempfile::TempDir;

use crate::changed::SourceCopy;
use crate::single_file::folder;

/// A folder of TAESD's files for these families, as its own repository has them.
fn taesd(families: &[&str]) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for (family, half) in families.iter().flat_map(|family| ["decoder", "encoder"].map(|half| (family, half))) {
        let golden = folder("taesd-halves").join(format!("taesd_{half}.safetensors"));
        fs::copy(golden, place.path().join(format!("{family}_{half}.safetensors"))).unwrap();
    }
    place
}

/// What is told when `source` is converted with the autoencoder `vae`, and the bundle's manifest.
fn with(source: &SourceCopy, vae: PathBuf) -> Result<(Vec<String>, Manifest), String> {
    let source_options = SourceOptions { vae: Some(vae), ..SourceOptions::default() };
    let options = Options { source: source_options, ..Options::default() };
    let converted =
        convert(&source.path(), &source.bundle(), &options, &mut |_| ()).map_err(|error| error.to_string())?;
    let manifest = fs::read(source.bundle().join("bundle.json")).unwrap();
    Ok((converted.warnings, Manifest::parse(&manifest).unwrap()))
}

#[test]
fn of_taesds_families_the_models_own_is_taken() {
    let place = taesd(&["taesd", "taesdxl", "taesd3"]);
    // Of the other families not even the beginning is read.
    for family in ["taesdxl", "taesd3"] {
        fs::write(place.path().join(format!("{family}_decoder.safetensors")), "x").unwrap();
    }
    let source = SourceCopy::of(&folder("sd1"));
    let (warnings, manifest) = with(&source, place.path().to_owned()).unwrap();
    assert!(manifest.has("tiny_decoder") && manifest.has("tiny_encoder") && warnings.is_empty(), "{warnings:?}");
    let xl = with(&SourceCopy::of(&folder("sdxl")), place.path().to_owned()).unwrap_err();
    assert!(xl.contains("taesdxl_decoder.safetensors: is not a whole file"), "{xl}");
    let others = with(&SourceCopy::of(&folder("sd1")), taesd(&["taef1", "taesd3"]).path().to_owned()).unwrap_err();
    assert!(others.contains("holds several autoencoders (taef1, taesd3); give a folder with one"), "{others}");
}

#[test]
fn an_encoder_without_its_decoder_is_refused() {
    let encoder = folder("taesd-halves").join("taesd_encoder.safetensors");
    let error = with(&SourceCopy::of(&folder("sd1")), encoder).unwrap_err();
    assert!(error.contains("taesd_encoder.safetensors: holds the encoder of a tiny autoencoder without"), "{error}");
}

#[test]
fn an_autoencoder_of_another_family_is_told_of() {
    let (source, other) = (SourceCopy::of(&folder("sd1")), SourceCopy::of(&folder("sd1")));
    let vae = |other: &SourceCopy| other.path().join("vae");
    assert_eq!(with(&source, vae(&other)).unwrap().0, Vec::<String>::new());
    other.set("vae/config.json", "scaling_factor", json!(0.13025));
    fs::remove_dir_all(source.bundle()).unwrap();
    let (warnings, _) = with(&source, vae(&other)).unwrap();
    assert!(warnings[0].contains("its scaling_factor is 0.13025 and the model's 0.18215"), "{warnings:?}");
}
