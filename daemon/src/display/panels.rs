//! The displays that are known by name: a table in the program, and those that a configuration adds.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::packing::Packing;
use super::palette::{Palette, PaletteChoice, PaletteEntry, RGB565};
use super::spec::{MOST_PIXELS, MOST_SIDE};
use super::turn::Turn;

/// The table in the program.
static TABLE: LazyLock<PanelTable> =
    LazyLock::new(|| toml::from_str(include_str!("../../assets/panels.toml")).expect("a test reads it"));

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PanelTable {
    palettes: BTreeMap<String, PaletteEntry>,
    panels: BTreeMap<String, PanelEntry>,
}

/// A display as the table and `[panels.NAME]` of a configuration describe it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanelEntry {
    /// What it is, for people.
    #[serde(default)]
    pub about: String,
    /// Pixels, as people hold it.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Its colours.
    pub palette: PaletteChoice,
    /// The codes of its colours, where they are not the palette's own.
    #[serde(default)]
    pub codes: Option<Vec<u16>>,
    /// How its memory holds pixels.
    pub packing: Packing,
    /// How a picture is turned to lie in its memory as its rows do.
    #[serde(default)]
    pub scan: Turn,
}

/// A display that is known.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) size: (usize, usize),
    pub(super) palette: Palette,
    pub(super) packing: Packing,
    pub(super) scan: Turn,
}

/// The displays that can be named.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KnownPanels {
    own: BTreeMap<String, PanelEntry>,
}

impl KnownPanels {
    /// With displays that a configuration adds, which may replace the program's.
    pub fn with(own: BTreeMap<String, PanelEntry>) -> KnownPanels {
        KnownPanels { own }
    }

    /// Whether the added ones can be; the error begins with the name of one that cannot.
    ///
    /// # Errors
    ///
    /// A size, a palette or a code is out of range.
    pub fn check(&self) -> Result<(), String> {
        self.own
            .iter()
            .try_for_each(|(name, entry)| entry.panel().map(drop).map_err(|error| format!("{name}: {error}")))
    }

    /// Their names, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.own.keys().chain(TABLE.panels.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The display of that name.
    pub fn entry(&self, name: &str) -> Option<&PanelEntry> {
        self.own.get(name).or_else(|| TABLE.panels.get(name))
    }

    pub(super) fn panel(&self, name: &str) -> Result<Panel, String> {
        let unknown = || format!("the panel `{name}` is unknown; known are {}", self.names().join(", "));
        self.entry(name).ok_or_else(unknown)?.panel()
    }
}

impl PanelEntry {
    fn panel(&self) -> Result<Panel, String> {
        check_size(self.width, self.height)?;
        let palette = palette(&self.palette, self.codes.as_deref())?;
        fits(&palette, self.packing)?;
        Ok(Panel { size: (self.width, self.height), palette, packing: self.packing, scan: self.scan })
    }
}

/// The palette of that name or of those colours.
pub(super) fn palette(choice: &PaletteChoice, codes: Option<&[u16]>) -> Result<Palette, String> {
    match choice {
        PaletteChoice::Named(name) if name == RGB565 => Ok(Palette::Rgb565),
        PaletteChoice::Named(name) => {
            let names: Vec<&str> = TABLE.palettes.keys().map(String::as_str).chain([RGB565]).collect();
            let unknown = || format!("the palette `{name}` is unknown; known are {}", names.join(", "));
            TABLE.palettes.get(name).ok_or_else(unknown)?.palette(codes)
        }
        PaletteChoice::Colours(colours) => {
            PaletteEntry { colours: colours.clone(), nominal: None, codes: None }.palette(codes)
        }
    }
}

/// Whether `packing` can hold every colour.
pub(super) fn fits(palette: &Palette, packing: Packing) -> Result<(), String> {
    let words = matches!(packing, Packing::Rgb565Big | Packing::Rgb565Little);
    match palette {
        Palette::Few(_) if words => Ok(()),
        Palette::Few(swatches) => match swatches.iter().map(|swatch| swatch.code).max().unwrap_or_default() {
            code if code <= packing.most() => Ok(()),
            code => Err(format!(
                "the code {code} of a colour does not fit the packing, whose codes are 0 to {}",
                packing.most()
            )),
        },
        Palette::Rgb565 if words => Ok(()),
        Palette::Rgb565 => Err("the palette rgb565 goes with the packings rgb565-be and rgb565-le".into()),
    }
}

pub(super) fn check_size(width: usize, height: usize) -> Result<(), String> {
    let allowed = (1..=MOST_SIDE).contains(&width) && (1..=MOST_SIDE).contains(&height);
    if allowed && width * height <= MOST_PIXELS {
        return Ok(());
    }
    let most = MOST_PIXELS >> 20;
    Err(format!("{width}×{height} pixels are not allowed; 1 to {MOST_SIDE} a side and {most} megapixels are"))
}
