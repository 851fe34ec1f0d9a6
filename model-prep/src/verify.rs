//! Compares a bundle with its source, tensor by tensor: what the storage format cost, and whether it is the same model.

use std::fs;
use std::path::Path;

use diffused_engine::bundle::TensorKind;

use crate::arch;
use crate::convert::check_tensors;
use crate::error::{Error, Result};
use crate::network::{Network, Weights};
use crate::parameter::Parameter;
use crate::reader::{self, WeightsFile};
use crate::source::{Checkpoint, Source};

/// How far a tensor of the bundle is from its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The network.
    pub network: &'static str,
    /// The tensor.
    pub tensor: String,
    /// `int8`, `f16` or `f32`.
    pub format: String,
    /// Root of the mean squared difference over root of the mean square.
    pub relative: f64,
}

impl Difference {
    /// Signal to noise, decibels; infinite where all values are equal.
    pub fn snr(&self) -> f64 {
        -20.0 * self.relative.log10()
    }
}

/// Compares `bundle` with `source`; `each` is told of every tensor in order of first use.
///
/// Errors are those of a bundle that was not made from this source, or not by this program: a graph that differs, a
/// tensor of another shape.
pub fn verify(bundle: &Path, source: &Path, each: &mut dyn FnMut(Difference)) -> Result<()> {
    let manifest = reader::manifest(bundle)?;
    reader::check_files(bundle, &manifest)?;
    let source = Source::open(source)?;
    let weights = Weights::from_name(&manifest.weights).ok_or_else(|| {
        Error::file(&bundle.join("bundle.json"), format!("weights is {:?}; known: int8, f16, f32", manifest.weights))
    })?;
    let networks = arch::networks(&source.configs, weights);
    check_tensors(&source, &networks)?;
    for network in &networks {
        verify_network(bundle, network, source.checkpoint(network.name), each)?;
    }
    Ok(())
}

fn verify_network(
    bundle: &Path,
    network: &Network,
    source: &Checkpoint,
    each: &mut dyn FnMut(Difference),
) -> Result<()> {
    let path = bundle.join(format!("{}.onnx", network.name));
    if fs::read(&path).map_err(Error::io(&path))? != network.to_onnx() {
        return Err(Error::file(&path, "is not the graph that the source's configuration describes; convert it anew"));
    }
    let file = WeightsFile::open(bundle, network.name)?;
    for parameter in &network.parameters {
        let (TensorKind::Matrix { format, .. } | TensorKind::Table { format, .. }) = parameter.kind();
        let (network, tensor) = (network.name, parameter.name.clone());
        each(Difference { network, tensor, format, relative: relative(&file, parameter, source)? });
    }
    Ok(())
}

/// The relative difference of one weight.
fn relative(file: &WeightsFile, parameter: &Parameter, source: &Checkpoint) -> Result<f64> {
    let stored = file.index.tensors.get(&parameter.name).map(|tensor| &tensor.kind);
    if stored != Some(&parameter.kind()) {
        let message = format!("is {stored:?} instead of {:?}", parameter.kind());
        return Err(file.error(&parameter.name, message));
    }
    let (mut noise, mut signal, mut index) = (0.0, 0.0, 0);
    file.blocks(&parameter.name, |block| {
        for unit in block.chunks_exact(parameter.unit_bytes()) {
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
