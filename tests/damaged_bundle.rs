//! A bundle that was damaged is never painted with: the program names the file and what is wrong with it.

use std::fs;
use std::path::Path;

use diffused_tests::{copy_demo_bundle, edit, run};

/// What `generate` says of a damaged bundle: the file, what is wrong with it, and nothing painted.
fn check_damaged(file: &str, damage: fn(&Path), parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    copy_demo_bundle(&folder.path().join("m"));
    damage(&folder.path().join("m").join(file));
    let arguments = ["generate", "a", "--model", "m", "--steps", "1", "-o", "a.png"];
    let (code, _, stderr) = run(&arguments, folder.path());
    assert_eq!(code, Some(3), "{file}: {stderr}");
    assert!(stderr.contains(&format!("m/{file}: ")) && parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    assert!(!folder.path().join("a.png").exists());
}

#[test]
fn a_damaged_bundle() {
    let cut = |file: &Path| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    let remove = |file: &Path| fs::remove_file(file).unwrap();
    for stage in ["text_encoder", "unet", "vae_decoder"] {
        check_damaged(&format!("{stage}.weights"), edit, &["tensor", "checksum"]);
    }
    check_damaged("unet.weights", cut, &["cut off"]);
    check_damaged("vae_decoder.weights", remove, &["missing"]);
    check_damaged("unet.onnx", edit, &["checksum"]);
    check_damaged("vae_decoder.onnx", cut, &["checksum"]);
    check_damaged("tokenizer/vocab.json", remove, &["missing"]);
    check_damaged("bundle.json", cut, &["manifest"]);
    let future = |file: &Path| {
        let text = fs::read_to_string(file).unwrap();
        fs::write(file, text.replacen("\"schema\": 2", "\"schema\": 9", 1)).unwrap();
    };
    check_damaged("bundle.json", future, &["schema 9", "convert the model again"]);
}
