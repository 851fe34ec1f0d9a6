//! A UNet's shallow part (DeepCache, Ma et al. 2023, <https://arxiv.org/abs/2312.00858>): what lies deep in it changes
//! little from step to step, so that a step can take that from one before it, and compute only what is at the full
//! resolution around it.
//!
//! The cut is at the last place where the way up meets the way down: of what is joined there, the deep features come from
//! below, and the skip is the first convolution's. They wait in f16, as skips do. Nodes are found by the names that
//! model-prep gives them.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_hir::infer::InferenceModel;
use tract_onnx::tract_hir::internal::*;

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

/// Adds the deep features to the outputs.
pub(super) fn keep(model: &mut InferenceModel) -> TractResult<()> {
    let deep = model.node(join(model)?.node).inputs[0];
    let stored = model.wire_node("deep_features.store", Cast { to: DatumType::F16 }, &[deep])?;
    let outputs = [&model.outputs[..], &stored].concat();
    model.select_output_outlets(&outputs)
}

/// Makes the deep features, which have this shape, an input, the last one of `signature`.
pub(super) fn take_up(model: &mut InferenceModel, signature: &mut Signature, shape: &[usize]) -> TractResult<()> {
    let input = InputShape::F16(shape.to_vec());
    let join = join(model)?;
    let stored = model.add_source("deep_features", input.fact())?;
    let deep = model.wire_node("deep_features.load", Cast { to: DatumType::F32 }, &[stored])?;
    signature.inputs.push(input);
    model.add_edge(deep[0], join)?;
    model.compact()
}

/// Where the deep features are joined to the first skip.
fn join(model: &InferenceModel) -> TractResult<InletId> {
    let is_join = |name: &str| name.starts_with(JOIN.0) && name.ends_with(JOIN.1);
    let join = model.nodes().iter().rev().find(|node| is_join(&node.name) && node.inputs.len() == 2);
    Ok(InletId::new(join.context("a graph without the joins of a UNet")?.id, 0))
}
