//! The matrix product under every linear layer and convolution.

use rayon::prelude::*;

use super::math;
use crate::cancel::Tasks;
use crate::layout::{self, Format, PANEL};
use crate::operands::{ActivationFn, ConvCall, InputRows, Panels, Rectifier};

/// Computes the columns that `panels` cover, of each row of `out` (`[rows][features]`).
///
/// A tap in the padding reads a row of zeros (with scale 0), a term like any other. In phases a row is a pixel that the
/// panels of one phase make.
///
/// - int8: per tap, the exact integer dot product `dot`; `sum = fma(dot, scale of the tap's row, sum)`, taps in order
///   from 0, of which the first is `dot · scale`; then `fma(sum, weight scale, bias)`.
/// - f16 and f32: `sum = fma(x[k], w[k], sum)`, taps and k in order from 0; then `sum + bias`.
///
/// The bias is `bias + time` where there is a time, of the row's image where each has its own. Then the activation,
/// then what `out` held is added if `accumulate`, then what is below 0 becomes 0 (ReLU), or each result
/// `fma(slope, min(result, 0), max(result, 0))` (PReLU).
pub(crate) fn matmul(call: &ConvCall, out: &mut [f32]) {
    let ConvCall { x, panels, features, epilogue, .. } = call;
    let (x, features) = (*x, *features);
    let image_rows = call.strip.out_rows.len() * call.shape.out_width();
    out.par_chunks_exact_mut(features).enumerate().for_each_task(|(row, out)| {
        let sources: Vec<_> = (0..panels.layout.taps).map(|tap| source(call, row, tap)).collect();
        let time = epilogue.time_of(row / image_rows, features);
        let (groups, phase) = (features.div_ceil(PANEL), phase(call, row));
        for (index, value, gate) in panels.groups(epilogue.activation).filter(|(index, ..)| index / groups == phase) {
            let index = index % groups;
            let columns = index * PANEL..features.min((index + 1) * PANEL);
            for (output, out) in out[columns.clone()].iter_mut().enumerate() {
                let time = time.map_or(0.0, |time| time[columns.start + output]);
                let value = dot_product(x, &sources, panels, value, output, time);
                let gate = gate.map(|panel| dot_product(x, &sources, panels, panel, output, time));
                let result = activate(epilogue.activation, value, gate);
                let result = if epilogue.accumulate { result + *out } else { result };
                *out = rectified(epilogue.rectifier, result, columns.start + output);
            }
        }
    });
}

/// The image of an output row, and its row and column there.
fn place(call: &ConvCall, row: usize) -> (usize, usize, usize) {
    let (rows, width) = (call.strip.out_rows.len(), call.shape.out_width());
    (row / width / rows, call.strip.out_rows.start + row / width % rows, row % width)
}

/// The phase of an output row.
fn phase(call: &ConvCall, row: usize) -> usize {
    let (_, y, x) = place(call, row);
    call.shape.phase(y, x)
}

/// The row of `x` that a tap of an output row reads; `None` in the padding.
fn source(call: &ConvCall, row: usize, tap: usize) -> Option<usize> {
    let (shape, strip, side) = (&call.shape, &call.strip, call.shape.side_taps());
    let (image, y, x) = place(call, row);
    let y = shape.source_row(y, tap / side)?;
    let x = shape.source_column(x, tap % side)?;
    Some((image * strip.in_rows.len() + y - strip.in_rows.start) * shape.width + x)
}

fn activate(activation: ActivationFn, value: f32, gate: Option<f32>) -> f32 {
    match activation {
        ActivationFn::None => value,
        ActivationFn::Silu => math::silu(value),
        ActivationFn::Gelu => math::gelu(value),
        ActivationFn::QuickGelu => math::quick_gelu(value),
        ActivationFn::Geglu => value * math::gelu(gate.unwrap_or(0.0)),
    }
}

fn rectified(rectifier: Rectifier, result: f32, feature: usize) -> f32 {
    let positive = if result < 0.0 { 0.0 } else { result };
    match rectifier {
        Rectifier::None => result,
        Rectifier::Relu => positive,
        Rectifier::Prelu(slopes) => slopes[feature].mul_add(if result < 0.0 { result } else { 0.0 }, positive),
    }
}

/// One output of one row, with its bias.
fn dot_product(
    x: InputRows,
    sources: &[Option<usize>],
    panels: &Panels,
    panel: &[u8],
    output: usize,
    time: f32,
) -> f32 {
    let shape = &panels.layout;
    let bias = layout::f32_at(panel, shape.bias_at() + output * 4) + time;
    match x {
        InputRows::Int8 { q, scale } => {
            debug_assert_eq!(shape.format, Format::Int8);
            let mut sum = 0f32;
            for (tap, source) in sources.iter().enumerate() {
                let dot =
                    source.map_or(0, |row| dot(&q[row * shape.k..][..shape.k], panels, panel, tap, output)) as f32;
                let scale = source.map_or(0.0, |row| scale[row]);
                sum = if tap == 0 { dot * scale } else { dot.mul_add(scale, sum) };
            }
            sum.mul_add(layout::f32_at(panel, output * 4), bias)
        }
        InputRows::F32(x) => {
            let mut sum = 0f32;
            for (tap, source) in sources.iter().enumerate() {
                for k in 0..shape.k {
                    let x = source.map_or(0.0, |row| x[row * shape.k + k]);
                    sum = x.mul_add(layout::value(shape, panel, tap, k, output), sum);
                }
            }
            sum + bias
        }
    }
}

fn dot(q: &[i8], panels: &Panels, panel: &[u8], tap: usize, output: usize) -> i32 {
    let weight = |k| i32::from(panel[panels.layout.value_at(tap, k, output)] as i8);
    q.iter().enumerate().map(|(k, q)| i32::from(*q) * weight(k)).sum()
}
