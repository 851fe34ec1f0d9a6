//! The image that image to image starts from. It is untrusted input: its size is read from its header, and it is
//! unpacked only where that fits the memory budget, when its job runs and nothing else needs the memory. Until then its
//! file waits on disk: a queue of them would take more memory than painting does.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use diffused_engine::Options;
use diffused_engine::picture::scale;
use diffused_engine::request::Parameters;
use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::contract::fault::{Code, Fault};
use crate::files::write_atomically;

/// The widest and the highest image that is read.
const MAX_SIDE: u32 = 8192;
/// The most pixels of an image that is read: 24 megapixels, as cameras make them.
const MAX_PIXELS: u64 = 24 << 20;
/// Bytes for each pixel of the image itself.
const RGB: u64 = 3;
/// Bytes for each pixel while a progressive JPEG is unpacked, at most: the coefficients of four components, and RGB.
const PROGRESSIVE: u64 = 4 * 2 + RGB;
/// Bytes for each of its columns in each row of the image that it is scaled to: four channels in f32.
const SCALING: u64 = 16;
/// Bytes for all that does not grow with the image: colour profiles, the decoder's windows. The process's own cover
/// them.
const DECODER: u64 = 2 << 20;
const FIELD: &str = "init_images";
const MIB: u64 = 1 << 20;

/// An image file's format, size and memory need, from its header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Header {
    format: ImageFormat,
    width: u32,
    height: u32,
    /// Bytes for each pixel while the file is unpacked.
    unpacking: u64,
}

impl Header {
    /// Reads the header of a PNG or JPEG file and checks the image's size.
    ///
    /// # Errors
    ///
    /// `InvalidParam` for any other file, `TooLarge` beyond 8192 pixels a side or 24 megapixels.
    pub fn read(mut file: impl BufRead + Seek) -> Result<Header, Fault> {
        let reader = ImageReader::new(&mut file).with_guessed_format().map_err(unreadable)?;
        let format = match reader.format() {
            Some(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
            _ => return Err(Fault::param(FIELD, "the image is neither PNG nor JPEG")),
        };
        let decoder = reader.into_decoder().map_err(broken)?;
        let ((width, height), colour) = (decoder.dimensions(), decoder.color_type());
        drop(decoder);
        if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
            let most = format!("{MAX_SIDE} a side and {} megapixels are allowed", MAX_PIXELS >> 20);
            return Err(Fault::too_large(FIELD, format!("the image has {width}×{height} pixels; {most}")));
        }
        let unpacking = match (format, colour) {
            (ImageFormat::Jpeg, _) if !is_sequential(&mut file).map_err(unreadable)? => PROGRESSIVE,
            (_, ColorType::Rgb8) => RGB,
            _ => u64::from(colour.bytes_per_pixel()) + RGB,
        };
        Ok(Header { format, width, height, unpacking })
    }

    /// Width and height, pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Unpacks the file that this is the header of, within the memory that `unpacking` allows.
    ///
    /// # Errors
    ///
    /// `InvalidParam` for a file that is damaged.
    pub fn decode(&self, file: impl BufRead + Seek) -> Result<RgbImage, Fault> {
        let mut reader = ImageReader::with_format(file, self.format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODER + self.unpacking * u64::from(self.width) * u64::from(self.height));
        reader.limits(limits);
        Ok(reader.decode().map_err(broken)?.into_rgb8())
    }
}

/// A PNG or JPEG file of which the header was read.
#[derive(Debug, Clone)]
pub struct InitImage {
    path: PathBuf,
    /// Bytes of the file.
    len: u64,
    header: Header,
}

impl InitImage {
    /// Reads the header of an image file's bytes, which `store` will write to `path`.
    pub fn of_bytes(bytes: &[u8], path: PathBuf) -> Result<InitImage, Fault> {
        Ok(InitImage { path, len: bytes.len() as u64, header: Header::read(Cursor::new(bytes))? })
    }

