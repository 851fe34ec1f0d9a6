//! An image to a larger one, by a small network (SRVGGNetCompact, of Real-ESRGAN by Wang et al. 2021).
//!
//! The network works on the small image's pixels. Of each it makes `3 · scale²` values: what is added to the pixel's
//! colours in each pixel of the square that it becomes (torch's `pixel_shuffle`, and the image enlarged by its nearest
//! neighbours). Its rows go from the strips into the large image as they are made, so that only bytes of that are held.

use image::RgbImage;
use rayon::prelude::*;

use crate::bundle::{Bundle, UpscalerFields};
use crate::error::{Error, Result};
use crate::graph::{InputShape, InputValues, Signature};
use crate::memory_plan::{Demand, RunBudget};
use crate::network::{Network, Tick};
use crate::picture::COLOURS;

/// The upscaler of a bundle.
pub struct Upscaler {
    network: Network,
    scale: usize,
    /// Width and height of the smallest image that the model paints.
    smallest: usize,
}

impl Upscaler {
    /// Opens the bundle's `upscaler`, if it has one; reads no weights yet.
    pub fn open(bundle: &Bundle) -> Result<Option<Upscaler>> {
        let Some(UpscalerFields { scale, .. }) = bundle.manifest.upscaler else { return Ok(None) };
        let network = Network::open(bundle, "upscaler", 1)?;
        Ok(Some(Upscaler { network, scale, smallest: bundle.manifest.picture.smallest }))
    }

    /// `image`, `factor` times as wide and as high. The factor divides the network's scale: of a larger one, squares of
    /// pixels become their mean.
    pub fn upscale(&mut self, image: &RgbImage, factor: usize, budget: RunBudget, tick: &mut Tick) -> Result<RgbImage> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let squares = Squares::new(self.scale, factor)?;
        let pixels = image.as_raw().iter().map(|value| unit(*value)).collect();
        let input = InputValues::F32(vec![1, height, width, COLOURS], pixels);
        let side = |side: usize| u32::try_from(side * factor).unwrap_or(u32::MAX);
        let mut large = vec![0; image.as_raw().len() * factor * factor];
        let output = self.output(width, height);
        self.network.run_into(input, output, budget, tick, &mut |rows, values| {
            let (small, made) = (width * COLOURS, width * squares.values());
            let large = &mut large[rows.start * small * factor * factor..rows.end * small * factor * factor];
            let from = &image.as_raw()[rows.start * small..rows.end * small];
            let rows = large.par_chunks_mut(small * factor * factor).zip(from.par_chunks(small));
            rows.zip(values.par_chunks(made)).for_each(|((large, from), values)| squares.write(from, values, large));
        })?;
        RgbImage::from_raw(side(width), side(height), large)
            .ok_or_else(|| Error::Internal("an enlarged image of another size".into()))
    }

    /// By how much the network enlarges width and height.
    pub(crate) fn scale(&self) -> usize {
        self.scale
    }

    /// Checks that the graph fits the manifest.
    pub(crate) fn check(&self) -> Result<()> {
        self.network.check(&self.signature(self.smallest, self.smallest), &format!("upscaler.scale {}", self.scale))
    }

    /// What enlarging an image of this size needs, both images and the file that is made of the large one included.
    pub(crate) fn demand(&mut self, width: usize, height: usize, factor: usize) -> Result<Demand> {
        let signature = self.signature(width, height);
        let demand = self.network.demand_into(&signature)?;
        let bytes = (width * height * COLOURS) as u64;
        let large = bytes * (factor * factor) as u64;
        Ok(Demand { beside: demand.beside + bytes + large, activations: large, ..demand })
    }

    /// Frees weights and schedules.
    pub(crate) fn forget(&mut self) {
        self.network.forget();
    }

    fn signature(&self, width: usize, height: usize) -> Signature {
        let inputs = vec![InputShape::F32(vec![1, height, width, COLOURS])];
        Signature { inputs, output: self.output(width, height) }
    }

    /// The shape of what the network makes.
    fn output(&self, width: usize, height: usize) -> Vec<usize> {
        vec![1, height, width, COLOURS * self.scale * self.scale]
    }
}

