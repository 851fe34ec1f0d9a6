//! Pictures turned by quarters.

use serde::{Deserialize, Serialize};

/// Clockwise, by quarters: written in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "u16")]
pub struct Turn(u8);

impl Turn {
    /// Width and height of what has `size` before it is turned.
    pub(super) fn size(self, (width, height): (usize, usize)) -> (usize, usize) {
        if self.0.is_multiple_of(2) { (width, height) } else { (height, width) }
    }

    /// Where the pixel at `x`, `y` of the turned picture, whose size is `size`, was before.
    pub(super) fn before(self, (width, height): (usize, usize), x: usize, y: usize) -> (usize, usize) {
        match self.0 {
            0 => (x, y),
            1 => (y, width - 1 - x),
            2 => (width - 1 - x, height - 1 - y),
            _ => (height - 1 - y, x),
        }
    }
}

impl TryFrom<f64> for Turn {
    type Error = String;

    fn try_from(degrees: f64) -> Result<Turn, String> {
        let quarters = (0..4).find(|quarters| f64::from(*quarters) * 90.0 == degrees);
        quarters.map(Turn).ok_or_else(|| format!("{degrees} is no quarter; 0, 90, 180 and 270 are allowed"))
    }
}

impl From<Turn> for u16 {
    fn from(turn: Turn) -> u16 {
        u16::from(turn.0) * 90
    }
}

#[cfg(test)]
mod tests {
    use image::{RgbImage, imageops};

    use super::*;

    #[test]
    fn turns_are_clockwise() {
        let image = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, y as u8, 0]));
        let turned: [fn(&RgbImage) -> RgbImage; 4] =
            [RgbImage::clone, imageops::rotate90, imageops::rotate180, imageops::rotate270];
        for (quarters, turned) in (0_u16..).zip(turned) {
            let turn = Turn::try_from(f64::from(quarters * 90)).unwrap();
            let (width, height) = turn.size((3, 2));
            let found = RgbImage::from_fn(width as u32, height as u32, |x, y| {
                let (x, y) = turn.before((width, height), x as usize, y as usize);
                *image.get_pixel(x as u32, y as u32)
            });
            assert_eq!((found, u16::from(turn)), (turned(&image), quarters * 90));
        }
        assert!([45.0, -90.0, 360.0, f64::NAN].into_iter().all(|degrees| Turn::try_from(degrees).is_err()));
    }
}
