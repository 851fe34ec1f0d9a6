//! Streaming and keeping give the same bytes, in any mixture; damage is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::bundle::PAGE;
use crate::hash::xxh3;

/// Panels of an int8 matrix with 4 inputs: 128 bytes of scales and biases, 64 of sums, 64 of data.
const PANEL_BYTES: usize = 256;

/// Writes `net.weights` with matrices of `panels` panels in blocks of two, one of five in blocks of one, and a table of ten rows in
/// blocks of three.
fn write(folder: &Path, matrices: &[(&str, usize)]) {
    let mut tensors = BTreeMap::<String, Value>::new();
    let mut body = Vec::new();
    let pairs = matrices.iter().map(|&(name, panels)| (name, panels, 2));
    let mut add = |name: &str, kind: Value, bytes: Vec<u8>, block_bytes: usize| {
        let offset = PAGE + body.len() as u64;
        let checksums = bytes.chunks(block_bytes).map(|block| format!("{:016x}", xxh3(block)));
        let checksums: Vec<String> = checksums.collect();
        let tensor = json!({"offset": offset, "kind": kind, "block_bytes": block_bytes, "checksums": checksums});
        tensors.insert(name.to_owned(), tensor);
        body.extend(bytes);
        body.resize(body.len().next_multiple_of(PAGE as usize), 0);
    };
    for (seed, (name, panels, together)) in [("single", 5, 1)].into_iter().chain(pairs).enumerate() {
        let kind = json!({"kind": "matrix", "format": "int8", "n": panels * 16, "k": 4, "taps": 1});
        let bytes = (0..panels * PANEL_BYTES).map(|i| (i * 7 + seed) as u8).collect();
        add(name, kind, bytes, together * PANEL_BYTES);
    }
    let rows: Vec<u8> = (0..20).flat_map(|value| (value as f32).to_le_bytes()).collect();
    add("rows", json!({"kind": "table", "format": "f32", "rows": 10, "columns": 2}), rows, 3 * 8);
    let index = serde_json::to_vec(&json!({"tensors": tensors})).unwrap();
    let mut file = (index.len() as u64).to_le_bytes().to_vec();
    file.extend(index);
    assert!(file.len() <= PAGE as usize);
    file.resize(PAGE as usize, 0);
    file.extend(body);
    fs::write(folder.join("net.weights"), file).unwrap();
}

fn bundle() -> (TempDir, Source) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("a", 1), ("b", 5), ("c", 2)]);
    let source = Source::Folder(folder.path().to_owned());
    (folder, source)
}

fn names() -> Vec<Arc<str>> {
    ["a", "b", "c"].map(Arc::from).into()
}

/// All panels of all matrices, each with its index, as three passes see them.
fn three_passes(keep: Keep, ring: usize) -> Vec<(usize, Vec<u8>)> {
    let (_folder, source) = bundle();
    let mut weights = Weights::open(&source, "net").unwrap();
    weights.begin(&names(), 3, Residency { keep, ring }).unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        for name in names() {
            let see = |panels: &Panels| {
                let each = panels.blocks.iter().flat_map(|block| block.chunks(PANEL_BYTES));
                seen.extend(each.enumerate().map(|(i, panel)| (panels.first + i, panel.to_vec())));
            };
            weights.panels(&name, see).unwrap();
        }
    }
    seen
}

#[test]
fn keeping_and_streaming_give_the_same_panels() {
    let streamed = three_passes(Keep::Only(HashSet::new()), 0);
    let indices: Vec<usize> = streamed.iter().map(|(index, _)| *index).collect();
    assert_eq!(indices, [0, 0, 1, 2, 3, 4, 0, 1].repeat(3));
    assert_eq!(three_passes(Keep::All, 1 << 20), streamed);
    assert_eq!(three_passes(Keep::Only(["b".to_owned()].into()), 1 << 20), streamed);
    assert_eq!(three_passes(Keep::Only(["a".to_owned(), "c".to_owned()].into()), 0), streamed);
}