/// The squares of pixels that pixels become.
#[derive(Debug, Clone, Copy)]
struct Squares {
    /// Pixels of the network's square, on a side.
    scale: usize,
    /// Pixels of the square that is wanted, on a side.
    factor: usize,
}

impl Squares {
    fn new(scale: usize, factor: usize) -> Result<Squares> {
        match factor > 0 && scale.is_multiple_of(factor) {
            true => Ok(Squares { scale, factor }),
            false => Err(Error::Internal(format!("an upscaler of {scale} to {factor} times the size"))),
        }
    }

    /// Values that the network makes of a pixel.
    fn values(self) -> usize {
        COLOURS * self.scale * self.scale
    }

    /// Writes the rows that a row of pixels becomes.
    fn write(self, from: &[u8], values: &[f32], large: &mut [u8]) {
        let row = large.len() / self.factor;
        for (pixel, (from, values)) in from.chunks_exact(COLOURS).zip(values.chunks_exact(self.values())).enumerate() {
            for (colour, (from, values)) in from.iter().zip(values.chunks_exact(self.scale * self.scale)).enumerate() {
                for (down, right) in (0..self.factor).flat_map(|y| (0..self.factor).map(move |x| (y, x))) {
                    let at = down * row + (pixel * self.factor + right) * COLOURS + colour;
                    large[at] = byte(self.mean(unit(*from), values, down, right));
                }
            }
        }
    }

    /// A value of a square, of `values` that are to be added to `base`: the mean of those that it takes the place of.
    fn mean(self, base: f32, values: &[f32], down: usize, right: usize) -> f32 {
        let side = self.scale / self.factor;
        let mut sum = 0.0;
        for y in down * side..(down + 1) * side {
            for value in &values[y * self.scale + right * side..][..side] {
                sum += (base + value).clamp(0.0, 1.0);
            }
        }
        sum / (side * side) as f32
    }
}

/// From 0 to 1.
fn unit(value: u8) -> f32 {
    f32::from(value) / 255.0
}

/// Of a number from 0 to 1, rounded half to even.
fn byte(value: f32) -> u8 {
    (value * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pixels of a row, whose squares are 2 × 2, to as many or to one each.
    #[test]
    fn values_go_to_their_places_in_the_square() {
        let from = [0, 51, 102, 255, 255, 255];
        let red = [0.0, 0.2, 0.4, 0.2];
        let values: Vec<f32> = [red, [0.0; 4], [1.0; 4], [-1.0, 0.0, 1.0, -0.6], [0.0; 4], [0.0; 4]].concat();
        let mut large = [7; 24];
        Squares::new(2, 2).unwrap().write(&from, &values, &mut large);
        let rows: [[u8; 12]; 2] = [
            [0, 51, 255, 51, 51, 255, 0, 255, 255, 255, 255, 255],
            [102, 51, 255, 51, 51, 255, 255, 255, 255, 102, 255, 255],
        ];
        assert_eq!(large, rows.concat()[..]);
        let mut same = [7; 6];
        Squares::new(2, 1).unwrap().write(&from, &values, &mut same);
        // (0 + 51 + 102 + 51) / 4 and (0 + 255 + 255 + 102) / 4.
        assert_eq!(same, [51, 51, 255, 153, 255, 255]);
        assert!(Squares::new(4, 3).is_err() && Squares::new(2, 4).is_err());
    }

    #[test]
    fn values_out_of_range_or_not_numbers_end_at_a_byte() {
        assert_eq!([0.0, 0.5, 1.0, f32::NAN].map(byte), [0, 128, 255, 0]);
    }
}
