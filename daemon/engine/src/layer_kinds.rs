//! The layers that take a painting's time, by kind: how much of the work each kind is, and a layer of each with random
//! values, for a program with a clock to time.
//!
//! What is timed are Stable Diffusion 1.5's shapes, on which a kind spends most of its time there; other shapes of a kind
//! are some percent faster or slower.

use std::ops::Add;

use diffused_kernels::pack::{Format, Layout, PANEL};
use diffused_kernels::{
    ActivationFn, AttentionCall, AttentionShape, ConvCall, ConvShape, Enlarged, Epilogue, InputRows, Level, LinearCall,
    Panels, Strip,
};
use serde::Serialize;

use crate::layer::Layer;

/// How many kinds of layers there are.
pub const WORK_KINDS: usize = 5;

/// A kind of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Convolutions.
    Convolution,
    /// Linear layers.
    Linear,
    /// Attention in int8: the UNet's self-attention and the autoencoder's.
    AttentionInt8,
    /// Attention to a text in int8.
    CrossAttention,
    /// Attention in f32: the text encoder's own, and all of a bundle that is not in int8.
    AttentionF32,
}

impl WorkKind {
    /// Every kind.
    pub const ALL: [WorkKind; WORK_KINDS] = [
        WorkKind::Convolution,
        WorkKind::Linear,
        WorkKind::AttentionInt8,
        WorkKind::CrossAttention,
        WorkKind::AttentionF32,
    ];

    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            WorkKind::Convolution => "convolution",
            WorkKind::Linear => "linear layer",
            WorkKind::AttentionInt8 => "attention, int8",
            WorkKind::CrossAttention => "cross-attention",
            WorkKind::AttentionF32 => "attention, f32",
        }
    }

    /// The kind of a layer, if it multiplies at all.
    pub(crate) fn of(layer: &Layer) -> Option<WorkKind> {
        match layer {
            Layer::Conv2d { .. } => Some(WorkKind::Convolution),
            Layer::Linear { .. } => Some(WorkKind::Linear),
            Layer::Attention { int8: true, cross: false, .. } => Some(WorkKind::AttentionInt8),
            Layer::Attention { int8: true, cross: true, .. } => Some(WorkKind::CrossAttention),
            Layer::Attention { int8: false, .. } => Some(WorkKind::AttentionF32),
            Layer::Embedding { .. }
            | Layer::TimeEmbedding { .. }
            | Layer::AddSilu {}
            | Layer::Quantize {}
            | Layer::GroupNorm { .. }
            | Layer::LayerNorm { .. }
            | Layer::Affine { .. }
            | Layer::SoftClamp { .. } => None,
        }
    }
}

/// Multiply-adds of each kind of layers, in the order of [`WorkKind::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WorkByKind(pub [u64; WORK_KINDS]);

impl WorkByKind {
    /// Adds multiply-adds of a kind.
    pub(crate) fn count(&mut self, kind: WorkKind, macs: u64) {
        self.0[kind as usize] += macs;
    }

    /// The multiply-adds of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The seconds that it takes where each kind makes so many multiply-adds a second.
    pub fn seconds(&self, rates: &[f64; WORK_KINDS]) -> f64 {
        self.0.iter().zip(rates).map(|(macs, rate)| *macs as f64 / rate).sum()
    }
}

impl Add for WorkByKind {
    type Output = WorkByKind;

    fn add(mut self, other: WorkByKind) -> WorkByKind {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own += other);
        self
    }
}

/// A layer that can be run again and again.
pub struct LayerTrial {
    /// Its kind.
    pub kind: WorkKind,
    /// Its shape, in words.
    pub shape: &'static str,
    /// Multiply-adds of a run.
    pub macs: u64,
    /// Runs it once, on the threads of the pool in which it is called.
    pub run: Box<dyn FnMut() + Send>,
}

impl LayerTrial {
    /// A layer of this kind, at the level of this process.
    pub fn of(kind: WorkKind) -> LayerTrial {
        match kind {
            WorkKind::Convolution => convolution(320, 64, "3×3, 320 channels at 64 × 64"),
            WorkKind::Linear => linear(1024, 640, 640, "1024 × 640 × 640"),
            WorkKind::AttentionInt8 => attention(kind, 1024, 4096, "1024 queries, 4096 keys, 8 heads of 40"),
            WorkKind::CrossAttention | WorkKind::AttentionF32 => {
                attention(kind, 4096, 77, "4096 queries, 77 keys, 8 heads of 40")
            }
        }
    }
}

