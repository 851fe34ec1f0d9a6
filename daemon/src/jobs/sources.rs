//! The images that a painting is made of: an init image, and perhaps a mask. They are unpacked before it is painted, in
//! the size that is painted, and where there is a mask once more in the end: what is not masked stays the init image.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

use diffused_engine::inpainting::{Inpainting, Mask};
use diffused_engine::picture::Fit;
use diffused_engine::request::{Parameters, Start};
use diffused_engine::{Options, StepCheckpoint};
use image::RgbImage;

use crate::contract::fault::{Code, Fault};
use crate::jobs::init_image::InitImage;

const FIELD: &str = "mask";
const MIB: u64 = 1 << 20;
/// Bytes of a pixel while it is scaled, at most.
const SCALING: u64 = 4;
/// Bytes of a pixel.
const RGB: u64 = 3;

/// Images of a request that are to be stored, with the bytes of their files.
pub type SourceBytes = Vec<(InitImage, Vec<u8>)>;

/// The files of a painting, of which the headers were read.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// What image to image starts from.
    pub init_image: Option<&'a InitImage>,
    /// What of it is repainted.
    pub mask: Option<&'a InitImage>,
}

impl Sources<'_> {
    /// Refuses images that cannot be unpacked within the memory of `options`.
    pub fn check(&self, parameters: &Parameters, options: Options) -> Result<(), Fault> {
        let Some(image) = self.init_image else { return Ok(()) };
        image.check(parameters, options)?;
        let needed = options.process() + self.memory(parameters);
        match options.memory.filter(|memory| self.mask.is_some() && needed > *memory) {
            None => Ok(()),
            Some(memory) => {
                let (needed, have) = (needed.div_ceil(MIB), memory / MIB);
                let message = format!("init image and mask need {needed} MiB to unpack; there are {have} MiB");
                Err(Fault { field: Some(FIELD.into()), ..Fault::new(Code::OutOfMemory, message) })
            }
        }
    }

    /// The most memory that it takes to unpack and scale them, bytes.
    pub fn memory(&self, parameters: &Parameters) -> u64 {
        let Some(image) = self.init_image else { return 0 };
        let (Some(mask), Some(inpainting)) = (self.mask, parameters.inpainting) else {
            return image.memory(parameters);
        };
        let (width, height) = size(image, parameters, inpainting);
        let own @ (across, down) = (width as u64, height as u64);
        let target = (parameters.width as u64, parameters.height as u64);
        let factor = parameters.upscale.filter(|_| inpainting.region_only).unwrap_or(1) as u64;
        let painted = (factor * target.0, factor * target.1);
        // The image, and a part of it as large at most; the rows of what is painted may all be needed for one.
        let (cut_out, put_back) = (Fit::held(own, target), SCALING * across.max(painted.0) * painted.1);
        let scaling = if inpainting.region_only { 2 * RGB * across * down + cut_out.max(put_back) } else { 0 };
        let unpacking = image.memory_in(width, height).max(mask.memory_in(width, height)).max(scaling);
        // The mask and its copy before a blur, and what is painted, are held beside that.
        RGB * painted.0 * painted.1 + 2 * across * down + unpacking
    }

    /// What the engine begins with, or goes on from `checkpoint` with.
    ///
    /// # Errors
    ///
    /// `InvalidParam` for files that are damaged, and for a mask that covers nothing.
    pub fn start(&self, parameters: &Parameters, checkpoint: Option<StepCheckpoint>) -> Result<Start, Fault> {
        let (Some(image), Some(mask), Some(inpainting)) = (self.init_image, self.mask, parameters.inpainting) else {
            return match (checkpoint, self.init_image) {
                (Some(checkpoint), _) => Ok(Start::Checkpoint(checkpoint)),
                (None, Some(image)) => Ok(Start::InitImage(image.unpack(parameters)?)),
                (None, None) => Ok(Start::Noise),
            };
        };
        let Parameters { width, height, fit, background, .. } = *parameters;
        let own = size(image, parameters, inpainting);
        let mask = unpacked(mask, own, parameters, inpainting)?;
        if mask.is_empty() {
            let message =
                "nothing would be repainted: the mask is white nowhere; inpainting_mask_invert turns it round";
            return Err(Fault::param(FIELD, message));
        }
        let image = image.unpack_in(own.0, own.1, fit, background)?;
        if !inpainting.region_only {
            return Ok(Start::Masked { image, mask, checkpoint });
        }
        let region = mask.region(width, height, inpainting.padding);
        let (image, mask) = (region.crop(&image, width, height), mask.crop(&region, width, height));
        Ok(Start::Masked { image, mask, checkpoint })
    }

    /// The image that was asked for, from the one that was painted.
    pub fn finish(&self, parameters: &Parameters, painted: RgbImage) -> Result<RgbImage, Fault> {
        let (Some(image), Some(mask), Some(inpainting)) = (self.init_image, self.mask, parameters.inpainting) else {
            return Ok(painted);
        };
        let Parameters { width, height, fit, background, .. } = *parameters;
        if inpainting.region_only {
            let own = size(image, parameters, inpainting);
            let mask = unpacked(mask, own, parameters, inpainting)?;
            let mut image = image.unpack_in(own.0, own.1, fit, background)?;
            let region = mask.region(width, height, inpainting.padding);
            match inpainting.keep_unmasked {
                true => region.put_masked(&mut image, painted, &mask),
                false => region.put(&mut image, painted),
            }
            return Ok(image);
        }
        if !inpainting.keep_unmasked || parameters.is_put_back_before_upscaling() {
            return Ok(painted);
        }
        let mask = unpacked(mask, (width, height), parameters, inpainting)?.doubled();
        Ok(mask.overlay(image.unpack_in(width, height, fit, background)?, &painted))
    }
}

