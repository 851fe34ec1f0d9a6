//! Files for displays, read as the displays' own descriptions have it and held against each other.

use std::collections::BTreeSet;
use std::io::Cursor;

use super::*;
use crate::display::dither::Dither;
use crate::display::panels::KnownPanels;
use crate::display::spec::{OutputRequest, name_or_keys};

const DITHERS: [Dither; 4] = [Dither::FloydSteinberg, Dither::Atkinson, Dither::BlueNoise, Dither::None];

fn spec(output: serde_json::Value) -> DisplaySpec {
    asked(output).resolve(&KnownPanels::default()).unwrap().unwrap()
}

fn asked(output: serde_json::Value) -> OutputRequest {
    name_or_keys(output).unwrap().unwrap()
}

/// Of every colour, without symmetry.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let part = |value: u32, of: u32| (value * 255 / of.max(2).saturating_sub(1)) as u8;
        image::Rgb([part(x, width), part(y, height), part((x * 7 + y * 13) % 32, 32)])
    })
}

/// The colours of a PNG, whatever kind it is of.
fn decoded(file: &[u8]) -> RgbImage {
    image::load_from_memory(file).unwrap().into_rgb8()
}

/// The palette of a PNG.
fn palette_of(file: &[u8]) -> Vec<[u8; 3]> {
    let reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    assert_eq!(reader.info().color_type, png::ColorType::Indexed);
    reader.info().palette.as_ref().unwrap().chunks(3).map(|c| [c[0], c[1], c[2]]).collect()
}

#[test]
fn every_pixel_is_one_of_the_palettes_colours() {
    let palettes =
        ["spectra-6", "acep-7", "black-white-yellow-red", "black-white-red", "black-white", "grey-4", "grey-16"];
    for (number, palette) in palettes.into_iter().enumerate() {
        for (width, height) in [(1, 1), (1, 9), (13, 7), (32, 5), (101, 1)] {
            for dither in DITHERS {
                let rotate = (number + width) % 4 * 90;
                let fit = ["cover", "contain", "stretch"][(number + height) % 3];
                let keys = serde_json::json!({
                    "width": width, "height": height, "palette": palette, "dither": dither, "rotate": rotate, "fit": fit,
                });
                let file = render(&picture(31, 17), &spec(keys.clone())).unwrap();
                let (allowed, image) = (palette_of(&file), decoded(&file));
                assert_eq!(image.dimensions(), (width as u32, height as u32), "{keys}");
                assert!(image.pixels().all(|pixel| allowed.contains(&pixel.0)), "{keys}");
            }
        }
    }
}

#[test]
fn what_a_display_can_show_is_shown_as_it_is() {
    for (palette, count) in [("spectra-6", 6), ("acep-7", 7), ("grey-16", 16)] {
        let swatches = palette_of(&render(&picture(8, 8), &spec(serde_json::json!({"palette": palette}))).unwrap());
        // Black and white are the display's own.
        let (black, white) = (RgbImage::new(24, 24), RgbImage::from_pixel(24, 24, image::Rgb([255; 3])));
        for dither in DITHERS {
            let shown = |image: &RgbImage| {
                let keys = serde_json::json!({"palette": palette, "dither": dither});
                decoded(&render(image, &spec(keys)).unwrap()).pixels().map(|pixel| pixel.0).collect::<BTreeSet<_>>()
            };
            assert_eq!(shown(&black), BTreeSet::from([swatches[0]]), "{palette} {dither:?}");
            let lightest = if palette == "grey-16" { swatches[15] } else { swatches[1] };
            assert_eq!(shown(&white), BTreeSet::from([lightest]), "{palette} {dither:?}");
        }
        assert_eq!(swatches.len(), count);
    }
}

#[test]
fn an_image_of_the_displays_size_is_not_scaled() {
    // 16 bits a pixel without dithering: each value is the nearest of its level.
    let image = picture(40, 30);
    for rotate in [0_u16, 90, 180, 270] {
        let keys = serde_json::json!({"palette": "rgb565", "dither": "none", "rotate": rotate});
        let found = decoded(&render(&image, &spec(keys)).unwrap());
        let turned = match rotate {
            0 => image.clone(),
            90 => image::imageops::rotate90(&image),
            180 => image::imageops::rotate180(&image),
            _ => image::imageops::rotate270(&image),
        };
        assert_eq!(found.dimensions(), turned.dimensions());
        for (found, wanted) in found.pixels().zip(turned.pixels()) {
            let near = |channel: usize, step: u8| found.0[channel].abs_diff(wanted.0[channel]) <= step / 2 + 1;
            assert!(near(0, 8) && near(1, 4) && near(2, 8), "{found:?} for {wanted:?}");
        }
    }
}

