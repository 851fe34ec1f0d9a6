//! Graphs that a bundle may bring, and broken ones.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use tract_onnx::pb::{TensorShapeProto, TypeProto, tensor_proto, type_proto};

use super::*;
use crate::bundle::Source;
use crate::layer_onnx::to_node;
use crate::weights::Weights;

/// The shape of all values of `between`.
const SHAPE: [usize; 3] = [1, 1024, 64];
const LEN: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];

fn demo() -> Bundle {
    Bundle::open(Source::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo"))).unwrap()
}

fn attention(name: &str, input: &str, output: &str) -> NodeProto {
    let layer = Layer::Attention { heads: 2, causal: false, int8: false, quantize: false };
    to_node(&layer, name, &[(); 3].map(|()| input.to_owned()), &[output.to_owned()])
}

fn stock(op_type: &str, inputs: [&str; 2], output: &str) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        name: format!("{op_type} to {output}"),
        input: inputs.map(String::from).into(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
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
    Shared::new(Weights::open(&demo().source, network).unwrap())
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

fn run(mut graph: Graph, x: &[f32]) -> Vec<f32> {
    let input = InputValues::F32(SHAPE.to_vec(), x.to_vec());
    let schedule = graph.schedule(&same(), true).unwrap();
    schedule.run(vec![input], None, &mut Ahead::none(), &mut None, &weights("unet"), &mut |_| {}).unwrap()
}

#[test]
fn standard_operators_run_between_ours_and_are_counted() {
    let x: Vec<f32> = (0..LEN).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let attend = |x: &[f32]| run(graph(vec![attention("attend", "x", "y")]), x);
    let between = || {
        let nodes = vec![
            attention("first", "x", "a"),
            stock("Mul", ["a", "x"], "m"),
            stock("Add", ["m", "x"], "s"),
            attention("last", "s", "y"),
        ];
        graph(nodes)
    };
    let sum: Vec<f32> = attend(&x).iter().zip(&x).map(|(a, x)| a * x + x).collect();
    assert_eq!(run(between(), &x), attend(&sum));
    // `x`, what is multiplied, and the product; then `x`, the product, and the sum.
    let schedule = between().schedule(&same(), false).unwrap();
    assert_eq!(schedule.activations(), 3 * LEN * size_of::<f32>());
    assert_eq!(schedule.pooled(), LEN * size_of::<f32>(), "product and sum are not the pool's");
}

/// Not one of them looks for a kernel in a register of tract's, which programs leave out.
#[test]
fn each_standard_operator_on_values_computes_what_onnx_says() {
    type Computes = fn(f32, f32) -> f32;
    let x: Vec<f32> = (0..LEN).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let attend = |x: &[f32]| run(graph(vec![attention("attend", "x", "y")]), x);
    let first = attend(&x);
    let cases: [(&str, usize, Computes); 8] = [
        ("Add", 2, |a, x| a + x),
        ("Sub", 2, |a, x| a - x),
        ("Mul", 2, |a, x| a * x),
        ("Max", 2, f32::max),
        ("Min", 2, f32::min),
        ("Neg", 1, |a, _| -a),
        ("Relu", 1, |a, _| a.max(0.0)),
        ("Identity", 1, |a, _| a),
    ];
    for (name, inputs, computes) in cases {
        let mut between = stock(name, ["a", "x"], "s");
        between.input.truncate(inputs);
        let nodes = vec![attention("first", "x", "a"), between, attention("last", "s", "y")];
        let wanted: Vec<f32> = first.iter().zip(&x).map(|(&a, &x)| computes(a, x)).collect();
        assert_eq!(run(graph(nodes), &x), attend(&wanted), "{name}");
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
    let bundle = demo();
    let mut model = Onnx::default().proto_model_for_read(&mut &*bundle.read("vae_decoder.onnx").unwrap()).unwrap();
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
        let bundle = demo();
        let bytes = bundle.read("vae_decoder.onnx").unwrap();
        let mut model = Onnx::default().proto_model_for_read(&mut &*bytes).unwrap();
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
        (
            "elsewhere",
            Box::new(|graph| {
                let tensor = TensorProto { name: "elsewhere".into(), data_location: Some(1), ..TensorProto::default() };
                graph.initializer.push(tensor);
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
    let bundle = demo();
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
    let bundle = demo();
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
