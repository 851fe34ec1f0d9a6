//! An index comes back from its bytes; what no model has is refused by name.

use serde_json::{Value, json};

use super::*;

fn matrix(n: usize, k: usize, taps: usize) -> Value {
    json!({"kind": "matrix", "format": "int8", "n": n, "k": k, "taps": taps})
}

/// An index of one tensor `x`, of one block.
fn one(kind: Value, block_bytes: usize) -> Value {
    json!({"offset": PAGE, "kind": kind, "block_bytes": block_bytes, "checksums": ["00000000000000ff"]})
}

fn parse(tensors: Value) -> Result<WeightsIndex, String> {
    WeightsIndex::parse(json!({"tensors": tensors}).to_string().as_bytes(), 1 << 20)
}

#[test]
fn an_index_comes_back_from_its_bytes() {
    let layout = Layout { format: Format::Int8, k: 320, taps: 9 };
    let tensors = [
        NewTensor { name: "b".into(), shape: WeightShape::Matrix { layout, n: 320 }, pairs: false },
        NewTensor { name: "a".into(), shape: WeightShape::Table { rows: 2, columns: 3, half: true }, pairs: false },
    ];
    let index = WeightsIndex::lay_out(&tensors).unwrap();
    let front = index.front();
    assert_eq!(WeightsIndex::parse(&front[LENGTH..], index.end()).unwrap(), index);
    let entry = index.entry("b").unwrap();
    assert_eq!((entry.offset(), entry.units_per_block(), entry.blocks()), (PAGE, 5, 4));
    assert_eq!(index.entry("a").unwrap().offset(), (PAGE + entry.bytes() as u64).next_multiple_of(PAGE));
    assert!(WeightsIndex::lay_out(&[tensors[0].clone(), tensors[0].clone()]).is_err());
}

#[test]
fn pairs_of_panels_are_not_cut() {
    let layout = Layout { format: Format::F32, k: 1 << 13, taps: 1 };
    let shape = WeightShape::Matrix { layout, n: 64 };
    let units = |pairs| {
        let index = WeightsIndex::lay_out(&[NewTensor { name: "a".into(), shape, pairs }]).unwrap();
        index.entry("a").unwrap().units_per_block()
    };
    assert_eq!((units(false), units(true)), (1, 2));
}

#[test]
fn sizes_that_no_model_has_are_refused() {
    assert!(parse(json!({"x": one(matrix(16, 4, 1), 256)})).is_ok());
    for (kind, message) in [
        (matrix(usize::MAX, 4, 1), "n is 18446744073709551615; allowed is 1 to"),
        (matrix(16, usize::MAX - 3, 9), "k is 18446744073709551612; allowed is 1 to 131072"),
        (matrix(0, 4, 1), "n is 0"),
        (matrix(16, 6, 1), "k is 6; int8 needs a multiple of 4"),
        (matrix(16, 4, 2), "taps is 2"),
        (json!({"kind": "table", "format": "f16", "rows": 1, "columns": 0}), "columns is 0"),
        (json!({"kind": "table", "format": "int8", "rows": 1, "columns": 1}), "a table has f16 or f32"),
        (json!({"kind": "table", "format": "f8", "rows": 1, "columns": 1}), "unknown variant `f8`"),
    ] {
        let found = parse(json!({"x": one(kind.clone(), 256)})).unwrap_err();
        assert!(found.contains(message), "{kind}: {found}");
    }
}

#[test]
fn places_and_blocks_that_do_not_fit_are_refused() {
    let change = |key: &str, value: Value| {
        let mut tensor = one(matrix(16, 4, 1), 256);
        tensor[key] = value;
        parse(json!({"x": tensor})).unwrap_err()
    };
    for (key, value, message) in [
        ("offset", json!(100), "its offset is 100"),
        ("offset", json!(1 << 20), "cut off"),
        ("offset", json!(u64::MAX - 4095), "cut off"),
        ("offset", json!(0), "begins at 0, but the index ends at"),
        ("block_bytes", json!(0), "block_bytes is 0; allowed are multiples of 256 up to 262144"),
        ("block_bytes", json!(100), "block_bytes is 100"),
        ("block_bytes", json!(1u64 << 40), "block_bytes is 1099511627776"),
        ("checksums", json!([]), "0 checksums for 1 blocks"),
        ("checksums", json!(["ff"]), "the checksum \"ff\" is not 16 hexadecimal digits"),
    ] {
        let found = change(key, value.clone());
        assert!(found.contains("x") && found.contains(message), "{key} = {value}: {found}");
    }
    let both = parse(json!({"x": one(matrix(16, 4, 1), 256), "y": one(matrix(16, 4, 1), 256)})).unwrap_err();
    assert_eq!(both, "tensor y: it begins at 4096, but x ends at 4352");
}
