//! Quantization, norms, attention and conversions: every level equals the scalar one to the bit.

mod common;

use common::{Magnitude, Numbers, Shifted, assert_same, check, magnitudes, on_threads};
use diffused_kernels::{AttentionCall, AttentionShape, FloatRows, GroupSums, Level, MadeRow, Norm, NormOut};
use half::f16;
use proptest::prelude::*;

on_every_level! {
    quantization
    half_precision
    silu_of_every_length
    silu_of_small_values
    group_sums_in_strips
    finished_rows
    group_norm
    layer_norm
    attention_equals_scalar
    attention_over_many_keys
    int8_attention_equals_scalar
    int8_attention_over_many_keys
    int8_attention_with_light_keys
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![1..=67usize, 1..=700usize]
}

fn quantization(level: Level) {
    check(
        200,
        (any::<u64>(), magnitudes(), lengths(), 0..20usize, 0..4usize),
        |(seed, kind, channels, rows, shift)| {
            let x = Shifted::new(&Numbers(seed).vec(rows * channels, kind), shift);
            let half: Vec<f16> = x.get().iter().map(|x| f16::from_f32_const(x.clamp(-6e4, 6e4))).collect();
            let quantize = |level: Level| {
                let mut q = Shifted::new(&vec![1; rows * channels], shift);
                let mut scale = vec![1.0; rows];
                level.quantize_rows(FloatRows::F32(x.get()), channels, q.get_mut(), &mut scale);
                let mut all = (q.get().to_vec(), scale);
                for unit in [1.0, 4.0] {
                    let (mut q, mut scale) = (vec![1; rows * channels], vec![1.0; rows]);
                    level.quantize_rows(FloatRows::F16(&half, unit), channels, &mut q, &mut scale);
                    all.0.extend(q);
                    all.1.extend(scale);
                }
                all
            };
            let ((found, found_scale), (expected, scale)) = (quantize(level), quantize(Level::Scalar));
            assert_eq!(found, expected);
            assert_same(&found_scale, &scale, "scale");
        },
    );
}

fn half_precision(level: Level) {
    let every: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|x| !x.is_nan()).collect();
    let (mut found, mut expected) = (vec![0.0; every.len()], vec![0.0; every.len()]);
    for unit in [1.0, 256.0] {
        level.f16_to_f32(&every, unit, &mut found);
        Level::Scalar.f16_to_f32(&every, unit, &mut expected);
        assert_same(&found, &expected, "f16 to f32");
    }
    let units = proptest::sample::select(&[1.0f32, 256.0]);
    check(200, (any::<u64>(), magnitudes(), 0..=67usize, units), |(seed, kind, len, unit)| {
        let edges = [65520.0, 65519.0, 5.97e-8, 2.9e-8];
        let x: Vec<f32> =
            Numbers(seed).vec(len, kind).into_iter().chain(edges).chain(edges.map(|x| x * unit)).collect();
        let (mut found, mut expected) = (vec![f16::ZERO; x.len()], vec![f16::ZERO; x.len()]);
        level.f32_to_f16(&x, unit, &mut found);
        Level::Scalar.f32_to_f16(&x, unit, &mut expected);
        let bits = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&expected));
        let mut rounded = x.clone();
        level.round_to_f16(&mut rounded, unit);
        assert_same(&rounded, &expected.iter().map(|x| x.to_f32_const() * unit).collect::<Vec<_>>(), "rounded to f16");
    });
    let mut large = [-70_000.0, 1_000_000.0];
    level.round_to_f16(&mut large, 256.0);
    assert!(large.iter().zip([-70_000.0, 1_000_000.0]).all(|(a, b): (&f32, f32)| (a / b - 1.0).abs() < 1.0 / 2048.0));
}

