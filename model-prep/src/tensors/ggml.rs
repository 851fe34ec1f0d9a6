//! ggml's quantised blocks: small integers, and scales for some of them together.
//!
//! Layouts: ggml's `ggml-common.h`; the values are those of its `dequantize_row_…`, in the same order of f32
//! operations.

#![allow(clippy::indexing_slicing, reason = "of arrays of a block's size, by a value's place in the block")]

use half::f16;

/// A quantised type: how many values a block has, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "ggml's names")]
pub(crate) enum GgmlBlock {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl GgmlBlock {
    /// ggml's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GgmlBlock::Q4_0 => "Q4_0",
            GgmlBlock::Q4_1 => "Q4_1",
            GgmlBlock::Q5_0 => "Q5_0",
            GgmlBlock::Q5_1 => "Q5_1",
            GgmlBlock::Q8_0 => "Q8_0",
            GgmlBlock::Q2_K => "Q2_K",
            GgmlBlock::Q3_K => "Q3_K",
            GgmlBlock::Q4_K => "Q4_K",
            GgmlBlock::Q5_K => "Q5_K",
            GgmlBlock::Q6_K => "Q6_K",
        }
    }

    /// Values of a block.
    pub(crate) fn values(self) -> usize {
        match self {
            GgmlBlock::Q4_0 | GgmlBlock::Q4_1 | GgmlBlock::Q5_0 | GgmlBlock::Q5_1 | GgmlBlock::Q8_0 => 32,
            GgmlBlock::Q2_K | GgmlBlock::Q3_K | GgmlBlock::Q4_K | GgmlBlock::Q5_K | GgmlBlock::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            GgmlBlock::Q4_0 => 18,
            GgmlBlock::Q4_1 => 20,
            GgmlBlock::Q5_0 => 22,
            GgmlBlock::Q5_1 => 24,
            GgmlBlock::Q8_0 => 34,
            GgmlBlock::Q2_K => 84,
            GgmlBlock::Q3_K => 110,
            GgmlBlock::Q4_K => 144,
            GgmlBlock::Q5_K => 176,
            GgmlBlock::Q6_K => 210,
        }
    }

    /// The values of whole blocks.
    pub(crate) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            GgmlBlock::Q4_0 => blocks(bytes, values, q4_0),
            GgmlBlock::Q4_1 => blocks(bytes, values, q4_1),
            GgmlBlock::Q5_0 => blocks(bytes, values, q5_0),
            GgmlBlock::Q5_1 => blocks(bytes, values, q5_1),
            GgmlBlock::Q8_0 => blocks(bytes, values, q8_0),
            GgmlBlock::Q2_K => blocks(bytes, values, q2_k),
            GgmlBlock::Q3_K => blocks(bytes, values, q3_k),
            GgmlBlock::Q4_K => blocks(bytes, values, q4_k),
            GgmlBlock::Q5_K => blocks(bytes, values, q5_k),
            GgmlBlock::Q6_K => blocks(bytes, values, q6_k),
        }
    }
}

/// Decodes blocks of `N` bytes and `V` values, of which `value` gives each by its place in the block.
fn blocks<const N: usize, const V: usize>(
    bytes: &[u8],
    values: &mut [f32],
    value: fn(&[u8; N], [(); V], usize) -> f32,
) {
    for (block, values) in bytes.as_chunks().0.iter().zip(values.as_chunks_mut::<V>().0) {
        values.iter_mut().enumerate().for_each(|(at, out)| *out = value(block, [(); V], at));
    }
}

/// The f16 at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Four bits of a block of 32: the low ones of 16 bytes, then their high ones.
fn nibble(bytes: &[u8], at: usize) -> i32 {
    i32::from(bytes[at % 16] >> (at / 16 * 4) & 15)
}

/// The fifth bit of value `at`, in 32 bits at the beginning of `bytes`.
fn fifth(bytes: &[u8], at: usize) -> i32 {
    i32::from(bytes[at / 8] >> (at % 8) & 1) << 4
}

