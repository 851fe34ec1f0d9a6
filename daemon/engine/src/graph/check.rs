//! What a graph's protobuf may hold: nodes that are known, each after what it reads, and no tensors.

use std::collections::HashSet;

use tract_onnx::pb::{ModelProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::file::{self, STANDARD};
use crate::layer::Layer;

/// Most nodes; Stable Diffusion 1.5's UNet has some 700.
const MAX_NODES: usize = 1 << 12;

/// Checks that `model` is a graph whose operators are known, whose nodes come after what they read, and which holds no
/// tensors: weights are in a file of their own.
pub(super) fn check(model: &ModelProto) -> TractResult<()> {
    let graph = model.graph.as_ref().context("it holds no graph")?;
    ensure!(graph.node.len() <= MAX_NODES, "it has {} nodes, {MAX_NODES} are allowed", graph.node.len());
    if let Some(tensor) = graph.initializer.first() {
        bail!("it holds a tensor, {:?}; weights are in a file of their own", tensor.name);
    }
    ensure!(graph.sparse_initializer.is_empty(), "it holds sparse tensors");
    ensure!(!graph.output.is_empty(), "it has no output");
    let mut known = HashSet::new();
    for input in &graph.input {
        ensure!(known.insert(&*input.name), "{} is defined twice", input.name);
    }
    let mut names = HashSet::new();
    for node in &graph.node {
        let described = || format!("node {} ({})", node.name, node.op_type);
        ensure!(!node.name.is_empty() && names.insert(&*node.name), "{}: its name is empty or used twice", described());
        operator(node).with_context(described)?;
        if let Some(missing) = node.input.iter().find(|input| !known.contains(&***input)) {
            bail!("{}: its input {missing:?} is not made by any node before it", described());
        }
        for output in &node.output {
            ensure!(!output.is_empty() && known.insert(&**output), "{}: output {output:?} is made twice", described());
        }
    }
    for output in &graph.output {
        ensure!(known.contains(&*output.name), "no node makes the output {}", output.name);
    }
    Ok(())
}

/// A known operator with the outputs that it has.
fn operator(node: &NodeProto) -> TractResult<()> {
    let mut outputs = 1;
    if Layer::NAMES.contains(&&*node.op_type) {
        outputs = if file::layer(node)?.quantizes() { 2 } else { 1 };
    } else if !STANDARD.contains(&&*node.op_type) {
        bail!("unknown operator; besides those of diffused a bundle may use {}", STANDARD.join(" and "));
    }
    ensure!(!node.input.is_empty(), "it has no inputs");
    ensure!(node.output.len() == outputs, "it has {} outputs where {outputs} are needed", node.output.len());
    Ok(())
}
