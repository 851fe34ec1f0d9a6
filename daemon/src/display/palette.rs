//! A display's colours: as they look, as its drivers call them, and as its memory holds them.

use serde::{Deserialize, Serialize};

use super::inks::Inks;

/// The most colours of a palette: a PNG's.
const MOST: usize = 256;
/// The name of the palette that is no list: 16 bits a pixel.
pub(super) const RGB565: &str = "rgb565";

/// A palette's name, or its colours as they look: sRGB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(
    untagged,
    expecting = "expected a palette's name or a list of colours, each a list of red, green and blue, 0 to 255"
)]
pub enum PaletteChoice {
    /// One that is known.
    Named(String),
    /// These.
    Colours(Vec<[u8; 3]>),
}

/// A palette in the table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PaletteEntry {
    /// As they look.
    pub(super) colours: Vec<[u8; 3]>,
    /// As drivers call them.
    pub(super) nominal: Option<Vec<[u8; 3]>>,
    /// As the display's memory holds them.
    pub(super) codes: Option<Vec<u16>>,
}

/// The colours of a display.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Palette {
    /// A few.
    Few(Vec<Swatch>),
    /// 32 levels of red and blue, 64 of green.
    Rgb565,
}

/// A colour of a palette, sRGB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Swatch {
    /// As it looks.
    pub(super) measured: [u8; 3],
    /// As drivers call it.
    pub(super) nominal: [u8; 3],
    /// As the display's memory holds it.
    pub(super) code: u16,
}

impl PaletteEntry {
    /// With `codes` in place of its own.
    pub(super) fn palette(&self, codes: Option<&[u16]>) -> Result<Palette, String> {
        let count = self.colours.len();
        if !(2..=MOST).contains(&count) {
            return Err(format!("a palette of {count}; 2 to {MOST} colours are allowed"));
        }
        let nominal = self.nominal.as_ref().unwrap_or(&self.colours);
        let own: Vec<u16> = (0..).take(count).collect();
        let codes = codes.or(self.codes.as_deref()).unwrap_or(&own);
        if nominal.len() != count || codes.len() != count {
            return Err(format!("{} nominal colours and {} codes for {count} colours", nominal.len(), codes.len()));
        }
        let swatch = |((measured, nominal), code): ((&[u8; 3], &[u8; 3]), &u16)| Swatch {
            measured: *measured,
            nominal: *nominal,
            code: *code,
        };
        Ok(Palette::Few(self.colours.iter().zip(nominal).zip(codes).map(swatch).collect()))
    }
}

impl Palette {
    pub(super) fn inks(&self) -> Inks {
        match self {
            Palette::Few(swatches) => Inks::few(&swatches.iter().map(|swatch| swatch.measured).collect::<Vec<_>>()),
            Palette::Rgb565 => Inks::rgb565(),
        }
    }
}
