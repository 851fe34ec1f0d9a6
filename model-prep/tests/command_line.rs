//! The program as a person or a script runs it: what it prints, where, and how it ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
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
fn converting_prints_the_bundles_place_and_what_the_source_was() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    let output = model_prep(&["convert", "--name", "mine", "-o"], &[&bundle, &model()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let recognised = "Stable Diffusion 1 (diffusers folder, f16), prediction epsilon\n";
    assert_eq!((text(&output.stdout), text(&output.stderr)), (format!("{}\n", bundle.display()), recognised.into()));
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
fn a_source_is_inspected_and_planned_before_it_is_converted() {
    let inspected = model_prep(&["inspect"], &[&model()]);
    let printed = text(&inspected.stdout);
    assert!(inspected.status.success() && text(&inspected.stderr).is_empty());
    assert!(
        printed.starts_with("Stable Diffusion 1 (diffusers folder, f16), prediction epsilon\nmodel     model (sd1")
    );
    assert!(printed.ends_with("not converted yet: model-prep convert makes this bundle\n"), "{printed}");
    let planned = model_prep(&["plan", "--memory", "40M", "--cfg-scale", "1"], &[&model()]);
    let printed = text(&planned.stdout);
    assert!(planned.status.success(), "{}", text(&planned.stderr));
    assert!(printed.contains("model, 128 x 128, without guidance in 40.0 MiB; the bundle takes "), "{printed}");
    assert!(printed.contains("\nVAE decoder") && printed.contains("\nThe smallest budget for this is "), "{printed}");
}

#[test]
fn a_small_decoder_is_planned_before_it_is_converted() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/models");
    let (model, vae) = (models.join("sd1"), models.join("taesd"));
    let with = model_prep(&["plan", "--decoder", "tiny", "--vae"], &[&vae, &model]);
    assert!(with.status.success() && text(&with.stdout).contains("\nVAE decoder"), "{}", text(&with.stderr));
    let without = model_prep(&["plan", "--decoder", "tiny"], &[&model]);
    let error = text(&without.stderr);
    assert!(!without.status.success() && error.contains("has no tiny decoder"), "{error}");
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

/// Who forgets the options that a bundle was made with is reminded of them.
#[test]
fn verifying_without_the_options_of_the_bundle_says_so() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    let (model, folder) = (goldens.join("models/sd1"), tempfile::tempdir().unwrap());
    let bundle = folder.path().join("bundle");
    for (option, file, told) in [
        ("--vae", "models/taesd", "holds text_encoder, unet, vae_decoder, vae_encoder, tiny_decoder, tiny_encoder"),
        ("--embedding", "adapters/neg.safetensors", "tensor embeddings.token_embedding: has another shape"),
        ("--lora", "adapters/kohya.safetensors", "tensors are below 30 dB: "),
    ] {
        let made = model_prep(&["convert", "--force", option], &[&goldens.join(file), &model, "-o".as_ref(), &bundle]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        let same = model_prep(&["verify", option], &[&goldens.join(file), &bundle, &model]);
        assert!(same.status.success(), "{}", text(&same.stderr));
        let error = text(&model_prep(&["verify"], &[&bundle, &model]).stderr);
        assert!(error.contains(told) && error.contains("with the same --lora, --embedding, --vae"), "{error}");
    }
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

#[test]
fn inspecting_something_else_says_what_it_is() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    for (file, kind) in [
        ("adapters/kohya.safetensors", "is a LoRA, not a model; give the model, and this file with --lora"),
        ("adapters/learned_embeds.safetensors", "is a textual inversion, not a model"),
        ("models/taesd", "is an autoencoder alone; give the model, and this folder with --vae"),
    ] {
        let path = goldens.join(file);
        let output = model_prep(&["inspect"], &[&path]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with(&format!("{}: {kind}", path.display())), "{}", text(&output.stdout));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(model_prep(&["convert", "-o"], &[&folder.path().join("bundle"), &path]).status.code(), Some(1));
    }
}

/// Ctrl-C, or a service manager: the program ends as the signal has it, and what it was writing is gone.
#[test]
fn a_signal_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_model-prep"));
    command.args(["convert", "--calibrate", "-o"]).arg(folder.path().join("bundle")).arg(model());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let weights = folder.path().join(".bundle.partial/unet.weights");
    while !weights.exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it was stopped");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    assert_eq!(contents(folder.path()), []);
    assert!(!folder.path().join(".bundle.partial").exists());
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

/// Every file below `folder` with its bytes; of a link the place that it names.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(contents(&path));
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            found.push((path, target.into_os_string().into_encoded_bytes()));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// `convert --force` in a folder that `prepare` filled beside a copy of the demo model's source, `src`.
fn force(prepare: impl FnOnce(&Path), source: &str, out: &str) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    copy(&model(), &folder.path().join("src"));
    prepare(folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_model-prep"));
    command.args(["convert", source, "--force", "-o", out]).current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    (folder, output)
}

/// `convert --force` refuses, says why, and changes nothing.
#[track_caller]
fn check_kept(prepare: impl FnOnce(&Path), source: &str, out: &str, message: &str) {
    let mut before = Vec::new();
    let prepare = |folder: &Path| {
        prepare(folder);
        before = contents(folder);
    };
    let (folder, output) = force(prepare, source, out);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(message) && error.lines().count() == 1, "{error}");
    assert!(contents(folder.path()) == before, "something was changed or deleted");
}

/// `convert --force` makes a bundle of `out` and leaves nothing beside it.
#[track_caller]
fn check_taken(prepare: impl FnOnce(&Path), out: &str) {
    let (folder, output) = force(prepare, "src", out);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(model_prep(&["inspect"], &[&folder.path().join(out)]).status.success());
    let mut names: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [out.trim_end_matches('/'), "src"]);
}

