//! Image files from pixels. A PNG carries its parameters as the A1111 web interface writes them, and other programs
//! read.

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::request::Parameters;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::contract::fault::{Code, Fault};

/// Writes a PNG with its parameters in a text chunk.
pub(super) fn png(image: &RgbImage, parameters: &Parameters) -> Result<Vec<u8>, Fault> {
    let mut file = vec![];
    write_png(image, parameters, &mut file).map_err(|error| Fault::new(Code::Internal, format!("the PNG: {error}")))?;
    Ok(file)
}

fn write_png(image: &RgbImage, parameters: &Parameters, file: &mut Vec<u8>) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(file, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let text = infotext(parameters);
    // The older text chunk holds Latin-1 alone.
    if text.chars().all(|c| u32::from(c) < 256) {
        encoder.add_text_chunk("parameters".into(), text)?;
    } else {
        encoder.add_itxt_chunk("parameters".into(), text)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.as_raw())?;
    writer.finish()
}

/// Writes a JPEG of `quality`, 1 to 100.
pub(super) fn jpeg(image: &RgbImage, quality: u8) -> Result<Vec<u8>, Fault> {
    let mut file = vec![];
    let encoder = JpegEncoder::new_with_quality(&mut file, quality);
    let written = image.write_with_encoder(encoder);
    written.map_err(|error| Fault::new(Code::Internal, format!("the JPEG: {error}")))?;
    Ok(file)
}

/// The parameters as one text, in the web interface's form.
fn infotext(parameters: &Parameters) -> String {
    let Parameters {
        prompt, negative_prompt, width, height, steps, cfg_scale, seed, sampler, strength, decoder, ..
    } = parameters;
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
    if *decoder == AutoencoderKind::Tiny {
        text += ", VAE Decoder: TAESD";
    }
    text + &format!(", Version: diffused {}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use diffused_engine::sampler::SamplerKind;

    use super::*;

    fn parameters(prompt: &str, strength: Option<f64>) -> Parameters {
        Parameters {
            prompt: prompt.into(),
            negative_prompt: "blurry".into(),
            width: 16,
            height: 8,
            steps: 20,
            cfg_scale: 7.5,
            seed: 42,
            sampler: SamplerKind::EulerAncestral,
            strength,
            decoder: AutoencoderKind::Full,
            fit: Default::default(),
            background: Default::default(),
            inpainting: None,
        }
    }

    fn image() -> RgbImage {
        RgbImage::from_fn(16, 8, |x, y| image::Rgb([x as u8 * 16, y as u8 * 32, 99]))
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
        let file = png(&image(), &parameters("a house", Some(0.5))).unwrap();
        assert_eq!(image::load_from_memory(&file).unwrap().into_rgb8(), image());
        assert_eq!(
            text_of(&file),
            format!(
                "a house\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 16x8, \
                 Denoising strength: 0.5, Version: diffused {}",
                env!("CARGO_PKG_VERSION")
            )
        );
        assert!(text_of(&png(&image(), &parameters("家", None)).unwrap()).starts_with("家\n"));
    }

    #[test]
    fn a_jpeg_is_smaller_with_less_quality() {
        let (good, poor) = (jpeg(&image(), 95).unwrap(), jpeg(&image(), 30).unwrap());
        assert!(poor.len() < good.len());
        assert_eq!(image::load_from_memory(&good).unwrap().into_rgb8().dimensions(), (16, 8));
    }
}