/// Numbers from −1 to 1 without a pattern that matters.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + i / 3) % 1999) as f32 / 999.5 - 1.0).collect()
}

/// Whole panels of int8 weights.
fn weights(layout: Layout, outputs: usize) -> Vec<u8> {
    (0..outputs.div_ceil(PANEL) * layout.panel_bytes()).map(|i| (i * 7919 % 120) as u8).collect()
}

fn quantized(len: usize) -> Vec<i8> {
    (0..len).map(|i| (i * 7919 % 255) as u8 as i8).map(|value| value.max(-127)).collect()
}

fn convolution(channels: usize, side: usize, shape: &'static str) -> LayerTrial {
    let sizes = ConvShape {
        batch: 1,
        height: side,
        width: side,
        kernel: 3,
        stride: 1,
        pad_end_only: false,
        enlarged: Enlarged::No,
    };
    let layout = Layout { format: Format::Int8, k: channels, taps: 9 };
    let (q, scale, bytes) = (quantized(side * side * channels), vec![0.01; side * side], weights(layout, channels));
    let mut out = vec![0.0; side * side * channels];
    let run = move || {
        let x = InputRows::Int8 { q: &q, scale: &scale };
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        let strip = Strip::whole(&sizes);
        let call = ConvCall { x, shape: sizes, strip, panels, features: channels, epilogue: Epilogue::NONE };
        Level::current().conv2d(&call, &mut out);
    };
    let macs = (side * side * channels * channels * 9) as u64;
    LayerTrial { kind: WorkKind::Convolution, shape, macs, run: Box::new(run) }
}

fn linear(rows: usize, k: usize, features: usize, shape: &'static str) -> LayerTrial {
    let layout = Layout { format: Format::Int8, k, taps: 1 };
    let (q, scale, bytes) = (quantized(rows * k), vec![0.01; rows], weights(layout, features));
    let mut out = vec![0.0; rows * features];
    let run = move || {
        let x = InputRows::Int8 { q: &q, scale: &scale };
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        let epilogue = Epilogue { activation: ActivationFn::None, ..Epilogue::NONE };
        Level::current().linear(&LinearCall { x, panels, features, epilogue }, &mut out);
    };
    LayerTrial { kind: WorkKind::Linear, shape, macs: (rows * k * features) as u64, run: Box::new(run) }
}

fn attention(kind: WorkKind, queries: usize, keys: usize, shape: &'static str) -> LayerTrial {
    let sizes = AttentionShape { batch: 1, heads: 8, head_dim: 40, queries, keys, causal: false };
    let channels = sizes.heads * sizes.head_dim;
    let (mut q, k, v) = (numbers(queries * channels), numbers(keys * channels), numbers(keys * channels));
    let run = move || {
        let call = AttentionCall { k: &k, v: &v, shape: sizes };
        match kind {
            WorkKind::AttentionInt8 => Level::current().attention_int8(&call, &mut q),
            WorkKind::CrossAttention => Level::current().cross_attention_int8(&call, &mut q),
            _ => Level::current().attention(&call, &mut q),
        }
    };
    LayerTrial { kind, shape, macs: (2 * queries * keys * channels) as u64, run: Box::new(run) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_layer_that_runs() {
        for kind in WorkKind::ALL {
            let mut trial = LayerTrial::of(kind);
            (trial.run)();
            assert_eq!(trial.kind, kind);
            assert!(trial.macs > 200_000_000, "{}: {} multiply-adds", kind.label(), trial.macs);
        }
    }

    #[test]
    fn time_is_work_over_rate() {
        let mut work = WorkByKind::default();
        work.count(WorkKind::Linear, 30);
        let work = work + WorkByKind([10, 0, 40, 0, 0]);
        assert_eq!((work.total(), work.seconds(&[10.0, 3.0, 20.0, 1.0, 1.0])), (80, 13.0));
    }
}
