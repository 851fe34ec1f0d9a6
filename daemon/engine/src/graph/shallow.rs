//! A UNet's shallow part (DeepCache, Ma et al. 2023, <https://arxiv.org/abs/2312.00858>): what lies deep in it changes
//! little from step to step, so that a step can take that from one before it, and compute only what is at the full
//! resolution around it.
//!
//! The cut is at the last place where the way up meets the way down: of what is joined there, the deep features come from
//! below, and the skip is the first convolution's. They wait in f16, as skips do. Nodes are found by the names that
//! model-prep gives them.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::file::{FileNode, GraphFile};
use super::input::{InputShape, Signature};

/// What a join of the way up is called around its place.
const JOIN: (&str, &str) = ("up_blocks.", ".concat");

/// What of a graph runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum GraphPart {
    /// All of it.
    #[default]
    Whole,
    /// All of it; its deep features are a second output.
    Keeping,
    /// What depends on the latents without the deep features, which are one more input.
    Shallow,
}

/// What a run leaves for those after it: `[batch, height, width, channels]`, f16.
#[derive(Clone)]
pub(crate) struct DeepFeatures(pub(super) TValue);

/// What the deep features are called in f16, and in f32.
const STORED: &str = "deep_features";
const LOADED: &str = "deep_features.load";

/// Adds the deep features to the outputs.
pub(super) fn keep(file: &mut GraphFile) -> TractResult<()> {
    let join = join(file)?;
    let deep = file.nodes[join].inputs[0].clone();
    file.nodes.insert(join, FileNode::cast(STORED, DatumType::F16, &deep));
    file.outputs.push(STORED.to_owned());
    Ok(())
}

/// Makes the deep features, which have this shape, an input, the last one of `signature`.
pub(super) fn take_up(file: &mut GraphFile, signature: &mut Signature, shape: &[usize]) -> TractResult<()> {
    let join = join(file)?;
    file.inputs.push(STORED.to_owned());
    signature.inputs.push(InputShape::F16(shape.to_vec()));
    let deep = file.nodes[join].inputs[0].clone();
    let readers = file.nodes[join..].iter_mut().flat_map(|node| &mut node.inputs);
    readers.filter(|input| **input == deep).for_each(|input| LOADED.clone_into(input));
    file.nodes.insert(join, FileNode::cast(LOADED, DatumType::F32, STORED));
    Ok(())
}

/// The place of the node where the deep features are joined to the first skip.
fn join(file: &GraphFile) -> TractResult<usize> {
    let is_join = |name: &str| name.starts_with(JOIN.0) && name.ends_with(JOIN.1);
    let join = file.nodes.iter().rposition(|node| is_join(&node.name) && node.inputs.len() == 2);
    join.context("a graph without the joins of a UNet")
}
