//! What is in a bundle, in figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use diffused_engine::bundle::{Manifest, NETWORKS, TensorKind};
use prost::Message;
use tract_onnx::pb::ModelProto;

use crate::error::{Error, Result};
use crate::reader::{self, WeightsFile};

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// What it says of itself.
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
    /// Bytes of the tensors by the format of their values.
    pub bytes: BTreeMap<String, u64>,
}

/// Reads the bundle through, checking every checksum in it.
pub fn inspect(bundle: &Path) -> Result<Inspection> {
    let manifest = reader::manifest(bundle)?;
    reader::check_files(bundle, &manifest)?;
    let networks = NETWORKS.iter().map(|name| network(bundle, name)).collect::<Result<_>>()?;
    Ok(Inspection { manifest, networks })
}

fn network(bundle: &Path, name: &'static str) -> Result<NetworkSummary> {
    let path = bundle.join(format!("{name}.onnx"));
    let graph = fs::read(&path).map_err(Error::io(&path))?;
    let graph = ModelProto::decode(&*graph).map_err(|error| Error::file(&path, format!("no ONNX model: {error}")))?;
    let weights = WeightsFile::open(bundle, name)?;
    let mut bytes = BTreeMap::new();
    for (name, tensor) in &weights.index.tensors {
        let (TensorKind::Matrix { format, .. } | TensorKind::Table { format, .. }) = &tensor.kind;
        let sum = bytes.entry(format.clone()).or_default();
        weights.blocks(name, |block| {
            *sum += block.len() as u64;
            Ok(())
        })?;
    }
    let operators = graph.graph.map_or(0, |graph| graph.node.len());
    Ok(NetworkSummary { name, operators, tensors: weights.index.tensors.len(), bytes })
}
