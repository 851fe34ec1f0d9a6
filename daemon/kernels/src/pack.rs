//! How weights lie in memory and in a bundle's `.weights` file: panels of 16 outputs, self-contained.
//!
//! A matrix of `n` outputs by `taps × k` inputs (`taps` is 1 for a linear layer or a 1×1 convolution, 9 for a 3×3 one,
//! taps in row-major order) is stored as `ceil(n / 16)` panels, one after the other, each:
//!
//! | Format | Panel |
//! |---|---|
//! | int8 | `scale f32[16]`, `bias f32[16]`, `sums i32[taps][16]`, `data i8[taps][k/4][16][4]` |
//! | f16 | `bias f32[16]`, `data f16[taps][k][16]` |
//! | f32 | `bias f32[16]`, `data f32[taps][k][16]` |
//!
//! Little-endian; every part is a multiple of 64 bytes (f16 data: of 32). Outputs past `n` are zero. `sums` are the sums of
//! a tap's int8 weights per output: VNNI multiplies u8 by s8 and takes 128 times the sum off.
//! int8 needs `k % 4 == 0`. One 64-byte line of int8 data is one AVX-512 VNNI operand, two AVX2, four NEON SDOT operands.

/// Outputs in a panel.
pub const PANEL: usize = 16;

/// How the weights of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// int8, one f32 scale per output.
    Int8,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

/// The shape of a packed matrix: everything but its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// How the values are stored.
    pub format: Format,
    /// Inputs (channels) of a tap.
    pub k: usize,
    /// 1, or 9 for a 3×3 convolution.
    pub taps: usize,
}

impl Layout {
    /// Bytes of one panel of 16 outputs.
    pub fn panel_bytes(&self) -> usize {
        let values = self.taps * self.k * PANEL;
        match self.format {
            Format::Int8 => 2 * 64 + self.taps * 64 + values,
            Format::F16 => 64 + values * 2,
            Format::F32 => 64 + values * 4,
        }
    }
}
