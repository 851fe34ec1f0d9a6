//! The repository's own rules as code: what ARCHITECTURE.md says is never the case is checked here, so that a reader
//! may rely on it and a reviewer need not look for it.
//!
//! Each rule is a function from a file, or from all of them, to the offending places; each test runs one rule over the
//! tree, and `every_rule_can_fail` and its like show that each of them catches what it is for.

mod circles;
mod files;
mod lines;
mod manifests;
mod names;

use circles::circles;
use files::{TextFile, text_files};
use lines::*;
use manifests::depends_upward;
use names::twice_declared;

/// A rule for one file, and one for all of them together.
type Rule = fn(&TextFile) -> Vec<String>;
type TreeRule = fn(&[TextFile]) -> Vec<String>;

fn check(rule: Rule) {
    report(text_files().iter().flat_map(rule).collect());
}

fn check_tree(rule: TreeRule) {
    report(rule(&text_files()));
}

fn report(offences: Vec<String>) {
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
fn only_the_kernels_and_the_heap_are_unsafe() {
    check(unsafe_elsewhere);
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
fn files_are_deleted_only_by_who_made_them() {
    check(deletes_files);
}

#[test]
fn only_a_program_sets_up_the_allocator() {
    check(sets_up_the_allocator);
}

#[test]
fn every_end_to_end_test_is_run() {
    check(unlisted_test);
}

#[test]
fn a_name_is_one_type() {
    check_tree(twice_declared);
}

#[test]
fn modules_do_not_go_in_circles() {
    check_tree(circles);
}

#[test]
fn every_rule_can_fail() {
    let long = "//! x\n".repeat(451);
    let cases: [(Rule, &str, &str); 26] = [
        (no_module_doc, "daemon/src/a.rs", "use std::fs;"),
        (too_long, "daemon/src/a.rs", &long),
        (unsafe_elsewhere, "daemon/engine/src/a.rs", "let x = unsafe { *p };"),
        (unsafe_elsewhere, "tests/a.rs", "pub unsafe fn f() {}"),
        (crosses_a_boundary, "daemon/engine/src/vae.rs", "use tract_onnx::prelude::*;"),
        (crosses_a_boundary, "daemon/src/jobs/queue.rs", "use rumqttc::v5::Event;"),
        (crosses_a_boundary, "daemon/src/mqtt.rs", "use rumqttd::Broker;"),
        (crosses_a_boundary, "daemon/src/service.rs", "use hyper::Request;"),
        (engine_looks_outside, "daemon/engine/src/lib.rs", "let t = std::time::Instant::now();"),
        (unfinished, "model-prep/src/a.rs", "    todo!()"),
        (unfinished, "cross/build", "# FIXME later"),
        (names_a_machine, "cross/build", "cp x /home/somebody/y"),
        (names_a_machine, "README.md", "see crates.io"),
        (script_goes_on, "cross/build", "#!/usr/bin/env bash\necho hello"),
        (depends_upward, "daemon/kernels/Cargo.toml", "[dependencies]\ndiffused-engine = \"1\""),
        (depends_upward, "daemon/engine/Cargo.toml", "[dependencies]\ntokio = \"1\""),
        (depends_upward, "daemon/engine/Cargo.toml", "[target.'cfg(unix)'.dependencies]\ntokio = \"1\""),
        (depends_upward, "daemon/engine/Cargo.toml", "[build-dependencies]\nclap = \"1\""),
        (depends_upward, "daemon/kernels/Cargo.toml", "[dev-dependencies]\ndiffused-engine.workspace = true"),
        (depends_upward, "daemon/engine/Cargo.toml", "[dependencies]\nrt = { package = \"tokio\", version = \"1\" }"),
        (depends_upward, "daemon/heap/Cargo.toml", "[dependencies.kernels]\npackage = \"diffused-kernels\""),
        (deletes_files, "daemon/src/jobs/queue.rs", "    let _ = std::fs::remove_dir_all(folder);"),
        (deletes_files, "daemon/src/mqtt/outbox.rs", "    fs::rename(a, b)?;"),
        (sets_up_the_allocator, "daemon/src/painting/worker.rs", "    diffused_heap::configure_malloc();"),
        (unlisted_test, "tests/e2e/jobs.rs", "#[test]\nfn a() {}"),
        (unlisted_test, "tests/faults/flood.rs", "#[test]\nfn a() {}"),
    ];
    for (i, (rule, path, text)) in cases.into_iter().enumerate() {
        let file = TextFile { path: path.to_owned(), text: text.to_owned() };
        assert!(!rule(&file).is_empty(), "case {i}: {path} with {text:?} passed");
    }
}

fn tree<const N: usize>(files: [(&str, &str); N]) -> [TextFile; N] {
    files.map(|(path, text)| TextFile { path: path.to_owned(), text: text.to_owned() })
}

#[test]
fn a_name_of_two_types_is_found_with_its_places() {
    let files = tree([
        ("daemon/src/a.rs", "//! A.\n\npub(crate) struct Thing<T>(T);\nimpl Trait for Thing {\n    type Part = u8;\n}"),
        ("model-prep/src/b.rs", "//! B.\nmod tests {\n    enum Thing { A }\n}\nstruct Part;\npub struct Error;"),
        ("model-prep/src/error.rs", "pub enum Error {}"),
    ]);
    assert_eq!(twice_declared(&files), ["Thing is declared in daemon/src/a.rs:3, model-prep/src/b.rs:3"]);
    let files = tree([("daemon/src/a.rs", "type Pair = (u8, u8);"), ("daemon/src/b.rs", "trait Pair {}")]);
    assert_eq!(twice_declared(&files).len(), 1);
}

#[test]
fn a_circle_of_modules_is_found_and_printed() {
    let circle = |lib, a, b| {
        let paths = ["lib.rs", "a.rs", "b/deep.rs", "c.rs"].map(|name| format!("daemon/engine/src/{name}"));
        let texts = [lib, a, b, "use crate::a;"];
        circles(&std::array::from_fn::<_, 4, _>(|i| TextFile { path: paths[i].clone(), text: texts[i].to_owned() }))
    };
    let found = |text: &str| vec![format!("daemon/engine/src/: {text}")];
    assert_eq!(circle("", "use crate::{\n    x,\n    b::deep,\n};", "use crate::a::Thing;"), found("a → b → a"));
    assert_eq!(circle("", "let x = crate::b::f();", "use crate::{c};"), found("a → b → c → a"));
    assert_eq!(circle("", "use super::b;", "use crate::a;"), found("a → b → a"));
    assert_eq!(circle("pub use b::{Thing, Other};", "use crate::Other;", "use crate::a;"), found("a → b → a"));
    assert_eq!(circle("use a::f;\npub struct Thing;", "use crate::Thing;", ""), found("a → lib → a"));
    assert_eq!(
        circle("", "use crate::b;", "use super::a;\n// crate::a\n#[cfg(test)]\nuse crate::a;"),
        found("").split_off(1)
    );
}

#[test]
fn rules_leave_good_code_alone() {
    let good: [(Rule, &str, &str); 5] = [
        (unsafe_elsewhere, "daemon/src/a.rs", "// no unsafe { } here\n#![forbid(unsafe_code)]"),
        (unsafe_elsewhere, "daemon/kernels/src/neon.rs", "unsafe { f() }"),
        (crosses_a_boundary, "daemon/engine/src/ops/conv.rs", "use tract_onnx::prelude::*;"),
        (names_a_machine, "cross/build", "cd \"$root/work/x\""),
        (script_goes_on, "cross/build", "#!/usr/bin/env bash\nset -euo pipefail\n"),
    ];
    for (rule, path, text) in good {
        let file = TextFile { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(rule(&file), Vec::<String>::new());
    }
}
