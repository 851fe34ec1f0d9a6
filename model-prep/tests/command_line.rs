//! The program as a person or a script runs it: what it prints, where, and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The demo model's source.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model")
}

/// The bundle of it that the daemon carries.
fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/assets/demo")
}

fn model_prep(arguments: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_model-prep"));
    command.args(arguments).args(paths).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn converting_prints_the_bundles_place_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    let output = model_prep(&["convert", "--name", "mine", "-o"], &[&bundle, &model()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((text(&output.stdout), text(&output.stderr)), (format!("{}\n", bundle.display()), String::new()));
    assert!(text(&model_prep(&["inspect"], &[&bundle]).stdout).contains("mine (sd1, weights in int8)"));
}

#[test]
fn inspecting_sums_up() {
    let output = model_prep(&["inspect"], &[&bundle()]);
    let printed = text(&output.stdout);
    assert!(output.status.success() && printed.ends_with("all checksums match\n"), "{printed}");
    let tensors = |network: &str| -> usize {
        let line = printed.lines().find(|line| line.starts_with(network)).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    let each: usize = ["text_encoder", "unet", "vae_decoder", "vae_encoder"].into_iter().map(tensors).sum();
    assert_eq!(tensors("together"), each);
}

#[test]
fn verifying_fails_where_a_tensor_is_too_far_off() {
    let paths = [&*bundle(), &*model()];
    let good = model_prep(&["verify"], &paths);
    assert!(good.status.success() && text(&good.stdout).ends_with("none below 30 dB\n"), "{}", text(&good.stdout));
    let strict = model_prep(&["verify", "--min-snr", "60"], &paths);
    let error = text(&strict.stderr);
    assert_eq!(strict.status.code(), Some(1));
    assert!(error.starts_with("error: ") && error.contains("tensors are below 60 dB: "), "{error}");
}

#[test]
fn errors_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = model_prep(&["convert", "-o"], &[&folder.path().join("bundle"), &folder.path().join("absent")]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.starts_with("error: cannot convert ") && error.contains("there is no such file"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

/// As `model-prep verify … | head -1`.
#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_model-prep"));
    command.arg("verify").args([bundle(), model()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}
