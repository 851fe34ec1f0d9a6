//! The same bits on every CPU: a fingerprint of what each kernel computes, which every level of every architecture has
//! to give.
//!
//! The other tests compare levels with the scalar one on the same CPU; this compares CPUs. Where a kernel's arithmetic
//! is changed on purpose, so is its fingerprint here, and with it every image.

mod common;

use common::{Magnitude, Numbers};
use diffused_kernels::pack::{Format, Layout, PANEL, PHASES, pack_panel};
use diffused_kernels::{
    ActivationFn, AttentionCall, AttentionShape, ConvCall, ConvShape, Enlarged, Epilogue, FloatRows, GroupSums,
    InputRows, Level, Norm, NormOut, Panels, Strip,
};

/// FNV-1a over the bits of f32.
fn fingerprint(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|value| value.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[track_caller]
fn on_every_level(expected: u64, kernel: impl Fn(Level) -> Vec<f32>) {
    for level in Level::ALL.into_iter().filter(|level| level.available()) {
        let found = fingerprint(&kernel(level));
        assert_eq!(found, expected, "{level} on {}: {found:#x}, not {expected:#x}", std::env::consts::ARCH);
    }
}

/// A 3×3 convolution of 20 channels to 40 features over an image of 9×11, as it is or enlarged, with everything that may
/// follow it.
fn convolution(level: Level, format: Format, enlarged: Enlarged) -> Vec<f32> {
    let mut numbers = Numbers(1);
    let (k, features) = (20, 40);
    let shape = ConvShape { batch: 1, height: 9, width: 11, kernel: 3, stride: 1, pad_end_only: false, enlarged };
    let layout = Layout { format, k, taps: shape.taps() };
    let phases = if enlarged == Enlarged::Phases { PHASES } else { 1 };
    let mut bytes = vec![0; phases * 3 * layout.panel_bytes()];
    for (i, panel) in bytes.chunks_exact_mut(layout.panel_bytes()).enumerate() {
        let outputs = PANEL.min(features - i % 3 * PANEL);
        let rows: Vec<_> = (0..outputs).map(|_| numbers.vec(layout.taps * k, Magnitude::Plain)).collect();
        let bias = numbers.vec(rows.len(), Magnitude::Plain);
        pack_panel(&layout, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), &bias, panel);
    }
    let x = numbers.vec(99 * k, Magnitude::Plain);
    let (mut q, mut scale) = (vec![0; x.len()], vec![0.0; 99]);
    level.quantize_rows(FloatRows::F32(&x), k, &mut q, &mut scale);
    let x = if format == Format::Int8 { InputRows::Int8 { q: &q, scale: &scale } } else { InputRows::F32(&x) };
    let time = numbers.vec(features, Magnitude::Plain);
    let epilogue = Epilogue { activation: ActivationFn::Silu, accumulate: true, time: Some(&time), ..Epilogue::NONE };
    let mut out = numbers.vec(shape.out_height() * shape.out_width() * features, Magnitude::Plain);
    let panels = Panels { layout, blocks: &[&bytes], first: 0 };
    level.conv2d(&ConvCall { x, shape, strip: Strip::whole(&shape), panels, features, epilogue }, &mut out);
    out
}

#[test]
fn convolutions() {
    on_every_level(0xc831_e7d9_bf03_549b, |level| convolution(level, Format::Int8, Enlarged::No));
    on_every_level(0xe1f5_320d_7c3e_4e5b, |level| convolution(level, Format::F16, Enlarged::No));
    on_every_level(0x975b_39f9_a91d_952d, |level| convolution(level, Format::F32, Enlarged::No));
    on_every_level(0xa603_834d_0702_2627, |level| convolution(level, Format::Int8, Enlarged::Phases));
    on_every_level(0xd124_198d_c6e4_dba7, |level| convolution(level, Format::F32, Enlarged::Phases));
}

#[test]
fn attention() {
    let shape = AttentionShape { batch: 1, heads: 2, head_dim: 20, queries: 30, keys: 150, causal: false };
    let mut numbers = Numbers(2);
    let q = numbers.vec(30 * 40, Magnitude::Plain);
    let [k, v] = [(); 2].map(|()| numbers.vec(150 * 40, Magnitude::Plain));
    let attend = |run: fn(Level, &AttentionCall, &mut [f32]), level| {
        let mut out = q.clone();
        run(level, &AttentionCall { k: &k, v: &v, shape }, &mut out);
        out
    };
    on_every_level(0x4853_2668_12ad_7271, |level| attend(Level::attention, level));
    on_every_level(0x3be7_766a_3ea1_088e, |level| attend(Level::attention_int8, level));
    on_every_level(0xffad_4e01_af90_9892, |level| attend(Level::cross_attention_int8, level));
}

#[test]
fn norms() {
    let mut numbers = Numbers(3);
    let (x, gamma, beta) =
        (numbers.vec(60 * 24, Magnitude::Plain), numbers.vec(24, Magnitude::Plain), numbers.vec(24, Magnitude::Plain));
    let normalize = |level: Level, norm: &Norm| {
        let mut out = vec![0.0; x.len()];
        level.normalize(norm, FloatRows::F32(&x), NormOut::F32(&mut out));
        out
    };
    on_every_level(0xd1fa_c6c6_4159_881f, |level| {
        let mut sums = GroupSums::new(24);
        sums.add_rows(level, &x, 6);
        let (scale, shift) = sums.finish(4, 1e-5, &gamma, &beta);
        normalize(level, &Norm::Scaled { scale: &scale, shift: &shift, silu: true })
    });
    on_every_level(0x2bc1_22d4_36a2_a01f, |level| {
        normalize(level, &Norm::Layer { gamma: &gamma, beta: &beta, eps: 1e-5 })
    });
}
