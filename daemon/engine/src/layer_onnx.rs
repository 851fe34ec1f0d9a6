//! Operators as ONNX nodes: a layer's fields are the node's attributes, each of its own type, and nothing else is accepted.

use serde_json::{Map, Number, Value};
use tract_onnx::pb::{AttributeProto, NodeProto, attribute_proto::AttributeType};

use crate::error::{Error, Result};
use crate::layer::Layer;

/// The domain of our operators.
pub const DOMAIN: &str = "diffused";

/// Attributes that are true or false; ONNX has only integers for them.
const FLAGS: [&str; 10] =
    ["causal", "flip_sin_to_cos", "half", "int8", "quantize", "residual", "silu", "size", "time", "upsample"];

/// The node that says `layer`.
pub fn to_node(layer: &Layer, name: &str, inputs: &[String], outputs: &[String]) -> NodeProto {
    let fields = match serde_json::to_value(layer) {
        Ok(Value::Object(variant)) => variant.into_iter().next().map(|(_, fields)| fields),
        _ => None,
    };
    let fields = fields.and_then(|fields| fields.as_object().cloned()).unwrap_or_default();
    NodeProto {
        input: inputs.to_vec(),
        output: outputs.to_vec(),
        name: name.to_owned(),
        op_type: layer.name().to_owned(),
        domain: DOMAIN.to_owned(),
        attribute: fields.iter().map(|(name, value)| attribute(name, value)).collect(),
        doc_string: String::new(),
    }
}

fn attribute(name: &str, value: &Value) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), ..Default::default() };
    match value {
        Value::Bool(flag) => {
            attribute.set_type(AttributeType::Int);
            attribute.i = i64::from(*flag);
        }
        Value::Number(number) if number.is_f64() => {
            attribute.set_type(AttributeType::Float);
            attribute.f = number.as_f64().unwrap_or_default() as f32;
        }
        Value::Number(number) => {
            attribute.set_type(AttributeType::Int);
            attribute.i = number.as_i64().unwrap_or_default();
        }
        other => {
            attribute.set_type(AttributeType::String);
            attribute.s = other.as_str().unwrap_or_default().as_bytes().to_vec();
        }
    }
    attribute
}

/// The layer that `node` says.
///
/// # Errors
///
/// `Internal`, naming the node, if an attribute is missing, unknown or of another type.
pub fn from_node(node: &NodeProto) -> Result<Layer> {
    let wrong = |what: String| Error::Internal(format!("node {} ({}): {what}", node.name, node.op_type));
    let mut fields = Map::new();
    for attribute in &node.attribute {
        let value = value(attribute).ok_or_else(|| wrong(format!("attribute {} cannot be read", attribute.name)))?;
        fields.insert(attribute.name.clone(), value);
    }
    let variant = Map::from_iter([(node.op_type.clone(), Value::Object(fields))]);
    serde_json::from_value(Value::Object(variant)).map_err(|error| wrong(error.to_string()))
}

fn value(attribute: &AttributeProto) -> Option<Value> {
    match attribute.r#type() {
        AttributeType::Int if FLAGS.contains(&attribute.name.as_str()) => Some(Value::Bool(attribute.i != 0)),
        AttributeType::Int => Some(Value::Number(attribute.i.into())),
        AttributeType::Float => Number::from_f64(f64::from(attribute.f)).map(Value::Number),
        AttributeType::String => String::from_utf8(attribute.s.clone()).ok().map(Value::String),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Activation, Padding};

    #[test]
    fn layers_come_back_from_their_nodes() {
        let layers = [
            Layer::Embedding { tokens: "t".into(), positions: "p".into() },
            Layer::TimeEmbedding { channels: 320, flip_sin_to_cos: true, freq_shift: 0.0 },
            Layer::Linear {
                weight: "w".into(),
                features: 8,
                activation: Activation::QuickGelu,
                residual: true,
                quantize: false,
            },
            Layer::Conv2d {
                weight: "c".into(),
                features: 4,
                kernel: 3,
                stride: 2,
                padding: Padding::End,
                upsample: true,
                size: true,
                time: true,
                residual: false,
                half: true,
            },
            Layer::GroupNorm { weight: "g".into(), groups: 32, eps: 1e-6, silu: true, quantize: true },
            Layer::LayerNorm { weight: "l".into(), eps: 1e-5, quantize: false },
            Layer::Attention { heads: 8, causal: true, int8: false, quantize: true },
            Layer::Quantize {},
        ];
        for layer in layers {
            let node = to_node(&layer, "n", &["x".into()], &["y".into()]);
            assert_eq!(from_node(&node).unwrap(), layer);
        }
    }

    #[test]
    fn an_unknown_attribute_is_refused_by_name() {
        let mut node =
            to_node(&Layer::Attention { heads: 8, causal: false, int8: true, quantize: false }, "mid.attn", &[], &[]);
        node.attribute.push(attribute("mask", &Value::Bool(true)));
        let message = from_node(&node).unwrap_err().to_string();
        assert!(message.contains("mid.attn") && message.contains("mask"), "{message}");
    }
}
