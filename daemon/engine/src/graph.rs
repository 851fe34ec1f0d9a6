//! A network's graph: ONNX without weights, parsed once, scheduled for each image size.
//!
//! tract parses the ONNX (`file`). For inputs of known shapes its nodes become those of a tract model (`wiring`), all of
//! which are operators of ours (`NetOp`, `GlueOp`) that find weights and pool in what the run shares (`shared`); tract
//! walks them, holding each value until its last use. The order of the nodes is ours (`order`).
//!
//! One thing goes around `EvalOp`: progress. `Schedule::run` reports each of our operators to the caller's closure, and
//! a segment in strips reports from inside. That closure borrows from the caller and is not `'static`,
//! as whatever lies in tract's `TurnShared` must be; so it is called by the walk's callback, which hands every other
//! node on to tract's evaluation.

mod ahead;
mod check;
mod file;
mod footprint;
mod glue_op;
mod input;
mod layers;
mod net_op;
mod order;
mod repeat;
mod schedule;
mod segment;
mod shallow;
mod shared;
#[cfg(test)]
mod tests;
mod wiring;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::TractErrorContext;

use file::{FileOp, GraphFile};

use crate::bundle::{Bundle, WeightsIndex};
use crate::error::{Error, Result};
use crate::weights::WeightsFile;

/// Schedules that are kept for their input shapes.
const KEPT_SCHEDULES: usize = 4;

pub(crate) use ahead::{Ahead, KnownInput, RUNS_AHEAD};
pub(crate) use input::{InputShape, InputValues, Signature};
pub(crate) use layers::blocks_before_embeddings;
pub(crate) use schedule::Schedule;
pub(crate) use shallow::{DeepFeatures, GraphPart};
pub(crate) use shared::Shared;

/// Called before each layer with the part of the run's multiply-adds that is done, from 0 to 1.
pub type Tick<'a> = dyn FnMut(f64) + 'a;

/// A parsed graph.
pub(crate) struct Graph {
    path: PathBuf,
    file: GraphFile,
    schedules: Vec<(Signature, GraphPart, bool, Arc<Schedule>)>,
    /// Layers of a text encoder that its embeddings leave out.
    left_out: usize,
}

impl Graph {
    /// Parses `NETWORK.onnx` and checks every weight that it names against the weights file.
    pub(crate) fn open(bundle: &Bundle, network: &str, weights: &WeightsFile) -> Result<Graph> {
        let file = format!("{network}.onnx");
        Graph::parse(bundle.source.path(&file), &bundle.read(&file)?, weights)
    }

    fn parse(path: PathBuf, bytes: &[u8], weights: &WeightsFile) -> Result<Graph> {
        let mut file = GraphFile::parse(bytes)
            .map_err(|error| Error::ModelCorrupt { path: path.clone(), message: format!("not a graph: {error:#}") })?;
        for node in &mut file.nodes {
            let FileOp::Net(op) = &mut node.op else { continue };
            op.bind(weights)?;
            if op.splits_gates(weights)? {
                let message = format!("node {}: its blocks of weights part values from their gates", node.name);
                return Err(Error::ModelCorrupt { path, message });
            }
        }
        Ok(Graph { path, file, schedules: Vec::new(), left_out: 0 })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.file.inputs.len()
    }

    /// Checks that the operators fit each other, their weights and these shapes; cheaper than a schedule.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt`, as of `schedule`.
    pub(crate) fn check(&self, signature: &Signature) -> Result<()> {
        wiring::wire(&self.file, signature).map(drop).map_err(|error| self.unfit(error))
    }

    /// Of a text encoder: takes the embeddings `layers` layers before the last one that the graph has.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where it has no more layers than that.
    pub(crate) fn leave_out(&mut self, layers: usize) -> Result<()> {
        if layers != self.left_out {
            layers::take_embeddings_earlier(&mut self.file, self.left_out, layers)?;
            self.left_out = layers;
            self.schedules.clear();
        }
        Ok(())
    }

