//! The specification itself: what the kernels compute, against the textbook's formulas in f64.

mod common;

use common::{Magnitude, Numbers};
use diffused_kernels::pack::{Format, Layout, PANEL, PHASES, pack_panel, phase_row, unpack_panel};
use diffused_kernels::{
    ActivationFn, AttentionCall, AttentionShape, ConvCall, ConvShape, Enlarged, Epilogue, FloatRows, GroupSums,
    InputRows, Level, LinearCall, Norm, NormOut, Panels, Strip,
};

/// All within `tolerance` of the expected values' size.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(1e-3, |size: f64, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() <= tolerance * size, "value {i} is {found}, not {expected}");
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A packed f32 matrix of one panel's outputs, with its rows.
fn panel(numbers: &mut Numbers, k: usize, taps: usize) -> (Layout, Vec<u8>, Vec<Vec<f32>>, Vec<f32>) {
    let layout = Layout { format: Format::F32, k, taps };
    let rows: Vec<_> = (0..PANEL).map(|_| numbers.vec(taps * k, Magnitude::Plain)).collect();
    let bias = numbers.vec(PANEL, Magnitude::Plain);
    let mut bytes = vec![0; layout.panel_bytes()];
    pack_panel(&layout, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), &bias, &mut bytes);
    assert_eq!(unpack_panel(&layout, &bytes).0, rows);
    (layout, bytes, rows, bias)
}

#[test]
fn linear_is_a_matrix_product_with_a_bias() {
    let mut numbers = Numbers(1);
    let (m, k) = (5, 37);
    let (layout, bytes, rows, bias) = panel(&mut numbers, k, 1);
    let x = numbers.vec(m * k, Magnitude::Plain);
    let mut out = vec![1.0; m * PANEL];
    let epilogue = Epilogue { activation: ActivationFn::None, accumulate: true, ..Epilogue::NONE };
    let panels = Panels { layout, blocks: &[&bytes], first: 0 };
    let call = LinearCall { x: InputRows::F32(&x), panels, features: PANEL, epilogue };
    Level::current().linear(&call, &mut out);
    let x = wide(&x);
    let one = |i: usize, n: usize| dot(&x[i * k..][..k], &wide(&rows[n])) + f64::from(bias[n]) + 1.0;
    let expected: Vec<f64> = (0..m).flat_map(|i| (0..PANEL).map(move |n| (i, n))).map(|(i, n)| one(i, n)).collect();
    assert_close(&out, &expected, 1e-6);
}

#[test]
fn geglu_multiplies_values_by_the_gelu_of_gates() {
    let mut numbers = Numbers(2);
    let k = 8;
    let (layout, values, value_rows, value_bias) = panel(&mut numbers, k, 1);
    let (_, gates, gate_rows, gate_bias) = panel(&mut numbers, k, 1);
    let x = numbers.vec(k, Magnitude::Plain);
    let mut out = vec![0.0; PANEL];
    let bytes = [values, gates].concat();
    let epilogue = Epilogue { activation: ActivationFn::Geglu, ..Epilogue::NONE };
    let panels = Panels { layout, blocks: &[&bytes], first: 0 };
    let call = LinearCall { x: InputRows::F32(&x), panels, features: PANEL, epilogue };
    Level::current().linear(&call, &mut out);
    let x = wide(&x);
    let expected = (0..PANEL).map(|n| {
        let value = dot(&x, &wide(&value_rows[n])) + f64::from(value_bias[n]);
        let gate = dot(&x, &wide(&gate_rows[n])) + f64::from(gate_bias[n]);
        value * gate * 0.5 * (1.0 + libm::erf(gate / 2f64.sqrt()))
    });
    assert_close(&out, &expected.collect::<Vec<_>>(), 1e-6);
}

/// The panels of a doubled image's phases, of the rows of nine taps.
fn phases(k: usize, rows: &[Vec<f32>], bias: &[f32]) -> (Layout, Vec<u8>) {
    let layout = Layout { format: Format::F32, k, taps: PHASES };
    let mut bytes = vec![0; PHASES * layout.panel_bytes()];
    for (phase, panel) in bytes.chunks_exact_mut(layout.panel_bytes()).enumerate() {
        let rows: Vec<_> = rows.iter().map(|row| phase_row(row, phase)).collect();
        pack_panel(&layout, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), bias, panel);
    }
    (layout, bytes)
}

