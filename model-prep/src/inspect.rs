//! What is in a bundle, in figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use diffused_engine::bundle::{Manifest, WeightsFile};
use diffused_engine::{Bundle, Source};
use prost::Message;
use tract_onnx::pb::ModelProto;

use crate::error::{Error, Result};

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Its manifest.
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

/// Reads the bundle through, checking every checksum in it.
///
/// # Errors
///
/// The first file or tensor that is missing, damaged or not as a bundle has it.
pub fn inspect(bundle: &Path) -> Result<Inspection> {
    let opened = Bundle::open(Source::Folder(bundle.to_owned()))?;
    opened.check_files()?;
    let networks = opened.manifest.networks().map(|name| network(bundle, name)).collect::<Result<_>>()?;
    Ok(Inspection { manifest: opened.manifest, networks })
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
