//! Runs a segment, pass by pass and step by step.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use diffused_kernels::{Activation, ConvCall, Epilogue, GroupSums, InputRows, Level, Norm, NormOut, Panels, Strip};

use super::passes::{Pass, passes};
use super::steps::{Step, steps, window_rows, windowed};
use super::stored::Stored;
use super::{Node, Op, Plan, Segment};
use crate::error::{Error, Result};
use crate::weights::{Matrix, Weights};

/// Rows of a node: f32, or int8 with a scale for each pixel. Its buffers keep their size whatever they hold.
#[derive(Debug, Default)]
struct Window {
    start: usize,
    /// How many rows there are.
    held: usize,
    values: Vec<f32>,
    q: Vec<i8>,
    scale: Vec<f32>,
}

impl Window {
    /// With room for `rows` rows of `node`.
    fn new(node: &Node, rows: usize) -> Window {
        let mut window = Window::default();
        if node.quantized() {
            window.q.reserve_exact(rows * node.size.row());
            window.scale.reserve_exact(rows * node.size.width);
        } else {
            window.values.reserve_exact(rows * node.size.row());
        }
        window
    }

    fn forget_before(&mut self, row: usize, node: &Node) {
        let (gone, held) = (row.saturating_sub(self.start).min(self.held), self.held);
        let kept = |unit: usize| gone * unit..held * unit;
        match node.quantized() {
            true => {
                self.q.copy_within(kept(node.size.row()), 0);
                self.scale.copy_within(kept(node.size.width), 0);
            }
            false => self.values.copy_within(kept(node.size.row()), 0),
        }
        self.held -= gone;
        self.start = self.start.max(row);
    }

    /// Room for `rows` more rows of `node`, which hold anything.
    fn add(&mut self, rows: usize, node: &Node) -> NormOut<'_> {
        let (first, end) = (self.held, self.held + rows);
        self.held = end;
        let part = |unit: usize| first * unit..end * unit;
        let (row, width) = (part(node.size.row()), part(node.size.width));
        match node.quantized() {
            true => NormOut::Int8 { q: grown(&mut self.q, row), scale: grown(&mut self.scale, width) },
            false => NormOut::F32(grown(&mut self.values, row)),
        }
    }

    fn rows(&self, node: &Node, rows: &Range<usize>) -> InputRows<'_> {
        let part = |unit: usize| (rows.start - self.start) * unit..(rows.end - self.start) * unit;
        match node.quantized() {
            true => InputRows::Int8 { q: &self.q[part(node.size.row())], scale: &self.scale[part(node.size.width)] },
            false => InputRows::F32(&self.values[part(node.size.row())]),
        }
    }
}

/// Part of a buffer that becomes as long as it must be.
fn grown<T: Default + Clone>(buffer: &mut Vec<T>, part: Range<usize>) -> &mut [T] {
    buffer.resize(part.end.max(buffer.len()), T::default());
    &mut buffer[part]
}

/// Scale and shift of a group norm's channels.
type ScaleShift = (Vec<f32>, Vec<f32>);

struct Run<'a> {
    segment: &'a Segment,
    weights: &'a mut Weights,
    stored: Vec<Option<Stored>>,
    norms: Vec<Option<ScaleShift>>,
}

/// What one pass works with.
struct Bench {
    windows: Vec<Window>,
    matrices: Vec<Option<Arc<Matrix>>>,
    sums: Vec<(usize, GroupSums)>,
    /// Rows that are stored as soon as they are made.
    hand: Window,
    /// Rows of what is stored, as f32.
    copy: Vec<f32>,
}

/// What a segment starts from, `[height][width][channels]`.
pub(crate) fn source(segment: &Segment, values: &[f32]) -> Result<Stored> {
    let node = segment.nodes.iter().find(|node| node.op == Op::Source);
    let node = node.ok_or_else(|| internal("a segment without a source"))?;
    let mut stored = Stored::new(node);
    stored.append(node, 0, values);
    Ok(stored)
}

