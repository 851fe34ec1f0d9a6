//! Runs the layers of one kind a number of times, for tools that count what a program executes (`benches/mix.sh`): Stable
//! Diffusion 1.5's at 256×256, one of each size.
//!
//! `layer KIND TIMES`; the kinds are those of [`KINDS`]. All on one thread, so that counts are exact.

use diffused_kernels::pack::{Format, Layout, PANEL};
use diffused_kernels::{
    ActivationFn, AttentionCall, AttentionShape, ConvCall, ConvShape, Enlarged, Epilogue, FloatRows, GroupSums,
    InputRows, Level, LinearCall, Norm, NormOut, Panels, Strip,
};

/// Runs a layer, whose operands are made.
type RunLayer = Box<dyn FnMut() + Send>;

/// Makes the layers of a kind.
type MakeLayers = fn(Level) -> Vec<RunLayer>;

/// Each kind, and what makes its layers.
const KINDS: [(&str, MakeLayers); 5] = [
    ("convolution", |level| SIZES.map(|(side, channels)| convolution(level, side, channels)).into()),
    ("linear", |level| SIZES.into_iter().flat_map(|(side, channels)| linears(level, side * side, channels)).collect()),
    ("self-attention", |level| {
        SIZES.map(|(side, channels)| attention(Level::attention_int8, level, [side * side; 2], channels / 8)).into()
    }),
    ("cross-attention", |level| {
        SIZES
            .map(|(side, channels)| attention(Level::cross_attention_int8, level, [side * side, 77], channels / 8))
            .into()
    }),
    ("norm", |level| SIZES.map(|(side, channels)| norms(level, side, channels)).into()),
];

/// Pixels on a side, and channels.
const SIZES: [(usize, usize); 3] = [(32, 320), (16, 640), (8, 1280)];

/// Numbers without a pattern that matters.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + i / 3) % 1999) as f32 / 999.5 - 1.0).collect()
}

/// An int8 matrix.
fn matrix(layout: Layout, outputs: usize) -> Vec<u8> {
    (0..outputs.div_ceil(PANEL) * layout.panel_bytes()).map(|i| (i * 7919 % 120) as u8).collect()
}

fn quantized(level: Level, rows: usize, channels: usize) -> (Vec<i8>, Vec<f32>) {
    let (mut q, mut scale) = (vec![0; rows * channels], vec![0.0; rows]);
    level.quantize_rows(FloatRows::F32(&numbers(rows * channels)), channels, &mut q, &mut scale);
    (q, scale)
}

fn convolution(level: Level, side: usize, channels: usize) -> RunLayer {
    let shape = ConvShape {
        batch: 1,
        height: side,
        width: side,
        kernel: 3,
        stride: 1,
        pad_end_only: false,
        enlarged: Enlarged::No,
    };
    let layout = Layout { format: Format::Int8, k: channels, taps: 9 };
    let (bytes, (q, scale)) = (matrix(layout, channels), quantized(level, side * side, channels));
    let mut out = vec![0.0; side * side * channels];
    Box::new(move || {
        let (x, strip) = (InputRows::Int8 { q: &q, scale: &scale }, Strip::whole(&shape));
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        level.conv2d(&ConvCall { x, shape, strip, panels, features: channels, epilogue: Epilogue::NONE }, &mut out);
    })
}

/// A projection, and both of a feed-forward.
fn linears(level: Level, tokens: usize, channels: usize) -> [RunLayer; 3] {
    [
        linear(level, tokens, [channels, channels], ActivationFn::None),
        linear(level, tokens, [channels, 8 * channels], ActivationFn::Geglu),
        linear(level, tokens, [4 * channels, channels], ActivationFn::None),
    ]
}

fn linear(level: Level, tokens: usize, [from, to]: [usize; 2], activation: ActivationFn) -> RunLayer {
    let layout = Layout { format: Format::Int8, k: from, taps: 1 };
    let features = if activation == ActivationFn::Geglu { to / 2 } else { to };
    let (bytes, (q, scale)) = (matrix(layout, to), quantized(level, tokens, from));
    let mut out = vec![0.0; tokens * features];
    Box::new(move || {
        let (x, epilogue) = (InputRows::Int8 { q: &q, scale: &scale }, Epilogue { activation, ..Epilogue::NONE });
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        level.linear(&LinearCall { x, panels, features, epilogue }, &mut out);
    })
}

type ExampleAttention = fn(Level, &AttentionCall, &mut [f32]);

fn attention(run: ExampleAttention, level: Level, [queries, keys]: [usize; 2], head_dim: usize) -> RunLayer {
    let shape = AttentionShape { batch: 1, heads: 8, head_dim, queries, keys, causal: false };
    let [mut q, k, v] = [queries, keys, keys].map(|tokens| numbers(tokens * 8 * head_dim));
    Box::new(move || run(level, &AttentionCall { k: &k, v: &v, shape }, &mut q))
}

/// A group norm with SiLU and a layer norm, both quantized.
fn norms(level: Level, side: usize, channels: usize) -> RunLayer {
    let (x, gamma, beta) = (numbers(side * side * channels), vec![1.0; channels], vec![0.0; channels]);
    let (mut q, mut scale) = (vec![0; x.len()], vec![0.0; side * side]);
    Box::new(move || {
        let mut sums = GroupSums::new(channels);
        sums.add_rows(level, &x, side);
        let (factor, shift) = sums.finish(32, 1e-5, &gamma, &beta);
        let group = Norm::Scaled { scale: &factor, shift: &shift, silu: true };
        let layer = Norm::Layer { gamma: &gamma, beta: &beta, eps: 1e-5 };
        for norm in [group, layer] {
            level.normalize(&norm, FloatRows::F32(&x), NormOut::Int8 { q: &mut q, scale: &mut scale });
        }
    })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = || -> ! { panic!("layer {} TIMES", KINDS.map(|(name, _)| name).join("|")) };
    let [kind, times] = &words[..] else { usage() };
    let Some((_, make)) = KINDS.iter().find(|(name, _)| name == kind) else { usage() };
    let times: usize = times.parse().unwrap_or_else(|_| usage());
    let mut layers = make(Level::current());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    pool.install(|| (0..times).for_each(|_| layers.iter_mut().for_each(|run| run())));
}
