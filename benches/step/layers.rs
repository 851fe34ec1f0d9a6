//! Stable Diffusion 1.5's layers at 512×512, and the seconds that tract's f32 operators take for them on one thread.
//!
//! Counted are matrix products, attention, and convolutions as the products that they come down to, for a batch of two in
//! the UNet; norms, additions and tract's own copies are left out, which favours tract.

use std::collections::BTreeMap;

use super::{cpu_time, tract};

/// Rows of the largest product that is run; larger ones are reckoned from it.
const ROWS: usize = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// `m` rows of `k` values to `n`.
    Product { m: usize, k: usize, n: usize },
    /// Of one picture.
    Attention { queries: usize, keys: usize, heads: usize, head_dim: usize },
}

/// Layers, each with how often it occurs.
#[derive(Default)]
struct Layers {
    batch: usize,
    counts: BTreeMap<Work, usize>,
}

impl Layers {
    fn product(&mut self, pixels: usize, k: usize, n: usize) {
        *self.counts.entry(Work::Product { m: self.batch * pixels, k, n }).or_default() += 1;
    }

    fn attention(&mut self, queries: usize, keys: usize, heads: usize, head_dim: usize) {
        *self.counts.entry(Work::Attention { queries, keys, heads, head_dim }).or_default() += self.batch;
    }

    fn residual_block(&mut self, side: usize, from: usize, to: usize) {
        self.product(side * side, 9 * from, to);
        self.product(side * side, 9 * to, to);
        if from != to {
            self.product(side * side, from, to);
        }
    }

    fn transformer(&mut self, side: usize, channels: usize) {
        let pixels = side * side;
        // In, out; q, k, v and out of self-attention; q and out of cross-attention.
        (0..8).for_each(|_| self.product(pixels, channels, channels));
        (0..2).for_each(|_| self.product(77, 768, channels));
        self.product(pixels, channels, 8 * channels);
        self.product(pixels, 4 * channels, channels);
        self.attention(pixels, pixels, 8, channels / 8);
        self.attention(pixels, 77, 8, channels / 8);
    }

    fn seconds(&self) -> f64 {
        self.counts.iter().map(|(work, &count)| count as f64 * work.seconds()).sum()
    }
}

impl Work {
    /// Of the best of two runs.
    fn seconds(self) -> f64 {
        let (mut run, share) = match self {
            Work::Product { m, k, n } => (tract::product(m.min(ROWS), k, n), m as f64 / m.min(ROWS) as f64),
            Work::Attention { queries, keys, heads, head_dim } => {
                (tract::attention(queries, keys, heads, head_dim), 1.0)
            }
        };
        let mut time = || {
            let (start, mut runs) = (cpu_time(), 0);
            while runs == 0 || cpu_time() - start < 0.1 {
                run();
                runs += 1;
            }
            (cpu_time() - start) / f64::from(runs)
        };
        time().min(time()) * share
    }
}

/// Seconds of a step and of a decode.
pub(super) fn sd15() -> [f64; 2] {
    [unet(), decoder()].map(|layers| layers.seconds())
}

/// The same for a layer or two.
pub(super) fn smoke() -> [f64; 2] {
    let mut layers = Layers { batch: 1, ..Layers::default() };
    layers.product(64, 9, 16);
    layers.attention(64, 64, 2, 8);
    [layers.seconds(); 2]
}

fn unet() -> Layers {
    let mut unet = Layers { batch: 2, ..Layers::default() };
    unet.product(64 * 64, 9 * 4, 320);
    let levels = [(64, 320), (32, 640), (16, 1280), (8, 1280)];
    let mut skips = vec![320];
    let mut channels = 320;
    for (level, (side, width)) in levels.into_iter().enumerate() {
        for _ in 0..2 {
            unet.residual_block(side, channels, width);
            channels = width;
            if level < 3 {
                unet.transformer(side, width);
            }
            skips.push(width);
        }
        if level < 3 {
            unet.product(side * side / 4, 9 * width, width);
            skips.push(width);
        }
    }
    (0..2).for_each(|_| unet.residual_block(8, 1280, 1280));
    unet.transformer(8, 1280);
    for (level, (side, width)) in levels.into_iter().enumerate().rev() {
        for _ in 0..3 {
            unet.residual_block(side, channels + skips.pop().unwrap_or_default(), width);
            channels = width;
            if level < 3 {
                unet.transformer(side, width);
            }
        }
        if level > 0 {
            unet.product(4 * side * side, 9 * width, width);
        }
    }
    unet.product(64 * 64, 9 * 320, 4);
    unet
}

fn decoder() -> Layers {
    let mut decoder = Layers { batch: 1, ..Layers::default() };
    decoder.product(64 * 64, 9 * 4, 512);
    (0..2).for_each(|_| decoder.residual_block(64, 512, 512));
    (0..4).for_each(|_| decoder.product(64 * 64, 512, 512));
    decoder.attention(64 * 64, 64 * 64, 1, 512);
    let mut channels = 512;
    for (side, width) in [(64, 512), (128, 512), (256, 256), (512, 128)] {
        for _ in 0..3 {
            decoder.residual_block(side, channels, width);
            channels = width;
        }
        if side < 512 {
            decoder.product(4 * side * side, 9 * width, width);
        }
    }
    decoder.product(512 * 512, 9 * 128, 3);
    decoder
}
