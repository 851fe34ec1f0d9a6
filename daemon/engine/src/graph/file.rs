//! A graph as its file has it: nodes in their order, each with the names of what it reads and of what it makes.
//!
//! tract parses the file. Its nodes become tract's when their shapes are known (`wiring`).

use std::collections::HashSet;

use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use super::check;
use super::net_op::NetOp;
use crate::layer::Layer;
use crate::layer_onnx;

/// The standard ONNX operators that a bundle may have beside ours.
pub(super) const STANDARD: [&str; 2] = ["Cast", "Concat"];

/// What a node computes.
#[derive(Debug, Clone)]
pub(super) enum FileOp {
    /// An operator of ours.
    Net(NetOp),
    /// The same values as another type.
    Cast(DatumType),
    /// Tensors side by side along this axis, which counts from the end where it is negative.
    Concat(i64),
}

/// A node of the file.
#[derive(Debug, Clone)]
pub(super) struct FileNode {
    pub(super) name: String,
    pub(super) op: FileOp,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
}

/// The nodes of a file; each comes after what it reads.
#[derive(Debug, Clone)]
pub(super) struct GraphFile {
    pub(super) nodes: Vec<FileNode>,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
}

/// What an ONNX file holds.
pub(super) fn proto(bytes: &[u8]) -> TractResult<ModelProto> {
    Onnx::default().proto_model_for_read(&mut &*bytes)
}

impl GraphFile {
    /// Parses an ONNX file and checks that its nodes are known and fit together, but for shapes.
    pub(super) fn parse(bytes: &[u8]) -> TractResult<GraphFile> {
        let model = proto(bytes)?;
        check::check(&model)?;
        let GraphProto { node, input, output, .. } = model.graph.as_ref().context("it holds no graph")?;
        let mut nodes: Vec<FileNode> = node.iter().map(FileNode::of).collect::<TractResult<_>>()?;
        nodes.shrink_to_fit();
        Ok(GraphFile {
            nodes,
            inputs: input.iter().map(|input| input.name.clone()).collect(),
            outputs: output.iter().map(|output| output.name.clone()).collect(),
        })
    }

    /// The node of this name.
    pub(super) fn node(&self, name: &str) -> Option<&FileNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node that makes this value; `None` for an input of the graph.
    pub(super) fn maker(&self, value: &str) -> Option<&FileNode> {
        self.nodes.iter().find(|node| node.outputs.iter().any(|output| output == value))
    }

    /// The names of the nodes that the outputs need.
    pub(super) fn needed(&self) -> HashSet<&str> {
        let mut values: HashSet<&str> = self.outputs.iter().map(String::as_str).collect();
        let mut nodes = HashSet::new();
        for node in self.nodes.iter().rev() {
            if node.outputs.iter().any(|output| values.contains(&**output)) {
                nodes.insert(&*node.name);
                values.extend(node.inputs.iter().map(String::as_str));
            }
        }
        nodes
    }
}

impl FileNode {
    /// Copies what it keeps: what protobuf made lies scattered in twenty times as much memory, pages of which would stay.
    fn of(node: &NodeProto) -> TractResult<FileNode> {
        let op = match &*node.op_type {
            "Cast" => FileOp::Cast(node.get_attr("to")?),
            "Concat" => FileOp::Concat(node.get_attr("axis")?),
            _ => FileOp::Net(NetOp::new(layer(node)?)),
        };
        Ok(FileNode { name: node.name.clone(), op, inputs: node.input.clone(), outputs: node.output.clone() })
    }

    /// A `Cast` of one value.
    pub(super) fn cast(name: &str, to: DatumType, input: &str) -> FileNode {
        let outputs = vec![name.to_owned()];
        FileNode { name: name.to_owned(), op: FileOp::Cast(to), inputs: vec![input.to_owned()], outputs }
    }
}

/// The operator of ours that a node is.
pub(super) fn layer(node: &NodeProto) -> TractResult<Layer> {
    layer_onnx::from_node(node).map_err(|message| format_err!("{message}"))
}
