//! How a file stores a tensor's values, and what they are as f32.

use std::fmt;

use half::{bf16, f16};

use super::ggml::GgmlBlock;

/// The type of a tensor's values in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorDtype {
    /// IEEE 754 double precision; rounded to f32 where it is read.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Eight bits, four of them exponent, three mantissa; without infinities (OCP 8-bit floating point, E4M3).
    F8E4m3,
    /// Eight bits, five of them exponent, two mantissa: the upper half of an f16 (OCP 8-bit floating point, E5M2).
    F8E5m2,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    /// A quantised type of ggml's.
    Ggml(GgmlBlock),
    /// A type that no model of ours has values of, by its name.
    Other(&'static str),
}

impl TensorDtype {
    /// Values that are stored together: one, but of quantised types.
    pub(crate) fn block_values(self) -> usize {
        match self {
            TensorDtype::Ggml(block) => block.values(),
            _ => 1,
        }
    }

    /// Bytes of a block; 0 of a type that is not read.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            TensorDtype::F64 | TensorDtype::I64 => 8,
            TensorDtype::F32 | TensorDtype::I32 => 4,
            TensorDtype::F16 | TensorDtype::Bf16 | TensorDtype::I16 => 2,
            TensorDtype::F8E4m3 | TensorDtype::F8E5m2 | TensorDtype::I8 | TensorDtype::U8 | TensorDtype::Bool => 1,
            TensorDtype::Ggml(block) => block.bytes(),
            TensorDtype::Other(_) => 0,
        }
    }

    /// Weights may be of this type.
    pub(crate) fn is_float(self) -> bool {
        matches!(
            self,
            TensorDtype::F64
                | TensorDtype::F32
                | TensorDtype::F16
                | TensorDtype::Bf16
                | TensorDtype::F8E4m3
                | TensorDtype::F8E5m2
                | TensorDtype::Ggml(_)
        )
    }

    /// The values that `bytes`, little-endian, hold; those of a type that is not read stay as they are.
    pub(crate) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            TensorDtype::F64 => decode(bytes, values, |bytes| nearest(f64::from_le_bytes(bytes))),
            TensorDtype::F32 => decode(bytes, values, f32::from_le_bytes),
            TensorDtype::F16 => decode(bytes, values, |bytes| f16::from_le_bytes(bytes).to_f32()),
            TensorDtype::Bf16 => decode(bytes, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            TensorDtype::F8E4m3 => decode(bytes, values, |[byte]| e4m3(byte)),
            TensorDtype::F8E5m2 => decode(bytes, values, |[byte]| f16::from_le_bytes([0, byte]).to_f32()),
            TensorDtype::I64 => decode(bytes, values, |bytes| i64::from_le_bytes(bytes) as f32),
            TensorDtype::I32 => decode(bytes, values, |bytes| i32::from_le_bytes(bytes) as f32),
            TensorDtype::I16 => decode(bytes, values, |bytes| f32::from(i16::from_le_bytes(bytes))),
            TensorDtype::I8 => decode(bytes, values, |bytes| f32::from(i8::from_le_bytes(bytes))),
            TensorDtype::U8 => decode(bytes, values, |[byte]| f32::from(byte)),
            TensorDtype::Bool => decode(bytes, values, |[byte]| f32::from(u8::from(byte != 0))),
            TensorDtype::Ggml(block) => block.decode(bytes, values),
            TensorDtype::Other(_) => {}
        }
    }
}

impl fmt::Display for TensorDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TensorDtype::F64 => "F64",
            TensorDtype::F32 => "F32",
            TensorDtype::F16 => "F16",
            TensorDtype::Bf16 => "BF16",
            TensorDtype::F8E4m3 => "F8_E4M3",
            TensorDtype::F8E5m2 => "F8_E5M2",
            TensorDtype::I64 => "I64",
            TensorDtype::I32 => "I32",
            TensorDtype::I16 => "I16",
            TensorDtype::I8 => "I8",
            TensorDtype::U8 => "U8",
            TensorDtype::Bool => "BOOL",
            TensorDtype::Ggml(block) => block.name(),
            TensorDtype::Other(name) => name,
        })
    }
}

fn decode<const N: usize>(bytes: &[u8], values: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (value_out, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value_out = value(*bytes);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "rounded to the nearest f32, as torch does")]
fn nearest(value: f64) -> f32 {
    value as f32
}

/// Sign, four bits of exponent with a bias of 7, three of mantissa; all ones but the sign is NaN.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte >> 7 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_have_infinities_and_nan_where_the_ocp_has_them() {
        let value = |dtype: TensorDtype, byte| {
            let mut value = [0.0];
            dtype.decode(&[byte], &mut value);
            value[0]
        };
        assert!(value(TensorDtype::F8E4m3, 0x7f).is_nan() && value(TensorDtype::F8E4m3, 0xff).is_nan());
        assert!(value(TensorDtype::F8E5m2, 0x7c).is_infinite() && value(TensorDtype::F8E5m2, 0x7f).is_nan());
    }
}
