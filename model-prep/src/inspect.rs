//! What is in a bundle, or would be in the bundle of a source, in figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use diffused_engine::bundle::{self, Manifest, WeightsFile};
use diffused_engine::{Bundle, Source};
use prost::Message;
use tract_onnx::pb::ModelProto;

use crate::arch;
use crate::convert::{Options, UNKNOWN_SHA256, check_tensors, manifest, manifest_fields};
use crate::error::{Error, Result};
use crate::network::BuiltNetwork;
use crate::source::ModelSource;

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Of a source that is not converted: what it is, in one line, and what the user should know of.
    pub source: Option<(String, Vec<String>)>,
    /// The manifest; without checksums where there is a `source`.
    pub manifest: Manifest,
    /// Its networks.
    pub networks: Vec<NetworkSummary>,
}

/// What is in one of its networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSummary {
    /// The network's name.
    pub name: &'static str,
    /// Operators of the graph.
    pub operators: usize,
    /// Tensors in the weights file.
    pub tensors: usize,
    /// Bytes of the tensors by the format of their values: `int8`, `f16`, `f32`.
    pub bytes: BTreeMap<&'static str, u64>,
}

/// Reads the bundle at `path` through, checking every checksum in it; of a model that is not a bundle, tells what
/// converting it with `options` would make.
///
/// # Errors
///
/// The first file or tensor that is missing, damaged or not as a bundle has it; what `path` is instead of a model.
pub fn inspect(path: &Path, options: &Options) -> Result<Inspection> {
    if !path.join("bundle.json").exists() {
        return summary(&mut ModelSource::open(path, &options.source)?, options);
    }
    let opened = Bundle::open(Source::Folder(path.to_owned()))?;
    opened.check_files()?;
    let networks = opened.manifest.networks().map(|name| network(path, name)).collect::<Result<_>>()?;
    Ok(Inspection { source: None, manifest: opened.manifest, networks })
}

/// What the bundle of `source` would hold.
pub(crate) fn summary(source: &mut ModelSource, options: &Options) -> Result<Inspection> {
    options.check()?;
    let networks = arch::networks(&source.configs, options.weights);
    source.warnings.extend(check_tensors(source, &networks)?);
    let networks: Vec<NetworkSummary> = networks.iter().map(NetworkSummary::of).collect();
    let names = networks.iter().map(|network| network.name);
    let mut fields = manifest_fields(source, options, UNKNOWN_SHA256.to_owned());
    fields.files = bundle::files(names).into_iter().map(|file| (file, UNKNOWN_SHA256.to_owned())).collect();
    let manifest = manifest(source, fields)?;
    let told = (source.recognised.clone(), source.warnings.clone());
    Ok(Inspection { source: Some(told), manifest, networks })
}

impl NetworkSummary {
    /// Of a network that is not written yet.
    fn of(network: &BuiltNetwork) -> NetworkSummary {
        let mut bytes = BTreeMap::new();
        for parameter in &network.parameters {
            *bytes.entry(parameter.stored().format().name()).or_default() += parameter.bytes();
        }
        let operators = ModelProto::decode(&*network.to_onnx()).ok().and_then(|model| model.graph);
        let operators = operators.map_or(0, |graph| graph.node.len());
        NetworkSummary { name: network.name, operators, tensors: network.parameters.len(), bytes }
    }
}

fn network(bundle: &Path, name: &'static str) -> Result<NetworkSummary> {
    let path = bundle.join(format!("{name}.onnx"));
    let graph = fs::read(&path).map_err(Error::io(&path))?;
    let graph =
        ModelProto::decode(&*graph).map_err(|error| Error::file(&path, format!("not an ONNX model: {error}")))?;
    let weights = WeightsFile::open(&Source::Folder(bundle.to_owned()), name)?;
    let mut bytes = BTreeMap::new();
    for (name, entry) in weights.index().entries() {
        let sum = bytes.entry(entry.shape().format().name()).or_default();
        weights.each_block::<Error>(name, |block| {
            *sum += block.len() as u64;
            Ok(())
        })?;
    }
    let operators = graph.graph.map_or(0, |graph| graph.node.len());
    Ok(NetworkSummary { name, operators, tensors: weights.index().entries().len(), bytes })
}
