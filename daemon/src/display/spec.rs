//! What is asked of a display's picture, and what follows from it.

use std::fmt;

use diffused_engine::picture::Fit;
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};

use super::dither::Dither;
use super::packing::Packing;
use super::palette::{Palette, PaletteChoice, RGB565};
use super::panels::{KnownPanels, check_size, fits, palette};
use super::turn::Turn;

/// The widest and the highest picture.
pub(super) const MOST_SIDE: usize = 4096;
/// The most pixels of a picture.
pub(super) const MOST_PIXELS: usize = 16 << 20;
/// In place of a panel's name: no picture for a display, where the configuration has one for every request.
const NONE: &str = "none";

/// `output` of a request or a configuration: a panel's name, or these keys, which replace the panel's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutputRequest {
    /// A display by its name, or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panel: Option<String>,
    /// Pixels; the panel's, else the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<u32>", range(min = 1, max = 4096)))]
    pub width: Option<DisplaySide>,
    /// Pixels, as `width`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<u32>", range(min = 1, max = 4096)))]
    pub height: Option<DisplaySide>,
    /// How an image of another shape is placed: `cover`, where nothing is said, `contain`, on white, or `stretch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", extend("enum" = ["cover", "contain", "stretch", null])))]
    pub fit: Option<Fit>,
    /// How far the image is turned clockwise to lie on the display: 0, 90, 180 or 270.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<u16>", extend("enum" = [0, 90, 180, 270, null])))]
    pub rotate: Option<Turn>,
    /// The colours: a palette's name, or a list of them as they look, each `[red, green, blue]`, 0 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub palette: Option<PaletteChoice>,
    /// How colours are mixed: `floyd-steinberg`, where nothing is said, `atkinson`, `blue-noise` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dither: Option<Dither>,
    /// The file: `png`, where nothing is said, as the display looks; `driver-png` in the plain colours that drivers in
    /// Python take; `packed` as the display's memory holds it; `rgb565`, or with its order of bytes `rgb565-be` or
    /// `rgb565-le`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<OutputFormat>,
}

/// A whole number of pixels, which may be written as `800.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "u32")]
pub struct DisplaySide(u32);

impl TryFrom<f64> for DisplaySide {
    type Error = String;

    fn try_from(pixels: f64) -> Result<DisplaySide, String> {
        if pixels.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&pixels) {
            return Err(format!("{pixels} is not a whole number of pixels"));
        }
        Ok(DisplaySide(pixels as u32))
    }
}

impl From<DisplaySide> for u32 {
    fn from(side: DisplaySide) -> u32 {
        side.0
    }
}

/// A file for a display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OutputFormat {
    /// A PNG of the colours as they look.
    #[default]
    Png,
    /// A PNG of the plain colours that drivers in Python take for the display's.
    DriverPng,
    /// The bytes that the display's memory holds.
    Packed,
    /// Two bytes a pixel, the higher one first.
    #[serde(alias = "rgb565")]
    Rgb565Be,
    /// Two bytes a pixel, the lower one first.
    Rgb565Le,
}

/// Reads a panel's name or an object.
pub fn name_or_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OutputRequest>, D::Error> {
    struct NameOrKeys;
    impl<'de> Visitor<'de> for NameOrKeys {
        type Value = OutputRequest;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("a panel's name, or an object with `panel`, `width`, `height` and the like")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<OutputRequest, E> {
            Ok(OutputRequest { panel: Some(name.to_owned()), ..OutputRequest::default() })
        }

        fn visit_map<A: MapAccess<'de>>(self, keys: A) -> Result<OutputRequest, A::Error> {
            OutputRequest::deserialize(MapAccessDeserializer::new(keys))
        }
    }
    deserializer.deserialize_any(NameOrKeys).map(Some)
}

