//! The standard ONNX operators that a bundle may use, as tract parses them.
//!
//! tract's own register has all of ONNX, and what names it links the code of all of it.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::activations::Clip;
use tract_onnx::tract_hir::ops::array::{Concat, Flatten, PermuteAxes, Reshape};
use tract_onnx::tract_hir::ops::binary::Nary;
use tract_onnx::tract_hir::ops::{cast, identity, math};

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;
type OperatorBuilder = fn(&ParsingContext, &NodeProto) -> Built;

/// Name and builder of each. Every CPU gives the same bits for them, which is not so for tract's sums, exponentials and
/// their like, and none divides integers.
pub(super) const OPERATORS: [(&str, OperatorBuilder); 13] = [
    ("Add", |_, _| built(math::Add.into_hir())),
    ("Cast", |_, node| built(Box::new(cast::cast(datum_type(node)?)))),
    ("Concat", |_, node| built(expand(Concat::new(node.get_attr("axis")?)))),
    ("Flatten", |_, node| built(expand(Flatten::new(node.get_attr_opt("axis")?.unwrap_or(1))))),
    ("Identity", |_, _| built(Box::new(identity::Identity))),
    ("Max", |_, _| built(Box::new(Nary(Box::new(math::Max), false)))),
    ("Min", |_, _| built(Box::new(Nary(Box::new(math::Min), false)))),
    ("Mul", |_, _| built(math::Mul.into_hir())),
    ("Neg", |_, _| built(math::neg().into_hir())),
    ("Relu", |_, _| built(expand(Clip::new(Some(0.0), None)))),
    ("Reshape", |_, node| built(expand(Reshape::new(node.get_attr_opt::<i64>("allowzero")?.unwrap_or(0) != 0)))),
    ("Sub", |_, _| built(math::Sub.into_hir())),
    ("Transpose", |_, node| built(expand(PermuteAxes::new(node.get_attr_opt_vec("perm")?.map(|axes| axes.into()))))),
];

fn built(operator: Box<dyn InferenceOp>) -> Built {
    Ok((operator, Vec::new()))
}

/// What a `Cast` makes; tract computes ONNX's 64-bit integers, shapes, as dimensions.
fn datum_type(node: &NodeProto) -> TractResult<DatumType> {
    let to = node.get_attr::<DatumType>("to")?;
    Ok(if to == DatumType::I64 { DatumType::TDim } else { to })
}

/// tract's parser for them.
pub(super) fn register() -> OnnxOpRegister {
    let mut register = OnnxOpRegister::default();
    for (name, build) in OPERATORS {
        register.insert(name, build);
    }
    register
}