fn silu_of_every_length(level: Level) {
    for len in 0..=67 {
        for kind in [Magnitude::Plain, Magnitude::Extreme, Magnitude::Denormal, Magnitude::Big] {
            let mut expected: Vec<f32> = Numbers(len as u64).vec(len, kind).iter().map(|x| x * 40.0).collect();
            let mut found = Shifted::new(&expected, len % 3);
            level.silu(found.get_mut());
            Level::Scalar.silu(&mut expected);
            assert_same(found.get(), &expected, "silu");
        }
    }
}

fn group_sums_in_strips(level: Level) {
    let shapes = (1..=8usize, 1..=9usize, 1..80usize, 1..20usize, 1..12usize, 1..=4usize);
    check(60, (any::<u64>(), magnitudes(), shapes), |(seed, kind, (groups, size, height, width, strip, threads))| {
        let channels = groups * size;
        let mut numbers = Numbers(seed);
        let x = numbers.vec(height * width * channels, kind);
        let (gamma, beta) = (numbers.vec(channels, Magnitude::Plain), numbers.vec(channels, Magnitude::Plain));
        let mut whole = GroupSums::new(channels);
        whole.add_rows(Level::Scalar, &x, width);
        let expected = whole.finish(groups, 1e-5, &gamma, &beta);
        let mut strips = GroupSums::new(channels);
        on_threads(threads, || x.chunks(strip * width * channels).for_each(|x| strips.add_rows(level, x, width)));
        let found = strips.finish(groups, 1e-5, &gamma, &beta);
        assert_same(&found.0, &expected.0, "scale");
        assert_same(&found.1, &expected.1, "shift");
    });
}

/// In one pass rows are what they are when each thing is done by itself.
fn finished_rows(level: Level) {
    let shapes = (1..200usize, 1..80usize, 1..70usize, 1..=4usize);
    let units = proptest::sample::select(&[1.0f32, 256.0]);
    let cases = (any::<u64>(), magnitudes(), shapes, units, any::<bool>(), 0..=2usize);
    check(60, cases, |(seed, kind, (channels, width, height, threads), unit, stored, norms)| {
        let (gamma, beta) = (vec![1.0; channels], vec![0.5; channels]);
        let x = Numbers(seed).vec(height * width * channels, kind);
        let (mut expected, mut half) = (x.clone(), vec![f16::ZERO; x.len()]);
        Level::Scalar.f32_to_f16(&x, unit, &mut half);
        Level::Scalar.round_to_f16(&mut expected, unit);
        let mut sums = GroupSums::new(channels);
        sums.add_rows(Level::Scalar, &expected, width);
        let (scale, shift) = sums.finish(1, 1e-5, &gamma, &beta);

        let (mut found, mut places) = (x.clone(), vec![f16::ZERO; if stored { x.len() } else { 0 }]);
        let mut found_sums = vec![GroupSums::new(channels); norms];
        let mut places_left = places.chunks_mut(width * channels);
        let rows = found.chunks_mut(width * channels);
        let mut rows: Vec<_> = rows.map(|values| MadeRow { values, stored: places_left.next() }).collect();
        let mut sums: Vec<_> = found_sums.iter_mut().collect();
        on_threads(threads, || level.finish_rows(&mut rows, channels, unit, &mut sums));
        assert_same(&found, &expected, "rounded");
        assert!(!stored || places.iter().zip(&half).all(|(a, b)| a.to_bits() == b.to_bits()), "stored");
        for sums in found_sums {
            let found = sums.finish(1, 1e-5, &gamma, &beta);
            assert_same(&found.0, &scale, "scale");
            assert_same(&found.1, &shift, "shift");
        }
    });
}

/// Compares the plain and the quantized output of a norm.
fn compare_norm(level: Level, values: &[f32], channels: usize, norm: &Norm) {
    let half: Vec<f16> = values.iter().map(|x| f16::from_f32_const(x.clamp(-6e4, 6e4))).collect();
    for x in [FloatRows::F32(values), FloatRows::F16(&half, 1.0), FloatRows::F16(&half, 4.0)] {
        compare_norm_of(level, x, values.len(), channels, norm);
    }
}

