//! Kernels that are cancelled leave their outputs as they are, and those in the middle of a long task end soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use diffused_kernels::pack::{Format, Layout};
use diffused_kernels::{
    AttentionCall, AttentionShape, ConvCall, ConvShape, Enlarged, Epilogue, FloatRows, GroupSums, InputRows, Level,
    LinearCall, MadeRow, Norm, NormOut, Panels, Strip, cancel,
};
use half::f16;

/// What outputs hold before.
const OLD: f32 = 7.1;

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.available())
}

/// Runs `work` in a pool whose threads watch `flag`.
fn watching<T: Send>(threads: usize, flag: &Arc<AtomicBool>, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    pool.broadcast(|_| cancel::watch(flag.clone()));
    pool.install(work)
}

fn products(level: Level, format: Format, k: usize, out: &mut [f32]) {
    let (q, scale, values) = (vec![1; 64 * k], vec![1.0; 64], vec![1.0; 64 * k]);
    let x = match format {
        Format::Int8 => InputRows::Int8 { q: &q, scale: &scale },
        Format::F16 | Format::F32 => InputRows::F32(&values),
    };
    for taps in [1, 9] {
        let layout = Layout { format, k, taps };
        let bytes = vec![0; 2 * layout.panel_bytes()];
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        let (features, epilogue) = (32, Epilogue::NONE);
        if taps == 1 {
            level.linear(&LinearCall { x, panels, features, epilogue }, out);
        } else {
            let shape = ConvShape {
                batch: 1,
                height: 8,
                width: 8,
                kernel: 3,
                stride: 1,
                pad_end_only: false,
                enlarged: Enlarged::No,
            };
            level.conv2d(&ConvCall { x, shape, strip: Strip::whole(&shape), panels, features, epilogue }, out);
        }
    }
}

fn norms(level: Level, out: &mut [f32], q: &mut [i8], scale: &mut [f32]) {
    let (x, ones) = (vec![1.0; out.len()], vec![1.0; 32]);
    let norm = Norm::Layer { gamma: &ones, beta: &ones, eps: 1e-5 };
    level.normalize(&norm, FloatRows::F32(&x), NormOut::F32(out));
    level.normalize_in_place(&norm, out);
    level.normalize(&norm, FloatRows::F32(&x), NormOut::Int8 { q, scale });
    level.quantize_rows(FloatRows::F32(&x), 32, q, scale);
    level.silu(out);
    level.f16_to_f32(&vec![f16::ONE; out.len()], 1.0, out);
    let mut sums = GroupSums::new(32);
    sums.add_rows(level, &x, 8);
    let (_, shift) = sums.finish(1, 1.0, &ones, &ones);
    assert_eq!(shift, ones, "nothing was summed");
}

#[test]
fn no_kernel_writes_anything_once_it_is_cancelled() {
    let flag = Arc::new(AtomicBool::new(true));
    for level in levels() {
        let (mut out, mut q, mut scale) = ([OLD; 64 * 32], [7; 64 * 32], [OLD; 64]);
        watching(2, &flag, || {
            products(level, Format::Int8, 64, &mut out);
            products(level, Format::F32, 64, &mut out);
            norms(level, &mut out, &mut q, &mut scale);
            level.round_to_f16(&mut out, 1.0);
            let mut half = vec![f16::ZERO; out.len()];
            level.f32_to_f16(&out, 1.0, &mut half);
            let rows = out.chunks_mut(8 * 32).zip(half.chunks_mut(8 * 32));
            let mut rows: Vec<_> = rows.map(|(values, stored)| MadeRow { values, stored: Some(stored) }).collect();
            level.finish_rows(&mut rows, 32, 1.0, &mut []);
            assert!(half.iter().all(|value| *value == f16::ZERO));
            let shape = AttentionShape { batch: 1, heads: 2, head_dim: 16, queries: 64, keys: 64, causal: false };
            let call = AttentionCall { k: &[1.0; 64 * 32], v: &[1.0; 64 * 32], shape };
            level.attention(&call, &mut out);
            level.attention_int8(&call, &mut out);
        });
        assert!(out.iter().chain(&scale).all(|value| *value == OLD) && q == [7; 64 * 32], "{level}");
    }
}

#[test]
fn attention_ends_in_the_middle_of_a_task() {
    const TOKENS: usize = 1 << 16;
    let shape = AttentionShape { batch: 1, heads: 1, head_dim: 32, queries: TOKENS, keys: TOKENS, causal: false };
    let (k, v) = (vec![0.5; TOKENS * 32], vec![0.25; TOKENS * 32]);
    let call = AttentionCall { k: &k, v: &v, shape };
    for attention in [Level::attention_int8, Level::attention] {
        let flag: Arc<AtomicBool> = Arc::default();
        let mut out = vec![OLD; TOKENS * 32];
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                flag.store(true, Ordering::Relaxed);
            });
            watching(1, &flag, || attention(Level::current(), &call, &mut out));
        });
        assert_eq!(out[out.len() - 1], OLD, "one thread was through with {TOKENS} queries of as many keys");
    }
}
