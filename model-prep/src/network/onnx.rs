//! A network as an ONNX model, and where its activations are quantized.
//!
//! A value that int8 matrices alone consume leaves its operator as int8. One that others need as well stays f32, and a
//! `Quantize` before its first int8 consumer serves all of them.

use std::collections::{HashMap, HashSet};

use diffused_engine::layer::Layer;
use diffused_engine::layer_onnx::{DOMAIN, to_node};
use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto::{self, Tensor};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

use super::{BuiltNetwork, Dim, Input, Node, Op};

/// The version of ONNX's own operators.
const OPSET: i64 = 18;
/// ONNX's format version of that time.
const IR_VERSION: i64 = 8;

impl BuiltNetwork {
    /// The model file's bytes.
    pub(crate) fn to_onnx(&self) -> Vec<u8> {
        let import = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![import("", OPSET), import(DOMAIN, 1)],
            producer_name: "model-prep".to_owned(),
            graph: Some(self.graph()),
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }

    fn graph(&self) -> GraphProto {
        GraphProto {
            name: self.name.to_owned(),
            node: Lowering::new(self).nodes(),
            input: self.inputs.iter().map(input).collect(),
            output: vec![value_info(self.output.0, DataType::Float, None)],
            ..GraphProto::default()
        }
    }
}

/// Nodes being written.
struct Lowering<'a> {
    network: &'a BuiltNetwork,
    /// Names of the int8 matrices.
    int8: HashSet<&'a str>,
    /// Values' names.
    names: HashMap<usize, String>,
    /// Values that leave their operator as int8.
    fused: HashSet<usize>,
}

impl<'a> Lowering<'a> {
    fn new(network: &'a BuiltNetwork) -> Lowering<'a> {
        let inputs = network.inputs.iter().enumerate().map(|(id, input)| (id, input.name.to_owned()));
        let nodes = network.nodes.iter().map(|node| (node.output, node.name.clone()));
        let output = (network.output.1, network.output.0.to_owned());
        let names = inputs.chain(nodes).chain([output]).collect();
        let int8 = network.parameters.iter().filter(|parameter| parameter.is_int8());
        let int8 = int8.map(|parameter| parameter.name.as_str()).collect();
        let mut lowering = Lowering { network, int8, names, fused: HashSet::new() };
        lowering.fused = lowering.fusible();
        lowering
    }

    /// Values that int8 matrices alone consume, from operators that can quantize.
    fn fusible(&self) -> HashSet<usize> {
        let mut plain: HashSet<usize> = HashSet::from([self.network.output.1]);
        let mut wanted: HashSet<usize> = HashSet::new();
        for node in &self.network.nodes {
            let wants = usize::from(self.wants_int8(node));
            wanted.extend(&node.inputs[..wants]);
            plain.extend(&node.inputs[wants..]);
        }
        let able =
            self.network.nodes.iter().filter(|node| matches!(&node.op, Op::Layer(l) if quantizing(l).quantizes()));
        able.map(|node| node.output).filter(|id| wanted.contains(id) && !plain.contains(id)).collect()
    }

    /// Its first input goes into an int8 matrix.
    fn wants_int8(&self, node: &Node) -> bool {
        matches!(&node.op, Op::Layer(layer) if layer.weights().iter().any(|name| self.int8.contains(name)))
    }

    fn nodes(&self) -> Vec<NodeProto> {
        let mut quantized = self.fused.clone();
        let mut nodes = Vec::new();
        for node in &self.network.nodes {
            if self.wants_int8(node) && quantized.insert(node.inputs[0]) {
                nodes.push(self.quantize(node.inputs[0]));
            }
            nodes.push(self.node(node));
        }
        nodes
    }

    /// A value's two names once it is quantized.
    fn quantized(&self, id: usize) -> Vec<String> {
        ["q", "scale"].map(|part| format!("{}.{part}", self.names[&id])).to_vec()
    }

    fn quantize(&self, id: usize) -> NodeProto {
        let name = &self.names[&id];
        to_node(&Layer::Quantize {}, &format!("{name}.quantize"), std::slice::from_ref(name), &self.quantized(id))
    }

    fn node(&self, node: &Node) -> NodeProto {
        let mut inputs: Vec<String> = node.inputs.iter().map(|id| self.names[id].clone()).collect();
        if self.wants_int8(node) {
            inputs.splice(0..1, self.quantized(node.inputs[0]));
        }
        let output = vec![self.names[&node.output].clone()];
        match &node.op {
            Op::Layer(layer) if self.fused.contains(&node.output) => {
                to_node(&quantizing(layer), &node.name, &inputs, &self.quantized(node.output))
            }
            Op::Layer(layer) => to_node(layer, &node.name, &inputs, &output),
            Op::Concat { axis, .. } => stock("Concat", &node.name, inputs, output, ("axis", *axis as i64)),
            Op::ToHalf => stock("Cast", &node.name, inputs, output, ("to", DataType::Float16 as i64)),
            Op::ToFloat => stock("Cast", &node.name, inputs, output, ("to", DataType::Float as i64)),
        }
    }
}

/// The layer with its result quantized, if it can do that.
fn quantizing(layer: &Layer) -> Layer {
    let mut layer = layer.clone();
    if let Layer::Linear { quantize, .. }
    | Layer::GroupNorm { quantize, .. }
    | Layer::LayerNorm { quantize, .. }
    | Layer::Attention { quantize, .. } = &mut layer
    {
        *quantize = true;
    }
    layer
}

/// One of ONNX's own operators.
fn stock(op: &str, name: &str, input: Vec<String>, output: Vec<String>, (key, i): (&str, i64)) -> NodeProto {
    let r#type = AttributeType::Int as i32;
    let attribute = vec![AttributeProto { name: key.to_owned(), r#type, i, ..AttributeProto::default() }];
    NodeProto { op_type: op.to_owned(), name: name.to_owned(), input, output, attribute, ..NodeProto::default() }
}

fn input(input: &Input) -> ValueInfoProto {
    let dim = |dim: &Dim| match dim {
        Dim::Any(name) => dimension::Value::DimParam((*name).to_owned()),
        Dim::Fixed(size) => dimension::Value::DimValue(*size as i64),
    };
    let dim = input.dims.iter().map(|d| Dimension { value: Some(dim(d)), ..Dimension::default() }).collect();
    let kind = if input.ids { DataType::Int64 } else { DataType::Float };
    value_info(input.name, kind, Some(TensorShapeProto { dim }))
}

fn value_info(name: &str, kind: DataType, shape: Option<TensorShapeProto>) -> ValueInfoProto {
    let tensor = Tensor { elem_type: kind as i32, shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}
