//! `diffused doctor` on this machine, where no broker is needed: each part has its finding, and what is broken is told
//! first. With a broker: tests/e2e/doctor.rs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A configuration with nothing wrong but for a broker that is not there, with more keys in front.
fn configured(folder: &Path, keys: &str) {
    let state = folder.join("state");
    let text =
        format!("{keys}\nmemory = \"200M\"\nthreads = 1\nstate_dir = {state:?}\n[mqtt]\nurl = \"mqtt://127.0.0.1:1\"");
    fs::write(folder.join("c.toml"), text).unwrap();
}

/// Exit status, stdout, stderr.
fn doctor(folder: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
    command.args(["doctor", "--config", "c.toml"]).args(more).current_dir(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The lines of JSON.
fn lines(folder: &Path, more: &[&str]) -> Vec<Value> {
    let (code, stdout, stderr) = doctor(folder, &[&["--json"], more].concat());
    assert!(code == Some(1), "{stdout} {stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn finding<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}: {lines:?}"))
}

#[test]
fn every_part_has_a_finding_and_the_worst_comes_last() {
    let folder = tempfile::tempdir().unwrap();
    configured(folder.path(), "");
    let lines = lines(folder.path(), &[]);
    let names: Vec<&str> = lines.iter().filter_map(|line| line["name"].as_str()).collect();
    let expected = [
        "cpu",
        "clock",
        "temperature",
        "power",
        "memory_cgroup",
        "configuration",
        "model",
        "memory",
        "bundle",
        "read_speed",
        "smoke_test",
        "state_dir",
        "disk_space",
        "fsync",
        "broker",
    ];
    assert_eq!(names, expected);
    for name in ["configuration", "model", "bundle", "read_speed", "smoke_test", "state_dir"] {
        assert_eq!(finding(&lines, name)["level"], "ok", "{lines:?}");
    }
    let broker = finding(&lines, "broker");
    assert!(broker["found"].as_str().unwrap().contains("Connection refused"), "{broker}");
    assert_eq!((&broker["level"], &broker["page"]), (&"error".into(), &"docs/doctor.md#broker".into()));
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["level"], &last["first"]), (&"done".into(), &"error".into(), &"broker".into()));
    assert!(!folder.path().join("state").exists(), "nothing is made");
}

#[test]
fn people_are_told_what_to_do_first() {
    let folder = tempfile::tempdir().unwrap();
    configured(folder.path(), "");
    let (code, stdout, stderr) = doctor(folder.path(), &["--quick"]);
    assert_eq!(code, Some(1), "{stderr}");
    for part in
        ["ok       model          demo, 128 x 128", "error    broker", "at most 200 MiB are used, as configured"]
    {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let first = "diffused: to do first: broker: the broker cannot be used: Connection refused";
    assert!(stderr.starts_with(first) && stderr.contains("(more in docs/doctor.md#broker)"), "{stderr}");
    assert!(!stdout.contains("smoke_test") && !stdout.contains("bundle "), "{stdout}");
}

/// What is wrong before the broker is told first.
#[test]
fn what_is_broken_is_found() {
    let broken = |keys: &str, name: &str, part: &str| {
        let folder = tempfile::tempdir().unwrap();
        configured(folder.path(), keys);
        let lines = lines(folder.path(), &["--quick"]);
        let finding = finding(&lines, name);
        assert!(finding["level"] == "error" && finding["found"].as_str().unwrap().contains(part), "{finding}");
        assert_eq!(lines.last().unwrap()["first"], name);
    };
    broken("devise = 1", "configuration", "c.toml:1: devise: unknown field `devise`");
    broken("wildcards = \"/no/such\"", "configuration", "c.toml:1: wildcards: /no/such");
    broken("decoder = \"tiny\"", "configuration", "c.toml:1: decoder: ");
    broken("model = \"/no/such\"", "model", "/no/such/bundle.json");
}

#[test]
fn a_damaged_bundle_and_too_little_memory_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
    fs::create_dir_all(folder.path().join("m/tokenizer")).unwrap();
    for sub in ["", "tokenizer"] {
        for entry in fs::read_dir(source.join(sub)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file())
        {
            fs::copy(entry.path(), folder.path().join("m").join(sub).join(entry.file_name())).unwrap();
        }
    }
    configured(folder.path(), &format!("model = {:?}", folder.path().join("m")));
    let whole = lines(folder.path(), &[]);
    assert_eq!(finding(&whole, "bundle")["level"], "ok");
    let speed = finding(&whole, "read_speed")["found"].as_str().unwrap();
    assert!(speed.contains(" MB/s; all weights stay in memory"), "{speed}");

    let weights = folder.path().join("m/vae_encoder.weights");
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let text = fs::read_to_string(folder.path().join("c.toml")).unwrap();
    fs::write(folder.path().join("c.toml"), text.replace("200M", "1M")).unwrap();
    let damaged = lines(folder.path(), &[]);
    let bundle = finding(&damaged, "bundle");
    let found = bundle["found"].as_str().unwrap();
    assert!(bundle["level"] == "error" && found.contains("vae_encoder.weights: does not match"), "{bundle}");
    let memory = finding(&damaged, "memory");
    assert!(
        memory["level"] == "error" && memory["advice"].as_str().unwrap().starts_with("set `memory` to"),
        "{memory}"
    );
    assert!(damaged.iter().all(|line| line["name"] != "smoke_test"), "it would say the same again");
}

/// Lowering the instructions is for tests.
#[test]
fn a_lowered_level_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    configured(folder.path(), "");
    let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
    command.args(["doctor", "--config", "c.toml", "--quick"]).current_dir(folder.path()).env("DIFFUSED_CPU", "none");
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("warning  cpu") && stdout.contains("unset DIFFUSED_CPU"), "{stdout}");
}
