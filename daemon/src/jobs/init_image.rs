//! The image that image to image starts from. It is untrusted input: its size is read from its header, and it is
//! unpacked only where that fits the memory budget, when its job runs and nothing else needs the memory. Until then its
//! file waits on disk: a queue of them would take more memory than painting does.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Seek};
use std::path::{Path, PathBuf};

use diffused_engine::Options;
use diffused_engine::inpainting::luminance;
use diffused_engine::picture::{Colour, Fit};
use diffused_engine::request::Parameters;
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, GenericImageView, GrayImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits,
    Luma, Pixel, Rgb, RgbImage, Rgba,
};

use crate::contract::fault::{Code, Fault};
use crate::files::write_atomically;
use upright::Upright;

mod container;
mod raw_profile;
mod upright;

/// The formats that are read; of animations the first frame.
const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif];
/// The widest and the highest image that is read.
const MAX_SIDE: u32 = 8192;
/// The most pixels of an image that is read: 24 megapixels, as cameras make them.
const MAX_PIXELS: u64 = 24 << 20;
/// Bytes for each pixel of the image itself.
const RGB: u64 = 3;
/// Bytes for each pixel while a progressive JPEG is unpacked, at most: the coefficients of four components, and RGB.
const PROGRESSIVE: u64 = 4 * 2 + RGB;
/// Bytes for each pixel while a WebP is unpacked, at most: a frame of an animation, its YUV and alpha on the way, and the
/// whole image.
const WEBP: u64 = 16;
/// Bytes for each pixel while a GIF is unpacked, at most: a frame beside the whole image, RGBA.
const GIF: u64 = 8;
/// Bytes for all that does not grow with the image: colour profiles, the decoder's windows. The process's own cover
/// them.
const DECODER: u64 = 2 << 20;
/// The most bytes that a lossless WebP's codes may take: encoders describe some hundred groups of them, of 20 KiB at most.
const MAX_CODES: u64 = 64 << 20;
const FIELD: &str = "init_images";
const MIB: u64 = 1 << 20;

/// An image file's format, size, orientation and memory need, from its header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Header {
    format: ImageFormat,
    /// As the pixels are stored.
    width: u32,
    /// As the pixels are stored.
    height: u32,
    /// How they are turned to stand upright: cameras store what their sensor sees.
    orientation: Orientation,
    /// Bytes for each pixel while the file is unpacked.
    unpacking: u64,
    /// Bytes for a WebP's codes meanwhile.
    codes: u64,
}

impl Header {
    /// Reads the header of an image file and checks the image's size.
    ///
    /// # Errors
    ///
    /// `InvalidParam` for any other file and for one that is cut off, `TooLarge` beyond 8192 pixels a side or 24 megapixels.
    pub fn read(mut file: impl BufRead + Seek) -> Result<Header, Fault> {
        let format = ImageReader::new(&mut file).with_guessed_format().map_err(unreadable)?.format();
        let Some(format) = format.filter(|format| FORMATS.contains(format)) else {
            return Err(Fault::param(
                FIELD,
                "the image is not a PNG, JPEG, WebP, BMP or GIF; convert it to one of them",
            ));
        };
        file.rewind().map_err(unreadable)?;
        let container = container::read(format, &mut file).map_err(unreadable)?;
        if !container.is_whole {
            return Err(Fault::param(FIELD, "the image is cut off: the end of the file is missing"));
        }
        if container.codes > MAX_CODES {
            let message = format!("unpacking the image would take {} MiB for its codes alone", container.codes / MIB);
            return Err(Fault::too_large(FIELD, format!("{message}; save it by another program, or as a PNG")));
        }
        file.rewind().map_err(unreadable)?;
        let profile = if format == ImageFormat::Png { raw_profile::exif(&mut file) } else { None };
        file.rewind().map_err(unreadable)?;
        let mut decoder = ImageReader::with_format(&mut file, format).into_decoder().map_err(broken)?;
        let ((width, height), colour) = (decoder.dimensions(), decoder.color_type());
        if width == 0 || height == 0 {
            return Err(Fault::param(FIELD, "the image has no pixels"));
        }
        if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
            let most = format!("{MAX_SIDE} a side and {} megapixels are allowed", MAX_PIXELS >> 20);
            return Err(Fault::too_large(FIELD, format!("the image has {width}×{height} pixels; {most}")));
        }
        let exif = container.exif.or(profile).or_else(|| decoder.exif_metadata().ok().flatten()).unwrap_or_default();
        // Some write it into other files as it stands in a JPEG.
        let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif);
        let orientation = Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms);
        let unpacking = match (format, colour) {
            (ImageFormat::Jpeg, _) if !container.is_sequential => PROGRESSIVE,
            (ImageFormat::WebP, _) => WEBP,
            (ImageFormat::Gif, _) => GIF,
            (_, ColorType::Rgb8) => RGB,
            _ => u64::from(colour.bytes_per_pixel()) + RGB,
        };
        Ok(Header { format, width, height, orientation, unpacking, codes: container.codes })
    }

    /// Width and height of the upright image, pixels.
    pub fn size(&self) -> (u32, u32) {
        upright::turned(self.orientation, (self.width, self.height))
    }

    /// Unpacks the file that this is the header of, within the memory that `unpacking` allows. The pixels are as they
    /// are stored, not yet upright; `background` lies under transparency.
    ///
    /// # Errors
    ///
    /// `InvalidParam` for a file that is damaged.
    pub fn decode(&self, file: impl BufRead + Seek, background: Colour) -> Result<RgbImage, Fault> {
        Ok(opaque(self.pixels(file)?, background))
    }

    /// The same of a mask: what it covers is white. That is an image's grey values, or, if any of it is transparent, its
    /// alpha, as the web interface reads masks.
    ///
    /// # Errors
    ///
    /// `InvalidParam` for a file that is damaged.
    pub fn decode_mask(&self, file: impl BufRead + Seek) -> Result<GrayImage, Fault> {
        Ok(covered(self.pixels(file)?))
    }

    fn pixels(&self, file: impl BufRead + Seek) -> Result<DynamicImage, Fault> {
        let mut reader = ImageReader::with_format(file, self.format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODER + self.unpacking * u64::from(self.width) * u64::from(self.height));
        reader.limits(limits);
        reader.decode().map_err(broken)
    }
}

