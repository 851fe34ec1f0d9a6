//! What the operators of a run share: weights and pool. A run puts it into tract's `TurnShared`, where operators find
//! it through their `EvalContext`.
//!
//! tract's map holds `'static` values and hands out `&T`, so that what a network keeps from run to run is behind an
//! `Arc` and a mutex; the operators lock it one after the other, which costs some nanoseconds each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use crate::ops::Pool;
use crate::quantized::QuantizedValues;
use crate::weights::Weights;

/// A network's weights and the tensors that its operators use again.
pub(crate) struct Resources {
    pub(crate) weights: Weights,
    pub(crate) pool: Pool,
    /// What counts the values that are quantized; `None`: nothing.
    pub(crate) quantized: Option<QuantizedValues>,
}

/// Resources that one run at a time uses.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Resources>>);

impl Shared {
    /// Of a network that has not run yet.
    pub(crate) fn new(weights: Weights) -> Shared {
        Shared(Arc::new(Mutex::new(Resources { weights, pool: Pool::default(), quantized: None })))
    }

    /// The resources; an operator that panicked left them as usable as one that failed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Resources> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the run shares that evaluates an operator.
    pub(super) fn of<'a>(context: &EvalContext<'a>) -> TractResult<&'a Shared> {
        let shared = context.shared.and_then(|shared| shared.get::<Shared>());
        shared.context("an operator was evaluated outside of a run, which has the weights")
    }
}
