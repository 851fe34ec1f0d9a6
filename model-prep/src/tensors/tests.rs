//! Files as torch, safetensors and ggml write them, and files that nobody should write.

use std::fs;
use std::path::{Path, PathBuf};

use super::container::Container;
use super::dtype::TensorDtype;
use super::*;

#[path = "../../tests/bundles/torch_file.rs"]
mod torch_file;

use torch_file::{PickledTensor, archive, pickle};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/tensors").join(name)
}

/// Every value of every tensor, read at once and in pieces, is the one that the library gives.
#[track_caller]
fn check_golden(name: &str, stem: &str, tensors: usize) -> TensorFile {
    let (file, expected) =
        (TensorFile::open(&golden(name)).unwrap(), TensorFile::open(&golden("expected.safetensors")).unwrap());
    assert_eq!(file.tensors.len(), tensors, "{:?}", file.tensors.keys());
    for (name, entry) in &file.tensors {
        let Some(known) = expected.tensors.get(&format!("{stem}.{name}")) else { panic!("no {stem}.{name}") };
        assert_eq!(entry.shape, known.shape, "{name}");
        let known = expected.read_all(&format!("{stem}.{name}")).unwrap();
        assert!(known.is_empty() || known.iter().any(|value| *value != 0.0), "{name}");
        assert_eq!(file.read_all(name).unwrap(), known, "{name}");
        for (first, len) in [(0, 1), (1, known.len() / 2), (known.len() / 3, known.len() / 3)] {
            let Some(known) = known.get(first..first + len) else { continue };
            let mut values = vec![0.0; len];
            file.read(name, first, &mut values).unwrap();
            assert_eq!(values, known, "{name} from {first}");
        }
    }
    file
}

#[test]
fn what_torch_wrote_is_read() {
    let file = check_golden("checkpoint.ckpt", "checkpoint", 15);
    assert_eq!(file.container, Container::Torch);
    assert_eq!(file.metadata.get("epoch").map(String::as_str), Some("3"));
    assert_eq!(file.tensors["position_ids"].dtype, TensorDtype::I64);
    for (name, strided) in [("transposed", true), ("channels_last", true), ("stretched", true), ("part", false)] {
        assert_eq!(file.tensors[name].strides.is_some(), strided, "{name}");
    }
    check_golden("large.ckpt", "checkpoint", 15);
    let file = check_golden("embedding.pt", "embedding", 1);
    assert_eq!(file.tensors["string_to_param.*"].shape, [2, 8]);
    assert_eq!(file.metadata["name"], "cat-toy");
}

#[test]
fn what_safetensors_and_ggml_wrote_is_read() {
    assert_eq!(check_golden("floats.safetensors", "floats", 2).metadata["made with"], "safetensors");
    let file = check_golden("blocks.gguf", "blocks", 13);
    assert_eq!(file.metadata["general.name"], "blocks");
    assert_eq!(file.tensors["f16"].shape, [2, 3, 1, 5]);
}

/// The error of opening a file of these bytes.
#[track_caller]
fn refused(name: &str, bytes: &[u8], parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let error = TensorFile::open(&path).unwrap_err().to_string();
    for part in [name].iter().chain(parts) {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn what_is_no_file_of_weights_is_called_by_its_name() {
    refused("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", &["git lfs pull"]);
    refused("a.safetensors", b"<!DOCTYPE html><html>", &["a web page"]);
    refused("a.safetensors", b"\n  <html>", &["a web page"]);
    refused("a.safetensors", b"{\"error\": \"not found\"}", &["JSON text"]);
    refused("a.safetensors", b"", &["is empty"]);
    refused("a.safetensors", b"x", &["not a whole file with weights (1 bytes)"]);
    refused("a.bin", b"\x80\x02}q\0.", &["a pickle by itself"]);
    refused("a.bin", b"PK\x05\x06", &["a damaged or empty zip archive"]);
    refused("a.ckpt", &fs::read(golden("before_1.6.pt")).unwrap(), &["before version 1.6", "have torch load"]);
    refused("a.pt", &fs::read(golden("program.pt")).unwrap(), &["a TorchScript program"]);
    let folder = tempfile::tempdir().unwrap();
    let error = TensorFile::open(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("is a folder; a file is needed here"), "{error}");
}

#[test]
fn a_renamed_file_is_read_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, told) in [
        ("checkpoint.ckpt", "a.safetensors", "is a torch file (zip and pickle)"),
        ("floats.safetensors", "a.ckpt", "is a safetensors file"),
        ("blocks.gguf", "a.bin", "is a GGUF file"),
    ] {
        let path = folder.path().join(to);
        fs::copy(golden(from), &path).unwrap();
        let note = TensorFile::open(&path).unwrap().note().unwrap();
        assert!(note.contains(told), "{note}");
        assert_eq!(TensorFile::open(&golden(from)).unwrap().note(), None);
    }
}

