//! The order in which a graph's nodes run: the file's, except that what frees memory runs as soon as it can.
//!
//! tract's own order is depth first from the output. In that order the UNet's skip connections are cast to f16 only
//! when the upward half reads them, and stay in f32 until then.

use std::collections::HashSet;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::footprint::node_bytes;

/// tract's plan of `model` in our order. `places` are the nodes' places in the file by their names.
#[allow(deprecated, reason = "no other constructor takes an order")]
pub(super) fn plan(model: TypedModel, places: &HashMap<String, usize>) -> TractResult<Arc<TypedSimplePlan>> {
    let (outputs, before) = (model.output_outlets()?.to_vec(), dependencies(&model, places)?);
    let options = RunOptions { skip_order_opt_ram: true, ..RunOptions::default() };
    Ok(Arc::new(TypedSimplePlan::build_with_outputs_and_deps(model, &outputs, &before, &options)?))
}

/// Pairs of nodes, each with the one that runs right before it.
fn dependencies(model: &TypedModel, places: &HashMap<String, usize>) -> TractResult<Vec<(usize, usize)>> {
    let mut waiting = in_file_order(model, places)?;
    let mut missing: HashSet<usize> = waiting.iter().copied().collect();
    let mut uses: Vec<usize> = model.nodes().iter().map(|node| users(node).len()).collect();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let ready = |id: usize| inputs(model.node(id)).iter().all(|input| !missing.contains(input));
        let frees = |id: usize| Ok(node_bytes(model, id)? < freed(model, id, &uses)?);
        let mut next = None;
        for at in (0..waiting.len()).filter(|&at| ready(waiting[at])) {
            let frees: TractResult<bool> = frees(waiting[at]);
            if frees? {
                next = Some(at);
                break;
            }
            next = next.or(Some(at));
        }
        let id = waiting.remove(next.context("a graph with a loop")?);
        missing.remove(&id);
        inputs(model.node(id)).into_iter().for_each(|input| uses[input] -= 1);
        order.push(id);
    }
    Ok(order.windows(2).map(|pair| (pair[1], pair[0])).collect())
}

/// All that runs. What the file does not have, a graph's inputs, comes first.
fn in_file_order(model: &TypedModel, places: &HashMap<String, usize>) -> TractResult<Vec<usize>> {
    let mut nodes: Vec<usize> = model.eval_order()?;
    nodes.sort_by_key(|&id| places.get(&model.node(id).name));
    Ok(nodes)
}

/// Bytes of what nobody needs after `id`.
fn freed(model: &TypedModel, id: usize, uses: &[usize]) -> TractResult<usize> {
    let last = inputs(model.node(id)).into_iter().filter(|&input| uses[input] == 1);
    last.map(|input| node_bytes(model, input)).sum()
}

/// The distinct nodes that use a node's outputs.
fn users(node: &TypedNode) -> Vec<usize> {
    let successors = node.outputs.iter().flat_map(|output| &output.successors);
    deduplicated(successors.map(|inlet| inlet.node))
}

/// The distinct nodes whose outputs a node uses.
pub(super) fn inputs(node: &TypedNode) -> Vec<usize> {
    deduplicated(node.inputs.iter().map(|input| input.node))
}

fn deduplicated(ids: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut ids: Vec<usize> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use crate::bundle::Bundle;
    use crate::graph::footprint::peak;
    use crate::graph::{Graph, InputShape, Signature};
    use crate::weights::Weights;

    #[test]
    fn a_unet_needs_less_than_in_tracts_order() {
        let bundle = Bundle::demo();
        let (text, sizes) = (&bundle.manifest.text, &bundle.manifest.picture);
        let output = vec![2, 64, 64, sizes.latent_channels];
        let inputs = vec![
            InputShape::F32(output.clone()),
            InputShape::F32(vec![1]),
            InputShape::F32(vec![2, text.tokens, text.channels]),
        ];
        let weights = Weights::open(&bundle.source, "unet").unwrap();
        let mut graph = Graph::open(&bundle, "unet", weights.file()).unwrap();
        let schedule = graph.schedule(&Signature { inputs, output }, false).unwrap();
        let model = schedule.plan.model();
        let theirs = peak(model, &model.eval_order().unwrap()).unwrap();
        assert!(schedule.activations() < theirs, "{} and {theirs} bytes", schedule.activations());
    }
}
