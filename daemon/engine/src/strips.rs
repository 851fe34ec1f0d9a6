//! The autoencoder's large images in strips: the same bytes as for the whole image, in a fraction of its memory.
//!
//! Blending tiles would shift colours and leave seams, since each tile would have its own GroupNorm statistics. Here a
//! part of the graph that works row by row (convolutions, group norms, quantization) streams through *passes*: each
//! pass runs down the image once and computes every row of the operators it needs exactly once, keeping only the few
//! rows that the next ones still read (`steps`). A group norm's statistics are summed by one pass over its input before
//! any later pass applies it. Which rows of which results are stored in between, and which are computed again by the
//! next pass, is chosen by the budget (`plan`); it changes the work, never the values, because a result that may be
//! stored is always rounded to the precision in which it would be, or is quantized.

mod memory;
mod passes;
mod plan;
mod run;
mod steps;
mod stored;
mod window;

use diffused_kernels::ConvShape;

pub(crate) use plan::{StripPlan, plan, smallest};
pub(crate) use run::{RowSink, run, run_into, store_input};

use crate::error::Error;

fn internal(message: &str) -> Error {
    Error::Internal(format!("strips: {message}"))
}

/// Height, width and channels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

impl Extent {
    /// Values of a row.
    fn row(&self) -> usize {
        self.width * self.channels
    }
}

/// An operator that makes a row from a few rows of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowOp {
    /// The segment's input, which is there before the first pass.
    Input,
    /// A convolution; its second input, if there is one, is the residual. `half`: the result is rounded to f16 in this
    /// unit. `relu`: what is negative in it becomes 0. `slopes`: it is multiplied by these instead.
    Conv { weight: String, shape: ConvShape, half: Option<f32>, relu: bool, slopes: Option<String> },
    /// A group norm.
    Norm { weight: String, groups: usize, eps: f32, silu: bool, quantize: bool },
    /// One int8 scale per pixel.
    Quantize,
}

/// A node of a segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RowNode {
    pub(crate) op: RowOp,
    /// Indices of nodes, all smaller than this node's own.
    pub(crate) inputs: Vec<usize>,
    /// Of the result.
    pub(crate) extent: Extent,
    /// Bytes of its matrix (0 for what has none).
    pub(crate) weight_bytes: usize,
}

impl RowNode {
    /// Whether rows come out as int8 with scales.
    fn quantized(&self) -> bool {
        matches!(self.op, RowOp::Quantize | RowOp::Norm { quantize: true, .. })
    }

    /// Bytes of one row of the result while it waits to be read.
    fn row_bytes(&self) -> usize {
        match self.quantized() {
            true => self.extent.row() + self.extent.width * size_of::<f32>(),
            false => self.extent.row() * size_of::<f32>(),
        }
    }

    /// Bytes of one row of the result where it is stored.
    fn stored_row_bytes(&self) -> usize {
        match self.half() {
            Some(_) => self.extent.row() * size_of::<half::f16>(),
            None => self.row_bytes(),
        }
    }

    fn is_input(&self) -> bool {
        self.op == RowOp::Input
    }

    fn is_norm(&self) -> bool {
        matches!(self.op, RowOp::Norm { .. })
    }

    /// The name of its matrix.
    fn weight(&self) -> Option<&str> {
        match &self.op {
            RowOp::Conv { weight, .. } => Some(weight),
            RowOp::Input | RowOp::Norm { .. } | RowOp::Quantize => None,
        }
    }

    /// The unit in which the result is rounded to f16, and can be stored as f16.
    fn half(&self) -> Option<f32> {
        match self.op {
            RowOp::Conv { half, .. } => half,
            RowOp::Input | RowOp::Norm { .. } | RowOp::Quantize => None,
        }
    }

    /// Multiply-adds per row.
    fn row_macs(&self, inputs: &[RowNode]) -> u64 {
        match &self.op {
            RowOp::Conv { shape, .. } => {
                (self.extent.row() * shape.taps() * inputs[self.inputs[0]].extent.channels) as u64
            }
            RowOp::Input | RowOp::Norm { .. } | RowOp::Quantize => 0,
        }
    }

    /// The rows of input number `at` that `rows` of the result are made from.
    fn needs(&self, at: usize, rows: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        match &self.op {
            RowOp::Conv { shape, .. } if at == 0 => shape.rows_for(rows),
            _ => rows.clone(),
        }
    }
}

/// A part of a graph that works row by row: nodes in order of execution, the last one is the result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    pub(crate) nodes: Vec<RowNode>,
    /// The result is not stored: its rows are handed out as they are made (`run_into`).
    pub(crate) handed_out: bool,
}

impl Segment {
    /// The extent of the result.
    pub(crate) fn result(&self) -> Extent {
        self.nodes.last().map_or(Extent { height: 0, width: 0, channels: 0 }, |node| node.extent)
    }

    /// Bytes of all matrices.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.nodes.iter().map(|node| node.weight_bytes as u64).sum()
    }

    /// The same, whose result is handed out row by row.
    pub(crate) fn handing_out(&self) -> Segment {
        Segment { handed_out: true, ..self.clone() }
    }

    /// The nodes whose result may be stored between passes: spatial convolutions, and what is quantized. A convolution
    /// that is read only to be quantized is stored quantized, in half the bytes.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let last = self.nodes.len() - 1;
        let may = move |n: &usize| match &self.nodes[*n].op {
            RowOp::Conv { shape, .. } => {
                shape.kernel > 1 && !self.readers(*n).all(|reader| self.is_quantization(reader))
            }
            RowOp::Quantize => true,
            RowOp::Input | RowOp::Norm { .. } => false,
        };
        (0..last).filter(may)
    }

    fn is_quantization(&self, n: usize) -> bool {
        self.nodes[n].op == RowOp::Quantize
    }

    /// The nodes that read node `n`.
    fn readers(&self, n: usize) -> impl Iterator<Item = usize> {
        (n + 1..self.nodes.len()).filter(move |&reader| self.nodes[reader].inputs.contains(&n))
    }
}
