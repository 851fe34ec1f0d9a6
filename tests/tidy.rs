//! The repository's own rules as code: what ARCHITECTURE.md says is never the case is checked here, so that a reader
//! may rely on it and a reviewer need not look for it.
//!
//! Each rule is a function from one file to its offending lines; each test runs one rule over the tree, and
//! `every_rule_can_fail` shows that each of them catches what it is for.

use std::fs;
use std::path::Path;

use diffused_tests::root;

/// Where the project's own text lies. Build outputs and whatever a developer keeps beside it are not looked at.
const FOLDERS: [&str; 8] = [".ci", "benches", "cross", "daemon", "model-prep", "systemd", "tests", ""];

/// What a file of ours ends in; anything else (weights, pictures, vocabularies) is data.
const TEXT: [&str; 9] = ["rs", "toml", "md", "sh", "py", "service", "conf", "yml", "run"];

/// One file of the project: its path from the root, with `/` between its parts, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// `path:line: text` of every line of code (comments left out) for which `offends` holds.
    fn offending_lines(&self, offends: impl Fn(&str) -> bool) -> Vec<String> {
        let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
        let numbered = self.text.lines().enumerate();
        numbered
            .filter(|(_, line)| offends(&code(line)))
            .map(|(i, line)| format!("{}:{}: {}", self.path, i + 1, line.trim()))
            .collect()
    }
}

/// Every text file of the project but this one, whose rules name what they forbid.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), folder, !folder.is_empty(), &mut found);
    }
    assert!(found.iter().any(|s| s.path == "daemon/src/main.rs"), "the project's sources were not found");
    found.retain(|source| source.path != "tests/tidy.rs");
    found
}

fn collect(folder: &Path, name: &str, deep: bool, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("a readable folder")) {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let path = if name.is_empty() { file_name.clone() } else { format!("{name}/{file_name}") };
        match entry.file_type().expect("a file type") {
            kind if kind.is_dir() && deep && file_name != "target" => collect(&entry.path(), &path, true, found),
            kind if kind.is_file() && is_text(&entry.path()) => {
                let text = fs::read_to_string(entry.path()).unwrap_or_else(|e| panic!("{path}: {e}"));
                found.push(Source { path, text });
            }
            _ => {}
        }
    }
}

/// By its ending, or, where it has none, by a script's first line.
fn is_text(path: &Path) -> bool {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some(ending) => TEXT.contains(&ending),
        None => fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"#!")),
    }
}

/// Does `text` hold `word` with nothing before it that would make it part of a longer name?
fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].chars().next_back().is_some_and(part_of_name))
}

/// Why a file exists comes first in it.
fn no_module_doc(source: &Source) -> Vec<String> {
    let ok = !source.is_rust() || source.text.starts_with("//! ");
    if ok { vec![] } else { vec![format!("{}: does not begin with a `//!` that says why it exists", source.path)] }
}

/// A file that needs scrolling for minutes is two files.
fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let ok = !source.is_rust() || lines <= 450;
    if ok { vec![] } else { vec![format!("{}: {lines} lines, 450 is the most", source.path)] }
}

/// The kernels are where the unsafe code is, and it is only there.
fn unsafe_outside_kernels(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.is_under(&["daemon/kernels/"]) {
        return vec![];
    }
    let forms = ["unsafe fn", "unsafe impl", "unsafe {", "unsafe extern", "unsafe trait"];
    source.offending_lines(|line| forms.iter().any(|form| has_word(line, form)))
}

/// Where tract, the MQTT client and the demo's broker may be named: a change of any of them stays in those files.
const BOUNDARIES: [(&str, &[&str]); 3] = [
    (
        "tract_",
        &[
            "daemon/engine/src/graph",
            "daemon/engine/src/ops",
            "daemon/engine/src/layer_onnx",
            "daemon/engine/tests/",
            "benches/",
            "model-prep/",
        ],
    ),
    ("rumqttc", &["daemon/src/mqtt", "daemon/src/demo", "daemon/tests/", "tests/"]),
    ("rumqttd", &["daemon/src/demo"]),
];

fn crosses_a_boundary(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return vec![];
    }
    let foreign = BOUNDARIES.iter().filter(|(_, homes)| !source.is_under(homes));
    foreign.flat_map(|(name, _)| source.offending_lines(|line| has_word(line, name))).collect()
}

/// The engine has no clock, no network and no environment: what it paints depends on the request and the bundle alone.
fn engine_looks_outside(source: &Source) -> Vec<String> {
    if !source.is_rust() || !source.is_under(&["daemon/engine/src/"]) {
        return vec![];
    }
    let outside = ["std::time", "std::net", "std::env", "tokio", "SystemTime", "Instant::now"];
    source.offending_lines(|line| outside.iter().any(|name| has_word(line, name)))
}

/// Unfinished work is an issue, not a line of code.
fn unfinished(source: &Source) -> Vec<String> {
    let marks = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"];
    let notes = ["FIXME", "XXX"];
    let in_code = if source.is_rust() {
        source.offending_lines(|line| marks.iter().any(|mark| line.contains(mark)))
    } else {
        vec![]
    };
    let lines = source.text.lines().filter(|line| notes.iter().any(|note| has_word(line, note)));
    in_code.into_iter().chain(lines.map(|line| format!("{}: {}", source.path, line.trim()))).collect()
}

/// A developer's folders and the hosts of package registries are not part of the project.
fn names_a_machine(source: &Source) -> Vec<String> {
    let places = ["/work/", "/farm/", "/root/", "/tmp/w/", "/opt/ref"];
    let hosts = ["crates.io", "pypi.org", "pythonhosted.org", "deb.debian.org", "registry.npmjs.org"];
    let absolute = |line: &str| {
        let within_path = |c: char| c.is_alphanumeric() || "_./-}$".contains(c);
        places.iter().any(|place| {
            line.match_indices(place).any(|(at, _)| !line[..at].chars().next_back().is_some_and(within_path))
        })
    };
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| absolute(line) || hosts.iter().any(|host| line.contains(host)))
        .map(|(i, line)| format!("{}:{}: {}", source.path, i + 1, line.trim()))
        .collect()
}