/// Every way in which a convolution reads its image, on a image that is first written out with its padding.
#[test]
fn convolution_slides_over_the_padded_image() {
    let (height, width, k) = (5, 6, 3);
    let doubles = [[9, 12], [10, 11], [9, 11], [10, 12], [11, 13]].map(Enlarged::To);
    let ways = |enlarged| [(1, false, enlarged), (2, false, enlarged), (2, true, enlarged)];
    let ways = ways(Enlarged::No).into_iter().chain(doubles.into_iter().flat_map(ways));
    for (stride, pad_end_only, enlarged) in ways.chain([(1, false, Enlarged::Phases)]) {
        let mut numbers = Numbers(3);
        let shape = ConvShape { batch: 1, height, width, kernel: 3, stride, pad_end_only, enlarged };
        let (mut layout, mut bytes, rows, bias) = panel(&mut numbers, k, 9);
        if enlarged == Enlarged::Phases {
            (layout, bytes) = phases(k, &rows, &bias);
        }
        let x = numbers.vec(height * width * k, Magnitude::Plain);
        let mut out = vec![0.0; shape.out_height() * shape.out_width() * PANEL];
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        let (x_rows, strip, epilogue) = (InputRows::F32(&x), Strip::whole(&shape), Epilogue::NONE);
        let call = ConvCall { x: x_rows, shape, strip, panels, features: PANEL, epilogue };
        Level::current().conv2d(&call, &mut out);
        let start = if pad_end_only { 0 } else { 1 };
        let [rows_seen, columns_seen] = match enlarged {
            Enlarged::No => [height, width],
            Enlarged::To(size) => size,
            Enlarged::Phases => [2 * height, 2 * width],
        };
        let at = |y: usize, c: usize, i: usize| {
            let (y, c) = (y.wrapping_sub(start), c.wrapping_sub(start));
            if y >= rows_seen || c >= columns_seen {
                return 0.0;
            }
            // Nearest neighbour, as torch's interpolate has it.
            let (y, c) = (y * height / rows_seen, c * width / columns_seen);
            f64::from(x[(y * width + c) * k + i])
        };
        let mut expected = vec![];
        for (y, c) in (0..shape.out_height()).flat_map(|y| (0..shape.out_width()).map(move |c| (y, c))) {
            let patch = (0..9 * k).map(|i| at(y * stride + i / k / 3, c * stride + i / k % 3, i % k));
            let patch: Vec<f64> = patch.collect();
            expected.extend((0..PANEL).map(|n| dot(&patch, &wide(&rows[n])) + f64::from(bias[n])));
        }
        assert_close(&out, &expected, 1e-6);
    }
}

/// The softmax of the formula, in f64.
fn softmax_attention(q: &[f32], k: &[f32], v: &[f32], shape: &AttentionShape) -> Vec<f64> {
    let (q, k, v) = (wide(q), wide(k), wide(v));
    let (heads, d, keys) = (shape.heads, shape.head_dim, shape.keys);
    let mut out = vec![];
    for (token, head) in (0..shape.batch * shape.queries).flat_map(|t| (0..heads).map(move |h| (t, h))) {
        let row = |x: &[f64], token: usize| x[(token * heads + head) * d..][..d].to_vec();
        let first = token / shape.queries * keys;
        let seen = first..if shape.causal { token + 1 } else { first + keys };
        let scores = seen.clone().map(|j| dot(&row(&q, token), &row(&k, j)) / (d as f64).sqrt());
        let weights: Vec<f64> = scores.map(f64::exp).collect();
        let sum: f64 = weights.iter().sum();
        out.extend((0..d).map(|i| seen.clone().zip(&weights).map(|(j, w)| w * row(&v, j)[i]).sum::<f64>() / sum));
    }
    out
}

#[test]
fn attention_is_a_softmax_over_the_keys() {
    for causal in [false, true] {
        let shape = AttentionShape { batch: 2, heads: 2, head_dim: 20, queries: 150, keys: 150, causal };
        let mut numbers = Numbers(4);
        let [q, k, v] = [(); 3].map(|()| numbers.vec(2 * 150 * 40, Magnitude::Plain));
        let mut out = q.clone();
        Level::current().attention(&AttentionCall { k: &k, v: &v, shape }, &mut out);
        assert_close(&out, &softmax_attention(&q, &k, &v, &shape), 2e-6);
    }
}

/// Even where all keys have much in common, and where a few keys have most of the weight. Measured: 36.0, 36.0 and 30.1
/// dB.
#[test]
fn int8_attention_is_nearly_a_softmax_over_the_keys() {
    for (offset, sharpness, least) in [(0.0, 1.0, 35.0), (20.0, 1.0, 35.0), (0.0, 12.0, 28.0)] {
        let shape = AttentionShape { batch: 2, heads: 2, head_dim: 20, queries: 150, keys: 300, causal: false };
        let mut numbers = Numbers(5);
        let mut random = |tokens: usize, offset: f32| -> Vec<f32> {
            numbers.vec(2 * tokens * 40, Magnitude::Plain).iter().map(|x| x + offset).collect()
        };
        let (q, k, v) = (random(150, 0.0), random(300, offset), random(300, 0.0));
        let q: Vec<f32> = q.iter().map(|q| q * sharpness).collect();
        let mut out = q.clone();
        Level::current().attention_int8(&AttentionCall { k: &k, v: &v, shape }, &mut out);
        let decibels = signal_to_noise(&out, &softmax_attention(&q, &k, &v, &shape));
        assert!(decibels > least, "offset {offset}, sharpness {sharpness}: {decibels:.1} dB, expected {least}");
    }
}

