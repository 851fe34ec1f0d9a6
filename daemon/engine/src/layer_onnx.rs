//! Operators as ONNX nodes and back: the one place where the graphs' wording is written down, so that model-prep, which
//! writes graphs, and the engine, which reads them, cannot disagree.
//!
//! An operator's serde form is the vocabulary: the variant's name is the node's `op_type`, its fields are the attributes.

use serde_json::{Map, Value};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, NodeProto};

use crate::layer::Layer;

/// The ONNX domain of our operators.
pub const DOMAIN: &str = "diffused";

/// Fields that are booleans: ONNX has none, and writes 0 and 1.
const FLAGS: [&str; 7] = ["causal", "flip_sin_to_cos", "quantize", "residual", "silu", "time", "upsample"];

/// Why a node is none of our operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} ({op_type}): {message}")]
pub struct NodeError {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub op_type: String,
    /// What is wrong with it.
    pub message: String,
}

/// The node that runs `layer`.
pub fn to_node(layer: &Layer, name: &str, inputs: &[String], outputs: &[String]) -> NodeProto {
    let Ok(Value::Object(tagged)) = serde_json::to_value(layer) else {
        unreachable!("an enum of structs serialises to an object");
    };
    let (op_type, fields) = tagged.into_iter().next().unwrap_or_default();
    let attribute = fields.as_object().into_iter().flatten().map(|(name, value)| to_attribute(name, value)).collect();
    NodeProto {
        name: name.to_owned(),
        op_type,
        domain: DOMAIN.to_owned(),
        input: inputs.to_vec(),
        output: outputs.to_vec(),
        attribute,
        ..NodeProto::default()
    }
}

fn to_attribute(name: &str, value: &Value) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match value {
        Value::Bool(flag) => attribute.i = i64::from(*flag),
        Value::Number(number) if number.is_f64() => attribute.f = number.as_f64().unwrap_or_default() as f32,
        Value::Number(number) => attribute.i = number.as_i64().unwrap_or(i64::MAX),
        Value::String(text) => attribute.s = text.clone().into_bytes(),
        other => unreachable!("a layer's field {name} is {other}"),
    }
    attribute.set_type(match value {
        Value::String(_) => AttributeType::String,
        Value::Number(number) if number.is_f64() => AttributeType::Float,
        _ => AttributeType::Int,
    });
    attribute
}

/// The operator that `node` asks for. Attributes that it does not have, lacks or has twice are errors.
pub fn from_node(node: &NodeProto) -> Result<Layer, NodeError> {
    let fail = |message: String| NodeError { node: node.name.clone(), op_type: node.op_type.clone(), message };
    let mut fields = Map::new();
    for attribute in &node.attribute {
        let value = from_attribute(attribute).map_err(|message| fail(format!("{}: {message}", attribute.name)))?;
        if fields.insert(attribute.name.clone(), value).is_some() {
            return Err(fail(format!("{} is given twice", attribute.name)));
        }
    }
    let tagged = Map::from_iter([(node.op_type.clone(), Value::Object(fields))]);
    serde_json::from_value(Value::Object(tagged)).map_err(|error| fail(error.to_string()))
}

fn from_attribute(attribute: &AttributeProto) -> Result<Value, String> {
    match (attribute.r#type(), attribute.i) {
        (AttributeType::Int, flag @ (0 | 1)) if FLAGS.contains(&attribute.name.as_str()) => Ok(Value::from(flag == 1)),
        (AttributeType::Int, i) => Ok(Value::from(i)),
        (AttributeType::Float, _) => Ok(Value::from(attribute.f)),
        (AttributeType::String, _) => {
            String::from_utf8(attribute.s.clone()).map(Value::from).map_err(|_| "not UTF-8".to_owned())
        }
        (other, _) => Err(format!("attributes are INT, FLOAT or STRING, not {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Activation, Padding};

    fn layers() -> Vec<Layer> {
        vec![
            Layer::Embedding { tokens: "t".into(), positions: "p".into() },
            Layer::TimeEmbedding { channels: 320, flip_sin_to_cos: true, freq_shift: 0.1 },
            Layer::Linear {
                weight: "w".into(),
                features: 640,
                activation: Activation::QuickGelu,
                residual: true,
                quantize: false,
            },
            Layer::Conv2d {
                weight: "w".into(),
                features: 4,
                kernel: 3,
                stride: 2,
                padding: Padding::End,
                upsample: false,
                time: true,
                residual: true,
            },
            Layer::GroupNorm { weight: "n".into(), groups: 32, eps: 1e-6, silu: true, quantize: true },
            Layer::LayerNorm { weight: "n".into(), eps: 1e-5, quantize: true },
            Layer::Attention { heads: 8, causal: true, quantize: false },
            Layer::Quantize {},
        ]
    }

    fn node(layer: &Layer) -> NodeProto {
        to_node(layer, "here", &["a".into(), "b".into()], &["c".into()])
    }

    #[test]
    fn every_layer_comes_back() {
        for (layer, name) in layers().iter().zip(Layer::NAMES) {
            let node = node(layer);
            assert_eq!(node.op_type, name);
            assert_eq!(from_node(&node).as_ref(), Ok(layer));
        }
    }

    #[test]
    fn strange_attributes_are_named() {
        let broken = |change: fn(&mut NodeProto)| {
            let mut node = node(&Layer::Attention { heads: 8, causal: false, quantize: false });
            change(&mut node);
            from_node(&node).unwrap_err().to_string()
        };
        let unknown =
            broken(|node| node.attribute.push(AttributeProto { name: "mask".into(), r#type: 2, ..Default::default() }));
        assert!(unknown.contains("here (Attention)") && unknown.contains("mask"), "{unknown}");
        let missing = broken(|node| node.attribute.retain(|attribute| attribute.name != "heads"));
        assert!(missing.contains("heads"), "{missing}");
        let twice = broken(|node| node.attribute.push(node.attribute[0].clone()));
        assert!(twice.contains("twice"), "{twice}");
        let flag = broken(|node| node.attribute.iter_mut().for_each(|attribute| attribute.i = 2));
        assert!(flag.contains("boolean"), "{flag}");
        let op = broken(|node| node.op_type = "Softmax".into());
        assert!(op.contains("Softmax"), "{op}");
    }
}
