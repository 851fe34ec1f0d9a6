//! How true a display's picture is: the mean light of blocks of 8 by 8 pixels, as an eye some steps away sees it, is held
//! against the image's, between the display's black and white, and against what Pillow's `quantize` makes of it.

use std::path::{Path, PathBuf};

use diffused::display::panels::KnownPanels;
use diffused::display::render::render;
use diffused::display::spec::name_or_keys;
use diffused_tests::root;
use image::{Rgb, RgbImage};
use serde_json::json;

const PALETTES: [&str; 7] =
    ["acep-7", "black-white", "black-white-red", "black-white-yellow-red", "grey-4", "grey-16", "spectra-6"];
/// Pixels along a block.
const BLOCK: u32 = 8;

fn goldens() -> PathBuf {
    root().join("tests/goldens")
}

fn open(path: &Path) -> RgbImage {
    image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into_rgb8()
}

fn light(value: u8) -> f64 {
    let value = f64::from(value) / 255.0;
    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// Lightness and two axes of colour, hundredths (OKLab).
fn lab([r, g, b]: [f64; 3]) -> [f64; 3] {
    let l = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
    let m = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
    let s = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
    [
        21.045_425_53 * l + 79.361_778_5 * m - 0.407_204_68 * s,
        197.799_849_51 * l - 242.859_220_5 * m + 45.059_370_99 * s,
        2.590_403_71 * l + 78.277_176_62 * m - 80.867_576_6 * s,
    ]
}

/// How the mean of each block looks; `of` gives a pixel's light.
fn looks(image: &RgbImage, of: impl Fn(Rgb<u8>) -> [f64; 3]) -> Vec<[f64; 3]> {
    let mut looks = vec![];
    for (top, left) in (0..image.height() / BLOCK).flat_map(|y| (0..image.width() / BLOCK).map(move |x| (y, x))) {
        let mut sum = [0.0; 3];
        for (y, x) in (0..BLOCK).flat_map(|y| (0..BLOCK).map(move |x| (y, x))) {
            let seen = of(*image.get_pixel(left * BLOCK + x, top * BLOCK + y));
            (0..3).for_each(|i| sum[i] += seen[i] / f64::from(BLOCK * BLOCK));
        }
        looks.push(lab(sum));
    }
    looks
}

/// The mean difference.
fn difference(a: &[[f64; 3]], b: &[[f64; 3]]) -> f64 {
    let distance = |(a, b): (&[f64; 3], &[f64; 3])| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
    a.iter().zip(b).map(distance).sum::<f64>() / a.len() as f64
}

/// The differences of ours, dithered in this way, and of Pillow's.
fn differences(name: &str, picture: &Path, palette: &str, dither: &str) -> (f64, f64) {
    let image = open(picture);
    let output = name_or_keys(json!({"palette": palette, "dither": dither})).unwrap().unwrap();
    let spec = output.resolve(&KnownPanels::default()).unwrap().unwrap();
    let ours = image::load_from_memory(&render(&image, &spec).unwrap()).unwrap().into_rgb8();
    let pillow = open(&goldens().join(format!("panels/{name}-{palette}.png")));
    let extreme = |value: u8| {
        let plain = RgbImage::from_pixel(8, 8, Rgb([value; 3]));
        image::load_from_memory(&render(&plain, &spec).unwrap()).unwrap().into_rgb8().get_pixel(0, 0).0.map(light)
    };
    let (black, white) = (extreme(0), extreme(255));
    let wanted = looks(&image, |pixel| {
        let seen = pixel.0.map(light);
        std::array::from_fn(|i| black[i] + (white[i] - black[i]) * seen[i])
    });
    let shown = |image: &RgbImage| looks(image, |pixel| pixel.0.map(light));
    (difference(&shown(&ours), &wanted), difference(&shown(&pillow), &wanted))
}

/// The most that the mean of a block may differ on a ramp of greys, which every palette can mix, in hundredths of OKLab.
const MOST_ON_GREYS: f64 = 1.5;

#[test]
fn means_are_nearer_to_the_image_than_pillows() {
    let pictures = [
        ("ramp", goldens().join("panels/ramp.png")),
        ("house", root().join("daemon/assets/house.png")),
        ("meadow", goldens().join("pictures/demo-ddim-37.png")),
    ];
    println!(
        "mean difference of 8×8 blocks, ΔE OKLab × 100: ours by Floyd–Steinberg and blue noise, Pillow's quantize"
    );
    for (name, picture) in &pictures {
        for palette in PALETTES {
            let (diffused, pillow) = differences(name, picture, palette, "floyd-steinberg");
            let (textured, _) = differences(name, picture, palette, "blue-noise");
            println!("{name:8} {palette:22} {diffused:6.2} {textured:6.2} {pillow:6.2}");
            assert!(diffused < pillow, "{name} {palette}: {diffused}, Pillow has {pillow}");
            if *name == "ramp" {
                assert!(diffused < MOST_ON_GREYS, "{palette}: {diffused}");
            }
        }
    }
}
