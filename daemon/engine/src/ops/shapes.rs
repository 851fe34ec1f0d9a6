//! What comes out of each operator, and whether what goes in fits the operator and its weights.
//!
//! Everything is checked here, when a schedule is made: a graph that does not fit its weights is refused before
//! anything runs, and the operators themselves need no checks.

use diffused_kernels::MOST_TERMS;
use diffused_kernels::pack::{Format, PANEL, PHASES};
use tract_onnx::prelude::*;

use super::conv_shape::{conv_shape, in_phases};
use crate::layer::{Activation, Layer};
use crate::weights::Shape;

/// Kind of values and shape of a tensor.
pub(crate) type Operand = (DatumType, TVec<usize>);

type Checked<T> = Result<T, String>;

const F32: DatumType = DatumType::F32;
const I8: DatumType = DatumType::I8;

/// Most channels of a timestep's embedding.
const MAX_EMBEDDING: usize = 1 << 16;
/// Most values of an operator's result: arithmetic with sizes stays far from overflow.
const MAX_VALUES: usize = 1 << if usize::BITS > 32 { 36 } else { 28 };

/// The outputs of `layer`, or what is wrong with its inputs.
pub(crate) fn outputs(layer: &Layer, weights: &[Shape], inputs: &[Operand]) -> Checked<TVec<Operand>> {
    let inputs = &mut inputs.iter();
    let out = match layer {
        Layer::Embedding { .. } => embedding(weights, inputs)?,
        Layer::TimeEmbedding { channels, .. } => {
            let numbers = plain(inputs.next())?;
            let (rows, count) = match numbers[..] {
                [count] => (1, count),
                [rows, count] => (rows, count),
                _ => {
                    return Err(format!(
                        "numbers of the shape {numbers:?}; a list, or one for each image, is possible"
                    ));
                }
            };
            if !(2..=MAX_EMBEDDING).contains(channels) {
                return Err(format!("{channels} channels; 2 to {MAX_EMBEDDING} are possible"));
            }
            tvec![rows, count.checked_mul(*channels).ok_or("too many numbers")?]
        }
        Layer::AddSilu {} => {
            let (a, b) = (plain(inputs.next())?, plain(inputs.next())?);
            if b.len() != 2 || a[..] != [1, b[1]] {
                return Err(format!("rows {b:?} and {a:?}, which is not one row of as many channels"));
            }
            b
        }
        Layer::Linear { features, activation, residual, .. } => {
            let x = activations(inputs, weights)?;
            let halves = if *activation == Activation::Geglu { 2 } else { 1 };
            if *activation == Activation::Geglu && !features.is_multiple_of(PANEL) {
                return Err(format!("GEGLU takes features by {PANEL}, not {features}"));
            }
            let outputs = features.checked_mul(halves).ok_or("it has too many features")?;
            matrix(weights, 1, last(&x)?, outputs)?;
            let out = with_last(&x, *features);
            expect_if(*residual, inputs, &out)?;
            out
        }
        Layer::Conv2d { features, kernel, upsample, size, time, residual, .. } => {
            let (weights, slopes) = weights.split_at(weights.len().min(1));
            let x = activations(inputs, weights)?;
            check_slopes(slopes, *features)?;
            let (taps, outputs) = match in_phases(layer, weights) {
                true => (PHASES, features.div_ceil(PANEL).saturating_mul(PHASES * PANEL)),
                false => (kernel.saturating_mul(*kernel), *features),
            };
            matrix(weights, taps, last(&x)?, outputs)?;
            expect_time(*time, inputs, &x, *features)?;
            if *size && (*residual || !upsample) {
                return Err("a size is for a convolution that enlarges and has no residual".into());
            }
            let size = if *size { Some(any_picture(inputs.next())?) } else { None };
            let out = convolved(layer, weights, &x, size)?;
            expect_if(*residual, inputs, &out)?;
            out
        }
        Layer::GroupNorm { groups, .. } => {
            let x = plain(inputs.next())?;
            if x.len() != 4 || *groups == 0 || !last(&x)?.is_multiple_of(*groups) {
                return Err(format!("{x:?} is not an image whose channels {groups} groups divide"));
            }
            table(weights, last(&x)?)?;
            x
        }
        Layer::LayerNorm { .. } => {
            let x = plain(inputs.next())?;
            table(weights, last(&x)?)?;
            x
        }
        Layer::Attention { int8: false, cross: true, .. } => {
            return Err("attention to a text that is not in int8".into());
        }
        Layer::Attention { heads, causal, int8, .. } => attention(inputs, *heads, *causal, *int8)?,
        Layer::Affine { .. } | Layer::SoftClamp { .. } | Layer::Quantize {} => plain(inputs.next())?,
    };
    if inputs.next().is_some() {
        return Err("it has more inputs than it takes".into());
    }
    let values = out.iter().try_fold(1usize, |values, &dim| values.checked_mul(dim));
    if values.is_none_or(|values| values == 0 || values > MAX_VALUES) {
        return Err(format!("its result would be {out:?}; between one value and {MAX_VALUES} are possible"));
    }
    if !layer.quantizes() {
        return Ok(tvec![(F32, out)]);
    }
    let rows = out[..out.len() - 1].into();
    Ok(tvec![(I8, out), (F32, rows)])
}