    /// Writes the bytes of which the header was read.
    pub fn store(&self, bytes: &[u8]) -> Result<(), Fault> {
        write_atomically(&self.path, bytes).map_err(|error| {
            Fault::new(Code::DiskFull, format!("the image cannot be stored as {}: {error}", self.path.display()))
        })
    }

    /// Reads the header of the file at `path`.
    pub fn open(path: &Path) -> Result<InitImage, Fault> {
        let file = File::open(path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let header = Header::read(BufReader::new(file))?;
        Ok(InitImage { path: path.to_owned(), len, header })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Width and height, pixels.
    pub fn size(&self) -> (u32, u32) {
        self.header.size()
    }

    /// Refuses an image that cannot be unpacked within the memory of `options`.
    pub fn check(&self, parameters: &Parameters, options: Options) -> Result<(), Fault> {
        let needs = |width, height| options.process() + self.needs(width, height, parameters);
        let fits = |width, height| options.memory.is_none_or(|memory| needs(width, height) <= memory);
        let (width, height) = self.size();
        if fits(width, height) {
            return Ok(());
        }
        let needed = needs(width, height).div_ceil(MIB);
        let smaller = (1..1000).rev().map(|share| (width * share / 1000, height * share / 1000));
        let most = match smaller.into_iter().find(|&(width, height)| fits(width, height)) {
            Some((width, height)) => format!("at most {width}×{height} fit"),
            None => "none fits".into(),
        };
        let have = options.memory.unwrap_or_default() / MIB;
        let message = format!("the image's {width}×{height} pixels need {needed} MiB to unpack; in {have} MiB {most}");
        Err(Fault { field: Some(FIELD.into()), ..Fault::new(Code::OutOfMemory, message) })
    }

    /// The most memory that it takes to unpack and scale the image, bytes.
    pub fn memory(&self, parameters: &Parameters) -> u64 {
        self.needs(self.header.width, self.header.height, parameters)
    }

    fn needs(&self, width: u32, height: u32, parameters: &Parameters) -> u64 {
        let (width, height) = (u64::from(width), u64::from(height));
        let scaling = width * (RGB * height + SCALING * parameters.height as u64);
        self.len + scaling.max(self.header.unpacking * width * height)
    }

    /// The image in the size that is painted, so that no more is held meanwhile.
    pub fn unpack(&self, parameters: &Parameters) -> Result<RgbImage, Fault> {
        let file = File::open(&self.path).map_err(unreadable)?;
        Ok(scale(self.header.decode(BufReader::new(file))?, parameters.width, parameters.height))
    }
}

/// Whether a JPEG is unpacked row by row: a sequential one with all components in its first scan.
fn is_sequential(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let mut front = vec![];
    file.rewind()?;
    file.take(MIB).read_to_end(&mut front)?;
    let (mut rest, mut components) = (front.get(2..).unwrap_or_default(), None);
    while let [0xff, marker, high, low, ..] = rest {
        match marker {
            0xc0 | 0xc1 => components = rest.get(9),
            0xda => return Ok(components.is_some() && components == rest.get(4)),
            _ => {}
        }
        rest = rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
    }
    Ok(false)
}

fn unreadable(error: io::Error) -> Fault {
    Fault::param(FIELD, format!("the image cannot be read: {error}"))
}

fn broken(error: image::ImageError) -> Fault {
    Fault::param(FIELD, format!("the image is broken: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

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
            decoder: diffused_engine::bundle::AutoencoderKind::Full,
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
        for bytes in [&jpeg[..], &jpeg[..frame], b""] {
            assert!(!is_sequential(&mut Cursor::new(bytes)).unwrap());
        }
    }

    #[test]
    fn a_file_that_ends_early_is_an_error_when_it_is_unpacked() {
        let whole = file(RgbImage::from_fn(40, 40, |x, y| Rgb([x as u8, y as u8, (x * y) as u8])));
        let cut = open(&whole[..whole.len() / 2]).unwrap();
        let fault = cut.unpack(&parameters(64, 64)).unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidParam, Some(FIELD)));
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
}
