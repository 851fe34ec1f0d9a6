//! From an image to a display's file, row by row: beside the image and the file no more than two bytes a pixel are held.

use diffused_engine::picture::Fit;
use image::RgbImage;

use super::dither::Ditherer;
use super::gamut::Gamut;
use super::inks::widened;
use super::packing::{Codes, Packing};
use super::palette::Palette;
use super::resample::{ScaledRows, ShownPart, TurnedImage};
use super::spec::{DisplaySpec, FileSpec};
use super::turn::Turn;

/// Tables of colours and a PNG's window, bytes.
const TABLES: u64 = 1 << 20;

/// The bytes of the file that `spec` asks for.
///
/// # Errors
///
/// The PNG cannot be written.
pub fn render(image: &RgbImage, spec: &DisplaySpec) -> Result<Vec<u8>, png::EncodingError> {
    let size = spec.size((image.width() as usize, image.height() as usize));
    let mut numbers = numbers(image, spec, size);
    match (&spec.palette, spec.file) {
        (palette, FileSpec::Raw(packing, scan)) => {
            numbers.iter_mut().for_each(|number| *number = code(palette, *number, packing));
            Ok(Codes { codes: &numbers, size }.pack(packing, scan))
        }
        (Palette::Few(swatches), FileSpec::Png) => indexed(&numbers, size, swatches.iter().map(|s| s.measured)),
        (Palette::Few(swatches), FileSpec::DriverPng) => indexed(&numbers, size, swatches.iter().map(|s| s.nominal)),
        (Palette::Rgb565, FileSpec::Png | FileSpec::DriverPng) => full(&numbers, size),
    }
}

/// The most memory that it takes beside an image of this size, bytes.
pub fn memory(image: (usize, usize), spec: &DisplaySpec) -> u64 {
    let (width, height) = spec.size(image);
    let (_, shown) = spec.rotate.size(image);
    let held = 4 * shown.div_ceil(height).max(1) + 2;
    let file = match spec.file {
        FileSpec::Raw(packing, _) => packing.bytes(width, height).max(packing.bytes(height, width)),
        FileSpec::Png | FileSpec::DriverPng => match &spec.palette {
            Palette::Few(_) => 2 * width * height,
            Palette::Rgb565 => 2 * 3 * width * height,
        },
    };
    (2 * width * height + file + held * width * 3 * 4 + 64 * width) as u64 + TABLES
}

/// The numbers of the colours, row by row.
fn numbers(image: &RgbImage, spec: &DisplaySpec, (width, height): (usize, usize)) -> Vec<u16> {
    let inks = spec.palette.inks();
    let (mut gamut, mut ditherer) = (Gamut::of(&inks), Ditherer::new(&inks, spec.dither, width));
    let view = TurnedImage::new(image, spec.rotate);
    let place = Placement::of(view.size(), (width, height), spec.fit);
    let mut rows = ScaledRows::new(view, place.across, place.down, place.width, place.height);
    let mut numbers = vec![0; width * height];
    let mut row = vec![[u8::MAX; 3]; width];
    for (y, numbers) in numbers.chunks_mut(width).enumerate() {
        if (place.top..place.top + place.height).contains(&y) {
            rows.next_into(&mut row[place.left..place.left + place.width]);
        } else {
            row.fill([u8::MAX; 3]);
        }
        let lights: Vec<_> = row.iter().map(|colour| gamut.target(*colour)).collect();
        ditherer.row(&lights, numbers);
    }
    numbers
}

/// Which part of an image is shown, and where.
struct Placement {
    across: ShownPart,
    down: ShownPart,
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Placement {
    fn of(image: (usize, usize), (width, height): (usize, usize), fit: Fit) -> Placement {
        let whole = |length: usize| ShownPart { start: 0.0, length: length as f64 };
        let all = Placement { across: whole(image.0), down: whole(image.1), left: 0, top: 0, width, height };
        let scales = [image.0 as f64 / width as f64, image.1 as f64 / height as f64];
        match fit {
            Fit::Stretch => all,
            Fit::Cover => {
                let scale = scales[0].min(scales[1]);
                let middle = |all: usize, shown: usize| {
                    let length = (shown as f64 * scale).min(all as f64);
                    ShownPart { start: (all as f64 - length) / 2.0, length }
                };
                Placement { across: middle(image.0, width), down: middle(image.1, height), ..all }
            }
            Fit::Contain => {
                let scale = scales[0].max(scales[1]);
                let inner = |all: usize, room: usize| ((all as f64 / scale).round() as usize).clamp(1, room);
                let (inner_width, inner_height) = (inner(image.0, width), inner(image.1, height));
                let (left, top) = ((width - inner_width) / 2, (height - inner_height) / 2);
                Placement { left, top, width: inner_width, height: inner_height, ..all }
            }
        }
    }
}

/// What the display's memory holds for the colour of that number.
fn code(palette: &Palette, number: u16, packing: Packing) -> u16 {
    match (palette, packing) {
        (Palette::Rgb565, _) => number,
        (Palette::Few(swatches), Packing::Rgb565Big | Packing::Rgb565Little) => {
            let [red, green, blue] = swatches[usize::from(number)].nominal.map(u16::from);
            red >> 3 << 11 | green >> 2 << 5 | blue >> 3
        }
        (Palette::Few(swatches), _) => swatches[usize::from(number)].code,
    }
}

/// A PNG with a palette.
fn indexed(
    numbers: &[u16],
    size: (usize, usize),
    colours: impl ExactSizeIterator<Item = [u8; 3]>,
) -> Result<Vec<u8>, png::EncodingError> {
    let (depth, packing) = match colours.len() {
        0..=2 => (png::BitDepth::One, Packing::OneBit),
        3..=4 => (png::BitDepth::Two, Packing::TwoBits),
        5..=16 => (png::BitDepth::Four, Packing::FourBits),
        _ => (png::BitDepth::Eight, Packing::Byte),
    };
    let mut file = vec![];
    let mut encoder = png::Encoder::new(&mut file, size.0 as u32, size.1 as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(depth);
    encoder.set_palette(colours.flatten().collect::<Vec<u8>>());
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&Codes { codes: numbers, size }.pack(packing, Turn::default()))?;
    writer.finish()?;
    Ok(file)
}

/// A PNG of three bytes a pixel, of 16 bits a pixel.
fn full(numbers: &[u16], size: (usize, usize)) -> Result<Vec<u8>, png::EncodingError> {
    let colour = |number: &u16| {
        let number = u32::from(*number);
        [widened(number >> 11, 5), widened(number >> 5 & 63, 6), widened(number & 31, 5)]
    };
    let mut file = vec![];
    let mut encoder = png::Encoder::new(&mut file, size.0 as u32, size.1 as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&numbers.iter().flat_map(colour).collect::<Vec<u8>>())?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests;