/// Multiply-adds of `layer`'s products on inputs and an output of these shapes.
pub(crate) fn macs(layer: &Layer, weights: &[Shape], inputs: &[TVec<usize>], output: &[usize]) -> u64 {
    let all = |shape: &[usize]| shape.iter().map(|&size| size as u64).product::<u64>();
    match (layer, weights, inputs) {
        (Layer::Linear { .. }, [Shape::Matrix { layout, n }, ..], _) => {
            all(&output[..output.len().saturating_sub(1)]) * (layout.k * n) as u64
        }
        (Layer::Conv2d { .. }, [Shape::Matrix { layout, .. }, ..], _) => all(output) * (layout.k * layout.taps) as u64,
        // The scores of each query with each key, and as many for the values.
        (Layer::Attention { .. }, _, [q, k, _]) => {
            2 * all(q) * k[1..k.len().saturating_sub(1)].iter().map(|&size| size as u64).product::<u64>()
        }
        _ => 0,
    }
}

fn embedding(weights: &[Shape], inputs: &mut std::slice::Iter<Operand>) -> Checked<TVec<usize>> {
    let [Shape::Table { columns, .. }, Shape::Table { rows: positions, columns: same, .. }] = weights else {
        return Err("it takes two tables".into());
    };
    let Some((DatumType::I64, ids)) = inputs.next() else {
        return Err("it takes token ids as i64".into());
    };
    if columns != same || ids.len() != 2 || ids[1] > *positions {
        return Err(format!("ids {ids:?} do not fit {positions} positions of {columns} and {same} channels"));
    }
    Ok(tvec![ids[0], ids[1], *columns])
}

fn attention(inputs: &mut std::slice::Iter<Operand>, heads: usize, causal: bool, int8: bool) -> Checked<TVec<usize>> {
    let (q, k, v) = (plain(inputs.next())?, plain(inputs.next())?, plain(inputs.next())?);
    if k != v || q.len() < 3 || k.len() < 3 || q[0] != k[0] || last(&q)? != last(&k)? {
        return Err(format!("queries {q:?}, keys {k:?} and values {v:?} do not fit together"));
    }
    if heads == 0 || !last(&q)?.is_multiple_of(heads) {
        return Err(format!("{heads} heads do not divide {} channels", last(&q)?));
    }
    if int8 && last(&q)? / heads > MOST_TERMS {
        return Err(format!("heads of more than {MOST_TERMS} channels in int8"));
    }
    if causal && int8 {
        return Err("causal attention in int8".into());
    }
    if causal && q != k {
        return Err(format!("causal attention of {q:?} to {k:?}"));
    }
    Ok(q)
}

