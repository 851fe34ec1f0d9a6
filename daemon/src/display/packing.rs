//! Pixels as the memory of a display holds them: rows from the top, each row in whole bytes, its last bits 0.

use serde::{Deserialize, Serialize};

use super::turn::Turn;

/// How a display's memory holds pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// Eight pixels a byte, the left one in the highest bit.
    #[serde(rename = "1bpp")]
    OneBit,
    /// Four pixels a byte, the left one in the highest bits.
    #[serde(rename = "2bpp")]
    TwoBits,
    /// Two pixels a byte, the left one in the higher half.
    #[serde(rename = "4bpp")]
    FourBits,
    /// Two pixels a byte, the left one in the lower half.
    #[serde(rename = "4bpp-low-first")]
    FourBitsLowFirst,
    /// Two pixels a byte as in `4bpp`: the left half of every row, then the right half of every row, for displays with two
    /// controllers.
    #[serde(rename = "4bpp-halves")]
    Halves,
    /// A byte a pixel.
    #[serde(rename = "8bpp")]
    Byte,
    /// Two planes, one after the other, each as in `1bpp`: the lowest bit of the colours' codes, then the next one.
    #[serde(rename = "two-planes")]
    TwoPlanes,
    /// Two bytes a pixel: red in the highest five bits, green in six, blue in five; the higher byte first.
    #[serde(rename = "rgb565-be")]
    Rgb565Big,
    /// The same with the lower byte first.
    #[serde(rename = "rgb565-le")]
    Rgb565Little,
}

impl Packing {
    /// The largest code of a colour that it holds.
    pub(super) fn most(self) -> u16 {
        match self {
            Packing::OneBit => 1,
            Packing::TwoBits | Packing::TwoPlanes => 3,
            Packing::FourBits | Packing::FourBitsLowFirst | Packing::Halves => 15,
            Packing::Byte => 255,
            Packing::Rgb565Big | Packing::Rgb565Little => u16::MAX,
        }
    }

    /// Bytes of `width` by `height` pixels.
    pub(super) fn bytes(self, width: usize, height: usize) -> usize {
        match self {
            Packing::OneBit => width.div_ceil(8) * height,
            Packing::TwoBits => width.div_ceil(4) * height,
            Packing::FourBits | Packing::FourBitsLowFirst => width.div_ceil(2) * height,
            Packing::Halves => 2 * (width / 2).div_ceil(2).max(width.div_ceil(2).div_ceil(2)) * height,
            Packing::Byte => width * height,
            Packing::TwoPlanes => 2 * width.div_ceil(8) * height,
            Packing::Rgb565Big | Packing::Rgb565Little => 2 * width * height,
        }
    }
}

/// Colours' codes, row by row, of a picture of `size`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codes<'a> {
    pub(super) codes: &'a [u16],
    pub(super) size: (usize, usize),
}

impl Codes<'_> {
    /// The bytes of the picture once it is turned.
    pub(super) fn pack(self, packing: Packing, turn: Turn) -> Vec<u8> {
        let (width, height) = turn.size(self.size);
        let code = |x: usize, y: usize| {
            let (x, y) = turn.before((width, height), x, y);
            self.codes[y * self.size.0 + x]
        };
        let mut bytes = Vec::with_capacity(packing.bytes(width, height));
        let rows = |from, to| (0..height).map(move |y| (from..to).map(move |x| code(x, y)));
        match packing {
            Packing::OneBit => rows(0, width).for_each(|row| highest_first(row, 1, &mut bytes)),
            Packing::TwoBits => rows(0, width).for_each(|row| highest_first(row, 2, &mut bytes)),
            Packing::FourBits => rows(0, width).for_each(|row| highest_first(row, 4, &mut bytes)),
            Packing::FourBitsLowFirst => {
                let before = |row: &mut dyn Iterator<Item = u16>| {
                    let mut packed = vec![];
                    highest_first(row, 4, &mut packed);
                    packed.into_iter().map(|byte: u8| byte.rotate_left(4))
                };
                rows(0, width).for_each(|mut row| bytes.extend(before(&mut row)));
            }
            Packing::Halves => {
                let middle = width.div_ceil(2);
                rows(0, middle).for_each(|row| highest_first(row, 4, &mut bytes));
                rows(middle, width).for_each(|row| highest_first(row, 4, &mut bytes));
            }
            Packing::Byte => rows(0, width).for_each(|row| bytes.extend(row.map(|code| code as u8))),
            Packing::TwoPlanes => {
                rows(0, width).for_each(|row| highest_first(row.map(|code| code & 1), 1, &mut bytes));
                rows(0, width).for_each(|row| highest_first(row.map(|code| code >> 1 & 1), 1, &mut bytes));
            }
            Packing::Rgb565Big => rows(0, width).for_each(|row| bytes.extend(row.flat_map(u16::to_be_bytes))),
            Packing::Rgb565Little => rows(0, width).for_each(|row| bytes.extend(row.flat_map(u16::to_le_bytes))),
        }
        bytes
    }
}

/// A row of codes of `bits` bits, the first in the highest bits.
fn highest_first(row: impl Iterator<Item = u16>, bits: usize, bytes: &mut Vec<u8>) {
    let (mut byte, mut room) = (0, 8);
    for code in row {
        room -= bits;
        byte |= (code as u8) << room;
        if room == 0 {
            bytes.push(byte);
            (byte, room) = (0, 8);
        }
    }
    if room < 8 {
        bytes.push(byte);
    }
}
