//! Picture files from pixels. A PNG carries its parameters as the A1111 web interface writes them, and other programs read.

use diffused_engine::request::{Parameters, Picture};
use image::codecs::jpeg::JpegEncoder;

use crate::fault::{Code, Fault};

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
    use std::io::Cursor;

    use diffused_engine::sampler::Kind;
    use image::RgbImage;

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
        assert_eq!(image::load_from_memory(&file).unwrap().into_rgb8(), picture.image);
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
        assert_eq!(image::load_from_memory(&good).unwrap().into_rgb8().dimensions(), (16, 8));
    }
}
