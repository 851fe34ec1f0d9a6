//! The program as a person or a script runs it: what it writes, where, and how it ends. What cannot work is said in one
//! line, with an exit status of its own kind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use diffused::painting::pictures::hex;
use image::{ImageBuffer, ImageFormat, Rgba};
use sha2::{Digest, Sha256};

/// Runs the program to its end: exit status, stdout, stderr.
fn run(arguments: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn check(arguments: &[&str], files: &[(&str, &str)], status: i32, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
    }
    let (code, _, stderr) = run(arguments, folder.path());
    assert_eq!(code, Some(status), "{arguments:?}: {stderr}");
    assert!(parts.iter().all(|part| stderr.contains(part)), "{arguments:?}: {stderr}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().filter(|f| is_picture(f.as_ref().unwrap())).count(), 0);
}

fn is_picture(entry: &fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|extension| extension == "png")
}

/// systemd's unit has a folder for that, in memory.
#[test]
fn starts_that_fail_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.toml"), "devise = 1").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
    command.args(["check", "--config", "c.toml"]).current_dir(folder.path()).env("RUNTIME_DIRECTORY", folder.path());
    assert_eq!(command.output().unwrap().status.code(), Some(2));
    let starts: serde_json::Value = serde_json::from_slice(&fs::read(folder.path().join("starts")).unwrap()).unwrap();
    assert_eq!(starts["failed"], 1);
    assert!(starts["reason"].as_str().unwrap().contains("unknown field `devise`"), "{starts}");
}

#[test]
fn a_wrong_configuration() {
    let config = |text: &'static str| vec![("c.toml", text)];
    let run = ["run", "--config", "c.toml"];
    check(&run, &config("devise = 1"), 2, &["c.toml:1", "unknown field `devise`"]);
    check(&run, &config("\n[mqtt]\nurl = 1"), 2, &["c.toml:3"]);
    check(&run, &[], 2, &["c.toml", "cannot be read"]);
    check(&["check", "--config", "c.toml"], &config("memory = \"much\""), 2, &["c.toml:1: memory: `much`"]);
}

/// What is wrong with a file though each of its values is one that the key takes, with the key's line.
#[test]
fn a_configuration_that_cannot_work() {
    let state = tempfile::tempdir().unwrap();
    let lines = format!("threads = 2\nstate_dir = {:?}\n", state.path());
    let wrong = |keys: &str, parts: &[&str]| {
        for verb in ["check", "run"] {
            check(&[verb, "--config", "c.toml"], &[("c.toml", &format!("{lines}{keys}"))], 2, parts);
        }
    };
    wrong("memory = \"1M\"", &["c.toml:3: memory: 1 MiB is too little for 32 x 32 pixels; it needs at least "]);
    wrong("wildcards = \"/no/such\"", &["c.toml:3: wildcards: /no/such: No such file"]);
    wrong("decoder = \"tiny\"", &["c.toml:3: decoder: "]);
    wrong("upscale = 4", &["c.toml:3: upscale: "]);
    let passwords = "[mqtt]\nusername = \"a\"\npassword_file = \"/no/such\"";
    wrong(passwords, &["c.toml:5: mqtt.password_file: /no/such: No such file"]);
    let text = "threads = 1\nstate_dir = \"/proc/x\"";
    check(
        &["check", "--config", "c.toml"],
        &[("c.toml", text)],
        2,
        &["c.toml:2: state_dir: /proc/x cannot be written"],
    );
}

/// The demo model's bundle as the folder `m`, made for images of 1024 × 1024.
fn large_model(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
    fs::create_dir_all(folder.join("m/tokenizer")).unwrap();
    for sub in ["", "tokenizer"] {
        for entry in fs::read_dir(source.join(sub)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file())
        {
            fs::copy(entry.path(), folder.join("m").join(sub).join(entry.file_name())).unwrap();
        }
    }
    let path = folder.join("m/bundle.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let larger = manifest.replace("\"default\": 128", "\"default\": 1024");
    assert_ne!(larger, manifest);
    fs::write(path, larger).unwrap();
}

#[test]
fn memory_for_small_images_alone_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    large_model(folder.path());
    let [state, model] = ["state", "m"].map(|name| folder.path().join(name));
    let text = format!("memory = \"60M\"\nthreads = 1\nstate_dir = {state:?}\nmodel = {model:?}");
    fs::write(folder.path().join("c.toml"), text).unwrap();
    let (code, stdout, stderr) = run(&["check", "--config", "c.toml"], folder.path());
    assert!(code == Some(0) && stdout.contains("the configuration is valid"), "{code:?}: {stderr}");
    assert!(stderr.contains("warning: c.toml:1: memory: 60 MiB is too little for 1024 x 1024 pixels"), "{stderr}");
    assert!(!state.exists(), "checking makes nothing");
}

