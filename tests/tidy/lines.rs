//! Rules for one file at a time: what it says at its top, how long it is, and what a line of it may not say.

use crate::files::{TextFile, has_word};

/// Why a file exists comes first in it.
pub(crate) fn no_module_doc(file: &TextFile) -> Vec<String> {
    let ok = !file.is_rust() || file.text.starts_with("//! ");
    if ok { vec![] } else { vec![format!("{}: does not begin with a `//!` that says why it exists", file.path)] }
}

/// A file that needs scrolling for minutes is two files.
pub(crate) fn too_long(file: &TextFile) -> Vec<String> {
    let lines = file.text.lines().count();
    let ok = !file.is_rust() || lines <= 450;
    if ok { vec![] } else { vec![format!("{}: {lines} lines, 450 is the most", file.path)] }
}

/// Where unsafe code may be.
const UNSAFE: [&str; 3] = ["daemon/kernels/", "daemon/heap/", "tests/fuzz/src/main.rs"]; // the last is called from C++

pub(crate) fn unsafe_elsewhere(file: &TextFile) -> Vec<String> {
    if !file.is_rust() || file.is_under(&UNSAFE) {
        return vec![];
    }
    let forms = ["unsafe fn", "unsafe impl", "unsafe {", "unsafe extern", "unsafe trait"];
    file.offending_lines(|line| forms.iter().any(|form| has_word(line, form)))
}

/// Where tract, the MQTT client, the demo's broker and HTTP may be named: a change of any of them stays in those files.
const BOUNDARIES: [(&str, &[&str]); 4] = [
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
    ("rumqttc", &["daemon/src/mqtt", "daemon/src/commands/demo", "daemon/tests/", "tests/"]),
    ("rumqttd", &["daemon/src/commands/demo"]),
    ("hyper::", &["daemon/src/commands/http"]),
];

pub(crate) fn crosses_a_boundary(file: &TextFile) -> Vec<String> {
    if !file.is_rust() {
        return vec![];
    }
    let foreign = BOUNDARIES.iter().filter(|(_, homes)| !file.is_under(homes));
    foreign.flat_map(|(name, _)| file.offending_lines(|line| has_word(line, name))).collect()
}

/// The engine has no clock, no network and no environment: what it paints depends on the request and the bundle alone.
pub(crate) fn engine_looks_outside(file: &TextFile) -> Vec<String> {
    if !file.is_rust() || !file.is_under(&["daemon/engine/src/"]) {
        return vec![];
    }
    let outside = ["std::time", "std::net", "std::env", "tokio", "SystemTime", "Instant::now"];
    file.offending_lines(|line| outside.iter().any(|name| has_word(line, name)))
}

/// Unfinished work is an issue, not a line of code.
pub(crate) fn unfinished(file: &TextFile) -> Vec<String> {
    let marks = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"];
    let notes = ["FIXME", "XXX"];
    let in_code =
        if file.is_rust() { file.offending_lines(|line| marks.iter().any(|mark| line.contains(mark))) } else { vec![] };
    let lines = file.text.lines().filter(|line| notes.iter().any(|note| has_word(line, note)));
    in_code.into_iter().chain(lines.map(|line| format!("{}: {}", file.path, line.trim()))).collect()
}

/// Folders of somebody's machine and the hosts of package registries are not part of the project.
pub(crate) fn names_a_machine(file: &TextFile) -> Vec<String> {
    let homes = ["/root/", "/home/", "/Users/"];
    let hosts = ["crates.io", "pypi.org", "pythonhosted.org", "deb.debian.org", "registry.npmjs.org"];
    let absolute = |line: &str| {
        let within_path = |c: char| c.is_alphanumeric() || "_./-}$".contains(c);
        homes.iter().any(|home| {
            line.match_indices(home).any(|(at, _)| !line[..at].chars().next_back().is_some_and(within_path))
        })
    };
    let lines = file.text.lines().enumerate();
    lines
        .filter(|(_, line)| absolute(line) || hosts.iter().any(|host| line.contains(host)))
        .map(|(i, line)| format!("{}:{}: {}", file.path, i + 1, line.trim()))
        .collect()
}

/// A script stops at its first failure.
pub(crate) fn script_goes_on(file: &TextFile) -> Vec<String> {
    let shell = file.text.starts_with("#!") && file.text.lines().next().is_some_and(|line| line.contains("sh"));
    let ok = !shell || file.text.lines().any(|line| line == "set -euo pipefail");
    if ok { vec![] } else { vec![format!("{}: lacks `set -euo pipefail`", file.path)] }
}

/// Who may delete files or replace them, beside tests, each in folders or files that are its own.
const DELETERS: [&str; 7] = [
    "daemon/src/commands/demo", // the state of the demo's service, in a folder of the demo's own
    "daemon/src/files",         // a file that is being written
    "daemon/src/painting/checkpoint", // the checkpoint, which it knows by its first line
    "daemon/src/painting/pictures", // the oldest pictures that the service itself has written
    "daemon/src/service/storage", // init images of jobs that have ended
    "model-prep/src/place",     // a bundle that is being made, or is replaced
    "benches/",                 // folders made for a bench
];

pub(crate) fn deletes_files(file: &TextFile) -> Vec<String> {
    let test = file.is_under(&["tests/"]) || file.path.contains("/tests/");
    if !file.is_rust() || test || file.is_under(&DELETERS) {
        return vec![];
    }
    let deletions = ["remove_file", "remove_dir", "fs::rename"];
    file.offending_lines(|line| deletions.iter().any(|call| line.contains(call)))
}

/// Only a program sets up the allocator, before it starts threads: a library that did would surprise its users.
const ALLOCATOR: [&str; 4] = ["daemon/heap/", "daemon/src/main.rs", "model-prep/src/main.rs", "benches/step/main.rs"];

pub(crate) fn sets_up_the_allocator(file: &TextFile) -> Vec<String> {
    if !file.is_rust() || file.is_under(&ALLOCATOR) {
        return vec![];
    }
    let calls = ["configure_malloc(", "mallopt("];
    file.offending_lines(|line| calls.iter().any(|call| has_word(line, call)))
}

/// Programs of tests with a harness of their own, which knows of no attribute and runs what its `main` lists.
const LISTS: [&str; 2] = ["tests/e2e/", "tests/faults/"];

pub(crate) fn unlisted_test(file: &TextFile) -> Vec<String> {
    if !file.is_under(&LISTS) {
        return vec![];
    }
    file.offending_lines(|line| line.contains("#[test]"))
}
