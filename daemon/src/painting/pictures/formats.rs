//! Image files from pixels. They carry their parameters as the A1111 web interface writes them, and other programs
//! read.

use std::io::Cursor;

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::hires::{Hires, HiresUpscaler};
use diffused_engine::inpainting::{Inpainting, MaskedContent};
use diffused_engine::request::Parameters;
use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::{ImageDecoder, ImageEncoder, RgbImage};

use super::user_comment;
use crate::contract::fault::{Code, Fault};

/// The text chunk's keyword.
const KEYWORD: &str = "parameters";

/// Writes a PNG with `text` in a text chunk.
pub(super) fn png(image: &RgbImage, text: &str) -> Result<Vec<u8>, Fault> {
    let mut file = vec![];
    write_png(image, text, &mut file).map_err(|error| Fault::new(Code::Internal, format!("the PNG: {error}")))?;
    Ok(file)
}

fn write_png(image: &RgbImage, text: &str, file: &mut Vec<u8>) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(file, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // The older text chunk holds Latin-1 alone.
    if text.chars().all(|c| u32::from(c) < 256) {
        encoder.add_text_chunk(KEYWORD.into(), text.into())?;
    } else {
        encoder.add_itxt_chunk(KEYWORD.into(), text.into())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.as_raw())?;
    writer.finish()
}

/// Writes a JPEG of `quality`, 1 to 100, with `text` in its EXIF comment.
pub(super) fn jpeg(image: &RgbImage, text: &str, quality: u8) -> Result<Vec<u8>, Fault> {
    let mut file = vec![];
    let mut encoder = JpegEncoder::new_with_quality(&mut file, quality);
    let with_text = encoder.set_exif_metadata(user_comment::write(text)).map_err(|error| error.to_string());
    let written = with_text.and_then(|()| image.write_with_encoder(encoder).map_err(|error| error.to_string()));
    written.map_err(|error| Fault::new(Code::Internal, format!("the JPEG: {error}")))?;
    Ok(file)
}

/// The text that a file of this program carries.
pub fn text_of(file: &[u8]) -> Option<String> {
    if let Ok(reader) = png::Decoder::new(Cursor::new(file)).read_info() {
        let info = reader.info();
        let latin = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == KEYWORD);
        let unicode = || info.utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD)?.get_text().ok();
        return latin.map(|chunk| chunk.text.clone()).or_else(unicode);
    }
    user_comment::read(&JpegDecoder::new(Cursor::new(file)).ok()?.exif_metadata().ok()??)
}

/// The parameters as one text, in the web interface's form.
pub fn infotext(parameters: &Parameters) -> String {
    let Parameters { prompt, negative_prompt, width, height, steps, cfg_scale, seed, sampler, strength, .. } =
        parameters;
    let Parameters { clip_skip, prompt_template, negative_prompt_template, .. } = parameters;
    let mut text = format!("{prompt}\n");
    if !negative_prompt.is_empty() {
        text += &format!("Negative prompt: {negative_prompt}\n");
    }
    let sampler = sampler.label();
    text +=
        &format!("Steps: {steps}, Sampler: {sampler}, CFG scale: {cfg_scale}, Seed: {seed}, Size: {width}x{height}");
    if let Some(schedule) = parameters.schedule {
        text += &format!(", Schedule type: {}", schedule.label());
    }
    if let Some(eta) = parameters.eta {
        text += &format!(", Eta: {eta}");
    }
    if let Some(strength) = strength {
        text += &format!(", Denoising strength: {strength}");
    }
    if let Some(hires) = &parameters.hires {
        text += &second_pass(hires, parameters.upscaler.as_deref());
    }
    if let Some(inpainting) = &parameters.inpainting {
        text += &masking(inpainting);
    }
    if parameters.decoder == AutoencoderKind::Tiny {
        text += ", VAE Decoder: TAESD";
    }
    if let (Some(factor), Some(upscaler)) = (parameters.upscale, &parameters.upscaler) {
        text += &format!(", Postprocess upscale by: {factor}, Postprocess upscaler: {}", quoted(upscaler));
    }
    if let Some(skip) = clip_skip {
        text += &format!(", Clip skip: {skip}");
    }
    if let Some([from, to]) = parameters.guidance_interval {
        text += &format!(", Guidance interval: {from}-{to}");
    }
    if let Some(calls) = parameters.cache_interval {
        text += &format!(", Cache interval: {calls}");
    }
    for (name, template) in [("Template", prompt_template), ("Negative Template", negative_prompt_template)] {
        if let Some(template) = template {
            text += &format!(", {name}: {}", quoted(template));
        }
    }
    text + &format!(", Version: diffused {}", env!("CARGO_PKG_VERSION"))
}

