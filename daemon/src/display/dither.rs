//! Few colours that look like many: each row's light becomes numbers of colours, and what a pixel could not show its
//! neighbours make up for.

use serde::{Deserialize, Serialize};

use super::inks::Inks;
use super::light::{Light, oklab, zip};

/// How colours are mixed that the display lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Dither {
    /// Each pixel's error goes to four neighbours, in rows that alternate in direction (Floyd and Steinberg, 1976): the
    /// truest colours.
    #[default]
    FloydSteinberg,
    /// Three quarters of the error go to six neighbours (Bill Atkinson, MacPaint): more contrast, calmer light and dark
    /// areas.
    Atkinson,
    /// A fixed texture decides between the colours of a mixture: no worms and no grid, and an area that stays the same
    /// keeps its pixels.
    BlueNoise,
    /// The nearest colour.
    None,
}

/// Of the error, so many sixteenths go to a neighbour so many pixels on and rows down.
const FLOYD_STEINBERG: [(isize, usize, f32); 4] = [(1, 0, 7.0), (-1, 1, 3.0), (0, 1, 5.0), (1, 1, 1.0)];
const ATKINSON: [(isize, usize, f32); 6] =
    [(1, 0, 2.0), (2, 0, 2.0), (-1, 1, 2.0), (0, 1, 2.0), (1, 1, 2.0), (0, 2, 2.0)];
/// Pixels beside a row that errors may go to.
const MARGIN: usize = 2;
/// The most error of a primary that is carried on.
const MOST_ERROR: f32 = 0.5;
/// How many colours a mixture of the texture's has.
const MIXED: usize = 32;
/// The texture's side, pixels.
const SIDE: usize = 64;
/// Each number from 0 to 255 sixteen times, every run of them evenly spread (void and cluster, Robert Ulichney, 1993).
static TEXTURE: &[u8; SIDE * SIDE] = include_bytes!("../../assets/blue-noise.bin");

/// Dithers a picture row by row, from the top.
#[derive(Debug)]
pub(super) struct Ditherer<'a> {
    inks: &'a Inks,
    method: Dither,
    /// Of this row and the next two.
    errors: [Vec<Light>; 3],
    row: usize,
}

impl Ditherer<'_> {
    pub(super) fn new(inks: &Inks, method: Dither, width: usize) -> Ditherer<'_> {
        Ditherer { inks, method, errors: std::array::from_fn(|_| vec![[0.0; 3]; width + 2 * MARGIN]), row: 0 }
    }

    /// The colours' numbers of the next row.
    pub(super) fn row(&mut self, lights: &[Light], numbers: &mut [u16]) {
        match self.method {
            Dither::FloydSteinberg => self.diffuse(lights, numbers, &FLOYD_STEINBERG),
            Dither::Atkinson => self.diffuse(lights, numbers, &ATKINSON),
            Dither::BlueNoise => {
                for (x, (light, number)) in lights.iter().zip(numbers).enumerate() {
                    *number = self.mixed(*light, TEXTURE[self.row % SIDE * SIDE + x % SIDE]);
                }
            }
            Dither::None => {
                lights.iter().zip(numbers).for_each(|(light, number)| *number = self.inks.nearest(*light).0)
            }
        }
        self.row += 1;
    }

    fn diffuse(&mut self, lights: &[Light], numbers: &mut [u16], shares: &[(isize, usize, f32)]) {
        let backwards = self.row % 2 == 1;
        for step in 0..lights.len() {
            let x = if backwards { lights.len() - 1 - step } else { step };
            let error = self.errors[0][x + MARGIN].map(|error| error.clamp(-MOST_ERROR, MOST_ERROR));
            let wanted = zip(lights[x], error, |light, error| light + error);
            let (number, shown) = self.inks.nearest(wanted);
            numbers[x] = number;
            let rest = zip(wanted, shown, |wanted, shown| wanted - shown);
            for (right, down, share) in shares {
                let right = if backwards { -right } else { *right };
                let there = &mut self.errors[*down][(x + MARGIN).wrapping_add_signed(right)];
                *there = zip(*there, rest, |sum, rest| sum + share / 16.0 * rest);
            }
        }
        self.errors.rotate_left(1);
        self.errors[2].fill([0.0; 3]);
    }

    /// One of the colours that together are `light`, by `threshold`: the darker ones for the lower thresholds.
    fn mixed(&self, light: Light, threshold: u8) -> u16 {
        let mut rest = [0.0; 3];
        let mut colours = [(0.0, 0); MIXED];
        for colour in &mut colours {
            let wanted = zip(light, rest, |light, rest| light + rest);
            let (number, shown) = self.inks.nearest_light(wanted);
            rest = zip(wanted, shown, |wanted, shown| wanted - shown);
            *colour = (self.lightness(number, shown), number);
        }
        colours.sort_by(|a, b| f32::total_cmp(&a.0, &b.0));
        colours[usize::from(threshold) * MIXED / 256].1
    }

    fn lightness(&self, number: u16, light: Light) -> f32 {
        match self.inks {
            Inks::Few(inks) => inks[usize::from(number)].lightness,
            Inks::Rgb565 { .. } => oklab(light)[0],
        }
    }
}
