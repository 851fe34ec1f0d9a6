//! A bundle that was damaged is never painted with: the program names the file and what is wrong with it.

use std::fs;
use std::path::Path;

use diffused_tests::{copy_demo_bundle, edit, run};
use serde_json::{Value, json};

/// What `generate` says of a damaged bundle: the file, what is wrong with it, and nothing painted.
fn check_damaged(file: &str, damage: impl Fn(&Path), parts: &[&str]) {
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
    for (schema, way) in [(9, "update this program, or convert the model again"), (1, "; convert the model again")] {
        let other = |file: &Path| {
            let mut json: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            json["schema"] = json!(schema);
            fs::write(file, json.to_string()).unwrap();
        };
        check_damaged("bundle.json", other, &[&format!("schema {schema}"), way]);
    }
}

/// A copy of the demo model whose `bundle.json` has `value` (JSON) at `key`, in the folder `m`.
fn with_value(folder: &Path, key: &str, value: &str) {
    copy_demo_bundle(&folder.join("m"));
    let path = folder.join("m/bundle.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    *json.pointer_mut(&format!("/{}", key.replace('.', "/"))).unwrap() = json!("VALUE");
    fs::write(path, json.to_string().replace("\"VALUE\"", value)).unwrap();
    fs::write(folder.join("c.toml"), format!("model = {:?}", folder.join("m"))).unwrap();
}

/// What `check`, `generate` and the service say of it: the file, then `parts`.
#[track_caller]
fn check_value(key: &str, value: &str, file: &str, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    with_value(folder.path(), key, value);
    let generate = ["generate", "a", "--model", "m", "--steps", "1", "-o", "a.png"];
    for arguments in [&["check", "--config", "c.toml"][..], &generate, &["run", "--config", "c.toml"]] {
        let (code, _, stderr) = run(arguments, folder.path());
        assert_eq!(code, Some(3), "{arguments:?} with {key} = {value}: {stderr}");
        let told = stderr.contains(&format!("m/{file}: ")) && parts.iter().all(|part| stderr.contains(part));
        assert!(told, "{arguments:?} with {key} = {value}: {stderr}");
    }
    assert!(!folder.path().join("a.png").exists());
}

#[test]
fn values_that_no_model_has_are_named_with_their_range() {
    for (key, value, allowed) in [
        ("picture.factor", "0", "0; allowed is 1 to 64"),
        ("text.tokens", "0", "0; allowed is 3 to 1024"),
        ("picture.latent_scale", "0", "0; allowed is 0.001 to 1000"),
        ("picture.latent_scale", "1e30", "; allowed is 0.001 to 1000"),
        ("sampling.beta_end", "5", "5; allowed is 0.00085 to 0.999"),
        ("sampling.steps_offset", "18446744073709551615", "18446744073709551615; allowed is 0 to 999"),
        ("sampling.train_timesteps", "0", "0; allowed is 2 to 100000"),
        ("picture.default", "100", "100; allowed are multiples of picture.factor, 8"),
        ("sampling.cfg_scale", "51", "51; allowed is 0 to 50"),
    ] {
        check_value(key, value, "bundle.json", &[&format!("{key} is "), allowed]);
    }
    check_value("picture.latent_scale", "NaN", "bundle.json", &["not a bundle's manifest", "expected"]);
    check_value("picture.latent_scale", "\"NaN\"", "bundle.json", &["picture.latent_scale: invalid type"]);
    check_value("weights", "\"int4\"", "bundle.json", &["weights: unknown variant `int4`", "`int8`"]);
}

#[test]
fn values_that_do_not_fit_the_graphs_are_named() {
    check_value("picture.factor", "4", "vae_decoder.onnx", &["picture.factor 4", "1,64,64,3", "[1, 32, 32, 3]"]);
    check_value("text.tokens", "78", "text_encoder.onnx", &["text.tokens 78"]);
    check_value("text.channels", "64", "text_encoder.onnx", &["text.channels 64", "1,77,128"]);
    check_value("picture.latent_channels", "8", "unet.onnx", &["picture.latent_channels 8"]);
}