/// The second pass, in which the model's upscaler of this name may have a part.
fn second_pass(hires: &Hires, model_upscaler: Option<&str>) -> String {
    let Hires { width, height, steps, denoising_strength, upscaler, .. } = hires;
    let own = model_upscaler.filter(|_| *upscaler == HiresUpscaler::Model);
    let upscaler = own.map_or_else(|| upscaler.to_string(), quoted);
    let mut text = format!(
        ", Denoising strength: {denoising_strength}, Hires resize: {width}x{height}, Hires steps: {steps}, \
         Hires upscaler: {upscaler}"
    );
    let others = [
        ("sampler", hires.sampler.map(|sampler| sampler.label().to_owned())),
        ("schedule type", hires.schedule.map(|schedule| schedule.label().to_owned())),
        ("CFG Scale", hires.cfg_scale.map(|scale| scale.to_string())),
        ("prompt", hires.prompt.as_deref().map(quoted)),
        ("negative prompt", hires.negative_prompt.as_deref().map(quoted)),
    ];
    for (name, value) in others {
        text += &value.map_or_else(String::new, |value| format!(", Hires {name}: {value}"));
    }
    text
}

/// A value as the web interface writes it: quoted where it would end before its end.
fn quoted(value: &str) -> String {
    match value.contains([',', '\n', ':']) {
        true => serde_json::Value::from(value).to_string(),
        false => value.to_owned(),
    }
}

/// How what was masked was repainted; what is as the web interface has it by default is left out.
fn masking(inpainting: &Inpainting) -> String {
    let Inpainting { blur_x, blur_y, content, invert, region_only, padding, .. } = inpainting;
    let blur =
        if blur_x == blur_y { format!(", Mask blur: {blur_x}") } else { format!(", Mask blur: {blur_x}x{blur_y}") };
    let parts = [
        (*blur_x > 0.0 || *blur_y > 0.0, blur),
        (*invert, ", Mask mode: Inpaint not masked".to_owned()),
        (*content != MaskedContent::Original, format!(", Masked content: {}", content.label())),
        (*region_only, format!(", Inpaint area: Only masked, Masked area padding: {padding}")),
    ];
    parts.into_iter().filter(|(there, _)| *there).map(|(_, part)| part).collect()
}

#[cfg(test)]
mod tests {
    use diffused_engine::Options;
    use diffused_engine::hires::HiresRequest;
    use diffused_engine::request::Request;
    use diffused_engine::sampler::{NoiseSchedule, SamplerKind};