#[test]
fn a_missing_or_edited_model() {
    let hidden = format!("model = {:?}", Path::new("/home").join("no/such"));
    let parts = ["no/such/bundle.json", "no access to /home: move it to"];
    check(&["check", "--config", "c.toml"], &[("c.toml", &hidden)], 3, &parts);
    let folder = tempfile::tempdir().unwrap();
    let [model, config] = ["m", "c.toml"].map(|name| folder.path().join(name));
    fs::write(&config, format!("model = {model:?}")).unwrap();
    for (manifest, part) in [(None, "there is no such folder"), (Some("{\"schema\": 1, \"name\": "), "EOF")] {
        if let Some(text) = manifest {
            fs::create_dir(&model).unwrap();
            fs::write(model.join("bundle.json"), text).unwrap();
        }
        for verb in ["run", "check"] {
            check(&[verb, "--config", config.to_str().unwrap()], &[], 3, &["m/bundle.json", part]);
        }
    }
    check(&["generate", "a", "--model", "none"], &[], 3, &["none/bundle.json", "there is no such folder"]);
}

/// What people download, given instead of what is made of it.
#[test]
fn a_model_that_is_not_converted() {
    let advice = "model-prep convert makes";
    let generate = ["generate", "a", "--model", "m.safetensors"];
    check(&generate, &[("m.safetensors", "")], 3, &["m.safetensors: is a file; a bundle is a folder", advice]);
    let generate = ["generate", "a", "--model", "m"];
    check(&generate, &[("m/model_index.json", "{}")], 3, &["m/bundle.json: the file is missing", advice]);
}

#[test]
fn a_muse_without_prompts_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.txt");
    let muse = format!("[[muse]]\nname = \"wall\"\nevery = \"1h\"\nprompts_file = {file:?}\n");
    fs::write(folder.path().join("c.toml"), format!("state_dir = {:?}\n{muse}", folder.path().join("state"))).unwrap();
    let told = |why: &str| {
        let (code, _, stderr) = run(&["check", "--config", "c.toml"], folder.path());
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.contains("muse `wall`: prompts_file: ") && stderr.contains(why), "{stderr}");
    };
    told("p.txt: No such file");
    fs::write(&file, "# none\n\n").unwrap();
    told("p.txt: there is no prompt in it");
}

#[test]
fn a_display_of_the_configuration_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let hall = "[panels.hall]\nwidth = 32\nheight = 24\npalette = \"black-white\"\npacking = \"1bpp\"\n";
    fs::write(folder.path().join("c.toml"), hall).unwrap();
    let generate =
        ["generate", "a", "--steps", "1", "--width", "64", "--height", "64", "-o", "a.png", "--panel", "hall"];
    let (code, _, stderr) = run(&generate, folder.path());
    assert!(code == Some(2) && stderr.contains("--panel: ") && stderr.contains("hall"), "{code:?}: {stderr}");
    let (code, _, stderr) = run(&[&generate[..], &["--config", "c.toml"]].concat(), folder.path());
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(image::image_dimensions(folder.path().join("a-panel.png")).unwrap(), (32, 24));
}

#[test]
fn a_wrong_command_line() {
    check(&["generate"], &[], 2, &["PROMPT"]);
    check(&["generate", "a", "--width", "7"], &[], 2, &["--width", "32"]);
    check(&["generate", "a", "--width", "100"], &[], 2, &["--width", "96 and 104"]);
    check(&["generate", "a", "--height", "100000"], &[], 2, &["--height", "2048"]);
    check(&["generate", "a", "--steps", "0"], &[], 2, &["--steps"]);
    check(&["generate", "a", "--sampler", "magic"], &[], 2, &["--sampler"]);
    check(&["generate", "a", "--seed", "-2"], &[], 2, &["--seed"]);
    check(&["generate", "a", "--strength", "0.5"], &[], 2, &["--init-image"]);
    check(&["generate", "a", "--init-image", "none.png"], &[], 2, &["--init-image", "none.png"]);
    check(&["generate", "a", "--init-image", "x.png"], &[("c/x", ""), ("x.txt", "")], 2, &["--init-image"]);
    check(&["generate", "a", "-o", "a.gif"], &[], 2, &["--output", ".png"]);
    check(&["generate", "a", "--memory", "1M"], &[], 2, &["--memory", "at least"]);
    check(&["generate", "a", "--memory", "5GGG"], &[], 2, &["--memory", "5GGG", "for example 200M or 1.5G"]);
    check(&["generate", "a", "-o", "."], &[], 2, &["--output"]);
    check(&["generate", "a", "--steps", "1", "-o", "no/such/a.png"], &[], 2, &["--output", "no folder no/such"]);
}

