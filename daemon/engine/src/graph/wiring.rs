//! From a file's nodes to tract's model for inputs of known shapes.
//!
//! Every node becomes an operator of ours that says its outputs' shapes; tract's model holds them with their edges, and
//! its plan walks them.
//!
//! *One image and several prompts.* Guidance predicts noise for the negative prompt and for the prompt from the same
//! latents. Up to the first cross-attention a UNet computes the same for both: in Stable Diffusion 1.5 a residual block
//! and a self-attention at the full resolution, and a skip that waits until the end. What depends on the image alone is
//! computed once, and repeated where it meets what depends on the prompts.

use std::collections::HashMap;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::concrete;
use super::file::{FileNode, FileOp, GraphFile};
use super::glue_op::GlueOp;
use super::input::Signature;
use super::repeat::RepeatOp;
use crate::ops::Glue;

/// A graph with all shapes known.
pub(super) struct WiredGraph {
    pub(super) model: TypedModel,
    /// The nodes' places in the file by their names. A `RepeatOp` has its reader's: copies are made late.
    pub(super) places: HashMap<String, usize>,
}

/// A value in tract's model.
#[derive(Clone, Copy)]
struct Wired {
    outlet: OutletId,
    /// It depends on the first input, an image.
    image: bool,
    /// It depends on inputs that have a row for each prompt.
    prompts: bool,
}

struct Wiring<'a> {
    graph: WiredGraph,
    values: HashMap<&'a str, Wired>,
    /// How many prompts there are beside one image, where there are several.
    prompts: Option<usize>,
}

/// The nodes of `file` that its outputs need, for inputs of these shapes.
///
/// # Errors
///
/// Names the node whose inputs do not fit it or its weights; says so where the first output is not what the signature wants.
pub(super) fn wire(file: &GraphFile, signature: &Signature) -> TractResult<WiredGraph> {
    let graph = WiredGraph { model: TypedModel::default(), places: HashMap::new() };
    let mut wiring = Wiring { graph, values: HashMap::new(), prompts: signature.prompts() };
    wiring.inputs(file, signature)?;
    let needed = file.needed();
    for (place, node) in file.nodes.iter().enumerate().filter(|(_, node)| needed.contains(&*node.name)) {
        wiring.node(node, place)?;
    }
    let outputs =
        file.outputs.iter().map(|output| Ok(wiring.value(output)?.outlet)).collect::<TractResult<Vec<_>>>()?;
    let WiredGraph { mut model, places } = wiring.graph;
    model.select_output_outlets(&outputs)?;
    let result = model.output_fact(0)?;
    let fits = result.datum_type == DatumType::F32 && concrete(result)?[..] == signature.output[..];
    ensure!(fits, "it makes {result:?} of {:?}, but f32 {:?} is needed", signature.inputs, signature.output);
    Ok(WiredGraph { model, places })
}

impl<'a> Wiring<'a> {
    fn inputs(&mut self, file: &'a GraphFile, signature: &Signature) -> TractResult<()> {
        let (needs, has) = (file.inputs.len(), signature.inputs.len());
        ensure!(needs == has, "it has {needs} inputs, not {has}");
        for (index, (name, shape)) in file.inputs.iter().zip(&signature.inputs).enumerate() {
            let outlet = self.graph.model.add_source(name.clone(), shape.fact())?;
            let prompts = index > 0 && shape.dims().first() == self.prompts.as_ref();
            self.values.insert(name, Wired { outlet, image: index == 0, prompts });
        }
        Ok(())
    }

    fn value(&self, name: &str) -> TractResult<Wired> {
        self.values.get(name).copied().with_context(|| format!("nothing makes {name}"))
    }

    fn node(&mut self, node: &'a FileNode, place: usize) -> TractResult<()> {
        let mut inputs = node.inputs.iter().map(|name| self.value(name)).collect::<TractResult<TVec<Wired>>>()?;
        let (image, prompts) = (inputs.iter().any(|input| input.image), inputs.iter().any(|input| input.prompts));
        if let (Some(times), true) = (self.prompts, prompts) {
            for (slot, input) in inputs.iter_mut().enumerate().filter(|(_, input)| input.image && !input.prompts) {
                let name = format!("{}.repeat.{slot}", node.name);
                input.outlet = self.graph.model.wire_node(&*name, RepeatOp { times }, &[input.outlet])?[0];
                self.graph.places.insert(name, place);
            }
        }
        let inputs: TVec<OutletId> = inputs.iter().map(|input| input.outlet).collect();
        let outlets = self.operator(node, &inputs)?;
        self.graph.places.insert(node.name.clone(), place);
        for (name, outlet) in node.outputs.iter().zip(outlets) {
            self.values.insert(name, Wired { outlet, image, prompts });
        }
        Ok(())
    }

    fn operator(&mut self, node: &FileNode, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let op: Box<dyn TypedOp> = match &node.op {
            FileOp::Net(op) => Box::new(op.clone()),
            FileOp::Concat(axis) => {
                self.check_joined(*axis, inputs).with_context(|| node.name.clone())?;
                Box::new(GlueOp(Glue::Concat))
            }
            FileOp::Cast(to) => match self.cast(*to, inputs).with_context(|| node.name.clone())? {
                Some(glue) => Box::new(GlueOp(glue)),
                None => return Ok(inputs.into()),
            },
        };
        self.graph.model.wire_node(&*node.name, op, inputs)
    }

    /// What casts to this type; `None` where the values have it.
    fn cast(&self, to: DatumType, inputs: &[OutletId]) -> TractResult<Option<Glue>> {
        let [input] = inputs else { bail!("a Cast of {} values", inputs.len()) };
        match (self.graph.model.outlet_fact(*input)?.datum_type, to) {
            (DatumType::F32, DatumType::F16) => Ok(Some(Glue::ToHalf)),
            (DatumType::F16, DatumType::F32) => Ok(Some(Glue::ToSingle)),
            (from, to) if from == to => Ok(None),
            (from, to) => bail!("a Cast from {from:?} to {to:?}; between f32 and f16 it is possible"),
        }
    }

    /// Whether the inputs are f32 of one shape but for the last axis, along which they are to be joined.
    fn check_joined(&self, axis: i64, inputs: &[OutletId]) -> TractResult<()> {
        let facts = inputs.iter().map(|input| self.graph.model.outlet_fact(*input));
        let facts: TVec<&TypedFact> = facts.collect::<TractResult<_>>()?;
        ensure!(facts.iter().all(|fact| fact.datum_type == DatumType::F32), "a Concat of values that are not f32");
        let shapes = facts.iter().map(|fact| concrete(fact)).collect::<TractResult<TVec<TVec<usize>>>>()?;
        let rank = shapes.first().map_or(0, |shape| shape.len());
        let last = axis == -1 || usize::try_from(axis).is_ok_and(|axis| axis + 1 == rank);
        ensure!(rank > 0 && last, "a Concat along axis {axis} of {shapes:?}; along the last one it is possible");
        let joined =
            shapes.iter().filter_map(|shape| shape.last()).try_fold(0usize, |sum, &last| sum.checked_add(last));
        ensure!(joined.is_some(), "a Concat of {shapes:?}, which is too large");
        let rows = |shape: &TVec<usize>| shape.split_last().map(|(_, rows)| rows.to_vec());
        let same = shapes.iter().all(|shape| rows(shape) == rows(&shapes[0]));
        ensure!(same, "a Concat of {shapes:?}, which differ beyond the last axis");
        Ok(())
    }
}