#[test]
fn the_shape_is_kept_as_asked() {
    // Red to the left, blue to the right, green in the middle.
    let image = RgbImage::from_fn(90, 30, |x, _| image::Rgb([[255, 0, 0], [0, 255, 0], [0, 0, 255]][x as usize / 30]));
    let shown = |fit: &str| {
        let keys = serde_json::json!({"width": 30, "height": 30, "palette": "rgb565", "dither": "none", "fit": fit});
        decoded(&render(&image, &spec(keys)).unwrap())
    };
    assert!(shown("cover").pixels().all(|pixel| pixel.0 == [0, 255, 0]));
    let stretched = shown("stretch");
    assert_eq!([2, 15, 27].map(|x| stretched.get_pixel(x, 15).0), [[255, 0, 0], [0, 255, 0], [0, 0, 255]]);
    let contained = shown("contain");
    assert_eq!(
        [(2, 15), (15, 15), (15, 2), (15, 27)].map(|(x, y)| contained.get_pixel(x, y).0),
        [[255, 0, 0], [0, 255, 0], [255; 3], [255; 3]]
    );
}

/// The colour in a memory of that size at a column and a row.
type PixelReader = fn(&[u8], (usize, usize), usize, usize) -> [u8; 3];

/// Reads pixels out of a display's memory, written from what the display's makers say of it and not from `packing`.
struct MemoryReader {
    /// Width and height of the memory.
    size: (usize, usize),
    /// The colour at a column and row of the memory.
    read: PixelReader,
    /// The picture's pixel there, for a memory of that size.
    upright: fn((usize, usize), usize, usize) -> (usize, usize),
}

const BLACK: [u8; 3] = [0; 3];
const WHITE: [u8; 3] = [255; 3];
const YELLOW: [u8; 3] = [255, 255, 0];
const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// Two pixels a byte, the even one in the high half.
fn half_byte(memory: &[u8], width: usize, x: usize, y: usize) -> u8 {
    let byte = memory[(y * width + x) / 2];
    if x.is_multiple_of(2) { byte / 16 } else { byte % 16 }
}

fn bit(memory: &[u8], width: usize, x: usize, y: usize) -> bool {
    memory[y * width.div_ceil(8) + x / 8] & (0x80 >> (x % 8)) != 0
}

fn spectra(code: u8) -> [u8; 3] {
    match code {
        0 => BLACK,
        1 => WHITE,
        2 => YELLOW,
        3 => RED,
        5 => BLUE,
        6 => GREEN,
        other => panic!("Spectra 6 has no colour {other}"),
    }
}

fn acep(code: u8) -> [u8; 3] {
    [BLACK, WHITE, GREEN, BLUE, RED, YELLOW, [255, 128, 0]][usize::from(code)]
}

/// Two planes: in the first 0 is black, in the second 1 is red, whatever the first has.
fn three_colours(memory: &[u8], (width, height): (usize, usize), x: usize, y: usize) -> [u8; 3] {
    let (black, red) = memory.split_at(width.div_ceil(8) * height);
    if bit(red, width, x, y) {
        RED
    } else if bit(black, width, x, y) {
        WHITE
    } else {
        BLACK
    }
}

/// A memory as wide as the left half of the display, then the right half.
fn spectra_halves(memory: &[u8], (width, height): (usize, usize), x: usize, y: usize) -> [u8; 3] {
    let half = width / 2;
    let (left, right) = memory.split_at(half / 2 * height);
    spectra(if x < half { half_byte(left, half, x, y) } else { half_byte(right, half, x - half, y) })
}

fn as_it_is(_: (usize, usize), x: usize, y: usize) -> (usize, usize) {
    (x, y)
}

/// The memory holds the picture turned counterclockwise: its first column is the picture's top row, from the right.
fn counterclockwise((_, height): (usize, usize), x: usize, y: usize) -> (usize, usize) {
    (height - 1 - y, x)
}

/// The memory holds the picture turned clockwise: its last column is the picture's top row.
fn clockwise((width, _): (usize, usize), x: usize, y: usize) -> (usize, usize) {
    (y, width - 1 - x)
}

fn grey(value: u8) -> [u8; 3] {
    [value; 3]
}