/// A safetensors file with this header and so many bytes behind it.
fn safetensors_file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn safetensors_are_as_strict_as_the_library() {
    let f32 = |name: &str, from: usize, to: usize| {
        format!(r#""{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[{from},{to}]}}"#, (to - from) / 4)
    };
    let (a, b) = (f32("a", 0, 4), f32("b", 4, 8));
    let whole = |parts: &[&str]| format!("{{{}}}", parts.join(","));
    let check = |header: &str, data, parts: &[&str]| refused("a.safetensors", &safetensors_file(header, data), parts);
    check(&whole(&[&a, &b]), 7, &["need 8 bytes, but 7 follow"]);
    check(&whole(&[&a, &b]), 9, &["1 bytes follow its last tensor"]);
    check(&whole(&[&a, &f32("a", 4, 8)]), 8, &["a is there twice"]);
    check(&whole(&[&a, &f32("b", 0, 4)]), 8, &["invalid offset for tensor `b`"]);
    check(&whole(&[&a, &f32("b", 8, 12)]), 12, &["invalid offset for tensor `b`"]);
    check(r#"{"__metadata__":{"a":"b"},"__metadata__":{}}"#, 0, &["__metadata__ is there twice"]);
    check(r#"{"__metadata__":{"a":{"b":"c"}}}"#, 0, &["expected a string"]);
    check("[]", 0, &["its header"]);
    check(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#, 4, &["its header"]);
    check(r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#, 4, &["more than 8 dimensions"]);
    let ten = [&10_000_000_000u64.to_le_bytes()[..], b"{\"a\":"].concat();
    refused("a.safetensors", &ten, &["a header of 10000000000 bytes in a file of 13"]);
}

const F32: PickledTensor = PickledTensor { name: "a", class: "FloatStorage", shape: &[2, 2] };

/// An archive with this pickle and 16 bytes of values.
fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    archive([("a/data.pkl", pickle), ("a/data/0", &[0; 16])])
}

#[test]
fn archives_that_are_damaged_are_refused() {
    let good = with_pickle(&pickle(&[F32], None));
    let check = |bytes: &[u8], parts: &[&str]| refused("a.ckpt", bytes, parts);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    fs::write(&path, &good).unwrap();
    assert_eq!(TensorFile::open(&path).unwrap().read_all("a").unwrap(), [0.0; 4]);
    for len in 5..good.len() {
        check(&good[..len], &["not a whole zip archive"]);
    }
    let part = pickle(&[F32], None);
    check(
        &archive([("a/data.pkl", &part[..]), ("a/data/0", &[0; 15])]),
        &["tensor a: of the shape [2, 2] does not fit in its 15"],
    );
    check(&archive([("a/data.pkl", &part[..])]), &["tensor a: its values, a/data/0, are missing"]);
    check(&archive([("a/data.pkl", &part[..]), ("a/data.pkl", &part[..])]), &["a/data.pkl is there twice"]);
    check(&archive([("a.txt", &b"x"[..])]), &["not one of torch's"]);
    check(&archive([("a/byteorder", &b"big"[..]), ("a/data.pkl", &part[..])]), &["big-endian"]);
    let mut packed = good.clone();
    let at = packed.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    packed[at + 10] = 8;
    check(&packed, &["a/data.pkl is compressed or encrypted"]);
    let mut lied = good;
    let at = lied.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    lied[at + 20..at + 28].copy_from_slice(&[0, 0, 0, 0x40, 0, 0, 0, 0x40]);
    check(&lied, &["a/data/0 ends behind the archive's end"]);
}

#[test]
fn pickles_that_do_more_than_list_tensors_are_refused() {
    let check = |pickle: &[u8], parts: &[&str]| refused("a.ckpt", &with_pickle(pickle), parts);
    check(b"\x80\x02cos\nsystem\nX\x04\0\0\0idid\x85R.", &["it names os.system", "nothing of it was run"]);
    check(b"\x80\x02c__builtin__\neval\nX\x01\0\0\0a\x85R.", &["it names __builtin__.eval"]);
    check(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01a\x85R.", &["it names posix.system"]);
    check(b"\x80\x02(X\x01\0\0\0aios\nsystem\n.", &["opcode 0x69"]);
    check(b"\x80\x02}", &["it is cut off"]);
    check(b"\x80\x02e.", &["takes more from its stack"]);
    check(b"\x80\x02X\xff\xff\xff\xffab.", &["it is cut off"]);
    check(b"\x80\x02h\x01.", &["a value that it did not keep"]);
    check(b"\x80\x02}.", &["holds no tensors"]);
    check(&[&b"\x80\x02"[..], &[b'}'; 3_000_000], b"."].concat(), &["more than 2000000 opcodes"]);
    // A dictionary that holds itself, and dictionaries that each hold the one before twice: 2^n places.
    check(b"\x80\x02}q\0X\x01\0\0\0ah\0s.", &["holds no tensors"]);
    let mut wide = b"\x80\x02}q\0".to_vec();
    for level in 1..=8u8 {
        wide.extend([b'}', b'q', level, b'(']);
        for key in 0..40u8 {
            wide.extend([b'X', 1, 0, 0, 0, b'0' + key, b'h', level - 1]);
        }
        wide.push(b'u');
    }
    wide.push(b'.');
    check(&wide, &["holds more than 131072 tensors or dictionaries"]);
}

#[test]
fn tensors_that_lie_about_their_size_are_refused() {
    for shape in [&[3, 2][..], &[usize::MAX >> 33; 2], &[1 << 31, 1 << 31, 4], &[1 << 30; 8]] {
        let bytes = with_pickle(&pickle(&[PickledTensor { shape, ..F32 }], None));
        refused("a.ckpt", &bytes, &["tensor a: of the shape", "does not fit"]);
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::copy(golden("floats.safetensors"), &path).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let hash = || file.hash(&mut diffused_engine::hash::Sha256::default());
    hash().unwrap();
    let len = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(len - 300).unwrap();
    for error in [hash().unwrap_err(), file.read_all("e5m2").unwrap_err()] {
        assert!(error.to_string().contains("a.safetensors: has changed while it was read"), "{error}");
    }
}

/// Few bytes that would become much memory: texts and lists that are used again and again.
#[test]
fn pickles_that_repeat_themselves_are_refused() {
    let check = |pickle: &[u8], parts: &[&str]| refused("a.ckpt", &with_pickle(pickle), parts);
    let long = [&b"X\0\0\x01\0"[..], &[b'a'; 1 << 16]].concat();
    check(&[b"\x80\x04", &long[..], b"2\x93."].concat(), &["a class's name of more than 1024 bytes"]);
    check(&[b"\x80\x02}", &long[..], b"}s."].concat(), &["names of more than 1024 bytes"]);
    let pairs = [&b"\x80\x02](NN\x86q\0"[..], &b"h\0".repeat(99_999), b"e\x85q\x01"].concat();
    let again = b"ccollections\nOrderedDict\nh\x01R".repeat(21);
    check(&[&pairs[..], &again, b"."].concat(), &["dictionaries of more than 2000000 pairs"]);
    let many = (0..140_000).map(|at| format!(r#""{at}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#));
    let many = safetensors_file(&format!("{{{}}}", many.collect::<Vec<_>>().join(",")), 0);
    refused("a.safetensors", &many, &["there are more than 131072 tensors or keys"]);
}