/// A script stops at its first failure.
fn script_goes_on(source: &Source) -> Vec<String> {
    let shell = source.text.starts_with("#!") && source.text.lines().next().is_some_and(|line| line.contains("sh"));
    let ok = !shell || source.text.lines().any(|line| line == "set -euo pipefail");
    if ok { vec![] } else { vec![format!("{}: lacks `set -euo pipefail`", source.path)] }
}

/// Which of our crates each of them may depend on. Never upward: kernels know nobody, the engine knows no service.
const LAYERS: [(&str, &[&str]); 4] = [
    ("daemon/kernels/Cargo.toml", &[]),
    ("daemon/engine/Cargo.toml", &["diffused-kernels"]),
    ("model-prep/Cargo.toml", &["diffused-engine", "diffused-kernels"]),
    ("daemon/Cargo.toml", &["diffused-engine"]),
];

/// What must not come into the two libraries by any table of their manifests.
const NEVER_IN_LIBRARIES: [&str; 6] = ["tokio", "rumqttc", "rumqttd", "clap", "anyhow", "tracing-subscriber"];

fn depends_upward(source: &Source) -> Vec<String> {
    let Some((_, allowed)) = LAYERS.iter().find(|(manifest, _)| source.path == *manifest) else { return vec![] };
    let manifest: toml::Table = source.text.parse().unwrap_or_else(|e| panic!("{}: {e}", source.path));
    let ours = |name: &str| name.starts_with("diffused") || name == "model-prep";
    let library = source.path != "daemon/Cargo.toml" && source.path != "model-prep/Cargo.toml";
    let empty = toml::Table::new();
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table).unwrap_or(&empty);
    dependencies
        .keys()
        .filter(|name| {
            (ours(name) && !allowed.contains(&name.as_str()))
                || (library && NEVER_IN_LIBRARIES.contains(&name.as_str()))
        })
        .map(|name| format!("{}: depends on {name}", source.path))
        .collect()
}

type Rule = fn(&Source) -> Vec<String>;

fn check(rule: Rule) {
    let offences: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_rust_file_says_why_it_exists() {
    check(no_module_doc);
}

#[test]
fn no_file_is_too_long() {
    check(too_long);
}

#[test]
fn only_the_kernels_are_unsafe() {
    check(unsafe_outside_kernels);
}

#[test]
fn libraries_are_named_only_where_they_are_wrapped() {
    check(crosses_a_boundary);
}

#[test]
fn the_engine_has_no_clock_no_network_and_no_environment() {
    check(engine_looks_outside);
}

#[test]
fn nothing_is_left_unfinished() {
    check(unfinished);
}

#[test]
fn no_machine_and_no_registry_is_named() {
    check(names_a_machine);
}

#[test]
fn scripts_stop_at_the_first_failure() {
    check(script_goes_on);
}

#[test]
fn crates_depend_downward_only() {
    check(depends_upward);
}

#[test]
fn every_rule_can_fail() {
    let long = "//! x\n".repeat(451);
    let cases: [(Rule, &str, &str); 15] = [
        (no_module_doc, "daemon/src/a.rs", "use std::fs;"),
        (too_long, "daemon/src/a.rs", &long),
        (unsafe_outside_kernels, "daemon/engine/src/a.rs", "let x = unsafe { *p };"),
        (unsafe_outside_kernels, "tests/a.rs", "pub unsafe fn f() {}"),
        (crosses_a_boundary, "daemon/engine/src/vae.rs", "use tract_onnx::prelude::*;"),
        (crosses_a_boundary, "daemon/src/queue.rs", "use rumqttc::v5::Event;"),
        (crosses_a_boundary, "daemon/src/mqtt.rs", "use rumqttd::Broker;"),
        (engine_looks_outside, "daemon/engine/src/lib.rs", "let t = std::time::Instant::now();"),
        (unfinished, "model-prep/src/a.rs", "    todo!()"),
        (unfinished, "cross/build", "# FIXME later"),
        (names_a_machine, "cross/build", "cp x /work/y"),
        (names_a_machine, "README.md", "see crates.io"),
        (script_goes_on, "cross/build", "#!/usr/bin/env bash\necho hello"),
        (depends_upward, "daemon/kernels/Cargo.toml", "[dependencies]\ndiffused-engine = \"1\""),
        (depends_upward, "daemon/engine/Cargo.toml", "[dependencies]\ntokio = \"1\""),
    ];
    for (i, (rule, path, text)) in cases.into_iter().enumerate() {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        assert!(!rule(&source).is_empty(), "case {i}: {path} with {text:?} passed");
    }
}

#[test]
fn rules_leave_good_code_alone() {
    let good: [(Rule, &str, &str); 5] = [
        (unsafe_outside_kernels, "daemon/src/a.rs", "// no unsafe { } here\n#![forbid(unsafe_code)]"),
        (unsafe_outside_kernels, "daemon/kernels/src/neon.rs", "unsafe { f() }"),
        (crosses_a_boundary, "daemon/engine/src/ops/conv.rs", "use tract_onnx::prelude::*;"),
        (names_a_machine, "cross/build", "cd \"$root/work/x\""),
        (script_goes_on, "cross/build", "#!/usr/bin/env bash\nset -euo pipefail\n"),
    ];
    for (rule, path, text) in good {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(rule(&source), Vec::<String>::new());
    }
}
