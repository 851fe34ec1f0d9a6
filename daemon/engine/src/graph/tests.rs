//! Graphs that a bundle may bring, and broken ones.

use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use tract_onnx::pb::{TensorShapeProto, TypeProto, tensor_proto, type_proto};

use super::*;
use crate::layer::Layer;
use crate::layer_onnx::to_node;
use crate::weights::Weights;

/// The shape of all values of `between`.
const SHAPE: [usize; 3] = [1, 1024, 64];
const LEN: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];

fn attention(name: &str, input: &str, output: &str) -> NodeProto {
    let layer = Layer::Attention { heads: 2, causal: false, int8: false, cross: false, quantize: false };
    to_node(&layer, name, &[(); 3].map(|()| input.to_owned()), &[output.to_owned()])
}

fn value(name: &str) -> ValueInfoProto {
    let shape = Some(TensorShapeProto { dim: vec![] });
    let tensor = type_proto::Tensor { elem_type: tensor_proto::DataType::Float as i32, shape };
    let kind = TypeProto { denotation: String::new(), value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}

/// A graph from `x` to `y`.
fn graph(nodes: Vec<NodeProto>) -> Graph {
    let graph = GraphProto {
        node: nodes,
        input: vec![value("x")],
        output: vec![ValueInfoProto { r#type: None, ..value("y") }],
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    let model = ModelProto { graph: Some(graph), opset_import, ..ModelProto::default() };
    open(&model, &weights("unet")).unwrap()
}

fn weights(network: &str) -> Shared {
    Shared::new(Weights::open(&Bundle::demo().source, network).unwrap())
}

fn open(model: &ModelProto, weights: &Shared) -> Result<Graph> {
    Graph::parse("n.onnx".into(), &encode(model), weights.lock().weights.file())
}

/// From and to `SHAPE`.
fn same() -> Signature {
    Signature { inputs: vec![InputShape::F32(SHAPE.to_vec())], output: SHAPE.to_vec() }
}

/// From latents of this shape to an image of the size that 16 × 16 of them make.
fn decoding(latents: Vec<usize>) -> Signature {
    Signature { inputs: vec![InputShape::F32(latents)], output: vec![1, 128, 128, 3] }
}

fn encode(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// A standard operator with one attribute, an integer.
fn standard(op_type: &str, inputs: &[&str], output: &str, (name, i): (&str, i64)) -> NodeProto {
    let r#type = AttributeType::Int as i32;
    NodeProto {
        op_type: op_type.into(),
        name: format!("{op_type} to {output}"),
        input: inputs.iter().map(|input| String::from(*input)).collect(),
        output: vec![output.into()],
        attribute: vec![AttributeProto { name: name.into(), r#type, i, ..AttributeProto::default() }],
        ..NodeProto::default()
    }
}

fn cast(input: &str, output: &str, to: tensor_proto::DataType) -> NodeProto {
    standard("Cast", &[input], output, ("to", to as i64))
}

#[test]
fn casts_and_joins_compute_what_onnx_says() {
    use tensor_proto::DataType::{Float, Float16};
    let x: Vec<f32> = (0..LEN).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let joined = |axis| {
        let concat = standard("Concat", &["same", "back"], "y", ("axis", axis));
        graph(vec![cast("x", "half", Float16), cast("half", "back", Float), cast("x", "same", Float), concat])
    };
    let shape = vec![SHAPE[0], SHAPE[1], 2 * SHAPE[2]];
    let signature = Signature { output: shape, ..same() };
    let rounded = x.iter().map(|x| half::f16::from_f32(*x).to_f32());
    let rows =
        x.chunks(SHAPE[2]).zip(Vec::from_iter(rounded).chunks(SHAPE[2])).flat_map(|(a, b)| [a, b].concat()).collect();
    let wanted: Vec<f32> = rows;
    for axis in [2, -1] {
        let schedule = joined(axis).schedule(&signature, true).unwrap();
        let input = InputValues::F32(SHAPE.to_vec(), x.clone());
        let run = schedule.run(vec![input], None, &mut Ahead::none(), &mut None, &weights("unet"), &mut |_| {});
        assert_eq!(run.unwrap(), wanted);
    }
}

#[test]
fn other_casts_and_joins_are_refused_by_name() {
    use tensor_proto::DataType::{Float16, Int32};
    let cases = [
        (vec![cast("x", "y", Int32)], "between f32 and f16"),
        (vec![cast("x", "half", Float16), standard("Concat", &["half", "x"], "y", ("axis", 2))], "not f32"),
        (vec![standard("Concat", &["x", "x"], "y", ("axis", 1))], "along axis 1"),
        (vec![standard("Concat", &["x", "x"], "y", ("axis", -2))], "along axis -2"),
    ];
    for (nodes, wanted) in cases {
        let message = graph(nodes).schedule(&same(), true).map(drop).unwrap_err().to_string();
        assert!(message.contains(wanted) && message.contains(" to y"), "{message}");
    }
}

#[test]
fn a_cancelled_run_and_a_failing_operator_say_so() {
    let mut graph = graph(vec![attention("attend", "x", "y")]);
    let input = || InputValues::F32(SHAPE.to_vec(), vec![0.0; LEN]);
    let schedule = graph.schedule(&same(), false).unwrap();
    let flag: Arc<AtomicBool> = Arc::default();
    diffused_kernels::cancel::watch(flag.clone());
    // Set when the only operator begins, whose result is arbitrary then.
    let set = &mut |_| flag.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let cancelled = schedule.run(vec![input()], None, &mut Ahead::none(), &mut None, &weights("unet"), set);
        assert!(matches!(cancelled, Err(Error::Cancelled)));
    }
    let failure = TractError::from(Error::Internal("a fault".into())).context("Evaluating 3 \"attend\"");
    let message = into_ours(failure).to_string();
    assert!(message.contains("attend") && message.contains("a fault"), "{message}");
}

/// The demo model's decoder, changed by `change`; what is said of it.
fn broken(change: impl FnOnce(&mut GraphProto)) -> String {
    let bundle = Bundle::demo();
    let mut model = file::proto(&bundle.read("vae_decoder.onnx").unwrap()).unwrap();
    change(model.graph.as_mut().unwrap());
    let graph = open(&model, &weights("vae_decoder"));
    let Err(error) = graph.and_then(|mut graph| graph.schedule(&decoding(vec![1, 16, 16, 4]), true)) else {
        return "accepted".into();
    };
    assert!(matches!(error, Error::ModelCorrupt { .. }), "{error}");
    error.to_string()
}

fn first<'a>(graph: &'a mut GraphProto, op_type: &str) -> &'a mut NodeProto {
    graph.node.iter_mut().find(|node| node.op_type == op_type).unwrap()
}

fn set(node: &mut NodeProto, name: &str, i: i64) {
    node.attribute.iter_mut().find(|attribute| attribute.name == name).unwrap().i = i;
}

#[test]
fn broken_graphs_are_refused_by_file_and_node() {
    let conv = |name: &'static str, value: i64| move |graph: &mut GraphProto| set(first(graph, "Conv2d"), name, value);
    let norm =
        |name: &'static str, value: i64| move |graph: &mut GraphProto| set(first(graph, "GroupNorm"), name, value);
    let named = |op_type: &str| {
        let bundle = Bundle::demo();
        let mut model = file::proto(&bundle.read("vae_decoder.onnx").unwrap()).unwrap();
        first(model.graph.as_mut().unwrap(), op_type).name.clone()
    };
    let (conv_name, norm_name) = (named("Conv2d"), named("GroupNorm"));
    type Change = Box<dyn FnOnce(&mut GraphProto)>;
    let cases: Vec<(&str, Change)> = vec![
        (&conv_name, Box::new(conv("features", i64::MAX))),
        (&conv_name, Box::new(conv("features", -1))),
        (&conv_name, Box::new(conv("features", 0))),
        (&conv_name, Box::new(conv("kernel", i64::MAX))),
        (&conv_name, Box::new(conv("kernel", 5))),
        (&conv_name, Box::new(conv("stride", 0))),
        (&conv_name, Box::new(conv("size", 1))),
        (&conv_name, Box::new(conv("time", 1))),
        (&norm_name, Box::new(norm("groups", 0))),
        (&norm_name, Box::new(norm("groups", 7))),
        (
            &norm_name,
            Box::new(|graph| {
                let node = first(graph, "GroupNorm");
                let outputs = node.output.len() as i64;
                set(node, "quantize", 2 - outputs);
            }),
        ),
        (&conv_name, Box::new(|graph| first(graph, "Conv2d").input[0] = "nowhere".into())),
        (&conv_name, Box::new(|graph| first(graph, "Conv2d").input.clear())),
        (&conv_name, Box::new(|graph| first(graph, "Conv2d").output.push("more".into()))),
        (&conv_name, Box::new(|graph| first(graph, "Conv2d").output.clear())),
        (&conv_name, Box::new(|graph| drop(first(graph, "Conv2d").attribute.pop()))),
        (&conv_name, Box::new(|graph| first(graph, "Conv2d").op_type = "Conv3d".into())),
        (&conv_name, Box::new(|graph| first(graph, "Conv2d").op_type = "RandomNormal".into())),
        (&norm_name, Box::new(|graph| first(graph, "GroupNorm").op_type = "Attention".into())),
        (
            &norm_name,
            Box::new(|graph| {
                let attribute = AttributeProto {
                    name: "eps".into(),
                    f: f32::NAN,
                    r#type: AttributeType::Float as i32,
                    ..AttributeProto::default()
                };
                let attributes = &mut first(graph, "GroupNorm").attribute;
                attributes.retain(|attribute| attribute.name != "eps");
                attributes.push(attribute);
            }),
        ),
        // A circle: a node reads what a later one makes of it.
        (
            &conv_name,
            Box::new(|graph| {
                let last = graph.node.last().unwrap().output[0].clone();
                first(graph, "Conv2d").input[0] = last;
            }),
        ),
        // What comes out is not an image: the graph ends after its first convolution.
        (
            "[1, 128, 128, 3] is needed",
            Box::new(|graph| graph.output[0].name = first(graph, "Conv2d").output[0].clone()),
        ),
        ("nobody", Box::new(|graph| graph.output[0].name = "nobody".into())),
        ("output", Box::new(|graph| graph.output.clear())),
        ("names", Box::new(|graph| graph.node[1].name = graph.node[0].name.clone())),
        (
            "huge",
            Box::new(|graph| {
                let dims = vec![1 << 40, 1 << 40];
                graph.initializer.push(TensorProto { name: "huge".into(), dims, ..TensorProto::default() });
            }),
        ),
    ];
    for (index, (named, change)) in cases.into_iter().enumerate() {
        let message = broken(change);
        let named = if named == "names" { "used twice" } else { named };
        assert!(message.starts_with("n.onnx: ") && message.contains(named), "case {index}, {named}: {message}");
    }
}

#[test]
fn a_missing_weight_is_named_with_its_file() {
    let message = broken(|graph| {
        let weight = first(graph, "Conv2d").attribute.iter_mut().find(|attribute| attribute.name == "weight").unwrap();
        weight.s = b"nothing".to_vec();
    });
    assert!(message.contains("vae_decoder.weights") && message.contains("nothing"), "{message}");
}

#[test]
fn inputs_of_another_rank_are_refused() {
    let bundle = Bundle::demo();
    let bytes = bundle.read("vae_decoder.onnx").unwrap();
    let shared = weights("vae_decoder");
    for shape in [vec![16, 16, 4], vec![1, 16, 16, 5], vec![1, 0, 16, 4], vec![1, 1 << 40, 1 << 40, 4], vec![]] {
        let mut graph = Graph::parse("n.onnx".into(), &bytes, shared.lock().weights.file()).unwrap();
        let error = graph.schedule(&decoding(shape.clone()), true).map(drop).unwrap_err();
        assert!(matches!(error, Error::ModelCorrupt { .. }), "{shape:?}: {error}");
    }
}

/// Graphs with changed bytes are refused, or are graphs after all, but they neither panic nor ask for absurd memory.
#[test]
fn graphs_with_changed_bytes_do_no_harm() {
    let bundle = Bundle::demo();
    let shared = weights("vae_decoder");
    let bytes = bundle.read("vae_decoder.onnx").unwrap();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..2000 {
        let mut changed = bytes.clone();
        match random(3) {
            0 => changed.truncate(random(bytes.len())),
            1 => drop(changed.splice(random(bytes.len() / 2)..bytes.len() / 2, [])),
            _ => {}
        }
        for _ in 0..random(4) {
            let at = random(changed.len());
            changed[at] = random(256) as u8;
        }
        let graph = Graph::parse("n.onnx".into(), &changed, shared.lock().weights.file());
        let _ = graph.and_then(|mut graph| graph.schedule(&decoding(vec![1, 16, 16, 4]), true));
    }
}