/// What the makers say of each display, by its name.
fn reader(name: &str) -> MemoryReader {
    let reader = |size, read, upright| MemoryReader { size, read, upright };
    match name {
        "inky-impression-4" => reader((640, 400), |m, (w, _), x, y| acep(half_byte(m, w, x, y)), as_it_is),
        "inky-impression-5.7" | "waveshare-5.65-f" => {
            reader((600, 448), |m, (w, _), x, y| acep(half_byte(m, w, x, y)), as_it_is)
        }
        "inky-impression-7.3" | "waveshare-7.3-f" => {
            reader((800, 480), |m, (w, _), x, y| acep(half_byte(m, w, x, y)), as_it_is)
        }
        "inky-impression-7.3-spectra" | "waveshare-7.3-e" => {
            reader((800, 480), |m, (w, _), x, y| spectra(half_byte(m, w, x, y)), as_it_is)
        }
        "inky-impression-13.3" => reader((1200, 1600), spectra_halves, clockwise),
        "waveshare-13.3-e" => reader((1200, 1600), spectra_halves, counterclockwise),
        "waveshare-7.3-g" => {
            let read = |m: &[u8], (w, _): (usize, usize), x: usize, y: usize| {
                [BLACK, WHITE, YELLOW, RED][usize::from(m[(y * w + x) / 4] >> (6 - 2 * (x % 4)) & 3)]
            };
            reader((800, 480), read, as_it_is)
        }
        "waveshare-7.5-v2" => {
            reader((800, 480), |m, (w, _), x, y| if bit(m, w, x, y) { BLACK } else { WHITE }, as_it_is)
        }
        "waveshare-7.5-b-v2" => reader((800, 480), three_colours, as_it_is),
        "waveshare-4.2-v2" => {
            reader((400, 300), |m, (w, _), x, y| if bit(m, w, x, y) { WHITE } else { BLACK }, as_it_is)
        }
        "waveshare-4.2-b-v2" => reader((400, 300), three_colours, as_it_is),
        "waveshare-2.9-b-v4" => reader((128, 296), three_colours, counterclockwise),
        "waveshare-2.66-b" => reader((152, 296), three_colours, counterclockwise),
        "waveshare-2.13-v4" => {
            reader((122, 250), |m, (w, _), x, y| if bit(m, w, x, y) { WHITE } else { BLACK }, counterclockwise)
        }
        "waveshare-9.7" => reader((1200, 825), |m, (w, _), x, y| grey(half_byte(m, w, x, y) * 17), as_it_is),
        "waveshare-10.3" => reader((1872, 1404), |m, (w, _), x, y| grey(half_byte(m, w, x, y) * 17), as_it_is),
        "m5paper" => reader((960, 540), |m, (w, _), x, y| grey(255 - half_byte(m, w, x, y) * 17), as_it_is),
        "inkplate-10" => {
            let read = |m: &[u8], (w, _): (usize, usize), x: usize, y: usize| {
                grey([0, 36, 73, 109, 146, 182, 219, 255][usize::from(half_byte(m, w, x, y))])
            };
            reader((1200, 825), read, as_it_is)
        }
        "lilygo-t5-4.7" => {
            let read = |m: &[u8], (w, _): (usize, usize), x: usize, y: usize| {
                let byte = m[(y * w + x) / 2];
                grey(17 * if x % 2 == 1 { byte / 16 } else { byte % 16 })
            };
            reader((960, 540), read, as_it_is)
        }
        "st7789-240x240" => reader((240, 240), rgb565_high_first, as_it_is),
        "st7789-320x240" | "ili9341-320x240" => reader((320, 240), rgb565_high_first, as_it_is),
        other => panic!("{other}: write down here what its makers say of its memory"),
    }
}

fn rgb565_high_first(memory: &[u8], (width, _): (usize, usize), x: usize, y: usize) -> [u8; 3] {
    let at = 2 * (y * width + x);
    let (high, low) = (u32::from(memory[at]), u32::from(memory[at + 1]));
    let (red, green, blue) = (high / 8, high % 8 * 8 + low / 32, low % 32);
    // A display of more bits repeats the first ones.
    [8 * red + red / 4, 4 * green + green / 16, 8 * blue + blue / 4].map(|value| value as u8)
}

#[test]
fn each_displays_memory_holds_what_its_png_shows() {
    let image = picture(160, 120);
    for name in KnownPanels::default().names() {
        let file = |format: &str| render(&image, &spec(serde_json::json!({"panel": name, "format": format}))).unwrap();
        let (memory, shown) = (file("packed"), decoded(&file("driver-png")));
        let MemoryReader { size: (width, height), read, upright } = reader(name);
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            let (column, row) = upright((width, height), x, y);
            let found = read(&memory, (width, height), x, y);
            assert_eq!(found, shown.get_pixel(column as u32, row as u32).0, "{name} at {column}, {row}");
        }
        let whole = match name {
            "waveshare-2.13-v4" => 16 * 250,
            _ => memory.len(),
        };
        assert_eq!(memory.len(), whole, "{name}");
    }
}

