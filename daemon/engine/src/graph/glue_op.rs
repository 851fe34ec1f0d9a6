//! Our `Cast` and `Concat` as tract sees them; they take the place of tract's own in an optimised graph.

use tract_onnx::tract_hir::internal::*;

use super::shared::Shared;
use crate::ops::Glue;

/// An operator of ours that a bundle has as standard ONNX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GlueOp(Glue);

/// Puts ours in the place of those of tract's that do the same.
pub(super) fn replace(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes().len() {
        let facts = model.node_input_facts(id)?.into_iter();
        let inputs: Vec<(DatumType, usize)> = facts.map(|fact| (fact.datum_type, fact.rank())).collect();
        let glue = Glue::replacing(&*model.node(id).op, &inputs);
        if let Some(glue) = glue {
            model.node_mut(id).op = Box::new(GlueOp(glue));
        }
    }
    Ok(())
}

impl Op for GlueOp {
    fn name(&self) -> StaticName {
        format!("{:?}", self.0).into()
    }

    op_as_typed_op!();
}

impl EvalOp for GlueOp {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(self.0.run(inputs, &mut Shared::of(context)?.lock().pool)?)
    }
}

impl TypedOp for GlueOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shapes: Vec<TVec<usize>> = inputs.iter().map(|fact| super::concrete(fact)).collect::<TractResult<_>>()?;
        let (datum, shape) = self.0.output(&shapes)?;
        Ok(tvec![datum.fact(&*shape)])
    }

    as_op!();
}