/// Runs `segment` on `source` as `plan` says. `tick` is called before each step with how much of
/// the work is done, in thousandths.
pub(crate) fn run(
    segment: &Segment,
    plan: &Plan,
    source: Stored,
    weights: &mut Weights,
    tick: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<f32>> {
    let count = segment.nodes.len();
    let mut run =
        Run { segment, weights, stored: (0..count).map(|_| None).collect(), norms: (0..count).map(|_| None).collect() };
    let first = segment.nodes.iter().position(|node| node.op == Op::Source);
    let first = first.ok_or_else(|| internal("a segment without a source"))?;
    run.stored[first] = Some(source);
    let mut done = 0;
    for pass in passes(segment, &plan.stored) {
        let mut step_done = |macs: u64| {
            let part = (done as f64 / plan.macs.max(1) as f64 * 1000.0) as usize;
            done += macs;
            tick(part, 1000)
        };
        run.pass(&pass, plan.height, &mut step_done)?;
    }
    let result = run.stored.pop().flatten().and_then(Stored::into_whole);
    result.ok_or_else(|| internal("a segment without a result"))
}

fn internal(message: &str) -> Error {
    Error::Internal(format!("strips: {message}"))
}

impl Run<'_> {
    fn pass(&mut self, pass: &Pass, height: usize, tick: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<()> {
        let nodes = &self.segment.nodes;
        for &new in &pass.stores {
            let result = new == nodes.len() - 1;
            self.stored[new] = Some(if result { Stored::in_one_band(&nodes[new]) } else { Stored::new(&nodes[new]) });
        }
        let steps = steps(self.segment, pass, height, usize::MAX);
        let mut bench = self.bench(pass, &steps)?;
        for step in &steps {
            let macs = nodes[step.node].row_macs(nodes) * step.rows.len() as u64;
            if tick(macs).is_break() {
                return Err(Error::Cancelled);
            }
            self.step(pass, step, &mut bench)?;
            for &(node, row) in &step.done_with {
                self.stored(node)?.free_before(row);
            }
        }
        if steps.is_empty() {
            self.sum_stored(pass.target, height, &mut bench)?;
        }
        self.finish(pass, bench)
    }

    fn bench(&mut self, pass: &Pass, steps: &[Step]) -> Result<Bench> {
        let nodes = &self.segment.nodes;
        let rows = window_rows(self.segment, pass, steps);
        let windows = nodes.iter().zip(rows).map(|(node, rows)| Window::new(node, rows)).collect();
        let mut matrices: Vec<Option<Arc<Matrix>>> = (0..nodes.len()).map(|_| None).collect();
        for &n in &pass.active {
            if let Op::Conv { weight, .. } = &nodes[n].op {
                matrices[n] = Some(self.weights.matrix(weight)?);
            }
        }
        let sums = pass.sums.iter().map(|&norm| (norm, GroupSums::new(nodes[norm].size.channels))).collect();
        Ok(Bench { windows, matrices, sums, hand: Window::default(), copy: Vec::new() })
    }

    /// Computes the rows of one step and puts them where they are read.
    fn step(&mut self, pass: &Pass, step: &Step, bench: &mut Bench) -> Result<()> {
        let node = &self.segment.nodes[step.node];
        let waits = windowed(self.segment, pass, step.node);
        let mut window = std::mem::take(if waits { &mut bench.windows[step.node] } else { &mut bench.hand });
        window.forget_before(step.keep_from, node);
        let mut copy = std::mem::take(&mut bench.copy);
        match window.add(step.rows.len(), node) {
            NormOut::F32(out) => {
                match &node.op {
                    Op::Conv { .. } => self.convolve(pass, step, bench, &mut copy, out)?,
                    _ => self.elementwise(pass, step, bench, &mut copy, NormOut::F32(out))?,
                }
                self.sum(step.node, out, bench);
                if pass.stores.contains(&step.node) {
                    self.stored(step.node)?.append(node, step.rows.start, out);
                }
            }
            out => self.elementwise(pass, step, bench, &mut copy, out)?,
        }
        if !waits || step.node == pass.target {
            window.held = 0;
        }
        bench.copy = copy;
        *(if waits { &mut bench.windows[step.node] } else { &mut bench.hand }) = window;
        Ok(())
    }

    fn convolve(
        &mut self,
        pass: &Pass,
        step: &Step,
        bench: &Bench,
        copy: &mut Vec<f32>,
        out: &mut [f32],
    ) -> Result<()> {
        let node = &self.segment.nodes[step.node];
        let Op::Conv { shape, half, .. } = &node.op else { return Err(internal("no convolution")) };
        let features = node.size.channels;
        if let Some(&residual) = node.inputs.get(1) {
            self.copy_rows(pass, residual, &step.rows, bench, out)?;
        }
        let strip = Strip { in_rows: node.needs(0, &step.rows), out_rows: step.rows.clone() };
        let input = node.inputs[0];
        let x = if windowed(self.segment, pass, input) {
            bench.windows[input].rows(&self.segment.nodes[input], &strip.in_rows)
        } else {
            InputRows::F32(self.copied(pass, input, &strip.in_rows, bench, copy)?)
        };
        let epilogue = Epilogue { activation: Activation::None, accumulate: node.inputs.len() > 1, time: None };
        let matrix = bench.matrices[step.node].as_ref().ok_or_else(|| internal("a convolution without weights"))?;
        matrix.panels(|&panels: &Panels| {
            let call = ConvCall { x, shape: *shape, strip: strip.clone(), panels, features, epilogue };
            Level::current().conv2d(&call, out);
        });
        if *half {
            Level::current().round_to_f16(out);
        }
        Ok(())
    }

    /// Group norm or quantization of the step's rows.
    fn elementwise(
        &mut self,
        pass: &Pass,
        step: &Step,
        bench: &Bench,
        copy: &mut Vec<f32>,
        out: NormOut,
    ) -> Result<()> {
        let node = &self.segment.nodes[step.node];
        let (input, channels) = (node.inputs[0], node.size.channels);
        let x: &[f32] = if windowed(self.segment, pass, input) {
            match bench.windows[input].rows(&self.segment.nodes[input], &step.rows) {
                InputRows::F32(rows) => rows,
                InputRows::Int8 { .. } => return Err(internal("quantized rows are read by what takes f32")),
            }
        } else {
            self.copied(pass, input, &step.rows, bench, copy)?
        };
        match (&node.op, out) {
            (Op::Norm { silu, .. }, out) => {
                let (scale, shift) =
                    self.norms[step.node].as_ref().ok_or_else(|| internal("a norm before its statistics"))?;
                Level::current().normalize(&Norm::Scaled { scale, shift, silu: *silu }, x, out);
            }
            (_, NormOut::Int8 { q, scale }) => Level::current().quantize_rows(x, channels, q, scale),
            _ => return Err(internal("neither a norm nor a quantization")),
        }
        Ok(())
    }

    /// A stored node's rows as f32, in `copy`.
    fn copied<'c>(
        &mut self,
        pass: &Pass,
        node: usize,
        rows: &Range<usize>,
        bench: &Bench,
        copy: &'c mut Vec<f32>,
    ) -> Result<&'c [f32]> {
        let copy = grown(copy, 0..rows.len() * self.segment.nodes[node].size.row());
        self.copy_rows(pass, node, rows, bench, copy)?;
        Ok(copy)
    }

    fn copy_rows(
        &mut self,
        pass: &Pass,
        node: usize,
        rows: &Range<usize>,
        bench: &Bench,
        out: &mut [f32],
    ) -> Result<()> {
        let it = &self.segment.nodes[node];
        if windowed(self.segment, pass, node) {
            match bench.windows[node].rows(it, rows) {
                InputRows::F32(values) => out.copy_from_slice(values),
                InputRows::Int8 { .. } => return Err(internal("a quantized residual")),
            }
            return Ok(());
        }
        self.stored(node)?.read(rows.clone(), out);
        Ok(())
    }

    fn stored(&mut self, node: usize) -> Result<&mut Stored> {
        self.stored[node].as_mut().ok_or_else(|| internal("a result is read before it is stored"))
    }

    /// Adds rows of `node` to the statistics of the norms that read it.
    fn sum(&self, node: usize, rows: &[f32], bench: &mut Bench) {
        let width = self.segment.nodes[node].size.width;
        let sums = bench.sums.iter_mut().filter(|(norm, _)| self.segment.nodes[*norm].inputs[0] == node);
        sums.for_each(|(_, sums)| sums.add_rows(Level::current(), rows, width));
    }

    /// The statistics of a result that is stored already.
    fn sum_stored(&mut self, node: usize, height: usize, bench: &mut Bench) -> Result<()> {
        let size = self.segment.nodes[node].size;
        let mut rows = vec![0.0; height * size.row()];
        for start in (0..size.height).step_by(height) {
            let end = (start + height).min(size.height);
            let rows = &mut rows[..(end - start) * size.row()];
            self.stored(node)?.read(start..end, rows);
            self.sum(node, rows, bench);
        }
        Ok(())
    }

    fn finish(&mut self, pass: &Pass, bench: Bench) -> Result<()> {
        for (norm, sums) in bench.sums {
            if let Op::Norm { weight, groups, eps, .. } = &self.segment.nodes[norm].op {
                let table = self.weights.table(weight)?;
                let (gamma, beta) = table.split_at(table.len() / 2);
                self.norms[norm] = Some(sums.finish(*groups, *eps, gamma, beta));
            }
        }
        for &n in &pass.frees {
            self.stored[n] = None;
        }
        Ok(())
    }
}
