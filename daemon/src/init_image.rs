//! The picture that image to image starts from. It comes from a stranger, so its size is read from its header, and it is
//! unpacked only where that fits the memory budget: in its job's turn, when nothing else needs the memory.

use std::io::Cursor;

use diffused_engine::picture::scale;
use diffused_engine::plan::PROCESS;
use diffused_engine::request::{Parameters, Request};
use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::fault::{Code, Fault};

/// The widest and the highest picture that is read.
const MAX_SIDE: u32 = 8192;
/// The most pixels of a picture that is read: 24 megapixels, as cameras make them.
const MAX_PIXELS: u64 = 24 << 20;
/// Bytes for each pixel of the picture itself.
const RGB: u64 = 3;
/// Bytes for each pixel while a progressive JPEG is unpacked, at most: the coefficients of four components, and RGB.
const PROGRESSIVE: u64 = 4 * 2 + RGB;
/// Bytes for each of its columns in each row of the picture that it is scaled to: four channels in f32.
const SCALING: u64 = 16;
/// Bytes for all that does not grow with the picture: colour profiles, the decoder's windows.
const DECODER: u64 = 2 << 20;
const FIELD: &str = "init_images";
const MIB: u64 = 1 << 20;

/// A PNG or JPEG file of which the header was read.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    file: Vec<u8>,
    format: ImageFormat,
    width: u32,
    height: u32,
    /// Bytes for each pixel while the file is unpacked.
    unpacking: u64,
}

impl InitImage {
    /// Reads the header of `file`.
    pub fn open(file: Vec<u8>) -> Result<InitImage, Fault> {
        let format = match image::guess_format(&file) {
            Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
            _ => return Err(Fault::param(FIELD, "the picture is neither PNG nor JPEG")),
        };
        let decoder = ImageReader::with_format(Cursor::new(&file), format).into_decoder().map_err(broken)?;
        let ((width, height), colour) = (decoder.dimensions(), decoder.color_type());
        drop(decoder);
        if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
            let most = format!("{MAX_SIDE} a side and {} megapixels are allowed", MAX_PIXELS >> 20);
            return Err(Fault::too_large(FIELD, format!("the picture has {width}×{height} pixels; {most}")));
        }
        let unpacking = match (format, colour) {
            (ImageFormat::Jpeg, _) if !is_sequential(&file) => PROGRESSIVE,
            (_, ColorType::Rgb8) => RGB,
            _ => u64::from(colour.bytes_per_pixel()) + RGB,
        };
        Ok(InitImage { file, format, width, height, unpacking })
    }

    /// Width and height, pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Refuses a picture for which `memory` bytes are too little.
    pub fn check(&self, parameters: &Parameters, memory: Option<u64>) -> Result<(), Fault> {
        let fits = |width, height| memory.is_none_or(|memory| self.needs(width, height, parameters) <= memory);
        let (width, height) = self.size();
        if fits(width, height) {
            return Ok(());
        }
        let needed = self.needs(width, height, parameters).div_ceil(MIB);
        let smaller = (1..1000).rev().map(|share| (width * share / 1000, height * share / 1000));
        let most = match smaller.into_iter().find(|&(width, height)| fits(width, height)) {
            Some((width, height)) => format!("at most {width}×{height} fit"),
            None => "none fits".into(),
        };
        let have = memory.unwrap_or_default() / MIB;
        let message =
            format!("the picture's {width}×{height} pixels need {needed} MiB to unpack; in {have} MiB {most}");
        Err(Fault { field: Some(FIELD.into()), ..Fault::new(Code::OutOfMemory, message) })
    }

    /// The most memory that the process takes while the picture is unpacked and scaled, bytes.
    pub fn memory(&self, parameters: &Parameters) -> u64 {
        self.needs(self.width, self.height, parameters)
    }

    fn needs(&self, width: u32, height: u32, parameters: &Parameters) -> u64 {
        let (width, height) = (u64::from(width), u64::from(height));
        let scaling = width * (RGB * height + SCALING * parameters.height as u64);
        // The decoder makes a copy of the file.
        PROCESS + DECODER + 2 * self.file.len() as u64 + scaling.max(self.unpacking * width * height)
    }

    /// `request`, starting from this picture: in the size that is painted, so that no more is held meanwhile.
    pub fn start(&self, request: &Request, parameters: &Parameters) -> Result<Request, Fault> {
        let (width, height) = (parameters.width, parameters.height);
        let init_image = Some(scale(self.decode()?, width, height));
        Ok(Request { width: Some(width), height: Some(height), init_image, ..request.clone() })
    }

    fn decode(&self) -> Result<RgbImage, Fault> {
        let mut reader = ImageReader::with_format(Cursor::new(&self.file), self.format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODER + self.unpacking * u64::from(self.width) * u64::from(self.height));
        reader.limits(limits);
        Ok(reader.decode().map_err(broken)?.into_rgb8())
    }
}