/// In decibels.
fn signal_to_noise(found: &[f32], exact: &[f64]) -> f64 {
    let noise: f64 = found.iter().zip(exact).map(|(x, exact)| (f64::from(*x) - exact).powi(2)).sum();
    10.0 * (exact.iter().map(|x| x * x).sum::<f64>() / noise).log10()
}

/// Texts of one and two chunks, whose first tokens are the same and have 0 to 90 % of the weight; their values are as large as
/// the others', or a tenth.
#[test]
fn int8_cross_attention_is_nearly_a_softmax_over_a_text() {
    const CHUNK: usize = 77;
    const DIM: usize = 20;
    for (chunks, first, value) in (1..=2).flat_map(|chunks| {
        let firsts = [0.0, 5.0, 7.0, 9.0];
        firsts.into_iter().flat_map(move |first| [1.0, 0.1].map(|value| (chunks, first, value)))
    }) {
        let keys = chunks * CHUNK;
        let shape = AttentionShape { batch: 2, heads: 2, head_dim: DIM, queries: 150, keys, causal: false };
        let mut numbers = Numbers(5);
        let [mut q, mut k, mut v] = [150, keys, keys].map(|tokens| numbers.vec(2 * tokens * 2 * DIM, Magnitude::Plain));
        q.chunks_mut(DIM).for_each(|q| q[3] += 6.0);
        let of_first = |x: &mut [f32], change: &dyn Fn(usize, usize, f32) -> f32| {
            for (row, x) in x.chunks_mut(2 * DIM).enumerate().filter(|(row, _)| row % CHUNK == 0) {
                x.iter_mut().enumerate().for_each(|(c, x)| *x = change(row, c, *x));
            }
        };
        of_first(&mut k, &|_, c, k| if c % DIM == 3 { first * (DIM as f32).sqrt() / 6.0 } else { 0.1 * k });
        let values = v[..2 * DIM].to_vec();
        of_first(&mut v, &|_, c, _| value * values[c]);
        let mut out = q.clone();
        Level::current().cross_attention_int8(&AttentionCall { k: &k, v: &v, shape }, &mut out);
        let decibels = signal_to_noise(&out, &softmax_attention(&q, &k, &v, &shape));
        assert!(decibels > 34.0, "{chunks} chunks, first token {first}, its value {value}: {decibels:.1} dB");
    }
}

/// Sums of neighbours are rounded to f32. In a flat image all are rounded alike, so that its variance of 0 may come out as 5e-7 of
/// the mean square: it must stay as small.
#[test]
fn a_nearly_flat_images_variance_is_found() {
    for (mean, contrast) in [(0.1f32, 0.0f32), (97.3, 0.0), (97.3, 0.5)] {
        let (channels, width, rows) = (24, 40, 40);
        let x: Vec<f32> = (0..channels * width * rows)
            .map(|i| if (i / channels) % 2 == 0 { mean + contrast } else { mean - contrast })
            .collect();
        let mut sums = GroupSums::new(channels);
        sums.add_rows(Level::current(), &x, width);
        let (scale, _) = sums.finish(3, 0.0, &vec![1.0; channels], &vec![0.0; channels]);
        let variance = 1.0 / f64::from(scale[0]).powi(2);
        let error = (variance - f64::from(contrast).powi(2)).abs() / f64::from(mean).powi(2);
        assert!(error < 5e-7, "{mean} ± {contrast}: a variance of {variance}");
    }
}

#[test]
fn norms_give_mean_zero_and_variance_one() {
    let mut numbers = Numbers(5);
    let (channels, groups, pixels) = (12, 3, 50);
    let x: Vec<f32> = numbers.vec(channels * pixels, Magnitude::Plain).iter().map(|x| x + 100.0).collect();
    let (gamma, beta) = (vec![2.0; channels], vec![-1.0; channels]);
    let mut sums = GroupSums::new(channels);
    sums.add_rows(Level::current(), &x, 10);
    let (scale, shift) = sums.finish(groups, 0.0, &gamma, &beta);
    let mut out = vec![0.0; x.len()];
    let norm = Norm::Scaled { scale: &scale, shift: &shift, silu: false };
    Level::current().normalize(&norm, FloatRows::F32(&x), NormOut::F32(&mut out));
    for group in 0..groups {
        let of_group = |c: usize| c / (channels / groups) == group;
        assert_moments(out.iter().enumerate().filter(|(i, _)| of_group(i % channels)).map(|(_, x)| *x));
    }
    let norm = Norm::Layer { gamma: &gamma, beta: &beta, eps: 0.0 };
    Level::current().normalize(&norm, FloatRows::F32(&x), NormOut::F32(&mut out));
    out.chunks(channels).for_each(|row| assert_moments(row.iter().copied()));
}

/// Mean −1 and deviation 2, as gamma and beta make them.
fn assert_moments(values: impl Iterator<Item = f32> + Clone) {
    let n = values.clone().count() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / n;
    let variance = values.map(|x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    assert!((mean + 1.0).abs() < 1e-4 && (variance - 4.0).abs() < 1e-3, "mean {mean}, variance {variance}");
}
