//! A text encoder's layers by the names that model-prep gives its nodes: which of them makes the embeddings can be chosen,
//! as what comes after it is in the graph as well.

use super::file::{self, GraphFile};
use crate::error::{Error, Result};

/// What a transformer block's last node is called around its number.
const BLOCK: (&str, &str) = ("encoder.layers.", ".mlp.fc2");
/// What the embeddings go into: beside what else a second text encoder makes, or the norm. A first text encoder of two has
/// neither.
const READERS: [&str; 2] = ["embeddings_and_projections", "final_layer_norm"];

/// How many blocks of a text encoder's graph come before the one that makes its embeddings; `None` where the graph is not
/// one that model-prep writes.
pub(crate) fn blocks_before_embeddings(onnx: &[u8]) -> Option<usize> {
    let graph = file::proto(onnx).ok()?.graph?;
    let reader = READERS.into_iter().find_map(|name| graph.node.iter().find(|node| node.name == name));
    let embeddings = reader.map_or_else(|| Some(&graph.output.first()?.name), |reader| reader.input.first())?;
    block(&graph.node.iter().find(|node| node.output.contains(embeddings))?.name)
}

/// The number of the block whose last node has this name.
fn block(name: &str) -> Option<usize> {
    name.strip_prefix(BLOCK.0)?.strip_suffix(BLOCK.1)?.parse().ok()
}

/// Makes the embeddings those of the block `left_out` before the last one that makes any; now they are those of the one that
/// is `before` before it.
///
/// # Errors
///
/// `InvalidParam` where there is no such block; `Internal` where the graph is not a text encoder's.
pub(super) fn take_embeddings_earlier(file: &mut GraphFile, before: usize, left_out: usize) -> Result<()> {
    let reader = READERS.into_iter().find_map(|name| file.nodes.iter().position(|node| node.name == name));
    let embeddings = match reader {
        Some(reader) => file.nodes[reader].inputs.first(),
        None => file.outputs.first(),
    };
    let current = embeddings.and_then(|value| block(&file.maker(value)?.name));
    let Some(last) = current.map(|block| block + before) else {
        return Err(Error::Internal("the text encoder's graph has no layers of the usual names".into()));
    };
    let Some(block) = last.checked_sub(left_out) else {
        let message = format!("the model's text encoder has no more than {} layers", last + 1);
        return Err(Error::InvalidParam { field: "clip_skip", message });
    };
    let wanted = format!("{}{block}{}", BLOCK.0, BLOCK.1);
    let made = file.node(&wanted).and_then(|node| node.outputs.first().cloned());
    let made = made.ok_or_else(|| Error::Internal(format!("the text encoder's graph has no node {wanted}")))?;
    match reader {
        Some(reader) => file.nodes[reader].inputs[0] = made,
        None => file.outputs = vec![made],
    }
    Ok(())
}