/// A picture for a display, with nothing left open but the image.
#[derive(Debug, Clone, PartialEq)]
pub struct DisplaySpec {
    pub(super) size: Option<(usize, usize)>,
    pub(super) fit: Fit,
    pub(super) rotate: Turn,
    pub(super) palette: Palette,
    pub(super) dither: Dither,
    pub(super) file: FileSpec,
}

/// The file's kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum FileSpec {
    /// In the colours as they look.
    Png,
    /// In drivers' colours.
    DriverPng,
    /// As a memory holds it, turned so that its rows are the memory's.
    Raw(Packing, Turn),
}

impl OutputRequest {
    /// What is asked for, with the panel's own values; `None`: nothing.
    ///
    /// # Errors
    ///
    /// A text that says what cannot be and what is allowed.
    pub fn resolve(&self, panels: &KnownPanels) -> Result<Option<DisplaySpec>, String> {
        let named = self.panel.as_deref();
        if named == Some(NONE) {
            return Ok(None);
        }
        let panel = named.map(|name| panels.panel(name)).transpose()?;
        let own = panel.as_ref().map(|panel| panel.size);
        let size = match (self.width.map(|side| side.0 as usize), self.height.map(|side| side.0 as usize)) {
            (None, None) => own,
            (Some(width), Some(height)) => Some((width, height)),
            (width, height) => {
                let (own_width, own_height) = own.ok_or("width and height belong together where no panel is named")?;
                Some((width.unwrap_or(own_width), height.unwrap_or(own_height)))
            }
        };
        size.map_or(Ok(()), |(width, height)| check_size(width, height))?;
        let format = self.format.unwrap_or_default();
        let words = match format {
            OutputFormat::Rgb565Be => Some(Packing::Rgb565Big),
            OutputFormat::Rgb565Le => Some(Packing::Rgb565Little),
            _ => None,
        };
        let palette = match (&self.palette, &panel) {
            (Some(choice), _) => palette(choice, None)?,
            (None, Some(panel)) => panel.palette.clone(),
            (None, None) if words.is_some() => palette(&PaletteChoice::Named(RGB565.into()), None)?,
            (None, None) => return Err("a panel or a palette is missing".into()),
        };
        let file = match format {
            OutputFormat::Png => FileSpec::Png,
            OutputFormat::DriverPng => FileSpec::DriverPng,
            OutputFormat::Rgb565Be | OutputFormat::Rgb565Le | OutputFormat::Packed => {
                let packing = words.or(panel.as_ref().map(|panel| panel.packing)).unwrap_or(narrowest(&palette));
                fits(&palette, packing)?;
                FileSpec::Raw(packing, panel.as_ref().map(|panel| panel.scan).unwrap_or_default())
            }
        };
        let (fit, dither) = (self.fit.unwrap_or(Fit::Cover), self.dither.unwrap_or_default());
        Ok(Some(DisplaySpec { size, fit, rotate: self.rotate.unwrap_or_default(), palette, dither, file }))
    }
}

/// The packing that has room for the colours, where no panel says which.
fn narrowest(palette: &Palette) -> Packing {
    match palette {
        Palette::Rgb565 => Packing::Rgb565Big,
        Palette::Few(swatches) => match swatches.len() {
            0..=2 => Packing::OneBit,
            3..=4 => Packing::TwoBits,
            5..=16 => Packing::FourBits,
            _ => Packing::Byte,
        },
    }
}

impl DisplaySpec {
    /// Width and height of the display as the image stands on it upright, pixels, if they are given.
    pub fn upright(&self) -> Option<(usize, usize)> {
        self.size.map(|size| self.rotate.size(size))
    }

    /// The display's width and height for an image of this size, pixels.
    pub fn size(&self, image: (usize, usize)) -> (usize, usize) {
        self.size.unwrap_or_else(|| self.rotate.size(image))
    }

    /// MIME type of the file.
    pub fn content_type(&self) -> &'static str {
        match self.file {
            FileSpec::Png | FileSpec::DriverPng => "image/png",
            FileSpec::Raw(..) => "application/octet-stream",
        }
    }
}
