//! A picture in another size, row by row from the top: of a large panel's picture no more than a few rows are held. The
//! filter is Catmull and Rom's cubic, widened where the picture becomes smaller (as Pillow's `BICUBIC`).

use std::collections::VecDeque;

use image::RgbImage;

use super::turn::Turn;

/// A picture, turned.
#[derive(Debug)]
pub(super) struct TurnedImage<'a> {
    image: &'a RgbImage,
    turn: Turn,
}

impl TurnedImage<'_> {
    pub(super) fn new(image: &RgbImage, turn: Turn) -> TurnedImage<'_> {
        TurnedImage { image, turn }
    }

    /// Width and height, pixels.
    pub(super) fn size(&self) -> (usize, usize) {
        self.turn.size((self.image.width() as usize, self.image.height() as usize))
    }

    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let (x, y) = self.turn.before(self.size(), x, y);
        self.image.get_pixel(x as u32, y as u32).0
    }
}

/// A part of a picture along one direction, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShownPart {
    pub(super) start: f64,
    pub(super) length: f64,
}

/// The pixels that one pixel of the result is made of.
#[derive(Debug)]
struct PixelTaps {
    first: usize,
    weights: Vec<f32>,
}

/// For each of `count` pixels what it is made of; the section lies within a picture of `all` pixels.
fn taps(section: ShownPart, all: usize, count: usize) -> Vec<PixelTaps> {
    let scale = section.length / count as f64;
    let wide = scale.max(1.0);
    let of = |number: usize| {
        let centre = section.start + (number as f64 + 0.5) * scale;
        let first = ((centre - 2.0 * wide + 0.5).max(0.0) as usize).min(all - 1);
        let end = ((centre + 2.0 * wide + 0.5).max(0.0) as usize).clamp(first + 1, all);
        let weights: Vec<f64> = (first..end).map(|at| cubic((at as f64 + 0.5 - centre) / wide)).collect();
        let sum: f64 = weights.iter().sum();
        PixelTaps { first, weights: weights.iter().map(|weight| (weight / sum) as f32).collect() }
    };
    (0..count).map(of).collect()
}

/// Catmull and Rom's cubic.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    match x {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

/// Gives the rows of a part of a picture in another size.
#[derive(Debug)]
pub(super) struct ScaledRows<'a> {
    view: TurnedImage<'a>,
    across: Vec<PixelTaps>,
    down: VecDeque<PixelTaps>,
    /// ScaledRows of the picture in the result's width, from the number on that is beside them.
    held: VecDeque<Vec<f32>>,
    first: usize,
}

impl ScaledRows<'_> {
    /// Of `across` by `down`, which lie within `view`, `width` by `height` pixels are made.
    pub(super) fn new(
        view: TurnedImage<'_>,
        across: ShownPart,
        down: ShownPart,
        width: usize,
        height: usize,
    ) -> ScaledRows<'_> {
        let (all_across, all_down) = view.size();
        let (across, down) = (taps(across, all_across, width), taps(down, all_down, height).into());
        ScaledRows { view, across, down, held: VecDeque::new(), first: 0 }
    }

    /// The next row into `row`, which has the result's width.
    pub(super) fn next_into(&mut self, row: &mut [[u8; 3]]) {
        let Some(taps) = self.down.pop_front() else { return };
        while self.first < taps.first && self.held.pop_front().is_some() {
            self.first += 1;
        }
        if self.held.is_empty() {
            self.first = taps.first;
        }
        while self.first + self.held.len() < taps.first + taps.weights.len() {
            let line = self.line(self.first + self.held.len());
            self.held.push_back(line);
        }
        let lines: Vec<&[f32]> = self.held.iter().skip(taps.first - self.first).map(Vec::as_slice).collect();
        for (x, pixel) in row.iter_mut().enumerate() {
            for (channel, value) in pixel.iter_mut().enumerate() {
                let values = lines.iter().map(|line| line[3 * x + channel]);
                let sum = values.zip(&taps.weights).fold(0.0, |sum, (value, weight)| sum + value * weight);
                *value = (sum + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }

    /// A row of the picture in the result's width.
    fn line(&self, y: usize) -> Vec<f32> {
        let pixels: Vec<[u8; 3]> = (0..self.view.size().0).map(|x| self.view.pixel(x, y)).collect();
        let mut line = Vec::with_capacity(3 * self.across.len());
        for taps in &self.across {
            let mut sum = [0.0; 3];
            for (pixel, weight) in pixels[taps.first..].iter().zip(&taps.weights) {
                (0..3).for_each(|channel| sum[channel] += f32::from(pixel[channel]) * weight);
            }
            line.extend(sum);
        }
        line
    }
}