#[test]
fn rows_of_any_width_are_packed_in_whole_bytes() {
    for (width, height) in [(1_usize, 1_usize), (7, 3), (8, 3), (9, 2), (13, 5), (3, 11)] {
        let image = picture(width as u32, height as u32);
        for (palette, bits) in [("black-white", 1_usize), ("grey-4", 2), ("grey-16", 4)] {
            let file =
                |format| render(&image, &spec(serde_json::json!({"palette": palette, "format": format}))).unwrap();
            let (packed, shown) = (file("packed"), decoded(&file("png")));
            let stride = (width * bits).div_ceil(8);
            assert_eq!(packed.len(), stride * height);
            let swatches = palette_of(&file("png"));
            for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
                let code = packed[y * stride + x * bits / 8] >> (8 - bits - x * bits % 8) & ((1 << bits) - 1);
                assert_eq!(swatches[usize::from(code)], shown.get_pixel(x as u32, y as u32).0);
            }
        }
        for (format, word) in
            [("rgb565-be", u16::from_be_bytes as fn([u8; 2]) -> u16), ("rgb565-le", u16::from_le_bytes)]
        {
            let words = render(&image, &spec(serde_json::json!({"format": format}))).unwrap();
            let shown = decoded(&render(&image, &spec(serde_json::json!({"palette": "rgb565"}))).unwrap());
            assert_eq!(words.len(), 2 * width * height);
            for (bytes, pixel) in words.chunks(2).zip(shown.pixels()) {
                let big = word([bytes[0], bytes[1]]).to_be_bytes();
                assert_eq!(rgb565_high_first(&big, (1, 1), 0, 0), pixel.0, "{format}");
            }
        }
    }
}

#[test]
fn keys_replace_the_panels_own() {
    let small = spec(serde_json::json!({"panel": "waveshare-7.5-v2", "width": 100, "height": 50, "rotate": 90}));
    assert_eq!((small.size((8, 8)), small.upright()), ((100, 50), Some((50, 100))));
    let grey = render(&picture(30, 20), &spec(serde_json::json!({"panel": "waveshare-4.2-v2", "palette": "grey-4"})));
    assert_eq!(palette_of(&grey.unwrap()).len(), 4);
    let own = serde_json::json!({"palette": [[0, 0, 0], [255, 255, 255], [200, 0, 0]]});
    assert_eq!(palette_of(&render(&picture(30, 20), &spec(own)).unwrap()), [[0; 3], [255; 3], [200, 0, 0]]);
    assert_eq!(asked("none".into()).resolve(&KnownPanels::default()), Ok(None));
    assert_eq!(spec(serde_json::json!({"palette": "grey-4"})).size((30, 20)), (30, 20));
}

#[test]
fn what_cannot_be_shown_is_told() {
    let cases = [
        (serde_json::json!("inky"), "the panel `inky` is unknown; known are ili9341-320x240, "),
        (serde_json::json!({"palette": "grey-5"}), "the palette `grey-5` is unknown; known are acep-7, "),
        (serde_json::json!({"palette": [[1, 2, 3]]}), "a palette of 1; 2 to 256 colours"),
        (serde_json::json!({"dither": "none"}), "a panel or a palette is missing"),
        (serde_json::json!({"palette": "grey-4", "width": 100}), "width and height belong together"),
        (serde_json::json!({"palette": "grey-4", "width": 5000, "height": 1}), "5000×1 pixels are not allowed"),
        (serde_json::json!({"palette": "grey-4", "width": 4096, "height": 4097}), "4096×4097 pixels"),
        (serde_json::json!({"palette": "grey-4", "width": 0, "height": 4}), "0×4 pixels"),
        (serde_json::json!({"panel": "waveshare-7.5-v2", "palette": "grey-4", "format": "packed"}), "the code 3 of"),
    ];
    for (output, beginning) in cases {
        let error = asked(output.clone()).resolve(&KnownPanels::default()).unwrap_err();
        assert!(error.starts_with(beginning), "{output}: {error}");
    }
    for output in [serde_json::json!(7), serde_json::json!({"rotate": 45}), serde_json::json!({"colour": 1})] {
        assert!(name_or_keys(output.clone()).is_err(), "{output}");
    }
}