#[test]
fn a_reader_that_leaves_does_not_end_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
    command.args(["generate", "a red house", "--steps", "1", "--json", "-o", "house.png"]).current_dir(folder.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(image::open(folder.path().join("house.png")).is_ok());
}

#[test]
fn generate_writes_a_picture_and_tells_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["generate", "a red house", "--steps", "2", "--seed", "7", "--json", "-o", "house.png"];
    let (code, stdout, stderr) = run(&arguments, folder.path());
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 1 && lines[0]["event"] == "progress");
    let done = lines.last().unwrap();
    assert_eq!((&done["event"], &done["parameters"]["seed"]), (&"done".into(), &7.into()));
    let first = fs::read(folder.path().join("house.png")).unwrap();
    assert_eq!(done["sha256"], hex(&Sha256::digest(&first)));
    image::load_from_memory(&first).unwrap();

    let (code, stdout, _) = run(&["generate", "a red house", "--steps", "2", "--seed", "7"], folder.path());
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("a-red-house-7.png") || stdout.starts_with("./a-red-house-7.png"), "{stdout}");
    assert_eq!(fs::read(folder.path().join("a-red-house-7.png")).unwrap(), first);
}

#[test]
fn an_image_may_go_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let paint = |more: &[&str]| {
        let words = ["generate", "a red house", "--steps", "1", "--seed", "7", "-o", "-"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
        command.args(words).args(more).current_dir(folder.path()).stdin(Stdio::null()).output().unwrap()
    };
    for (more, format) in [(vec![], ImageFormat::Png), (vec!["--format", "jpeg"], ImageFormat::Jpeg)] {
        let output = paint(&more);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.starts_with("stdout  (seed 7, "), "{stderr}");
        assert_eq!(image::guess_format(&output.stdout).unwrap(), format);
        image::load_from_memory(&output.stdout).unwrap();
    }
    let refused = paint(&["--json"]);
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_log_goes_to_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
    command.args(["generate", "a red house", "--steps", "1", "--json", "-o", "a.png"]).current_dir(folder.path());
    let output = command.env("DIFFUSED_LOG", "debug").stdin(Stdio::null()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{stdout}");
    assert!(stdout.lines().count() > 1 && !output.stderr.is_empty());
}

#[test]
fn a_long_name_is_taken_and_one_that_is_too_long_is_refused_before_the_wait() {
    let folder = tempfile::tempdir().unwrap();
    let name = |len: usize| format!("{}.png", "n".repeat(len - 4));
    let (code, _, stderr) = run(&["generate", "a red house", "--steps", "1", "-o", &name(255)], folder.path());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(folder.path().join(name(255)).exists());
    check(&["generate", "a", "-o", &name(256)], &[], 2, &["--output", "File name too long"]);
}

#[test]
fn a_photograph_is_painted_upright_in_its_shape() {
    let photograph = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/init_images/turned-6.jpg");
    let folder = tempfile::tempdir().unwrap();
    let words = ["generate", "a red house", "--steps", "1", "--strength", "1", "-o", "a.png", "--init-image"];
    let (code, _, stderr) = run(&[&words[..], &[photograph.to_str().unwrap()]].concat(), folder.path());
    assert_eq!(code, Some(0), "{stderr}");
    // Stored as 40 × 24; the demo model's smallest side is 32.
    assert_eq!(image::image_dimensions(folder.path().join("a.png")).unwrap(), (32, 48));
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["generate", "a red mushroom", "--negative-prompt", "a tree", "--cfg-scale", "1", "--steps", "1"];
    let expect = [
        "negative_prompt has no effect without guidance (cfg_scale 1; above 1 it has)",
        "prompt: the model does not know the words: mushroom",
    ];
    let (code, _, stderr) = run(&[&words[..], &["-o", "a.png"]].concat(), folder.path());
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stderr.lines().collect::<Vec<_>>(), expect.map(|warning| format!("diffused: warning: {warning}")));

    let (code, stdout, stderr) = run(&[&words[..], &["-o", "a.png", "--json"]].concat(), folder.path());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let done: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(done["warnings"], serde_json::json!(expect));
}

