//! What tract makes of the same shapes.

use std::hint::black_box;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{OutletId, TypedOp};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_transformers::ops::flash_sdpa::FlashSdpaOp;

use super::numbers;

/// tract's f32 product of a shape, its weights packed. A convolution is compared with the product that it comes down to.
pub(super) fn product(m: usize, k: usize, n: usize) -> Box<dyn FnMut()> {
    let mut model = TypedModel::default();
    let weights = tensor(&[k, n]).into_arc_tensor();
    let x = model.add_source("x", f32::fact([m, k])).expect("a source");
    let w = model.add_const("w", weights).expect("a constant");
    let einsum = EinSum::new("mk,kn->mn".parse().expect("axes"), f32::datum_type());
    run(model, einsum, &[x, w], vec![tensor(&[m, k])])
}

/// tract's attention of a shape.
pub(super) fn attention(queries: usize, keys: usize, heads: usize, head_dim: usize) -> Box<dyn FnMut()> {
    let mut model = TypedModel::default();
    let shapes = [queries, keys, keys].map(|tokens| [1, heads, tokens, head_dim]);
    let inputs =
        shapes.map(|shape| model.add_source(format!("{}", model.nodes.len()), f32::fact(shape)).expect("a source"));
    let flash = FlashSdpaOp { causal: false, scale: None };
    run(model, flash, &inputs, shapes.iter().map(|shape| tensor(shape)).collect())
}

fn run(
    mut model: TypedModel,
    op: impl Into<Box<dyn TypedOp>>,
    inputs: &[OutletId],
    values: Vec<Tensor>,
) -> Box<dyn FnMut()> {
    let out = model.wire_node("op", op, inputs).expect("a node");
    model.select_output_outlets(&out).expect("an output");
    let plan = model.into_optimized().and_then(|model| model.into_runnable()).expect("a plan");
    let values: TVec<TValue> = values.into_iter().map(Tensor::into_tvalue).collect();
    Box::new(move || drop(black_box(plan.run(values.clone()).expect("a run"))))
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::from_shape(shape, &numbers(shape.iter().product())).expect("a tensor")
}