    use super::*;
    use crate::painting::model::Model;

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
            schedule: None,
            eta: None,
            decoder: AutoencoderKind::Full,
            fit: Default::default(),
            background: Default::default(),
            inpainting: None,
            prompt_syntax: diffused_engine::prompt::PromptSyntax::default(),
            upscale: None,
            upscaler: None,
            clip_skip: None,
            guidance_interval: None,
            cache_interval: None,
            prompt_template: None,
            negative_prompt_template: None,
            hires: None,
        }
    }

    fn image() -> RgbImage {
        RgbImage::from_fn(16, 8, |x, y| image::Rgb([x as u8 * 16, y as u8 * 32, 99]))
    }

    #[test]
    fn a_png_keeps_pixels_and_parameters() {
        let file = png(&image(), &infotext(&parameters("a house", Some(0.5)))).unwrap();
        assert_eq!(image::load_from_memory(&file).unwrap().into_rgb8(), image());
        assert_eq!(
            text_of(&file).unwrap(),
            format!(
                "a house\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 16x8, \
                 Denoising strength: 0.5, Version: diffused {}",
                env!("CARGO_PKG_VERSION")
            )
        );
        assert_eq!(text_of(&png(&image(), "家\n7").unwrap()).unwrap(), "家\n7");
    }

    #[test]
    fn an_upscaler_is_named_as_the_web_interface_does() {
        let named = |upscaler: &str| {
            let upscaler = Some(upscaler.to_owned());
            infotext(&Parameters { upscale: Some(4), upscaler, ..parameters("a", None) })
        };
        let text = named("realesr-general-x4v3");
        let wanted = "Size: 16x8, Postprocess upscale by: 4, Postprocess upscaler: realesr-general-x4v3, Version: ";
        assert!(text.contains(wanted), "{text}");
        assert!(named("a, b: c").contains("upscaler: \"a, b: c\", Version"));
        assert!(!infotext(&parameters("a", None)).contains("Postprocess"));
    }

    #[test]
    fn a_second_pass_is_told_as_the_web_interface_does() {
        let request = HiresRequest {
            steps: Some(9),
            denoising_strength: Some(0.7),
            upscaler: Some(HiresUpscaler::LatentNearest),
            ..HiresRequest::default()
        };
        let text = |request: HiresRequest| {
            let resolver = Model::new(None, Options::default()).unwrap().resolver().unwrap();
            let request = Request { width: Some(64), height: Some(32), hires: Some(request), ..Request::default() };
            let hires = resolver.resolve(&request, None).unwrap().parameters().hires.clone();
            infotext(&Parameters { hires, ..parameters("a house", None) })
        };
        let hires = "Denoising strength: 0.7, Hires resize: 128x64, Hires steps: 9, Hires upscaler: Latent (nearest)";
        let plain = text(request.clone());
        assert!(plain.contains(&format!("Size: 16x8, {hires}, Version")), "{plain}");
        let other = text(HiresRequest {
            prompt: Some("a cat, asleep".into()),
            sampler: Some(SamplerKind::Dpmpp2m),
            schedule: Some(NoiseSchedule::Karras),
            cfg_scale: Some(3.0),
            ..request
        });
        let more =
            "Hires sampler: DPM++ 2M, Hires schedule type: Karras, Hires CFG Scale: 3, Hires prompt: \"a cat, asleep\"";
        assert!(other.contains(&format!("{hires}, {more}, Version")), "{other}");
    }

    #[test]
    fn the_models_upscaler_is_named_in_a_second_pass() {
        let hires = serde_json::json!({
            "width": 32, "height": 16, "steps": 9, "denoising_strength": 0.7, "upscaler": "Model"
        });
        let hires: Hires = serde_json::from_value(hires).unwrap();
        let text = second_pass(&hires, Some("realesr-general-x4v3"));
        assert!(text.ends_with(", Hires upscaler: realesr-general-x4v3"), "{text}");
    }

    #[test]
    fn the_parameters_say_how_a_mask_was_used() {
        let text = |inpainting| infotext(&Parameters { inpainting: Some(inpainting), ..parameters("a", Some(0.5)) });
        assert!(text(Inpainting::default()).contains("Denoising strength: 0.5, Version"));
        let all = Inpainting {
            blur_x: 4.0,
            blur_y: 4.0,
            content: MaskedContent::LatentNoise,
            invert: true,
            region_only: true,
            padding: 32,
            keep_unmasked: true,
        };
        let expected = "Denoising strength: 0.5, Mask blur: 4, Mask mode: Inpaint not masked, \
                        Masked content: latent noise, Inpaint area: Only masked, Masked area padding: 32, Version";
        assert!(text(all).contains(expected), "{}", text(all));
    }

    #[test]
    fn a_jpeg_is_smaller_with_less_quality() {
        let (good, poor) = (jpeg(&image(), "", 95).unwrap(), jpeg(&image(), "", 30).unwrap());
        assert!(poor.len() < good.len());
        assert_eq!(image::load_from_memory(&good).unwrap().into_rgb8().dimensions(), (16, 8));
    }

    #[test]
    fn a_jpeg_keeps_its_parameters() {
        for text in ["a red house\nSteps: 20", "家 😀"] {
            assert_eq!(text_of(&jpeg(&image(), text, 95).unwrap()).unwrap(), text);
        }
        let long = "家😀".repeat(20_000) + "\nSteps: 20";
        let kept = text_of(&jpeg(&image(), &long, 95).unwrap()).unwrap();
        let end = kept.strip_prefix('…').unwrap();
        assert!(long.ends_with(end) && end.len() > 70_000, "{}", end.len());
    }
}
