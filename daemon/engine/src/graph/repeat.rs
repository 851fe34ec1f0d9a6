//! One image and several prompts: what depends on the image alone is computed once, and repeated where it meets what depends
//! on the prompts.
//!
//! Guidance predicts noise for the negative prompt and for the prompt from the same latents. Up to the first
//! cross-attention a UNet computes the same for both: in Stable Diffusion 1.5 a residual block and a self-attention at the
//! full resolution, and a skip that waits until the end. Which nodes these are is found by following the inputs through the
//! graph.

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::internal::*;

use super::input::Signature;
use super::shared::Shared;
use crate::ops;

/// As many copies of a value, one after the other along its first axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepeatOp {
    times: usize,
}

/// Where `signature` has one image and several prompts: inserts a `RepeatOp` into each edge from a node that depends on the
/// image alone to one that depends on the prompts. It takes the reader's place in the order: copies are made late.
pub(super) fn insert(
    model: &mut InferenceModel,
    signature: &Signature,
    places: &mut HashMap<String, usize>,
) -> TractResult<()> {
    let Some(times) = signature.prompts() else { return Ok(()) };
    let image = dependents(model, |input| input == 0)?;
    let prompts = dependents(model, |input| input > 0 && signature.inputs[input].dims().first() == Some(&times))?;
    let mut meetings = Vec::new();
    for node in model.nodes().iter().filter(|node| prompts[node.id]) {
        let once = |input: &OutletId| image[input.node] && !prompts[input.node];
        let inlets = node.inputs.iter().enumerate().filter(|(_, input)| once(input));
        meetings.extend(inlets.map(|(slot, input)| (*input, InletId::new(node.id, slot))));
    }
    for (value, inlet) in meetings {
        let reader = &model.node(inlet.node).name;
        let (name, place) = (format!("{reader}.repeat.{}", inlet.slot), places.get(reader).copied());
        let repeated = model.wire_node(&*name, RepeatOp { times }, &[value])?;
        model.add_edge(repeated[0], inlet)?;
        places.extend(place.map(|place| (name, place)));
    }
    Ok(())
}

/// For each node whether it depends on one of these inputs of the graph.
fn dependents(model: &InferenceModel, of: impl Fn(usize) -> bool) -> TractResult<Vec<bool>> {
    let mut depends = vec![false; model.nodes().len()];
    for (index, input) in model.inputs.iter().enumerate() {
        depends[input.node] = of(index);
    }
    for id in model.eval_order()? {
        depends[id] |= model.node(id).inputs.iter().any(|input| depends[input.node]);
    }
    Ok(depends)
}

impl RepeatOp {
    fn shape(&self, input: &[usize]) -> TVec<usize> {
        let mut shape: TVec<usize> = input.into();
        shape.first_mut().into_iter().for_each(|first| *first *= self.times);
        shape
    }
}

impl Op for RepeatOp {
    fn name(&self) -> StaticName {
        "Repeat".into()
    }

    op_as_typed_op!();
}

impl EvalOp for RepeatOp {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let value = inputs.pop().context("nothing to repeat")?;
        Ok(tvec![ops::repeat(value, self.times, &mut Shared::of(context)?.lock().pool)?.into()])
    }
}

impl TypedOp for RepeatOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![inputs[0].datum_type.fact(&*self.shape(&super::concrete(inputs[0])?))])
    }

    as_op!();
}

impl InferenceOp for RepeatOp {
    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        let known = inputs[0].datum_type.concretize().zip(super::net_op::concrete_shape(inputs[0]));
        let output = match known {
            Some((kind, shape)) => InferenceFact::dt_shape(kind, self.shape(&shape)),
            None => outputs[0].clone(),
        };
        Ok((inputs.into_iter().cloned().collect(), tvec![output], observed.into_iter().cloned().collect()))
    }

    fn to_typed(
        &self,
        _: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        target.wire_node(&*node.name, self.clone(), &[mapping[&node.inputs[0]]])
    }

    as_op!();
}
