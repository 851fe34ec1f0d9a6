//! Whatever bytes a bundle has, opening it ends in a result: no panic, no abort, no memory beyond the bytes' own size.

use std::fs;
use std::path::Path;

use diffused_engine::bundle::{Manifest, WeightsIndex};
use diffused_engine::check_graph;
use diffused_engine::tokenizer::Tokenizer;

fn demo(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo").join(file)).unwrap()
}

/// The JSON at the front of a `.weights` file.
fn index(network: &str) -> Vec<u8> {
    let bytes = demo(&format!("{network}.weights"));
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8..8 + len].to_vec()
}

/// Numbers without any pattern (Knuth's linear congruential generator).
struct Mutator(u64);

impl Mutator {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// `bytes` with one to four places changed: a bit, a byte, a digit, a part left out, or a part there twice.
fn changed(bytes: &[u8], numbers: &mut Mutator) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + numbers.below(4) {
        let (at, len) = (numbers.below(bytes.len()), 1 + numbers.below(8));
        let end = (at + len).min(bytes.len());
        match numbers.below(5) {
            0 => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            2 => bytes[at] = b"0123456789-.e"[numbers.below(13)],
            3 => drop(bytes.drain(at..end)),
            _ => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
        }
        if bytes.is_empty() {
            return bytes;
        }
    }
    bytes
}

/// Calls `open` with `cases` changes of `bytes`; returns how many of them were still taken.
fn taken(bytes: &[u8], cases: usize, mut open: impl FnMut(&[u8]) -> bool) -> usize {
    let mut numbers = Mutator(1);
    (0..cases).filter(|_| open(&changed(bytes, &mut numbers))).count()
}

#[test]
fn manifests() {
    let json = demo("bundle.json");
    assert!(Manifest::parse(&json).is_ok());
    let taken = taken(&json, 20_000, |json| Manifest::parse(json).is_ok());
    assert!(taken < 20_000);
}

#[test]
fn indices() {
    let json = index("vae_encoder");
    let len = demo("vae_encoder.weights").len() as u64;
    assert!(WeightsIndex::parse(&json, len).is_ok());
    assert!(taken(&json, 5_000, |json| WeightsIndex::parse(json, len).is_ok()) < 5_000);
}

#[test]
fn graphs() {
    let (pixels, latents, moments) = ([1, 32, 32, 3], [1, 4, 4, 4], [1, 4, 4, 8]);
    for (network, input, output) in [("vae_encoder", pixels, moments), ("vae_decoder", latents, pixels)] {
        let inputs = [input.to_vec()];
        let (onnx, index) = (demo(&format!("{network}.onnx")), index(network));
        check_graph(&onnx, &index, &inputs, &output).unwrap();
        assert!(taken(&onnx, 200, |onnx| check_graph(onnx, &index, &inputs, &output).is_ok()) < 200);
    }
}

#[test]
fn tokenizers() {
    let (vocab, merges) = (demo("tokenizer/vocab.json"), demo("tokenizer/merges.txt"));
    assert!(taken(&vocab, 300, |vocab| Tokenizer::new(vocab, &merges, &[]).is_ok()) < 300);
    assert!(taken(&merges, 300, |merges| Tokenizer::new(&vocab, merges, &[]).is_ok()) < 300);
}
