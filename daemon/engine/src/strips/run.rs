//! Runs a segment, pass by pass and step by step.

use std::ops::Range;
use std::sync::Arc;

use diffused_kernels::{ConvCall, Epilogue, GroupSums, InputRows, Level, MadeRow, Norm, NormOut, Panels, Strip};
use rayon::prelude::*;

use super::memory::{PassMemory, RowRoom, held_matrices};
use super::passes::Pass;
use super::steps::{Step, steps, windowed};
use super::stored::{RowsAt, StoredRows};
use super::window::{Window, part_of, split_rows};
use super::{RowOp, Segment, StripPlan, internal};
use crate::cancel;
use crate::error::Result;
use crate::ops::rectifier;
use crate::weights::{Matrix, Weights};

/// Scale and shift of a group norm's channels.
type ScaleShift = (Vec<f32>, Vec<f32>);

/// Called with rows of a result and their values, from top to bottom.
pub(crate) type RowSink<'a> = dyn FnMut(Range<usize>, &[f32]) + 'a;

struct SegmentRun<'a> {
    segment: &'a Segment,
    weights: &'a mut Weights,
    /// Gets the result's rows where the segment hands them out.
    sink: &'a mut RowSink<'a>,
    stored: Vec<Option<StoredRows>>,
    norms: Vec<Option<ScaleShift>>,
}

/// The buffers of the pass that runs, as `PassMemory` describes them.
struct PassState {
    windows: Vec<Window>,
    matrices: Vec<Option<Arc<Matrix>>>,
    sums: Vec<(usize, GroupSums)>,
    /// Rows that are stored as soon as they are made and wait in no window.
    unwindowed: Window,
    /// Rows that are read from what is stored.
    copy: Window,
}

/// A segment's input, `[height][width][channels]`, as `run` reads it.
pub(crate) fn store_input(segment: &Segment, values: &[f32]) -> Result<StoredRows> {
    let node = segment.nodes.iter().find(|node| node.op == RowOp::Input);
    let node = node.ok_or_else(|| internal("a segment without an input"))?;
    let mut stored = StoredRows::new(node, node.extent.height);
    stored.append(node, 0..node.extent.height, InputRows::F32(values))?;
    Ok(stored)
}

/// Runs `segment` on `input` as `plan` says. Returns the result, `[height][width][channels]`. `tick` is called before
/// each step with how many of the plan's multiply-adds are done.
///
/// # Errors
///
/// `Cancelled`; errors of reading weights.
pub(crate) fn run(
    segment: &Segment,
    plan: &StripPlan,
    input: StoredRows,
    weights: &mut Weights,
    tick: &mut dyn FnMut(u64),
) -> Result<Vec<f32>> {
    let result = run_passes(segment, plan, input, weights, tick, &mut |_, _| {})?;
    result.and_then(StoredRows::into_whole).ok_or_else(|| internal("a segment without a result"))
}

/// The same for a segment that hands its result out: to `sink`, from top to bottom.
pub(crate) fn run_into(
    segment: &Segment,
    plan: &StripPlan,
    input: StoredRows,
    weights: &mut Weights,
    tick: &mut dyn FnMut(u64),
    sink: &mut RowSink,
) -> Result<()> {
    run_passes(segment, plan, input, weights, tick, sink).map(drop)
}

/// Returns what is stored of the result.
fn run_passes(
    segment: &Segment,
    plan: &StripPlan,
    input: StoredRows,
    weights: &mut Weights,
    tick: &mut dyn FnMut(u64),
    sink: &mut RowSink,
) -> Result<Option<StoredRows>> {
    let count = segment.nodes.len();
    let mut run = SegmentRun {
        segment,
        weights,
        sink,
        stored: (0..count).map(|_| None).collect(),
        norms: (0..count).map(|_| None).collect(),
    };
    let first = segment.nodes.iter().position(|node| node.op == RowOp::Input);
    let first = first.ok_or_else(|| internal("a segment without an input"))?;
    run.stored[first] = Some(input);
    let mut done = 0;
    for (pass, memory) in &plan.passes {
        let mut step_done = |macs: u64| {
            tick(done);
            done += macs;
        };
        run.pass(pass, memory, &mut step_done)?;
    }
    Ok(run.stored.pop().flatten())
}

