//! Image files, whole and damaged.

use std::io::Cursor;

use diffused_engine::picture::Fit;
use diffused_engine::sampler::SamplerKind;
use image::{DynamicImage, GrayImage, Rgb, RgbaImage};

use super::*;

fn open(bytes: &[u8]) -> Result<InitImage, Fault> {
    // The folder outlives the test: the image is read from it.
    let image = InitImage::of_bytes(bytes, tempfile::tempdir().unwrap().keep().join("init-image"))?;
    image.store(bytes).map(|()| image)
}

fn parameters(width: usize, height: usize) -> Parameters {
    Parameters {
        prompt: "a".into(),
        negative_prompt: String::new(),
        width,
        height,
        steps: 20,
        cfg_scale: 7.5,
        seed: 42,
        sampler: SamplerKind::EulerAncestral,
        strength: Some(0.5),
        schedule: None,
        eta: None,
        decoder: diffused_engine::bundle::AutoencoderKind::Full,
        prompt_syntax: diffused_engine::prompt::PromptSyntax::default(),
        clip_skip: None,
        guidance_interval: None,
        cache_interval: None,
        prompt_template: None,
        negative_prompt_template: None,
        hires: None,
        fit: Fit::Stretch,
        background: Colour::WHITE,
        inpainting: None,
        upscale: None,
        upscaler: None,
    }
}

fn file(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut file = Cursor::new(vec![]);
    image.into().write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

#[test]
fn untrusted_images_are_checked_before_they_are_unpacked() {
    let code = |bytes: &[u8]| open(bytes).unwrap_err().code;
    assert_eq!(code(b"GIF89a"), Code::InvalidParam);
    assert_eq!(code(b"GIF89a\0\0\0\0\0\0\0"), Code::InvalidParam);
    assert_eq!(code(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), Code::InvalidParam);
    assert_eq!(code(b""), Code::InvalidParam);
    assert_eq!(code(&file(GrayImage::new(9000, 10))), Code::TooLarge);
    assert_eq!(code(&file(GrayImage::new(8000, 8000))), Code::TooLarge);
}

#[test]
fn jpegs_differ_in_what_they_take() {
    let mut jpeg = Cursor::new(vec![]);
    RgbImage::new(40, 40).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    let mut jpeg = jpeg.into_inner();
    assert_eq!(open(&jpeg).unwrap().header.unpacking, RGB);
    let frame = jpeg.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    jpeg[frame + 1] = 0xc2;
    assert_eq!(open(&jpeg).unwrap().header.unpacking, PROGRESSIVE);
}

#[test]
fn a_file_that_ends_early_is_refused_when_it_arrives() {
    let image = RgbImage::from_fn(40, 40, |x, y| Rgb([x as u8, y as u8, (x * y) as u8]));
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let mut whole = Cursor::new(vec![]);
        image.write_to(&mut whole, format).unwrap();
        let whole = whole.into_inner();
        assert!(open(&whole).is_ok());
        let fault = open(&whole[..whole.len() * 2 / 3]).unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidParam, Some(FIELD)));
        assert!(fault.message.contains("the image is cut off"), "{}", fault.message);
    }
}

#[test]
fn a_damaged_file_is_an_error_when_it_is_unpacked() {
    let mut bytes = file(RgbImage::from_fn(40, 40, |x, y| Rgb([x as u8, y as u8, (x * y) as u8])));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    let fault = open(&bytes).unwrap().unpack(&parameters(64, 64)).unwrap_err();
    assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidParam, Some(FIELD)));
}

/// A file of those that `tests/goldens/make_init_images.py` has written.
fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/init_images");
    std::fs::read(folder.join(name)).unwrap()
}

/// The golden file `name`, unpacked in its own size.
fn unpacked(name: &str, background: Colour) -> RgbImage {
    let image = open(&golden(name)).unwrap();
    let (width, height) = image.size();
    image.unpack(&Parameters { background, ..parameters(width as usize, height as usize) }).unwrap()
}

fn png(name: &str) -> RgbImage {
    image::load_from_memory_with_format(&golden(name), ImageFormat::Png).unwrap().into_rgb8()
}