fn convolved(layer: &Layer, weights: &[Shape], x: &[usize], size: Option<[usize; 2]>) -> Checked<TVec<usize>> {
    let Layer::Conv2d { features, .. } = layer else {
        return Err("not a convolution".into());
    };
    let to = || size.map_or(String::new(), |[height, width]| format!(" enlarged to {height}x{width}"));
    let shape = conv_shape(layer, weights, x, size).ok_or_else(|| format!("cannot convolve {x:?}{}", to()))?;
    Ok(tvec![shape.batch, shape.out_height(), shape.out_width(), *features])
}

/// Height and width of an image of any kind of values.
fn any_picture(input: Option<&Operand>) -> Checked<[usize; 2]> {
    match input {
        Some((_, shape)) if shape.len() == 4 => Ok([shape[1], shape[2]]),
        Some((kind, shape)) => Err(format!("an input is {kind:?} {shape:?} where a picture is wanted")),
        None => Err("an input is missing".into()),
    }
}

/// A matrix's first input: `q` and `scale` for int8, else `x`. Returns the shape of `x`.
fn activations(inputs: &mut std::slice::Iter<Operand>, weights: &[Shape]) -> Checked<TVec<usize>> {
    let [Shape::Matrix { layout, .. }] = weights else {
        return Err("it takes a matrix".into());
    };
    if layout.format != Format::Int8 {
        return plain(inputs.next());
    }
    let Some((I8, x)) = inputs.next() else {
        return Err("an int8 matrix takes quantized inputs".into());
    };
    if layout.k > MOST_TERMS {
        return Err(format!("sums of {} products overflow, those of {MOST_TERMS} do not", layout.k));
    }
    expect(inputs.next(), F32, &x[..x.len().saturating_sub(1)])?;
    Ok(x.clone())
}

fn plain(input: Option<&Operand>) -> Checked<TVec<usize>> {
    match input {
        Some((F32, shape)) if !shape.is_empty() => Ok(shape.clone()),
        Some((kind, shape)) => Err(format!("an input is {kind:?} {shape:?} where f32 is wanted")),
        None => Err("an input is missing".into()),
    }
}

fn expect(input: Option<&Operand>, kind: DatumType, shape: &[usize]) -> Checked<()> {
    match input {
        Some((k, s)) if *k == kind && **s == *shape => Ok(()),
        Some((k, s)) => Err(format!("an input is {k:?} {s:?} where {kind:?} {shape:?} is wanted")),
        None => Err(format!("an input, {kind:?} {shape:?}, is missing")),
    }
}

fn expect_if(there: bool, inputs: &mut std::slice::Iter<Operand>, shape: &[usize]) -> Checked<()> {
    if there { expect(inputs.next(), F32, shape) } else { Ok(()) }
}

/// A time embedding: one row for all images of `x`, or one for each.
fn expect_time(there: bool, inputs: &mut std::slice::Iter<Operand>, x: &[usize], features: usize) -> Checked<()> {
    let own = inputs.clone().next().is_some_and(|(_, shape)| shape.first() == x.first());
    let rows = if own { x.first().copied().unwrap_or(1) } else { 1 };
    expect_if(there, inputs, &[rows, features])
}

fn matrix(weights: &[Shape], taps: usize, k: usize, n: usize) -> Checked<()> {
    match weights {
        [Shape::Matrix { layout, n: stored }] if (layout.taps, layout.k, *stored) == (taps, k, n) => Ok(()),
        _ => Err(format!("its weights are {weights:?}, not {n} outputs of {taps} x {k} inputs")),
    }
}

fn table(weights: &[Shape], channels: usize) -> Checked<()> {
    match weights {
        [Shape::Table { rows: 2, columns, .. }] if *columns == channels => Ok(()),
        _ => Err(format!("its weights are {weights:?}, not gamma and beta of {channels} channels")),
    }
}

/// The slopes of PReLU, where there are some: one for each feature.
fn check_slopes(slopes: &[Shape], features: usize) -> Checked<()> {
    match slopes {
        [] => Ok(()),
        [Shape::Table { rows: 1, columns, .. }] if *columns == features => Ok(()),
        _ => Err(format!("its slopes are {slopes:?}, not one of {features} features each")),
    }
}