#[test]
fn force_replaces_a_bundle_and_nothing_else() {
    let photographs = |folder: &Path| {
        fs::create_dir_all(folder.join("out/2024")).unwrap();
        fs::write(folder.join("out/2024/a.jpg"), "precious").unwrap();
    };
    let bundle_with_more = |folder: &Path| {
        copy(&bundle(), &folder.join("out"));
        fs::write(folder.join("out/tokenizer/notes.txt"), "precious").unwrap();
    };
    check_kept(photographs, "src", "out", "is not a bundle (it holds \"2024/a.jpg\")");
    check_kept(photographs, "src", "out/", "is not a bundle");
    check_kept(bundle_with_more, "src", "out", "holds \"tokenizer/notes.txt\", which is not part of the bundle");
    check_kept(|folder| fs::write(folder.join("out"), "precious").unwrap(), "src", "out", "is a file");
    let strangers = |folder: &Path| {
        fs::create_dir(folder.join("out")).unwrap();
        fs::write(folder.join("out/bundle.json"), r#"{"name": "of another program"}"#).unwrap();
    };
    check_kept(strangers, "src", "out", "is not a bundle");
    check_taken(|folder| copy(&bundle(), &folder.join("out")), "out");
    check_taken(|folder| copy(&bundle(), &folder.join("out")), "out/");
    check_taken(|folder| fs::create_dir(folder.join("out")).unwrap(), "out");
}

#[test]
fn force_never_touches_the_source_or_what_is_around_it() {
    let nothing = |_: &Path| ();
    for out in ["src", "src/", "./src", "src/unet/..", "src/../src"] {
        check_kept(nothing, "src", out, if out.ends_with("..") { "a folder's name" } else { "is or holds the model" });
    }
    check_kept(nothing, "src", "src/unet", "is not a bundle");
    check_kept(nothing, "src", ".", "a folder's name");
    check_kept(nothing, "src", "..", "a folder's name");
    check_kept(nothing, "src", "/", "a folder's name");
    let within = |folder: &Path| {
        copy(&bundle(), &folder.join("around"));
        copy(&model(), &folder.join("around/model"));
    };
    check_kept(within, "around/model", "around", "is or holds the model");
    check_kept(|folder| symlink("src", folder.join("link")).unwrap(), "link", "src", "is or holds the model");
}

#[test]
fn force_does_not_follow_links() {
    let to_photographs = |folder: &Path| {
        fs::create_dir(folder.join("photographs")).unwrap();
        symlink("photographs", folder.join("out")).unwrap();
    };
    check_kept(to_photographs, "src", "out", "is a symbolic link");
    check_kept(to_photographs, "src", "out/", "is a symbolic link");
    check_kept(|folder| symlink("nowhere", folder.join("out")).unwrap(), "src", "out", "is a symbolic link");
    let bundle_of_links = |folder: &Path| {
        copy(&bundle(), &folder.join("out"));
        symlink("../src", folder.join("out/more")).unwrap();
    };
    check_kept(bundle_of_links, "src", "out", "holds \"more\"");
}

#[test]
fn what_a_killed_run_left_is_cleared_away_and_nothing_else() {
    let left = |suffix: &'static str| {
        move |folder: &Path| {
            copy(&bundle(), &folder.join("out"));
            fs::create_dir_all(folder.join(format!(".out.{suffix}/tokenizer"))).unwrap();
            fs::write(folder.join(format!(".out.{suffix}/unet.weights")), "half").unwrap();
        }
    };
    let precious = |suffix: &'static str| {
        move |folder: &Path| {
            left(suffix)(folder);
            fs::write(folder.join(format!(".out.{suffix}/a.jpg")), "precious").unwrap();
        }
    };
    for suffix in ["partial", "old"] {
        check_taken(left(suffix), "out");
        check_kept(precious(suffix), "src", "out", &format!(".out.{suffix}: is in the way: it holds \"a.jpg\""));
    }
    check_taken(
        |folder| {
            left("old")(folder);
            fs::remove_dir_all(folder.join("out")).unwrap();
        },
        "out",
    );
}

#[test]
fn synth_writes_into_new_folders_alone() {
    let folder = tempfile::tempdir().unwrap();
    let output = model_prep(&["synth", "--arch", "bk-sdm-tiny", "-o"], &[folder.path()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is already there"), "{}", text(&output.stderr));
}

/// Files may have no more than a MiB, as on a disk that is full: the system refuses the rest of the weights.
#[test]
fn a_disk_that_is_full_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    // In blocks of 512 or 1024 bytes; without the trap the signal that comes with the refusal would end the program.
    let limited = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" convert -o \"$1\" \"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_model-prep")]).args([&bundle, &model()]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("text_encoder.weights: File too large"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
