//! Lanczos resampling in Pillow's fixed-point arithmetic (`Resample.c`): an image becomes the bytes that the reference scales
//! it to. In between are bytes too, so it matters whether rows or columns come first; here and there of as many rows as a new
//! row needs.

use std::collections::VecDeque;
use std::ops::Range;

use image::{GenericImageView, ImageBuffer, Pixel};

/// Places after the point of a weight, binary.
const PRECISION: u32 = 32 - 8 - 2;
/// How far the filter reaches, in pixels of the smaller scale.
const REACH: f64 = 3.0;

/// The neighbours, from `first` on, that make one new pixel of a row or a column.
struct Neighbours {
    first: usize,
    weights: Vec<i32>,
}

/// Draws `image`, scaled to the width and the height `size`, into `canvas`, its left upper corner at `at`. Of what lies outside
/// nothing is computed. Beside both images it holds a row for each neighbour of a new row.
pub(crate) fn draw<I>(image: &I, size: (u32, u32), canvas: &mut ImageBuffer<I::Pixel, Vec<u8>>, at: (i64, i64))
where
    I: GenericImageView,
    I::Pixel: Pixel<Subpixel = u8> + 'static,
{
    let channels = usize::from(I::Pixel::CHANNEL_COUNT);
    let (own, canvas_width) = (image.dimensions(), canvas.width() as usize);
    let (columns, lines) = (shown(size.0, canvas.width(), at.0), shown(size.1, canvas.height(), at.1));
    let (left, top) = ((i64::from(columns.start) + at.0) as usize, (i64::from(lines.start) + at.1) as usize);
    let (across, down) = (neighbours(own.0, size.0, columns), neighbours(own.1, size.1, lines));
    let columns_first = columns_come_first(own, size);
    let row = |y: u32| {
        let mut row = vec![0; own.0 as usize * channels];
        for (x, values) in (0..own.0).zip(row.chunks_exact_mut(channels)) {
            values.copy_from_slice(image.get_pixel(x, y).channels());
        }
        if columns_first { row } else { widened(&row, &across, channels) }
    };
    let mut first = down.first().map_or(0, |neighbours| neighbours.first);
    let (mut rows, mut next) = (VecDeque::new(), first);
    for (neighbours, canvas_row) in down.iter().zip(canvas.chunks_exact_mut(canvas_width * channels).skip(top)) {
        while next < neighbours.first + neighbours.weights.len() {
            rows.push_back(row(next as u32));
            next += 1;
        }
        while first < neighbours.first {
            rows.pop_front();
            first += 1;
        }
        let values = |at: usize| mixed(rows.iter().map(|row: &Vec<u8>| row[at]), &neighbours.weights);
        let new_row = &mut canvas_row[left * channels..][..across.len() * channels];
        if columns_first {
            let mixed: Vec<u8> = (0..own.0 as usize * channels).map(values).collect();
            new_row.copy_from_slice(&widened(&mixed, &across, channels));
        } else {
            new_row.iter_mut().enumerate().for_each(|(at, value)| *value = values(at));
        }
    }
}

/// Whether columns get their new height before rows get their new width, as in Pillow 13: where the image loses rows, and
/// more than twice as many as columns.
fn columns_come_first(own: (u32, u32), size: (u32, u32)) -> bool {
    let lost = |own: u32, new: u32| i64::from(own) - i64::from(new);
    lost(own.1, size.1) > 0.max(2 * lost(own.0, size.0))
}

/// Which of `len` pixels lie within a canvas of `room` where the first is at `at`.
fn shown(len: u32, room: u32, at: i64) -> Range<u32> {
    let within = |place: i64| place.clamp(0, i64::from(len)) as u32;
    within(-at)..within(i64::from(room) - at)
}

/// A row in another width.
fn widened(row: &[u8], across: &[Neighbours], channels: usize) -> Vec<u8> {
    let mut wide = Vec::with_capacity(across.len() * channels);
    for neighbours in across {
        for channel in 0..channels {
            let values = row[neighbours.first * channels + channel..].iter().step_by(channels).copied();
            wide.push(mixed(values, &neighbours.weights));
        }
    }
    wide
}

/// The sum of values, each times its weight, rounded half up.
fn mixed(values: impl Iterator<Item = u8>, weights: &[i32]) -> u8 {
    let half = 1 << (PRECISION - 1);
    let sum = values.zip(weights).fold(half, |sum, (value, weight)| sum + i32::from(value) * weight);
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Of those of `to` new pixels, made of `from`, that are shown. Where both are as many, each is made of itself.
fn neighbours(from: u32, to: u32, shown: Range<u32>) -> Vec<Neighbours> {
    let scale = f64::from(from) / f64::from(to);
    let stretch = scale.max(1.0);
    let (support, shrink) = (REACH * stretch, 1.0 / stretch);
    let of_new = |i: u32| {
        let centre = (f64::from(i) + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from as usize);
        let weight = |x: usize| lanczos((x as f64 - centre + 0.5) * shrink);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        Neighbours { first, weights: weights.iter().map(|weight| fixed(weight / sum)).collect() }
    };
    shown.map(of_new).collect()
}

/// Rounded half away from zero.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION);
    if weight < 0.0 { (scaled - 0.5) as i32 } else { (scaled + 0.5) as i32 }
}

fn lanczos(x: f64) -> f64 {
    if (-REACH..REACH).contains(&x) { sinc(x) * sinc(x / REACH) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    libm::sin(x) / x
}