fn compare_norm_of(level: Level, x: FloatRows, len: usize, channels: usize, norm: &Norm) {
    let (mut found, mut expected) = (vec![0.0; len], vec![0.0; len]);
    level.normalize(norm, x, NormOut::F32(&mut found));
    Level::Scalar.normalize(norm, x, NormOut::F32(&mut expected));
    assert_same(&found, &expected, "norm");
    let quantized = |level: Level| {
        let (mut q, mut scale) = (vec![0; len], vec![0.0; len / channels]);
        level.normalize(norm, x, NormOut::Int8 { q: &mut q, scale: &mut scale });
        (q, scale)
    };
    let ((found, found_scale), (q, scale)) = (quantized(level), quantized(Level::Scalar));
    assert_eq!(found, q);
    assert_same(&found_scale, &scale, "scale of the quantized norm");
}

fn group_norm(level: Level) {
    let cases = (any::<u64>(), magnitudes(), lengths(), 0..40usize, any::<bool>(), 0..4usize);
    check(100, cases, |(seed, kind, channels, rows, silu, shift)| {
        let mut numbers = Numbers(seed);
        let (scale, shift_by) = (numbers.vec(channels, Magnitude::Plain), numbers.vec(channels, Magnitude::Plain));
        let x = Shifted::new(&numbers.vec(rows * channels, kind), shift);
        let norm = Norm::Scaled { scale: &scale, shift: &shift_by, silu };
        compare_norm(level, x.get(), channels, &norm);
        let mut expected = vec![0.0; x.get().len()];
        Level::Scalar.normalize(&norm, FloatRows::F32(x.get()), NormOut::F32(&mut expected));
        let mut found = x;
        level.normalize_in_place(&norm, found.get_mut());
        assert_same(found.get(), &expected, "in place");
    });
}

/// Rows of which no value is above how far SiLU goes below 0, but for one in the last channel of the last row.
fn silu_of_small_values(level: Level) {
    for channels in [1, 3, 16, 17, 40] {
        let mut x: Vec<f32> = (0..4 * channels).map(|i| -20.0 + (i * 7919 % 2000) as f32 / 100.0).collect();
        x.iter_mut().take(channels).for_each(|x| *x = x.max(-1.3));
        if let Some(x) = x.last_mut() {
            *x = 3.0;
        }
        let (scale, shift) = (vec![1.0; channels], vec![0.27; channels]);
        compare_norm(level, &x, channels, &Norm::Scaled { scale: &scale, shift: &shift, silu: true });
    }
}

fn layer_norm(level: Level) {
    let cases = (any::<u64>(), magnitudes(), lengths(), 0..40usize, 0..4usize);
    check(100, cases, |(seed, kind, channels, rows, shift)| {
        let mut numbers = Numbers(seed);
        let (gamma, beta) = (numbers.vec(channels, Magnitude::Plain), numbers.vec(channels, Magnitude::Plain));
        let x = Shifted::new(&numbers.vec(rows * channels, kind), shift);
        compare_norm(level, x.get(), channels, &Norm::Layer { gamma: &gamma, beta: &beta, eps: 1e-5 });
    });
}

type AttentionFn = fn(Level, &AttentionCall, &mut [f32]);

fn compare_attention(
    attention: AttentionFn,
    level: Level,
    shape: &AttentionShape,
    (seed, kind): (u64, Magnitude),
    threads: usize,
) {
    let mut numbers = Numbers(seed);
    let channels = shape.heads * shape.head_dim;
    let q = Shifted::new(&numbers.vec(shape.batch * shape.queries * channels, kind), 1);
    let k = Shifted::new(&numbers.vec(shape.batch * shape.keys * channels, kind), 2);
    let v = Shifted::new(&numbers.vec(shape.batch * shape.keys * channels, kind), 3);
    let mut expected = q.get().to_vec();
    let call = AttentionCall { k: k.get(), v: v.get(), shape: *shape };
    attention(Level::Scalar, &call, &mut expected);
    let mut found = q;
    on_threads(threads, || attention(level, &call, found.get_mut()));
    assert_same(found.get(), &expected, "attention");
}