fn q4_0(block: &[u8; 18], _: [(); 32], at: usize) -> f32 {
    half(block, 0) * (nibble(&block[2..], at) - 8) as f32
}

fn q4_1(block: &[u8; 20], _: [(); 32], at: usize) -> f32 {
    half(block, 0) * nibble(&block[4..], at) as f32 + half(block, 2)
}

fn q5_0(block: &[u8; 22], _: [(); 32], at: usize) -> f32 {
    half(block, 0) * ((nibble(&block[6..], at) | fifth(&block[2..], at)) - 16) as f32
}

fn q5_1(block: &[u8; 24], _: [(); 32], at: usize) -> f32 {
    half(block, 0) * (nibble(&block[8..], at) | fifth(&block[4..], at)) as f32 + half(block, 2)
}

fn q8_0(block: &[u8; 34], _: [(); 32], at: usize) -> f32 {
    half(block, 0) * f32::from(block[2 + at].cast_signed())
}

/// Two bits of value `at` of 256: each half of the block has 32 bytes, whose pairs of bits are 32 values each.
fn pair(bytes: &[u8], at: usize) -> i32 {
    i32::from(bytes[at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3)
}

/// Scales of sixteen values, then their quarters, then the scales' and the minima's own scale.
fn q2_k(block: &[u8; 84], _: [(); 256], at: usize) -> f32 {
    let scale = block[at / 16];
    half(block, 80) * f32::from(scale & 15) * pair(&block[16..], at) as f32 - half(block, 82) * f32::from(scale >> 4)
}

/// Third bits, pairs of bits, sixteen scales of six bits, their scale.
fn q3_k(block: &[u8; 110], _: [(); 256], at: usize) -> f32 {
    let (scales, group) = (&block[96..108], at / 16);
    let low = scales[group % 8] >> (group / 8 * 4) & 15;
    let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
    let scale = i32::from(low | high << 4) - 32;
    let third = i32::from(block[at % 32] >> (at / 32) & 1);
    half(block, 108) * scale as f32 * (pair(&block[32..], at) + 4 * third - 4) as f32
}

/// Scale and minimum of group `group` of 32 values, six bits each, of eight in twelve bytes.
fn scale_and_minimum(bytes: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = match group {
        0..4 => (bytes[group] & 63, bytes[group + 4] & 63),
        _ => (bytes[group + 4] & 15 | bytes[group - 4] >> 6 << 4, bytes[group + 4] >> 4 | bytes[group] >> 6 << 4),
    };
    (scale.into(), minimum.into())
}

/// Four bits of value `at` of 256: 32 bytes hold two groups of 32 values.
fn nibble_of_two(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 64 * 32 + at % 32] >> (at % 64 / 32 * 4) & 15
}

fn q4_k(block: &[u8; 144], _: [(); 256], at: usize) -> f32 {
    let (scale, minimum) = scale_and_minimum(&block[4..16], at / 32);
    half(block, 0) * scale * f32::from(nibble_of_two(&block[16..], at)) - half(block, 2) * minimum
}

fn q5_k(block: &[u8; 176], _: [(); 256], at: usize) -> f32 {
    let (scale, minimum) = scale_and_minimum(&block[4..16], at / 32);
    let value = nibble_of_two(&block[48..], at) | (block[16 + at % 32] >> (at / 32) & 1) << 4;
    half(block, 0) * scale * f32::from(value) - half(block, 2) * minimum
}

/// Low four bits, high two bits, sixteen scales, their scale.
fn q6_k(block: &[u8; 210], _: [(); 256], at: usize) -> f32 {
    let (half_of, quarter, value) = (at / 128, at % 128 / 32, at % 32);
    let low = block[half_of * 64 + quarter % 2 * 32 + value] >> (quarter / 2 * 4) & 15;
    let high = pair(&block[128..192], at);
    let scale = block[192 + at / 16].cast_signed();
    half(block, 208) * f32::from(scale) * ((i32::from(low) | high << 4) - 32) as f32
}