#[test]
fn a_request_that_the_sampler_cannot_do_is_refused_with_what_it_can() {
    check(&["generate", "a", "--sampler", "pndm", "--steps", "0"], &[], 2, &["--steps"]);
    check(&["generate", "a", "--sampler", "lcm", "--steps", "60"], &[], 2, &["--steps", "1 to 50"]);
}

#[test]
fn a_plan_says_what_its_peaks_are_made_of() {
    let (code, stdout, stderr) = run(&["plan", "--memory", "40M"], Path::new("."));
    assert_eq!(code, Some(0), "{stderr}");
    let number = |word: &str| word.parse::<f64>().unwrap();
    let (_, after) = stdout.split_once("and of the ").unwrap();
    let process = number(after.split(' ').next().unwrap());
    let rows = stdout.lines().skip(2).take_while(|line| !line.contains(" at most, the greatest peak"));
    let rows: Vec<Vec<f64>> = rows.map(|row| row[19..].split_whitespace().map(number).collect()).collect();
    assert_eq!(rows.len(), 3, "{stdout}");
    for row in rows {
        let [activations, resident, _, ring, peak] = row[..] else { panic!("{stdout}") };
        let unused = peak - (activations + resident + ring + process);
        assert!((-0.3..2.0).contains(&unused), "{unused}: {stdout}");
    }
}

/// A picture of the kind that takes the most memory to unpack.
fn save_init_image(path: &Path, side: u32) {
    let pixel = |x, y| Rgba([x as u16 * 20, y as u16 * 20, (x ^ y) as u16 * 20, u16::MAX]);
    ImageBuffer::from_fn(side, side, pixel).save(path).unwrap();
}

#[test]
fn a_large_init_image_stays_within_the_memory_and_a_larger_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paint = |side: u32| {
        save_init_image(&folder.path().join("init.png"), side);
        let flags = ["--init-image", "init.png", "--width", "128", "--height", "128", "--memory", "80M"];
        let words = ["generate", "a red house", "--steps", "1", "--strength", "1", "--json", "-o", "a.png"];
        run(&[&words[..], &flags].concat(), folder.path())
    };
    let (code, stdout, stderr) = paint(1500);
    assert_eq!(code, Some(0), "{stderr}");
    let done: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let peak = done["timings"]["peak_rss"].as_u64().unwrap();
    assert!(peak <= 80 << 20, "{peak} bytes");

    let (code, _, stderr) = paint(2300);
    assert_eq!(code, Some(2), "{stderr}");
    for part in ["--init-image", "2300×2300", "in 80 MiB at most "] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn a_bench_measures_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.toml"), "[mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n").unwrap();
    let (code, stdout, stderr) = run(&["bench", "--json", "--threads", "2", "--config", "c.toml"], folder.path());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.len() == 5 && layers.iter().all(|layer| layer["gops"].as_f64().unwrap() > 0.0), "{report}");
    let expected = report["expected"].as_array().unwrap();
    let models: Vec<&str> = expected.iter().map(|picture| picture["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["Stable Diffusion 1.5", "Stable Diffusion 1.5", "demo"]);
    let seconds = |picture: &serde_json::Value| {
        ["step_seconds", "decode_seconds", "total_seconds"].map(|key| picture[key].as_f64().unwrap())
    };
    for picture in expected.iter().chain(report["painted"].as_object().unwrap().values()) {
        let [step, decode, total] = seconds(picture);
        assert!(step > 0.0 && decode > 0.0 && total > step + decode, "{picture}");
    }
    assert_eq!((&report["board"]["threads"], &report["reading_mb_per_second"]), (&2.into(), &serde_json::Value::Null));
    assert!(!report["board"]["cpu"].as_str().unwrap().is_empty());
}

#[test]
fn the_page_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(&["page", "--into", "web/diffused"], folder.path());
    assert_eq!((code, stdout.as_str()), (Some(0), "web/diffused/index.html\n"), "{stderr}");
    let page = fs::read_to_string(folder.path().join("web/diffused/index.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"), "{} bytes", page.len());
    check(&["page", "--into", "/proc/none"], &[], 1, &["/proc/none/index.html"]);
    assert_eq!(run(&["page", "--into", "web/diffused"], folder.path()).0, Some(0), "again, over the first");
}
