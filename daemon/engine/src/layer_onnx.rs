//! Operators as ONNX nodes: a layer's fields are the node's attributes, each of its own type, and nothing else is
//! accepted.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

use serde_json::{Map, Number, Value};
use tract_onnx::pb::{AttributeProto, NodeProto, attribute_proto::AttributeType};

use crate::layer::Layer;

/// The domain of our operators.
pub const DOMAIN: &str = "diffused";

/// `layer` as a node.
pub fn to_node(layer: &Layer, name: &str, inputs: &[String], outputs: &[String]) -> NodeProto {
    let value = serde_json::to_value(layer).expect("a layer is strings, numbers and flags, all of which JSON has");
    let fields = value.get(layer.name()).and_then(Value::as_object).expect("a layer is one variant with named fields");
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

#[expect(clippy::cast_possible_truncation, reason = "a layer's numbers are f32; JSON holds them as f64")]
fn attribute(name: &str, value: &Value) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), ..Default::default() };
    match value {
        Value::Bool(flag) => {
            attribute.set_type(AttributeType::Int);
            attribute.i = i64::from(*flag);
        }
        Value::Number(number) if number.is_f64() => {
            attribute.set_type(AttributeType::Float);
            attribute.f = number.as_f64().expect("it was just found to be one") as f32;
        }
        Value::Number(number) => {
            attribute.set_type(AttributeType::Int);
            attribute.i = number.as_i64().expect("no size of a layer is beyond i64");
        }
        other => {
            attribute.set_type(AttributeType::String);
            attribute.s = other.as_str().expect("what is neither flag nor number is a name").as_bytes().to_vec();
        }
    }
    attribute
}

/// The layer that `node` describes.
///
/// # Errors
///
/// Names the node and the attribute that is missing, unknown, of another type or out of range.
pub fn from_node(node: &NodeProto) -> Result<Layer, String> {
    let wrong = |what: String| format!("node {} ({}): {what}", node.name, node.op_type);
    let mut fields = Map::new();
    for attribute in &node.attribute {
        let value = value(attribute).ok_or_else(|| wrong(format!("attribute {} cannot be read", attribute.name)))?;
        fields.insert(attribute.name.clone(), value);
    }
    let variant = Map::from_iter([(node.op_type.clone(), Value::Object(fields))]);
    let layer: Layer = serde_json::from_value(Value::Object(variant)).map_err(|error| wrong(error.to_string()))?;
    layer.check().map_err(wrong)?;
    Ok(layer)
}

fn value(attribute: &AttributeProto) -> Option<Value> {
    match attribute.r#type() {
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
            Layer::AddSilu {},
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
                half: 256,
                relu: false,
                slopes: Some("s".into()),
            },
            Layer::Conv2d {
                weight: "r".into(),
                features: 4,
                kernel: 1,
                stride: 1,
                padding: Padding::Same,
                upsample: false,
                size: false,
                time: false,
                residual: true,
                half: 0,
                relu: true,
                slopes: None,
            },
            Layer::GroupNorm { weight: "g".into(), groups: 32, eps: 1e-6, silu: true, quantize: true },
            Layer::LayerNorm { weight: "l".into(), eps: 1e-5, quantize: false },
            Layer::Attention { heads: 8, causal: true, int8: false, cross: false, quantize: true },
            Layer::Attention { heads: 8, causal: false, int8: true, cross: true, quantize: true },
            Layer::Affine { factor: 2.0, offset: -1.0 },
            Layer::SoftClamp { limit: 3.0 },
            Layer::Quantize {},
        ];
        for layer in layers {
            let node = to_node(&layer, "n", &["x".into()], &["y".into()]);
            assert_eq!(from_node(&node).unwrap(), layer);
        }
    }

    #[test]
    fn an_unknown_attribute_is_refused_by_name() {
        let mut node = to_node(
            &Layer::Attention { heads: 8, causal: false, int8: true, cross: false, quantize: false },
            "mid.attn",
            &[],
            &[],
        );
        node.attribute.push(attribute("mask", &Value::Bool(true)));
        let message = from_node(&node).unwrap_err();
        assert!(message.contains("mid.attn") && message.contains("mask"), "{message}");
    }

    #[test]
    fn attributes_out_of_range_are_refused_by_name() {
        let attention = Layer::Attention { heads: 8, causal: false, int8: true, cross: false, quantize: false };
        let norm = Layer::LayerNorm { weight: "w".into(), eps: 1e-5, quantize: false };
        let time = Layer::TimeEmbedding { channels: 320, flip_sin_to_cos: true, freq_shift: 0.0 };
        let conv = Layer::Conv2d {
            weight: "c".into(),
            features: 4,
            kernel: 3,
            stride: 1,
            padding: Padding::Same,
            upsample: false,
            size: false,
            time: false,
            residual: false,
            half: 1,
            relu: false,
            slopes: None,
        };
        let clamp = Layer::SoftClamp { limit: 3.0 };
        for (layer, name, value, wanted) in [
            (&attention, "heads", Value::from(0), "heads is 0; allowed is 1 to 1048576"),
            (&attention, "heads", Value::from(-1), "invalid value: integer `-1`"),
            (&attention, "int8", Value::from(2), "invalid value: integer `2`, expected 0 or 1"),
            (&norm, "eps", Value::from(0.0), "eps is 0"),
            (&clamp, "limit", Value::from(-3.0), "limit is -3; allowed is more than 0"),
            (&time, "channels", Value::from(i64::MAX), "channels is 9223372036854775807"),
            (&conv, "half", Value::from(3), "half is 3; allowed are 0 and powers of two up to 65536"),
            (&conv, "half", Value::from(1 << 17), "half is 131072"),
            (&time, "freq_shift", Value::from(2.0), "freq_shift is 2; allowed is -1 to 1"),
        ] {
            let mut node = to_node(layer, "n", &[], &[]);
            node.attribute.retain(|attribute| attribute.name != name);
            node.attribute.push(attribute(name, &value));
            let message = from_node(&node).unwrap_err();
            assert!(message.starts_with("node n (") && message.contains(wanted), "{message}");
        }
    }
}
