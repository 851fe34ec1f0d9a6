//! Picture files from pixels and back. What is read comes from strangers, so its size is checked before its pixels are
//! made; what is written as PNG carries its parameters as the A1111 web interface writes them, and other programs read.

use std::io::Cursor;

use diffused_engine::request::{Parameters, Picture};
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, ImageReader, Limits, RgbImage};

use crate::fault::{Code, Fault};

/// The widest and the highest picture that is read.
const MAX_SIDE: u32 = 8192;
/// The most pixels of a picture that is read: 24 megapixels, as cameras make them.
const MAX_PIXELS: u64 = 24 << 20;
const FIELD: &str = "init_images";

/// Reads a PNG or JPEG.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, Fault> {
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        _ => return Err(Fault::param(FIELD, "the picture is neither PNG nor JPEG")),
    };
    let broken = |error: image::ImageError| Fault::param(FIELD, format!("the picture is broken: {error}"));
    let reader = || ImageReader::with_format(Cursor::new(bytes), format);
    let (width, height) = reader().into_dimensions().map_err(broken)?;
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        let most = format!("{MAX_SIDE} a side and {} megapixels are allowed", MAX_PIXELS >> 20);
        return Err(Fault::too_large(FIELD, format!("the picture has {width}×{height} pixels; {most}")));
    }
    let mut reader = reader();
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    Ok(reader.decode().map_err(broken)?.into_rgb8())
}

/// Writes a PNG with its parameters in a text chunk.
pub(super) fn png(picture: &Picture) -> Result<Vec<u8>, Fault> {
    let mut file = vec![];
    write_png(picture, &mut file).map_err(|error| Fault::new(Code::Internal, format!("the PNG: {error}")))?;
    Ok(file)
}

fn write_png(picture: &Picture, file: &mut Vec<u8>) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(file, picture.image.width(), picture.image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let text = infotext(&picture.parameters);
    // The older text chunk holds Latin-1 alone.
    if text.chars().all(|c| u32::from(c) < 256) {
        encoder.add_text_chunk("parameters".into(), text)?;
    } else {
        encoder.add_itxt_chunk("parameters".into(), text)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.image.as_raw())?;
    writer.finish()
}

/// Writes a JPEG of `quality`, 1 to 100.
pub(super) fn jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>, Fault> {
    let mut file = vec![];
    let encoder = JpegEncoder::new_with_quality(&mut file, quality);
    let written = picture.image.write_with_encoder(encoder);
    written.map_err(|error| Fault::new(Code::Internal, format!("the JPEG: {error}")))?;
    Ok(file)
}

/// The parameters as one text, in the web interface's form.
fn infotext(parameters: &Parameters) -> String {
    let Parameters { prompt, negative_prompt, width, height, steps, cfg_scale, seed, sampler, strength } = parameters;
    let mut text = format!("{prompt}\n");
    if !negative_prompt.is_empty() {
        text += &format!("Negative prompt: {negative_prompt}\n");
    }
    let sampler = sampler.label();
    text +=
        &format!("Steps: {steps}, Sampler: {sampler}, CFG scale: {cfg_scale}, Seed: {seed}, Size: {width}x{height}");
    if let Some(strength) = strength {
        text += &format!(", Denoising strength: {strength}");
    }
    text + &format!(", Version: diffused {}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use diffused_engine::sampler::Kind;
    use image::GrayImage;

    use super::*;

    fn picture(prompt: &str, strength: Option<f64>) -> Picture {
        let parameters = Parameters {
            prompt: prompt.into(),
            negative_prompt: "blurry".into(),
            width: 16,
            height: 8,
            steps: 20,
            cfg_scale: 7.5,
            seed: 42,
            sampler: Kind::EulerAncestral,
            strength,
        };
        let image = RgbImage::from_fn(16, 8, |x, y| image::Rgb([x as u8 * 16, y as u8 * 32, 99]));
        Picture { image, parameters }
    }

    fn text_of(file: &[u8]) -> String {
        let reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let info = reader.info();
        let latin = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
        let unicode = info.utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()));
        let (keyword, text) = latin.chain(unicode).next().unwrap();
        assert_eq!(keyword, "parameters");
        text
    }

    #[test]
    fn a_png_keeps_pixels_and_parameters() {
        let picture = picture("a house", Some(0.5));
        let file = png(&picture).unwrap();
        assert_eq!(decode(&file).unwrap(), picture.image);
        assert_eq!(
            text_of(&file),
            format!(
                "a house\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 16x8, \
                 Denoising strength: 0.5, Version: diffused {}",
                env!("CARGO_PKG_VERSION")
            )
        );
        assert!(text_of(&png(&self::picture("家", None)).unwrap()).starts_with("家\n"));
    }

    #[test]
    fn a_jpeg_is_smaller_with_less_quality() {
        let picture = picture("a", None);
        let (good, poor) = (jpeg(&picture, 95).unwrap(), jpeg(&picture, 30).unwrap());
        assert!(poor.len() < good.len());
        assert_eq!(decode(&good).unwrap().dimensions(), (16, 8));
    }

    #[test]
    fn strangers_pictures_are_checked_before_they_are_unpacked() {
        let code = |bytes: &[u8]| decode(bytes).unwrap_err().code;
        assert_eq!(code(b"GIF89a"), Code::InvalidParam);
        assert_eq!(code(b""), Code::InvalidParam);
        let file = png(&picture("a", None)).unwrap();
        assert_eq!(code(&file[..file.len() / 2]), Code::InvalidParam);
        let mut bomb = Cursor::new(vec![]);
        GrayImage::new(9000, 10).write_to(&mut bomb, ImageFormat::Png).unwrap();
        assert_eq!(code(&bomb.into_inner()), Code::TooLarge);
    }
}
