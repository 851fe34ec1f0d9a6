//! What a display shows of an image that is ready: made, kept beside the image, and sent where the broker takes it.

use std::path::PathBuf;

use diffused_engine::Options;
use diffused_engine::request::Parameters;
use image::RgbImage;
use tracing::error;

use crate::contract::fault::{Code, Fault};
use crate::contract::request::FileFormat;
use crate::display::render::{memory, render};
use crate::display::spec::DisplaySpec;
use crate::painting::pictures::{Folder, ImageFile};
use crate::painting::placed::PlacedImage;

const MIB: u64 = 1 << 20;

/// What a display shows of an image.
#[derive(Debug)]
pub struct PaintedOutput {
    /// What to publish, or, where it does not fit through the broker, what is on disk.
    pub file: PlacedImage,
    /// Whether it fits through the broker.
    pub fits: bool,
    /// Where it is kept.
    pub path: Option<PathBuf>,
    /// The display's width and height, pixels.
    pub size: (usize, usize),
}

/// The most memory that it takes to make the output of an image of these parameters, the image included, bytes.
pub fn needs(spec: &DisplaySpec, parameters: &Parameters) -> u64 {
    let (width, height) = size(parameters);
    3 * width as u64 * height as u64 + memory((width, height), spec)
}

/// The image's width and height in the end, pixels.
fn size(parameters: &Parameters) -> (usize, usize) {
    let (times, (width, height)) = (parameters.upscale.unwrap_or(1), parameters.size());
    (times * width, times * height)
}

/// Refuses an output that cannot be made within the memory of `options`.
pub fn check(spec: &DisplaySpec, parameters: &Parameters, options: Options) -> Result<(), Fault> {
    let needed = options.process() + needs(spec, parameters);
    let Some(have) = options.memory.filter(|memory| *memory < needed) else { return Ok(()) };
    let (width, height) = spec.size(size(parameters));
    let (needed, have) = (needed.div_ceil(MIB), have / MIB);
    let message = format!("the display's {width}×{height} pixels need {needed} MiB to make; there are {have} MiB");
    Err(Fault { field: Some("output".into()), ..Fault::new(Code::OutOfMemory, message) })
}

/// The file of what a display shows.
pub fn encode(image: &RgbImage, spec: &DisplaySpec) -> Result<ImageFile, Fault> {
    let bytes =
        render(image, spec).map_err(|error| Fault::new(Code::Internal, format!("the display's PNG: {error}")))?;
    let format = if spec.content_type() == FileFormat::Raw.content_type() { FileFormat::Raw } else { FileFormat::Png };
    Ok(ImageFile { bytes, format })
}

/// Makes the output of image `index` of a job and stores it under a name that begins with `stem`. What goes wrong is a
/// warning: the image itself is there.
pub(super) fn make(
    image: &RgbImage,
    (spec, stem, index): (&DisplaySpec, &str, u64),
    folder: &Folder,
    limit: Option<usize>,
    warnings: &mut Vec<String>,
) -> Option<PaintedOutput> {
    let mut warn = |message: String| {
        error!("{message}");
        warnings.push(message);
    };
    let file = match encode(image, spec) {
        Ok(file) => file,
        Err(fault) => {
            warn(format!("output {index} could not be made: {fault}"));
            return None;
        }
    };
    let size = spec.size((image.width() as usize, image.height() as usize));
    let stored = match folder.store(&format!("{stem}-output"), &file) {
        Ok(path) => Some(path),
        Err(error) => {
            warn(format!("output {index} could not be kept on disk: {error}"));
            None
        }
    };
    let path = stored.clone().filter(|_| folder.keeps());
    let Some(limit) = limit.filter(|limit| file.bytes.len() > *limit) else {
        return Some(PaintedOutput { file: PlacedImage::new(file, stored), fits: true, path, size });
    };
    let large = format!("output {index} has {} bytes, the broker takes {limit}", file.bytes.len());
    if stored.is_none() {
        warn(format!("{large}: neither published nor kept"));
        return None;
    }
    warn(format!("{large}: not published, see its path"));
    // The only way to it, also where images are not kept for longer than it takes to send them.
    let path = stored.clone();
    Some(PaintedOutput { file: PlacedImage::new(file, stored), fits: false, path, size })
}

#[cfg(test)]
mod tests {
    use diffused_engine::request::Request;

    use super::*;
    use crate::display::panels::KnownPanels;
    use crate::display::spec::name_or_keys;
    use crate::painting::model::Model;

    #[test]
    fn what_does_not_fit_the_memory_is_refused() {
        let resolver = Model::new(None, Options::default()).unwrap().resolver().unwrap();
        let painting = resolver.resolve(&Request::default(), None).unwrap();
        let output = name_or_keys(serde_json::json!("waveshare-10.3")).unwrap().unwrap();
        let spec = output.resolve(&KnownPanels::default()).unwrap().unwrap();
        let with = |memory| Options { memory: Some(memory), threads: Some(1), ..Options::default() };
        let needed = with(0).process() + needs(&spec, painting.parameters());
        assert!(needed < with(0).process() + (13 << 20), "{needed} bytes");
        assert!(check(&spec, painting.parameters(), with(needed)).is_ok());
        let fault = check(&spec, painting.parameters(), with(needed - 1)).unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::OutOfMemory, Some("output")), "{fault}");
    }
}