impl SegmentRun<'_> {
    fn pass(&mut self, pass: &Pass, memory: &PassMemory, tick: &mut dyn FnMut(u64)) -> Result<()> {
        let nodes = &self.segment.nodes;
        for &(new, end) in &pass.stores {
            let node = &nodes[new];
            let result = new == nodes.len() - 1;
            self.stored[new] = Some(if result { StoredRows::in_one_band(node) } else { StoredRows::new(node, end) });
        }
        let steps = steps(self.segment, pass, memory.height, usize::MAX);
        let mut state = self.state(pass, memory)?;
        for step in &steps {
            let macs = nodes[step.node].row_macs(nodes) * step.rows.len() as u64;
            cancel::check()?;
            tick(macs);
            self.step(pass, step, &mut state)?;
            for &(node, row) in &step.done_with {
                self.stored_mut(node)?.free_before(row);
            }
        }
        if steps.is_empty() {
            self.sum_stored(pass, memory.height, &mut state)?;
        }
        self.finish(pass, state)
    }

    fn state(&mut self, pass: &Pass, memory: &PassMemory) -> Result<PassState> {
        let nodes = &self.segment.nodes;
        let windows = nodes.iter().zip(&memory.windows).zip(&pass.rows);
        let windows = windows.map(|((node, rows), made)| Window::new(RowRoom::of(node, *rows), made.start)).collect();
        let mut matrices: Vec<Option<Arc<Matrix>>> = (0..nodes.len()).map(|_| None).collect();
        for (n, weight) in held_matrices(self.segment, pass) {
            matrices[n] = Some(self.weights.matrix(weight)?);
        }
        let sums = pass.sums.iter().map(|&norm| (norm, GroupSums::new(nodes[norm].extent.channels))).collect();
        let (unwindowed, copy) = (Window::new(memory.unwindowed, 0), Window::new(memory.copy, 0));
        Ok(PassState { windows, matrices, sums, unwindowed, copy })
    }

    /// Computes the rows of one step and puts them where they are read.
    fn step(&mut self, pass: &Pass, step: &Step, state: &mut PassState) -> Result<()> {
        let node = &self.segment.nodes[step.node];
        let waits = windowed(self.segment, pass, step.node);
        let mut window = std::mem::take(if waits { &mut state.windows[step.node] } else { &mut state.unwindowed });
        window.forget_before(step.keep_from, node);
        let mut copy = std::mem::take(&mut state.copy);
        match window.add(step.rows.len(), node)? {
            NormOut::F32(out) => {
                match &node.op {
                    RowOp::Conv { .. } => self.convolve(pass, step, state, &mut copy, out)?,
                    RowOp::Norm { .. } | RowOp::Quantize | RowOp::Input => {
                        self.elementwise(pass, step, state, NormOut::F32(out))?;
                    }
                }
                match node.half() {
                    Some(unit) => self.finish_half(pass, step, unit, out, state)?,
                    None => self.sum(step.node, out, state),
                }
                if self.segment.handed_out && step.node == self.segment.nodes.len() - 1 {
                    cancel::check()?;
                    (self.sink)(step.rows.clone(), out);
                }
            }
            out => self.elementwise(pass, step, state, out)?,
        }
        if pass.stored_rows(step.node) > 0 && node.half().is_none() {
            let made = window.newest(node, step.rows.len());
            self.stored_mut(step.node)?.append(node, step.rows.clone(), made)?;
        }
        if !waits || step.node == pass.target {
            window.held = 0;
        }
        state.copy = copy;
        *(if waits { &mut state.windows[step.node] } else { &mut state.unwindowed }) = window;
        Ok(())
    }

    fn convolve(
        &mut self,
        pass: &Pass,
        step: &Step,
        state: &PassState,
        copy: &mut Window,
        out: &mut [f32],
    ) -> Result<()> {
        let node = &self.segment.nodes[step.node];
        let RowOp::Conv { shape, relu, slopes, .. } = &node.op else { return Err(internal("no convolution")) };
        let features = node.extent.channels;
        let slopes = slopes.as_ref().map(|name| self.weights.table(name)).transpose()?;
        if let Some(&residual) = node.inputs.get(1) {
            self.copy_rows(pass, residual, &step.rows, state, NormOut::F32(out))?;
        }
        let strip = Strip { in_rows: node.needs(0, &step.rows), out_rows: step.rows.clone() };
        let input = node.inputs[0];
        let x = self.rows(pass, input, &strip.in_rows, state, copy)?;
        let rectifier = rectifier(*relu, slopes.as_deref());
        let epilogue = Epilogue { accumulate: node.inputs.len() > 1, rectifier, ..Epilogue::NONE };
        let matrix = state.matrices[step.node].as_ref().ok_or_else(|| internal("a convolution without weights"))?;
        matrix.panels(|&panels: &Panels| {
            let call = ConvCall { x, shape: *shape, strip: strip.clone(), panels, features, epilogue };
            Level::current().conv2d(&call, out);
        });
        Ok(())
    }

    /// Rounds the step's rows to f16, adds them to the statistics of the norms that read them, and stores them if they are to be.
    fn finish_half(
        &mut self,
        pass: &Pass,
        step: &Step,
        unit: f32,
        out: &mut [f32],
        state: &mut PassState,
    ) -> Result<()> {
        let segment = self.segment;
        let node = &segment.nodes[step.node];
        let places = match pass.stored_rows(step.node) {
            0 => Vec::new(),
            _ => self.stored_mut(step.node)?.half_rows(node, step.rows.clone())?,
        };
        let mut places = places.into_iter();
        let rows = out.chunks_exact_mut(node.extent.row());
        let mut rows: Vec<_> = rows.map(|values| MadeRow { values, stored: places.next() }).collect();
        let mut sums: Vec<_> = sums_of(segment, step.node, &mut state.sums).collect();
        Level::current().finish_rows(&mut rows, node.extent.channels, unit, &mut sums);
        Ok(())
    }

    /// Group norm or quantization of the step's rows, where they are.
    fn elementwise(&self, pass: &Pass, step: &Step, state: &PassState, out: NormOut) -> Result<()> {
        let node = &self.segment.nodes[step.node];
        let channels = node.extent.channels;
        let norm = match &node.op {
            RowOp::Norm { silu, .. } => {
                let known = self.norms[step.node].as_ref();
                let (scale, shift) = known.ok_or_else(|| internal("a norm before its statistics"))?;
                Some(Norm::Scaled { scale, shift, silu: *silu })
            }
            RowOp::Quantize => None,
            RowOp::Conv { .. } | RowOp::Input => return Err(internal("neither a norm nor a quantization")),
        };
        self.each_part(pass, node.inputs[0], &step.rows, state, out, |rows, out| {
            let RowsAt::Float(x) = rows else { return Err(internal("quantized rows are read by what takes f32")) };
            match (&norm, out) {
                (Some(norm), out) => Level::current().normalize(norm, x, out),
                (None, NormOut::Int8 { q, scale }) => Level::current().quantize_rows(x, channels, q, scale),
                (None, NormOut::F32(_)) => return Err(internal("a quantization in f32")),
            }
            Ok(())
        })
    }

    /// Rows of `node`, from its window where that holds all of them, else in `copy`.
    fn rows<'c>(
        &self,
        pass: &Pass,
        node: usize,
        rows: &Range<usize>,
        state: &'c PassState,
        copy: &'c mut Window,
    ) -> Result<InputRows<'c>> {
        let read = &self.segment.nodes[node];
        if windowed(self.segment, pass, node) && rows.start >= pass.rows[node].start {
            return Ok(state.windows[node].rows(read, rows));
        }
        (copy.start, copy.held) = (rows.start, 0);
        self.copy_rows(pass, node, rows, state, copy.add(rows.len(), read)?)?;
        Ok(copy.rows(read, rows))
    }

    /// Copies rows of `node` to `out`.
    fn copy_rows(&self, pass: &Pass, node: usize, rows: &Range<usize>, state: &PassState, out: NormOut) -> Result<()> {
        self.each_part(pass, node, rows, state, out, |rows, out| rows.copy_to(out))
    }

    /// Does `work` with rows of `node`, part by part where they lie: in what was stored before the pass, then in its window. With
    /// each comes its part of `out`.
    fn each_part(
        &self,
        pass: &Pass,
        node: usize,
        rows: &Range<usize>,
        state: &PassState,
        out: NormOut,
        work: impl Fn(RowsAt, NormOut) -> Result<()> + Sync,
    ) -> Result<()> {
        let read = &self.segment.nodes[node];
        let waits = windowed(self.segment, pass, node);
        let made = if waits { pass.rows[node].start.clamp(rows.start, rows.end) } else { rows.end };
        let mut parts = if made > rows.start { self.stored(node)?.parts(rows.start..made)? } else { Vec::new() };
        if made < rows.end {
            parts.push((rows.end - made, state.windows[node].rows(read, &(made..rows.end)).into()));
        }
        let mut rest = out;
        let with_out = parts.into_iter().map(|(rows, part)| {
            let whole = std::mem::replace(&mut rest, NormOut::F32(&mut []));
            let (out, others) = split_rows(whole, rows, read.extent.row(), read.extent.width);
            rest = others;
            (part, out)
        });
        let parts: Vec<_> = with_out.collect();
        parts.into_par_iter().try_for_each(|(part, out)| work(part, out))
    }

    fn stored(&self, node: usize) -> Result<&StoredRows> {
        self.stored[node].as_ref().ok_or_else(|| internal("a result is read before it is stored"))
    }

    fn stored_mut(&mut self, node: usize) -> Result<&mut StoredRows> {
        self.stored[node].as_mut().ok_or_else(|| internal("a result is used before it is stored"))
    }

    /// Adds rows of `node` to the statistics of the norms that read it.
    fn sum(&self, node: usize, rows: &[f32], state: &mut PassState) {
        let width = self.segment.nodes[node].extent.width;
        let sums = sums_of(self.segment, node, &mut state.sums);
        sums.for_each(|sums| sums.add_rows(Level::current(), rows, width));
    }

    /// The statistics of the pass's target, which is stored already.
    fn sum_stored(&self, pass: &Pass, height: usize, state: &mut PassState) -> Result<()> {
        let node = pass.target;
        let extent = self.segment.nodes[node].extent;
        let mut copy = std::mem::take(&mut state.copy);
        for start in (0..extent.height).step_by(height) {
            cancel::check()?;
            let end = (start + height).min(extent.height);
            let rows = part_of(&mut copy.values, 0..(end - start) * extent.row())?;
            self.copy_rows(pass, node, &(start..end), state, NormOut::F32(rows))?;
            self.sum(node, rows, state);
        }
        Ok(())
    }

    fn finish(&mut self, pass: &Pass, state: PassState) -> Result<()> {
        for (norm, sums) in state.sums {
            if let RowOp::Norm { weight, groups, eps, .. } = &self.segment.nodes[norm].op {
                let table = self.weights.table(weight)?;
                let (gamma, beta) = table.split_at(table.len() / 2);
                self.norms[norm] = Some(sums.finish(*groups, *eps, gamma, beta));
            }
        }
        for &(n, row) in &pass.frees {
            self.stored_mut(n)?.free_before(row);
        }
        Ok(())
    }
}

/// The statistics, of those that a pass makes, of the norms that read `node`.
fn sums_of<'a>(
    segment: &'a Segment,
    node: usize,
    sums: &'a mut [(usize, GroupSums)],
) -> impl Iterator<Item = &'a mut GroupSums> {
    let of_node = sums.iter_mut().filter(move |(norm, _)| segment.nodes[*norm].inputs[0] == node);
    of_node.map(|(_, sums)| sums)
}
