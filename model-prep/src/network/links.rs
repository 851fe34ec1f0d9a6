//! Values whose channels may be scaled without changing what the network computes: their producer is linear in each
//! channel, and matrices are all that reads them.

use diffused_engine::layer::{Activation, Layer};

use super::{BuiltNetwork, Node, Op};

/// A value between one weight that makes it and the matrices that read it. Dividing a channel of the first and
/// multiplying it in the others cancels out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChannelLink {
    /// Channels of the value.
    pub(crate) channels: usize,
    /// Index of the producer in the network's parameters: a norm, or a matrix, of whose outputs the first `channels`
    /// are the value's.
    pub(crate) producer: usize,
    /// Indices of the matrices, whose inputs are the value's channels.
    pub(crate) consumers: Vec<usize>,
    /// The node whose result it is.
    pub(crate) node: String,
}

impl BuiltNetwork {
    /// The network's links, in the order in which it runs.
    pub(crate) fn links(&self) -> Vec<ChannelLink> {
        self.nodes.iter().filter_map(|node| self.link(node)).collect()
    }

    /// The link that begins at `node`.
    fn link(&self, node: &Node) -> Option<ChannelLink> {
        let Op::Layer(layer) = &node.op else { return None };
        let producer = self.parameter(scalable(layer)?)?;
        let last = self.weighted(node);
        let consumers = self.readers(last.output)?;
        let channels = self.parameters[*consumers.first()?].inputs();
        Some(ChannelLink { channels, producer, consumers, node: last.name.clone() })
    }

    /// `node`, or the attention that alone reads its result, as values: each channel of what that makes is a weighted
    /// mean of the same channel.
    fn weighted<'a>(&'a self, node: &'a Node) -> &'a Node {
        let mut readers = self.nodes.iter().filter(|reader| reader.inputs.contains(&node.output));
        match (readers.next(), readers.next()) {
            (Some(reader), None)
                if matches!(reader.op, Op::Layer(Layer::Attention { .. }))
                    && reader.inputs.iter().position(|id| *id == node.output) == Some(2) =>
            {
                reader
            }
            _ => node,
        }
    }

    /// The matrices that read `value`; `None` where something else does.
    fn readers(&self, value: usize) -> Option<Vec<usize>> {
        if value == self.output.1 {
            return None;
        }
        let readers = self.nodes.iter().filter(|node| node.inputs.contains(&value));
        let matrix = |node: &Node| match &node.op {
            Op::Layer(Layer::Linear { weight, .. } | Layer::Conv2d { weight, .. })
                if !node.inputs[1..].contains(&value) =>
            {
                self.parameter(weight)
            }
            _ => None,
        };
        readers.map(matrix).collect()
    }

    fn parameter(&self, name: &str) -> Option<usize> {
        self.parameters.iter().position(|parameter| parameter.name == name)
    }
}

/// The weight of a layer that is linear in each channel of its result, whose scale the weight therefore sets.
fn scalable(layer: &Layer) -> Option<&str> {
    match layer {
        Layer::LayerNorm { weight, .. }
        | Layer::GroupNorm { weight, silu: false, .. }
        | Layer::Linear { weight, activation: Activation::None | Activation::Geglu, residual: false, .. } => {
            Some(weight)
        }
        _ => None,
    }
}