#[test]
fn buffers_hold_whole_pairs_of_panels() {
    let (_folder, source) = bundle();
    let weights = Weights::open(&source, "net").unwrap();
    let together = |name, panels| blocks_together(weights.file().entry(name).unwrap(), BUFFERS * panels * PANEL_BYTES);
    assert_eq!([0, 1, 2, 3, 4, 5].map(|panels| together("single", panels)), [1, 1, 2, 2, 4, 4]);
    assert_eq!([0, 2, 4, 6].map(|panels| together("b", panels)), [1, 1, 2, 3]);
}

#[test]
fn what_is_kept_is_there_in_the_next_job() {
    let (folder, source) = bundle();
    let mut weights = Weights::open(&source, "net").unwrap();
    weights.begin(&names(), 1, Residency::ample()).unwrap();
    for name in names() {
        weights.panels(&name, |_| ()).unwrap();
    }
    fs::write(folder.path().join("net.weights"), "").unwrap();
    weights.begin(&names(), 1, Residency::ample()).unwrap();
    weights.panels("b", |panels| assert_eq!(panels.count(), 5)).unwrap();
}

#[test]
fn what_is_kept_stays_when_other_reading_begins() {
    let (folder, source) = bundle();
    let mut weights = Weights::open(&source, "net").unwrap();
    let residency = Residency { keep: Keep::Only(["b".to_owned()].into()), ring: 0 };
    weights.begin(&names()[1..2], 1, residency.clone()).unwrap();
    weights.panels("b", |_| ()).unwrap();
    fs::write(folder.path().join("net.weights"), "").unwrap();
    weights.begin(&names()[1..2], 1, residency).unwrap();
    weights.panels("b", |panels| assert_eq!(panels.count(), 5)).unwrap();
    weights.end();
    assert!(weights.kept.is_empty());
}

#[test]
fn a_stopped_pass_leaves_nothing_behind() {
    let (_folder, source) = bundle();
    let mut weights = Weights::open(&source, "net").unwrap();
    for _ in 0..3 {
        weights.begin(&names(), 5, Residency::ample()).unwrap();
        weights.panels("a", |_| ()).unwrap();
        weights.end();
    }
    weights.begin(&names(), 1, Residency::ample()).unwrap();
    weights.panels("a", |_| ()).unwrap();
    weights.panels("b", |_| ()).unwrap();
}

#[test]
fn another_order_than_the_plans_is_an_error() {
    let (_folder, source) = bundle();
    let mut weights = Weights::open(&source, "net").unwrap();
    weights.begin(&names(), 1, Residency::ample()).unwrap();
    assert!(matches!(weights.panels("b", |_| ()), Err(Error::Internal(_))));
}

#[test]
fn rows_come_from_their_blocks_alone() {
    let (_folder, source) = bundle();
    let weights = Weights::open(&source, "net").unwrap();
    assert_eq!(weights.rows("rows", &[9, 0, 4, 9]).unwrap(), [18.0, 19.0, 0.0, 1.0, 8.0, 9.0, 18.0, 19.0]);
    assert!(matches!(weights.rows("rows", &[10]), Err(Error::ModelCorrupt { .. })));
}

#[test]
fn an_edited_byte_names_file_and_tensor() {
    let (folder, source) = bundle();
    let path = folder.path().join("net.weights");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 2 * PAGE as usize + 10;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut weights = Weights::open(&source, "net").unwrap();
    weights.begin(&names(), 1, Residency::ample()).unwrap();
    weights.panels("a", |_| ()).unwrap();
    weights.panels("b", |_| ()).unwrap();
    let error = weights.panels("c", |_| ()).unwrap_err();
    assert!(matches!(error, Error::ModelCorrupt { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("net.weights") && text.contains("tensor c"), "{text}");
}

#[test]
fn a_truncated_file_is_refused_when_it_is_opened() {
    let (folder, source) = bundle();
    let path = folder.path().join("net.weights");
    let bytes = fs::read(&path).unwrap();
    for len in [0, 7, 8, 100, PAGE as usize, bytes.len() - PAGE as usize] {
        fs::write(&path, &bytes[..len]).unwrap();
        let error = Weights::open(&source, "net").map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::ModelCorrupt { .. }), "{len} bytes: {error}");
    }
}