fn last(shape: &[usize]) -> Checked<usize> {
    shape.last().copied().ok_or_else(|| "an input is a single number".into())
}

fn with_last(shape: &[usize], features: usize) -> TVec<usize> {
    let mut shape: TVec<usize> = shape.into();
    if let Some(last) = shape.last_mut() {
        *last = features;
    }
    shape
}

#[cfg(test)]
mod tests {
    use diffused_kernels::pack::Layout;

    use super::*;
    use crate::layer::Padding;

    fn linear(activation: Activation, features: usize, format: Format, k: usize, n: usize) -> Checked<TVec<Operand>> {
        let layer = Layer::Linear { weight: "w".into(), features, activation, residual: false, quantize: false };
        let weights = [Shape::Matrix { layout: Layout { format, k, taps: 1 }, n }];
        let inputs = match format {
            Format::Int8 => vec![(I8, tvec![3, k]), (F32, tvec![3])],
            Format::F16 | Format::F32 => vec![(F32, tvec![3, k])],
        };
        outputs(&layer, &weights, &inputs)
    }

    #[test]
    fn slopes_that_do_not_fit_are_refused() {
        let layer = Layer::Conv2d {
            weight: "w".into(),
            features: 6,
            kernel: 1,
            stride: 1,
            padding: Padding::Same,
            upsample: false,
            size: false,
            time: false,
            residual: false,
            half: 0,
            relu: false,
            slopes: Some("s".into()),
        };
        let matrix = Shape::Matrix { layout: Layout { format: Format::F32, k: 2, taps: 1 }, n: 6 };
        let with = |slopes| outputs(&layer, &[matrix, slopes], &[(F32, tvec![1, 5, 4, 2])]);
        let table = |rows, columns| Shape::Table { rows, columns, half: false };
        assert_eq!(with(table(1, 6)).unwrap()[0].1[..], [1, 5, 4, 6]);
        for slopes in [table(1, 5), table(2, 6), matrix] {
            let message = with(slopes).unwrap_err();
            assert!(message.contains("its slopes are") && message.contains("6 features"), "{message}");
        }
    }

    #[test]
    fn what_kernels_cannot_multiply_is_refused() {
        assert_eq!(linear(Activation::Geglu, 32, Format::F32, 8, 64).unwrap()[0].1[..], [3, 32]);
        let message = linear(Activation::Geglu, 24, Format::F32, 8, 48).unwrap_err();
        assert!(message.contains("not 24"), "{message}");
        let message = linear(Activation::Geglu, usize::MAX - 15, Format::F32, 8, 32).unwrap_err();
        assert!(message.contains("too many features"), "{message}");
        assert!(linear(Activation::None, 16, Format::Int8, MOST_TERMS / 4 * 4, 16).is_ok());
        let message = linear(Activation::None, 16, Format::Int8, MOST_TERMS / 4 * 4 + 4, 16).unwrap_err();
        assert!(message.contains("overflow"), "{message}");
    }

    #[test]
    fn results_of_absurd_sizes_are_refused() {
        let embedding = |channels| Layer::TimeEmbedding { channels, flip_sin_to_cos: true, freq_shift: 0.0 };
        assert!(outputs(&embedding(320), &[], &[(F32, tvec![1])]).is_ok());
        for channels in [0, 1, MAX_EMBEDDING + 1, usize::MAX] {
            let message = outputs(&embedding(channels), &[], &[(F32, tvec![1])]).unwrap_err();
            assert!(message.contains("channels"), "{message}");
        }
        for dims in [tvec![1 << 20, 1 << 20], tvec![usize::MAX, usize::MAX], tvec![0, 4]] {
            let message = outputs(&Layer::Quantize {}, &[], &[(F32, dims)]).unwrap_err();
            assert!(message.contains("its result would be"), "{message}");
        }
    }
}