/// Whether a JPEG is unpacked row by row: a sequential one with all components in its first scan.
fn is_sequential(file: &[u8]) -> bool {
    let (mut rest, mut components) = (file.get(2..).unwrap_or_default(), None);
    while let [0xff, marker, high, low, ..] = rest {
        match marker {
            0xc0 | 0xc1 => components = rest.get(9),
            0xda => return components.is_some() && components == rest.get(4),
            _ => {}
        }
        rest = rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
    }
    false
}

fn broken(error: image::ImageError) -> Fault {
    Fault::param(FIELD, format!("the picture is broken: {error}"))
}

#[cfg(test)]
mod tests {
    use diffused_engine::sampler::Kind;
    use image::{DynamicImage, GrayImage, Rgb, RgbaImage};

    use super::*;

    fn parameters(width: usize, height: usize) -> Parameters {
        Parameters {
            prompt: "a".into(),
            negative_prompt: String::new(),
            width,
            height,
            steps: 20,
            cfg_scale: 7.5,
            seed: 42,
            sampler: Kind::EulerAncestral,
            strength: Some(0.5),
        }
    }

    fn file(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut file = Cursor::new(vec![]);
        image.into().write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    }

    #[test]
    fn strangers_pictures_are_checked_before_they_are_unpacked() {
        let code = |bytes: &[u8]| InitImage::open(bytes.to_vec()).unwrap_err().code;
        assert_eq!(code(b"GIF89a"), Code::InvalidParam);
        assert_eq!(code(b""), Code::InvalidParam);
        assert_eq!(code(&file(GrayImage::new(9000, 10))), Code::TooLarge);
        assert_eq!(code(&file(GrayImage::new(8000, 8000))), Code::TooLarge);
    }

    #[test]
    fn jpegs_differ_in_what_they_take() {
        let mut jpeg = Cursor::new(vec![]);
        RgbImage::new(40, 40).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let mut file = jpeg.into_inner();
        assert_eq!(InitImage::open(file.clone()).unwrap().unpacking, RGB);
        let frame = file.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
        file[frame + 1] = 0xc2;
        assert!(!is_sequential(&file) && !is_sequential(&file[..frame]) && !is_sequential(b""));
    }

    #[test]
    fn a_file_that_ends_early_is_told_when_it_is_unpacked() {
        let whole = file(RgbImage::from_fn(40, 40, |x, y| Rgb([x as u8, y as u8, (x * y) as u8])));
        let cut = InitImage::open(whole[..whole.len() / 2].to_vec()).unwrap();
        let fault = cut.start(&Request::default(), &parameters(64, 64)).unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidParam, Some(FIELD)));
    }

    #[test]
    fn it_is_scaled_to_what_is_painted() {
        let image = InitImage::open(file(RgbImage::from_pixel(100, 30, Rgb([9, 8, 7])))).unwrap();
        assert_eq!(image.size(), (100, 30));
        let request = image.start(&Request { seed: 3, ..Request::default() }, &parameters(64, 128)).unwrap();
        assert_eq!((request.seed, request.width, request.height), (3, Some(64), Some(128)));
        assert_eq!(request.init_image.unwrap(), RgbImage::from_pixel(64, 128, Rgb([9, 8, 7])));
    }

    #[test]
    fn what_does_not_fit_the_memory_is_refused_with_what_fits() {
        let image = InitImage::open(file(RgbaImage::new(3000, 2000))).unwrap();
        let parameters = parameters(512, 512);
        assert!(image.check(&parameters, None).is_ok());
        assert!(image.check(&parameters, Some(image.memory(&parameters))).is_ok());
        let memory = Some(PROCESS + (24 << 20));
        let fault = image.check(&parameters, memory).unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::OutOfMemory, Some(FIELD)));
        assert!(fault.message.starts_with("the picture's 3000×2000 pixels need "), "{}", fault.message);
        assert!(fault.message.ends_with("at most 1902×1268 fit"), "{}", fault.message);
        let smaller = InitImage { width: 1902, height: 1268, ..image.clone() };
        assert!(smaller.check(&parameters, memory).is_ok());
        assert!(image.check(&parameters, Some(PROCESS)).unwrap_err().message.ends_with("none fits"));
    }
}