    /// Frees the schedules.
    pub(crate) fn forget(&mut self) {
        self.schedules = Vec::new();
    }

    fn unfit(&self, error: TractError) -> Error {
        let message = format!("the graph does not fit together: {error:#}");
        Error::ModelCorrupt { path: self.path.clone(), message }
    }

    /// The schedule of all of the graph for these shapes. With `strips`, the part that can run in strips is to do so.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt` if the operators do not fit each other or their weights, or if something else comes out.
    pub(crate) fn schedule(&mut self, signature: &Signature, strips: bool) -> Result<Arc<Schedule>> {
        self.schedule_part(signature, GraphPart::Whole, strips)
    }

    /// The same for a part of the graph.
    ///
    /// # Errors
    ///
    /// As `schedule`; `ModelCorrupt`, too, where the graph is not that of a UNet and a part of one is wanted.
    pub(crate) fn schedule_part(
        &mut self,
        signature: &Signature,
        part: GraphPart,
        strips: bool,
    ) -> Result<Arc<Schedule>> {
        let wanted = (signature, part, strips);
        let mut kept = self.schedules.iter();
        if let Some((.., schedule)) = kept.find(|(shapes, part, strips, _)| (shapes, *part, *strips) == wanted) {
            return Ok(schedule.clone());
        }
        let deep = match part {
            GraphPart::Shallow => self.schedule_part(signature, GraphPart::Keeping, strips)?.deep_features()?,
            GraphPart::Whole | GraphPart::Keeping => None,
        };
        let (mut file, mut inputs) = (self.file.clone(), signature.clone());
        let cut = match (part, &deep) {
            (GraphPart::Keeping, _) => shallow::keep(&mut file),
            (GraphPart::Shallow, Some(deep)) => shallow::take_up(&mut file, &mut inputs, deep),
            _ => Ok(()),
        };
        let schedule = cut.and_then(|()| Schedule::new(&file, &inputs, part, strips));
        let schedule = Arc::new(schedule.map_err(|error| self.unfit(error))?);
        self.schedules.truncate(KEPT_SCHEDULES - 1);
        self.schedules.insert(0, (signature.clone(), part, strips, schedule.clone()));
        Ok(schedule)
    }
}

/// Parses the graph `onnx` of weights whose index is `index` (JSON) and checks it for f32 inputs and an output of these
/// shapes: what the bytes of a bundle can bring about before anything is computed. For fuzzing.
#[doc(hidden)]
pub fn check_graph(onnx: &[u8], index: &[u8], inputs: &[Vec<usize>], output: &[usize]) -> Result<()> {
    let path = PathBuf::from("graph.onnx");
    let index =
        WeightsIndex::parse(index, 1 << 40).map_err(|message| Error::ModelCorrupt { path: path.clone(), message })?;
    let graph = Graph::parse(path.clone(), onnx, &WeightsFile::without_values(index))?;
    if graph.inputs() != inputs.len() {
        return Err(Error::ModelCorrupt { path, message: format!("the graph has {} inputs", graph.inputs()) });
    }
    let inputs = inputs.iter().cloned().map(InputShape::F32).collect();
    graph.check(&Signature { inputs, output: output.to_vec() })
}

/// The dimensions of a value, all of which are known in a schedule.
fn concrete(fact: &TypedFact) -> TractResult<TVec<usize>> {
    let dims = fact.shape.as_concrete().with_context(|| format!("a value of unknown shape {:?}", fact.shape))?;
    Ok(dims.into())
}

/// The engine's own errors pass through tract as they are; anything else is a fault of the program, and says at which
/// node it was found.
fn into_ours(error: TractError) -> Error {
    match error.downcast_ref() {
        Some(Error::Internal(_)) | None => Error::Internal(format!("{error:#}")),
        Some(_) => error.downcast().unwrap_or_else(|error| Error::Internal(format!("{error:#}"))),
    }
}