/// An image file of which the header was read.
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

    /// Width and height of the upright image, pixels.
    pub fn size(&self) -> (u32, u32) {
        self.header.size()
    }

    /// Refuses an image that cannot be unpacked within the memory of `options`.
    pub fn check(&self, parameters: &Parameters, options: Options) -> Result<(), Fault> {
        let target = (parameters.width, parameters.height);
        let needs = |size| options.process() + self.needs(size, target);
        let fits = |size: &(u32, u32)| options.memory.is_none_or(|memory| needs(*size) <= memory);
        let (width, height) = self.size();
        if fits(&(width, height)) {
            return Ok(());
        }
        let needed = needs((width, height)).div_ceil(MIB);
        let mut smaller = (1..1000).rev().map(|share| (width * share / 1000, height * share / 1000));
        let most = match smaller.find(fits) {
            Some((width, height)) => format!("at most {width}×{height} fit"),
            None => "none fits".into(),
        };
        let have = options.memory.unwrap_or_default() / MIB;
        let message = format!("the image's {width}×{height} pixels need {needed} MiB to unpack; in {have} MiB {most}");
        Err(Fault { field: Some(FIELD.into()), ..Fault::new(Code::OutOfMemory, message) })
    }

    /// The most memory that it takes to unpack and scale the image, bytes.
    pub fn memory(&self, parameters: &Parameters) -> u64 {
        self.memory_in(parameters.width, parameters.height)
    }

    /// The same where it is scaled to `width` × `height` pixels.
    pub fn memory_in(&self, width: usize, height: usize) -> u64 {
        self.needs(self.size(), (width, height))
    }

    /// The same of a file like this one, of this size.
    fn needs(&self, (width, height): (u32, u32), target: (usize, usize)) -> u64 {
        let size @ (width, height) = (u64::from(width), u64::from(height));
        let scaling = RGB * width * height + Fit::held(size, (target.0 as u64, target.1 as u64));
        self.len + scaling.max(self.header.unpacking * width * height + self.header.codes)
    }

    /// The upright image in the size that is painted, so that no more is held meanwhile.
    pub fn unpack(&self, parameters: &Parameters) -> Result<RgbImage, Fault> {
        let Parameters { width, height, fit, background, .. } = *parameters;
        self.unpack_in(width, height, fit, background)
    }

    /// The same in another size.
    pub fn unpack_in(&self, width: usize, height: usize, fit: Fit, background: Colour) -> Result<RgbImage, Fault> {
        let image = self.upright(self.header.decode(self.file()?, background)?);
        Ok(fit.place(&image, width, height, background.into()))
    }

    /// The same of a mask; black beside it.
    pub fn unpack_mask(&self, width: usize, height: usize, fit: Fit) -> Result<GrayImage, Fault> {
        let mask = self.upright(self.header.decode_mask(self.file()?)?);
        Ok(fit.place(&mask, width, height, Luma([0])))
    }

    fn upright<P: Pixel>(&self, stored: ImageBuffer<P, Vec<P::Subpixel>>) -> Upright<P> {
        Upright { stored, orientation: self.header.orientation }
    }

    fn file(&self) -> Result<BufReader<File>, Fault> {
        File::open(&self.path).map(BufReader::new).map_err(unreadable)
    }
}

/// What of a mask is white.
fn covered(image: DynamicImage) -> GrayImage {
    if image.color().has_alpha() {
        let alpha = |x, y| Luma([image.get_pixel(x, y).0[3]]);
        let alpha = GrayImage::from_fn(image.width(), image.height(), alpha);
        if alpha.as_raw().iter().any(|value| *value < u8::MAX) {
            return alpha;
        }
    }
    match image {
        DynamicImage::ImageLuma8(grey) => grey,
        other => luminance(&other.into_rgb8()),
    }
}

/// The image on `background`, which shows where the image is transparent, with Pillow's rounding.
fn opaque(image: DynamicImage, background: Colour) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let mix = |front: u8, back: u8, alpha: u8| {
        // At most 255² and a half, so that a byte holds the quotient.
        let sum = u32::from(front) * u32::from(alpha) + u32::from(back) * u32::from(255 - alpha) + 128;
        u8::try_from(((sum >> 8) + sum) >> 8).unwrap_or(u8::MAX)
    };
    let Colour([red, green, blue]) = background;
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let Rgba([r, g, b, alpha]) = image.get_pixel(x, y);
        Rgb([mix(r, red, alpha), mix(g, green, alpha), mix(b, blue, alpha)])
    })
}

fn unreadable(error: io::Error) -> Fault {
    Fault::param(FIELD, format!("the image cannot be read: {error}"))
}

fn broken(error: image::ImageError) -> Fault {
    Fault::param(FIELD, format!("the image is broken: {error}"))
}

#[cfg(test)]
mod tests;
