//! What cannot work is said in one line, with an exit status of its own kind.

use std::fs;

use crate::bench::run;

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

#[test]
fn a_wrong_configuration() {
    let config = |text: &'static str| vec![("c.toml", text)];
    let run = ["run", "--config", "c.toml"];
    check(&run, &config("devise = 1"), 2, &["c.toml:1", "unknown field `devise`"]);
    check(&run, &config("\n[mqtt]\nurl = 1"), 2, &["c.toml:3"]);
    check(&run, &[], 2, &["c.toml", "cannot be read"]);
    check(&["check", "--config", "c.toml"], &config("memory = \"much\""), 2, &["c.toml:1", "`much`"]);
}

#[test]
fn a_missing_or_edited_model() {
    let run = ["run", "--config", "c.toml"];
    check(&run, &[("c.toml", "model = \"none\"")], 3, &["none/bundle.json"]);
    let edited = [("c.toml", "model = \"m\""), ("m/bundle.json", "{\"schema\": 1, \"name\": ")];
    check(&run, &edited, 3, &["m/bundle.json"]);
    check(&["generate", "a", "--model", "none"], &[], 1, &["none/bundle.json"]);
}

#[test]
fn a_wrong_command_line() {
    check(&["generate"], &[], 2, &["PROMPT"]);
    check(&["generate", "a", "--width", "7"], &[], 2, &["--width"]);
    check(&["generate", "a", "--height", "100000"], &[], 2, &["--height"]);
    check(&["generate", "a", "--steps", "0"], &[], 2, &["--steps"]);
    check(&["generate", "a", "--sampler", "magic"], &[], 2, &["--sampler"]);
    check(&["generate", "a", "--seed", "-2"], &[], 2, &["--seed"]);
    check(&["generate", "a", "--strength", "0.5"], &[], 2, &["--init-image"]);
    check(&["generate", "a", "--init-image", "none.png"], &[], 2, &["--init-image", "none.png"]);
    check(&["generate", "a", "--init-image", "x.png"], &[("c/x", ""), ("x.txt", "")], 2, &["--init-image"]);
    check(&["generate", "a", "-o", "a.gif"], &[], 2, &["--output", ".png"]);
    check(&["generate", "a", "--steps", "1", "-o", "no/such/a.png"], &[], 1, &["--output", "no/such/a.png"]);
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
    assert_eq!(done["sha256"], crate::bench::sha256(&first));
    image::load_from_memory(&first).unwrap();

    let (code, stdout, _) = run(&["generate", "a red house", "--steps", "2", "--seed", "7"], folder.path());
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("a-red-house-7.png") || stdout.starts_with("./a-red-house-7.png"), "{stdout}");
    assert_eq!(fs::read(folder.path().join("a-red-house-7.png")).unwrap(), first);
}
