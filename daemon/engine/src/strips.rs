//! The autoencoder's large pictures in strips: the same bytes as the whole picture gives, in a fraction of its memory.
//!
//! Blending tiles would shift colours and leave seams, since each tile would have its own GroupNorm statistics. Here a part
//! of the graph that works row by row (convolutions, group norms, quantization) streams through *passes*: each pass runs down
//! the picture once and computes every row of the operators it needs exactly once, keeping only the few rows that the
//! next ones still read (`steps`). A group norm's statistics are summed by one pass over its input before any later pass
//! applies it. Which results are stored in between, and which are computed again by the next pass, is chosen by the budget
//! (`plan`); it changes the work, never the values, because a result that may be stored is always rounded to the precision
//! in which it would be.

mod passes;
mod plan;
mod run;
mod steps;
mod stored;

use diffused_kernels::ConvShape;

pub(crate) use plan::{Plan, plan, smallest};
pub(crate) use run::{run, source};

/// Height, width and channels of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

impl Size {
    fn row(&self) -> usize {
        self.width * self.channels
    }
}

/// An operator that makes a row from a few rows of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    /// A whole picture from outside.
    Source,
    /// A convolution; its second input, if there is one, is the residual. `half`: rounded to half precision.
    Conv { weight: String, shape: ConvShape, half: bool },
    /// A group norm.
    Norm { weight: String, groups: usize, eps: f32, silu: bool, quantize: bool },
    /// One int8 scale per pixel.
    Quantize,
}

/// A node of a segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) op: Op,
    /// Indices of nodes, all smaller than this node's own.
    pub(crate) inputs: Vec<usize>,
    /// What comes out.
    pub(crate) size: Size,
    /// Bytes of its matrix (0 for what has none).
    pub(crate) weight_bytes: usize,
}

impl Node {
    /// Whether rows come out as int8 with scales.
    fn quantized(&self) -> bool {
        matches!(self.op, Op::Quantize | Op::Norm { quantize: true, .. })
    }

    /// Bytes of one row of the result while it waits to be read.
    fn row_bytes(&self) -> usize {
        match self.quantized() {
            true => self.size.row() + self.size.width * size_of::<f32>(),
            false => self.size.row() * size_of::<f32>(),
        }
    }

    /// Bytes of the whole result where it is stored.
    fn stored_bytes(&self) -> usize {
        let value = if self.half() { size_of::<half::f16>() } else { size_of::<f32>() };
        self.size.height * self.size.row() * value
    }

    fn half(&self) -> bool {
        matches!(self.op, Op::Conv { half: true, .. })
    }

    /// Multiply-adds per row.
    fn row_macs(&self, inputs: &[Node]) -> u64 {
        match &self.op {
            Op::Conv { shape, .. } => {
                let k = shape.kernel * shape.kernel * inputs[self.inputs[0]].size.channels;
                (self.size.row() * k) as u64
            }
            _ => 0,
        }
    }

    /// The rows of input number `at` that `rows` of the result are made from.
    fn needs(&self, at: usize, rows: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        match &self.op {
            Op::Conv { shape, .. } if at == 0 => shape.rows_for(rows),
            _ => rows.clone(),
        }
    }
}

/// A part of a graph that works row by row: nodes in order of execution, the last one is the result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    pub(crate) nodes: Vec<Node>,
}

impl Segment {
    /// The nodes whose result may be stored between passes.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let last = self.nodes.len() - 1;
        let spatial = |node: &Node| matches!(&node.op, Op::Conv { shape, .. } if shape.kernel > 1);
        (0..last).filter(move |&n| spatial(&self.nodes[n]))
    }
}
