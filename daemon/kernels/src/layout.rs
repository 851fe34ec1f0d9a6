//! Where each value of a packed matrix lies: the arithmetic behind [`crate::pack`]'s table.

use half::f16;

/// Outputs in a panel.
pub const PANEL: usize = 16;
/// The phases of a doubled image, which are the parities of a pixel's row and column; and the taps of each.
pub const PHASES: usize = 4;

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

impl Format {
    /// Every format.
    pub const ALL: [Format; 3] = [Format::Int8, Format::F16, Format::F32];

    /// Its name in bundles and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Int8 => "int8",
            Format::F16 => "f16",
            Format::F32 => "f32",
        }
    }
}

/// The shape of a packed matrix: everything but its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// How the values are stored.
    pub format: Format,
    /// Inputs (channels) of a tap.
    pub k: usize,
    /// 1, 9 for a 3×3 convolution, or [`PHASES`] for one in phases.
    pub taps: usize,
}

impl Layout {
    /// The matrices that this one is made of, each of which ends with a whole panel.
    pub(crate) fn phases(&self) -> usize {
        if self.taps == PHASES { PHASES } else { 1 }
    }

    /// Bytes of one panel of 16 outputs.
    pub fn panel_bytes(&self) -> usize {
        let values = self.taps * self.k * PANEL;
        match self.format {
            Format::Int8 => 2 * 64 + self.taps * 64 + values,
            Format::F16 => 64 + values * 2,
            Format::F32 => 64 + values * 4,
        }
    }

    /// Where the biases start in a panel.
    pub(crate) fn bias_at(&self) -> usize {
        if self.format == Format::Int8 { 64 } else { 0 }
    }

    /// Where the sums of an int8 panel start.
    pub(crate) fn sums_at(&self) -> usize {
        2 * 64
    }

    /// Where the values start in a panel.
    pub(crate) fn data_at(&self) -> usize {
        match self.format {
            Format::Int8 => self.sums_at() + self.taps * 64,
            Format::F16 | Format::F32 => 64,
        }
    }

    /// Bytes of the values of one tap.
    pub(crate) fn tap_bytes(&self) -> usize {
        self.k * PANEL * self.value_bytes()
    }

    fn value_bytes(&self) -> usize {
        match self.format {
            Format::Int8 => 1,
            Format::F16 => 2,
            Format::F32 => 4,
        }
    }

    /// Where a value lies in a panel.
    pub(crate) fn value_at(&self, tap: usize, k: usize, output: usize) -> usize {
        let index = match self.format {
            Format::Int8 => (k / 4 * PANEL + output) * 4 + k % 4,
            Format::F16 | Format::F32 => k * PANEL + output,
        };
        self.data_at() + tap * self.tap_bytes() + index * self.value_bytes()
    }
}

/// A stored value: of int8 the integer.
pub(crate) fn value(layout: &Layout, panel: &[u8], tap: usize, k: usize, output: usize) -> f32 {
    let at = layout.value_at(tap, k, output);
    match layout.format {
        Format::Int8 => f32::from(panel[at] as i8),
        Format::F16 => f16::from_le_bytes([panel[at], panel[at + 1]]).to_f32(),
        Format::F32 => f32_at(panel, at),
    }
}

/// The f32 at a byte offset.
pub(crate) fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A line of sixteen f32 at a byte offset.
#[inline(always)]
pub(crate) fn line_at(bytes: &[u8], at: usize) -> [f32; PANEL] {
    let bytes: &[u8; 4 * PANEL] = bytes[at..].first_chunk().expect("a line");
    std::array::from_fn(|i| f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]))
}