fn attention_shapes() -> impl Strategy<Value = AttentionShape> {
    let head_dim = prop_oneof![1..=67usize, Just(160), Just(512)];
    (1..=2usize, 1..=3usize, head_dim, 1..50usize, 1..90usize).prop_map(|(batch, heads, head_dim, queries, keys)| {
        AttentionShape { batch, heads, head_dim, queries, keys, causal: false }
    })
}

fn attention_equals_scalar(level: Level) {
    let cases = (any::<u64>(), magnitudes(), attention_shapes(), any::<bool>(), 1..=4usize);
    check(60, cases, |(seed, kind, shape, causal, threads)| {
        let queries = if causal { shape.keys } else { shape.queries };
        let shape = AttentionShape { queries, causal, ..shape };
        compare_attention(Level::attention, level, &shape, (seed, kind), threads);
    });
}

/// To images and to texts.
const INT8: [fn(Level, &AttentionCall, &mut [f32]); 2] = [Level::attention_int8, Level::cross_attention_int8];

fn int8_attention_equals_scalar(level: Level) {
    check(100, (any::<u64>(), magnitudes(), attention_shapes(), 1..=4usize), |(seed, kind, shape, threads)| {
        for attention in INT8 {
            compare_attention(attention, level, &shape, (seed, kind), threads);
        }
    });
}

fn attention_over_many_keys(level: Level) {
    for (queries, keys, causal, threads) in [
        (30, 128, false, 2),
        (13, 129, false, 2),
        (5, 300, false, 2),
        (150, 150, true, 2),
        (257, 257, true, 2),
        // More queries in a task than a group of those that see a single block has.
        (400, 77, false, 2),
        (128, 128, true, 1),
    ] {
        let shape = AttentionShape { batch: 1, heads: 2, head_dim: 8, queries, keys, causal };
        for kind in [Magnitude::Plain, Magnitude::Denormal, Magnitude::Big] {
            compare_attention(Level::attention, level, &shape, (keys as u64, kind), threads);
        }
    }
}

/// Blocks of keys whose scores are 0, 4, 8, … below the greatest: some have only small weights, some none.
fn int8_attention_with_light_keys(level: Level) {
    let shape = AttentionShape { batch: 1, heads: 1, head_dim: 4, queries: 20, keys: 1000, causal: false };
    let mut numbers = Numbers(6);
    let q: Vec<f32> = (0..20)
        .flat_map(|_| [1.0, 0.0, 0.0, 0.0])
        .zip(numbers.vec(80, Magnitude::Plain))
        .map(|(q, x)| q + 0.1 * x)
        .collect();
    for direction in [1.0, -1.0] {
        let k: Vec<f32> = (0..1000).flat_map(|key| [direction * (key / 100) as f32 * 5.0, 0.3, 0.1, -0.2]).collect();
        let v = numbers.vec(4000, Magnitude::Plain);
        for attention in INT8 {
            let (mut expected, mut found) = (q.clone(), q.clone());
            let call = AttentionCall { k: &k, v: &v, shape };
            attention(Level::Scalar, &call, &mut expected);
            attention(level, &call, &mut found);
            assert_same(&found, &expected, "attention");
        }
    }
}

fn int8_attention_over_many_keys(level: Level) {
    for (head_dim, queries, keys) in
        [(8, 30, 128), (40, 13, 129), (80, 5, 300), (7, 150, 513), (40, 90, 77), (16, 3, 1)]
    {
        let shape = AttentionShape { batch: 1, heads: 2, head_dim, queries, keys, causal: false };
        for kind in [Magnitude::Plain, Magnitude::Extreme, Magnitude::Denormal, Magnitude::Big] {
            for attention in INT8 {
                compare_attention(attention, level, &shape, (keys as u64, kind), 2);
            }
        }
    }
}
