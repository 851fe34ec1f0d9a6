//! Compares a bundle with its source, tensor by tensor: what the storage format cost, and whether it is the same model.

use std::fs;
use std::path::Path;

use diffused_engine::bundle::WeightsFile;
use diffused_engine::{Bundle, Source};
use diffused_kernels::pack::Format;

use crate::arch;
use crate::convert::check_tensors;
use crate::error::{Error, Result};
use crate::network::BuiltNetwork;
use crate::options::SourceOptions;
use crate::parameter::Parameter;
use crate::smooth;
use crate::source::ModelSource;
use crate::tensors::Checkpoint;

/// How far a tensor of the bundle is from its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The network.
    pub network: &'static str,
    /// The tensor.
    pub tensor: String,
    /// How the bundle stores it.
    pub format: Format,
    /// Root of the mean squared difference over root of the mean square.
    pub relative: f64,
}

impl Difference {
    /// Signal to noise, decibels; infinite where all values are equal.
    pub fn snr(&self) -> f64 {
        -20.0 * self.relative.log10()
    }
}

/// What to do where a bundle and a model do not fit.
pub const SAME_OPTIONS: &str = "a bundle is verified with the model that it was made of, and with the same --lora, --embedding, --vae and --clip-skip";

/// Compares `bundle` with `source`; `each` is called for every tensor in order of first use.
///
/// `options` are those that it was made with. Errors are those of a bundle that was not made from this source, or not
/// by this program: other networks, a graph that differs, a tensor of another shape.
pub fn verify(bundle: &Path, source: &Path, options: &SourceOptions, each: &mut dyn FnMut(Difference)) -> Result<()> {
    let opened = Bundle::open(Source::Folder(bundle.to_owned()))?;
    opened.check_files()?;
    let source = ModelSource::open(source, options)?;
    let mut networks = arch::networks(&source.configs, opened.manifest.weights);
    check_tensors(&source, &networks)?;
    let made: Vec<&str> = networks.iter().map(|network| network.name).collect();
    let held: Vec<&str> = opened.manifest.networks().collect();
    if made != held {
        let (held, made) = (held.join(", "), made.join(", "));
        let message = format!("holds {held}; the model has {made}: {SAME_OPTIONS}");
        return Err(Error::file(bundle, message));
    }
    for network in &mut networks {
        verify_network(bundle, network, source.checkpoint(network.name), each)?;
    }
    Ok(())
}

fn verify_network(
    bundle: &Path,
    network: &mut BuiltNetwork,
    source: &Checkpoint,
    each: &mut dyn FnMut(Difference),
) -> Result<()> {
    let path = bundle.join(format!("{}.onnx", network.name));
    if fs::read(&path).map_err(Error::io(&path))? != network.to_onnx() {
        let message = "is not the graph that the source's configuration describes";
        let message = format!("{message}: {SAME_OPTIONS}; one of another version of model-prep is converted anew");
        return Err(Error::file(&path, message));
    }
    let path = bundle.join(format!("{}.weights", network.name));
    let file = WeightsFile::open(&Source::Folder(bundle.to_owned()), network.name)?;
    for parameter in &network.parameters {
        check_shape(&path, &file, parameter)?;
    }
    smooth::as_found(network, source, &file)?;
    for parameter in &network.parameters {
        let (network, tensor, format) = (network.name, parameter.name.clone(), parameter.stored().format());
        each(Difference { network, tensor, format, relative: relative(&file, parameter, source)? });
    }
    Ok(())
}

/// Refuses a weight of another shape.
fn check_shape(path: &Path, file: &WeightsFile, parameter: &Parameter) -> Result<()> {
    let (found, wanted) = (file.entry(&parameter.name)?.shape(), parameter.stored());
    match found == wanted {
        true => Ok(()),
        false => {
            Err(Error::tensor(path, &parameter.name, format!("has another shape than the model's: {SAME_OPTIONS}")))
        }
    }
}

/// The relative difference of one weight.
fn relative(file: &WeightsFile, parameter: &Parameter, source: &Checkpoint) -> Result<f64> {
    let (mut noise, mut signal, mut index, wanted) = (0.0, 0.0, 0, parameter.stored());
    file.each_block::<Error>(&parameter.name, |block| {
        for unit in block.chunks_exact(wanted.unit_bytes()) {
            for (found, wanted) in parameter.compare(source, index, unit)? {
                noise += f64::from(found - wanted).powi(2);
                signal += f64::from(wanted).powi(2);
            }
            index += 1;
        }
        Ok(())
    })?;
    Ok(if noise == 0.0 { 0.0 } else { (noise / signal).sqrt() })
}