/// The largest difference of a value; more than any where the sizes differ.
fn difference(ours: &RgbImage, theirs: &RgbImage) -> u8 {
    if ours.dimensions() != theirs.dimensions() {
        return u8::MAX;
    }
    ours.as_raw().iter().zip(theirs.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(u8::MAX)
}

#[test]
fn photographs_stand_upright() {
    let upright = png("upright.png");
    for orientation in 1..=8 {
        for (format, most) in [("jpg", 3), ("png", 0), ("webp", 0)] {
            let name = format!("turned-{orientation}.{format}");
            let found = difference(&unpacked(&name, Colour::WHITE), &upright);
            assert!(found <= most, "{name}: {found}");
        }
    }
    for name in ["turned-behind.png", "turned-text.png", "turned-packed-text.png"] {
        assert_eq!(unpacked(name, Colour::WHITE), upright, "{name}");
    }
}

#[test]
fn a_turned_photograph_is_scaled_as_an_upright_one() {
    let of_size = |name: &str, fit| {
        let parameters = Parameters { fit, background: Colour([9, 8, 7]), ..parameters(64, 96) };
        open(&golden(name)).unwrap().unpack(&parameters).unwrap()
    };
    for fit in Fit::ALL {
        let upright = of_size("upright.png", fit);
        for orientation in 1..=8 {
            let turned = of_size(&format!("turned-{orientation}.png"), fit);
            assert!(turned == upright, "{fit:?}, {orientation}");
        }
    }
}

#[test]
fn what_a_webps_codes_take_is_known_before_they_are_unpacked() {
    // 40 groups of five codes, each with a table of 1024 entries.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/init_image");
    let image = open(&std::fs::read(folder.join("codes.webp")).unwrap()).unwrap();
    let (codes, tables) = (image.header.codes, 40 * 5 * 4096);
    assert!((tables..tables + tables / 4).contains(&codes), "{codes} bytes");
    assert!(image.memory(&parameters(64, 64)) > codes);
    assert_eq!(image.unpack(&parameters(4, 4)).unwrap(), RgbImage::new(4, 4));
    for name in ["rgba.webp", "turned-1.webp", "animated.webp", "rgba-lossy.webp"] {
        let codes = open(&golden(name)).unwrap().header.codes;
        assert!((1..200 << 10).contains(&codes), "{name}: {codes} bytes");
    }
    assert_eq!(open(&golden("lossy.webp")).unwrap().header.codes, 0);
}

#[test]
fn transparency_lies_over_the_background() {
    for name in ["rgba", "grey-alpha", "palette", "rgba16"] {
        for (background, colour) in [("white", Colour::WHITE), ("orange", Colour([255, 128, 0]))] {
            let found =
                difference(&unpacked(&format!("{name}.png"), colour), &png(&format!("{name}-{background}.png")));
            // Pillow cuts 16 bits to 8 where we round.
            assert!(found <= u8::from(name == "rgba16"), "{name} over {background}: {found}");
        }
    }
}

#[test]
fn other_formats_are_read_and_of_animations_the_first_frame() {
    let lossless = ["plain.bmp", "rgba.webp", "animated.gif", "animated.webp", "transparent.gif"].map(|name| (name, 0));
    for (name, most) in lossless.into_iter().chain([("lossy.webp", 1), ("rgba-lossy.webp", 1)]) {
        let found = difference(&unpacked(name, Colour::WHITE), &png(&format!("{name}.png")));
        assert!(found <= most, "{name}: {found}");
        let whole = golden(name);
        // Within the first frame.
        let cut = open(&whole[..whole.len() / 4]).and_then(|image| image.unpack(&parameters(64, 64)));
        let fault = cut.map(drop).expect_err(name);
        assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidParam, Some(FIELD)), "{name}");
    }
}

#[test]
fn init_images_fit_as_the_references_do() {
    let image = open(&golden("wide.png")).unwrap();
    for (fit, name) in [(Fit::Stretch, "stretch"), (Fit::Cover, "cover"), (Fit::Contain, "contain")] {
        for (width, height) in [(64, 64), (37, 50), (91, 17)] {
            let parameters = Parameters { fit, background: Colour([255, 128, 0]), ..parameters(width, height) };
            let name = format!("wide-{name}-{width}x{height}.png");
            assert!(image.unpack(&parameters).unwrap() == png(&name), "{name}");
        }
    }
}

#[test]
fn it_is_scaled_to_what_is_painted() {
    let image = open(&file(RgbImage::from_pixel(100, 30, Rgb([9, 8, 7])))).unwrap();
    assert_eq!(image.size(), (100, 30));
    assert_eq!(image.unpack(&parameters(64, 128)).unwrap(), RgbImage::from_pixel(64, 128, Rgb([9, 8, 7])));
}

#[test]
fn what_does_not_fit_the_memory_is_refused_with_what_fits() {
    let image = open(&file(RgbaImage::new(3000, 2000))).unwrap();
    let parameters = parameters(512, 512);
    let process = Options::default().process();
    let room = |bytes| Options { memory: Some(process + bytes), ..Options::default() };
    assert!(image.check(&parameters, Options::default()).is_ok());
    assert!(image.check(&parameters, room(image.memory(&parameters))).is_ok());
    let options = room(24 << 20);
    let fault = image.check(&parameters, options).unwrap_err();
    assert_eq!((fault.code, fault.field.as_deref()), (Code::OutOfMemory, Some(FIELD)));
    assert!(fault.message.starts_with("the image's 3000×2000 pixels need "), "{}", fault.message);
    let most = fault.message.rsplit_once("at most ").unwrap().1.strip_suffix(" fit").unwrap();
    let (width, height) = most.split_once('×').unwrap();
    let (width, height): (u32, u32) = (width.parse().unwrap(), height.parse().unwrap());
    let of_size = |width, height| InitImage { header: Header { width, height, ..image.header }, ..image.clone() };
    assert!(of_size(width, height).check(&parameters, options).is_ok());
    assert!(of_size(width + 6, height + 4).check(&parameters, options).is_err());
    assert!(image.check(&parameters, room(0)).unwrap_err().message.ends_with("none fits"));
}
