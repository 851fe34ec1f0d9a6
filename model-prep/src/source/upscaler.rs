//! Upscalers of the kind SRVGGNetCompact (Real-ESRGAN's `realesr-general-x4v3` and its like): a file of weights, whose
//! shapes tell the configuration.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tensors::{Checkpoint, TensorFile};

/// Where a file has the weights, the best first: the moving average of the training, the weights, or both without an
/// outer key.
const PREFIXES: [&str; 3] = ["params_ema.", "params.", ""];
/// By how much an upscaler may enlarge.
const SCALES: std::ops::RangeInclusive<usize> = 2..=8;
const COLOURS: usize = 3;

/// An upscaler's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpscalerConfig {
    /// Its name: its file's.
    pub(crate) name: String,
    /// Channels of all convolutions but the last.
    pub(crate) channels: usize,
    /// Convolutions between the first and the last.
    pub(crate) between: usize,
    /// By how much it enlarges width and height.
    pub(crate) scale: usize,
}

impl UpscalerConfig {
    /// The last convolution's number among convolutions and PReLUs.
    pub(crate) fn last(&self) -> usize {
        2 * self.between + 2
    }
}

/// Opens the upscaler in the file `path`.
///
/// # Errors
///
/// A file that cannot be read, or holds something else.
pub(super) fn open(path: &Path) -> Result<(UpscalerConfig, Checkpoint)> {
    let file = TensorFile::open(path)?;
    let has = |name: &str| file.tensors.contains_key(name);
    let is_large = file.tensors.keys().any(|name| name.contains("rdb1.") || name.contains("RDB1."));
    let Some(prefix) = PREFIXES.into_iter().find(|prefix| has(&format!("{prefix}body.0.weight"))) else {
        return Err(Error::file(path, foreign(is_large)));
    };
    if is_large {
        return Err(Error::file(path, foreign(true)));
    }
    let inside = |name: &str| name.strip_prefix(prefix).map(str::to_owned);
    let tensors = Checkpoint::from_files(path, vec![Arc::new(file)], inside)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let config = of_tensors(name, &tensors)?;
    Ok((config, tensors))
}

/// What is said of a file that holds another network.
fn foreign(is_large: bool) -> String {
    let what = match is_large {
        true => "holds an upscaler of the ESRGAN kind (RRDBNet), whose work is too much for a small board",
        false => "holds no upscaler that is read",
    };
    format!(
        "{what}; take one of the kind SRVGGNetCompact, such as realesr-general-x4v3.pth or realesr-animevideov3.pth"
    )
}

fn of_tensors(name: String, tensors: &Checkpoint) -> Result<UpscalerConfig> {
    let number = |tensor: &str| tensor.strip_prefix("body.")?.strip_suffix(".weight")?.parse::<usize>().ok();
    let last = tensors.names().filter_map(number).max().unwrap_or_default();
    let (first_name, last_name) = ("body.0.weight", format!("body.{last}.weight"));
    let shape = |name: &str| tensors.shape(name).unwrap_or_default().to_vec();
    let (first, end) = (shape(first_name), shape(&last_name));
    let (&[channels, COLOURS, 3, 3], false) = (&first[..], last < 2) else {
        return Err(tensors.error(first_name, format!("has the shape {first:?}; an upscaler's is [channels, 3, 3, 3]")));
    };
    let outputs = end.first().copied().unwrap_or_default();
    let Some(scale) = SCALES.into_iter().find(|scale| COLOURS * scale * scale == outputs) else {
        let message = format!("has {outputs} outputs; 3 · scale² are possible, for a scale of 2 to 8");
        return Err(tensors.error(&last_name, message));
    };
    if !last.is_multiple_of(2) {
        return Err(tensors.error(&last_name, "comes last; a convolution comes last in an upscaler of this kind"));
    }
    Ok(UpscalerConfig { name, channels, between: last / 2 - 1, scale })
}