/// In which width and height image and mask are laid on each other: that which is painted, or, where a part alone is, the
/// image's own.
fn size(image: &InitImage, parameters: &Parameters, inpainting: Inpainting) -> (usize, usize) {
    let (width, height) = image.size();
    match inpainting.region_only {
        true => (width as usize, height as usize),
        false => (parameters.width, parameters.height),
    }
}

fn unpacked(
    mask: &InitImage,
    (width, height): (usize, usize),
    parameters: &Parameters,
    inpainting: Inpainting,
) -> Result<Mask, Fault> {
    let mask = mask.unpack_mask(width, height, parameters.fit).map_err(of_mask)?;
    Ok(Mask::new(mask, &inpainting))
}

/// What is wrong with the file of a mask.
pub fn of_mask(fault: Fault) -> Fault {
    Fault { field: Some(FIELD.into()), ..fault }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use diffused_engine::inpainting::MaskedContent;
    use diffused_engine::request::Request;
    use image::{GrayImage, Luma, Rgb, Rgba, RgbaImage};

    use super::*;
    use crate::painting::model::Model;

    const SIDE: u32 = 64;

    fn parameters(inpainting: Inpainting) -> Parameters {
        let resolver = Model::new(None, Options::default()).unwrap().resolver().unwrap();
        let request = Request { inpainting: Some(inpainting), ..Request::default() };
        let painting = resolver.resolve(&request, Some((SIDE, SIDE))).unwrap();
        Parameters { width: 64, height: 64, ..painting.parameters().clone() }
    }

    fn image() -> RgbImage {
        RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb([x as u8 * 3, y as u8 * 3, 77]))
    }

    fn painted() -> RgbImage {
        RgbImage::from_pixel(64, 64, Rgb([250, 1, 2]))
    }

    /// White from 16 to 31 along both axes.
    fn mask() -> GrayImage {
        let inside = |at: u32| (16..32).contains(&at);
        GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([if inside(x) && inside(y) { 255 } else { 0 }]))
    }

    fn saved(folder: &Path, image: impl Into<image::DynamicImage>, name: &str) -> InitImage {
        let path = folder.join(name);
        image.into().save(&path).unwrap();
        InitImage::open(&path).unwrap()
    }

    /// What becomes of `painted` with this image and this mask.
    fn finished(inpainting: Inpainting, mask: GrayImage) -> RgbImage {
        let folder = tempfile::tempdir().unwrap();
        let (image, mask) = (saved(folder.path(), image(), "image.png"), saved(folder.path(), mask, "mask.png"));
        let sources = Sources { init_image: Some(&image), mask: Some(&mask) };
        sources.finish(&parameters(inpainting), painted()).unwrap()
    }

    #[test]
    fn what_is_not_masked_is_the_init_image() {
        let kept = finished(Inpainting::default(), mask());
        for (x, y, pixel) in kept.enumerate_pixels() {
            let masked = mask().get_pixel(x, y).0[0] > 0;
            let wanted = if masked { *painted().get_pixel(x, y) } else { *image().get_pixel(x, y) };
            assert_eq!(*pixel, wanted, "{x}, {y}");
        }
        assert_eq!(finished(Inpainting { keep_unmasked: false, ..Inpainting::default() }, mask()), painted());
        let soft = finished(Inpainting { blur_x: 2.0, blur_y: 2.0, ..Inpainting::default() }, mask());
        assert_eq!(soft.get_pixel(24, 24), painted().get_pixel(24, 24));
        assert_eq!(soft.get_pixel(16, 24), painted().get_pixel(16, 24), "what is half masked is masked");
        assert_eq!(soft.get_pixel(8, 24), image().get_pixel(8, 24));
        let between = soft.get_pixel(14, 24).0[0];
        assert!((image().get_pixel(14, 24).0[0] + 1..250).contains(&between), "{between}");
    }

    #[test]
    fn a_region_is_painted_large_and_put_back() {
        let inpainting = Inpainting { region_only: true, padding: 4, ..Inpainting::default() };
        let folder = tempfile::tempdir().unwrap();
        let (image_file, mask_file) = (saved(folder.path(), image(), "i.png"), saved(folder.path(), mask(), "m.png"));
        let sources = Sources { init_image: Some(&image_file), mask: Some(&mask_file) };
        let Start::Masked { image: cut, mask: cut_mask, .. } = sources.start(&parameters(inpainting), None).unwrap()
        else {
            panic!("inpainting")
        };
        assert_eq!((cut.dimensions(), cut_mask.size()), ((64, 64), (64, 64)));
        // 24 pixels were scaled to 64.
        assert!(cut.get_pixel(0, 0).0[0].abs_diff(12 * 3) <= 1 && cut.get_pixel(63, 0).0[0].abs_diff(35 * 3) <= 1);
        let kept = sources.finish(&parameters(inpainting), painted()).unwrap();
        let changed = kept.enumerate_pixels().filter(|(x, y, pixel)| *pixel != image().get_pixel(*x, *y));
        assert_eq!(changed.count(), 16 * 16);
        let whole = Inpainting { keep_unmasked: false, ..inpainting };
        let put = sources.finish(&parameters(whole), painted()).unwrap();
        assert_eq!(put.enumerate_pixels().filter(|(x, y, pixel)| *pixel != image().get_pixel(*x, *y)).count(), 24 * 24);
    }

    #[test]
    fn a_mask_is_white_or_what_is_not_transparent_and_may_be_turned_round() {
        let folder = tempfile::tempdir().unwrap();
        let image_file = saved(folder.path(), image(), "image.png");
        let start = |mask: image::DynamicImage, invert| {
            let mask = saved(folder.path(), mask, "mask.png");
            let inpainting = Inpainting { invert, content: MaskedContent::Original, ..Inpainting::default() };
            let sources = Sources { init_image: Some(&image_file), mask: Some(&mask) };
            sources.start(&parameters(inpainting), None)
        };
        let found = |mask: image::DynamicImage| match start(mask, false) {
            Ok(Start::Masked { mask, .. }) => mask,
            other => panic!("{other:?}"),
        };
        let wanted = Mask::new(mask(), &Inpainting::default());
        assert_eq!(found(mask().into()), wanted);
        let alpha = RgbaImage::from_fn(SIDE, SIDE, |x, y| Rgba([0, 0, 0, mask().get_pixel(x, y).0[0]]));
        assert_eq!(found(alpha.into()), wanted);
        let grey = RgbaImage::from_fn(SIDE, SIDE, |x, y| {
            let Luma([value]) = *mask().get_pixel(x, y);
            Rgba([value, value, value, 255])
        });
        assert_eq!(found(grey.into()), wanted);
        let black = GrayImage::new(SIDE, SIDE);
        let fault = start(black.clone().into(), false).unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidParam, Some("mask")));
        assert!(start(black.into(), true).is_ok());
    }

    #[test]
    fn what_does_not_fit_the_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let image = saved(folder.path(), image(), "image.png");
        let mask = saved(folder.path(), GrayImage::new(3000, 3000), "mask.png");
        let sources = Sources { init_image: Some(&image), mask: Some(&mask) };
        let parameters = parameters(Inpainting::default());
        let process = Options::default().process();
        let room = |bytes| Options { memory: Some(process + bytes), ..Options::default() };
        let needed = sources.memory(&parameters);
        assert!(needed > 3000 * 3000 && sources.check(&parameters, room(needed)).is_ok());
        let fault = sources.check(&parameters, room(needed - 1)).unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::OutOfMemory, Some("mask")));
    }
}
