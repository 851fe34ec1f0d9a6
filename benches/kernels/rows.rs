//! The kernels that only read, round and write values: gigabytes read and written per second, and what share that is of
//! copying memory from one place to another.

use std::hint::black_box;

use diffused_kernels::{FloatRows, GroupSums, Level, Norm, NormOut};
use half::f16;
use rayon::ThreadPool;

use super::{BenchOptions, numbers, thread_time, wall_time};

/// Activations in all the forms that the kernels read and write.
struct BenchImage {
    x: Vec<f32>,
    out: Vec<f32>,
    half: Vec<f16>,
    q: Vec<i8>,
    scale: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    width: usize,
}

impl BenchImage {
    /// A square picture.
    fn new(side: usize, channels: usize) -> BenchImage {
        let len = side * side * channels;
        BenchImage {
            x: numbers(len),
            out: vec![0.0; len],
            half: vec![f16::ZERO; len],
            q: vec![0; len],
            scale: vec![0.0; side * side],
            gamma: vec![1.1; channels],
            beta: vec![0.1; channels],
            width: side,
        }
    }

    fn quantized(&mut self) -> (&[f32], [&[f32]; 2], NormOut<'_>) {
        (&self.x, [&self.gamma, &self.beta], NormOut::Int8 { q: &mut self.q, scale: &mut self.scale })
    }
}

/// A kernel, and the bytes that it reads and writes for each value.
struct Kernel {
    name: &'static str,
    bytes: f64,
    run: fn(Level, &mut BenchImage),
}

const KERNELS: [Kernel; 9] = [
    Kernel { name: "copy", bytes: 8.0, run: |_, rows| rows.out.copy_from_slice(&rows.x) },
    Kernel { name: "quantize", bytes: 5.0, run: quantize },
    Kernel { name: "group norm: sums", bytes: 4.0, run: sums },
    Kernel { name: "group norm, SiLU, quantize", bytes: 5.0, run: group_norm },
    Kernel { name: "layer norm, quantize", bytes: 5.0, run: layer_norm },
    Kernel { name: "SiLU", bytes: 8.0, run: |level, rows| level.silu(&mut rows.out) },
    Kernel { name: "f32 to f16", bytes: 6.0, run: |level, rows| level.f32_to_f16(&rows.x, 1.0, &mut rows.half) },
    Kernel { name: "f16 to f32", bytes: 6.0, run: |level, rows| level.f16_to_f32(&rows.half, 1.0, &mut rows.out) },
    Kernel { name: "round to f16", bytes: 8.0, run: |level, rows| level.round_to_f16(&mut rows.out, 1.0) },
];

fn quantize(level: Level, rows: &mut BenchImage) {
    level.quantize_rows(FloatRows::F32(&rows.x), rows.gamma.len(), &mut rows.q, &mut rows.scale);
}

fn sums(level: Level, rows: &mut BenchImage) {
    let mut sums = GroupSums::new(rows.gamma.len());
    sums.add_rows(level, &rows.x, rows.width);
    black_box(&sums);
}

fn group_norm(level: Level, rows: &mut BenchImage) {
    let (x, [scale, shift], out) = rows.quantized();
    level.normalize(&Norm::Scaled { scale, shift, silu: true }, FloatRows::F32(x), out);
}

fn layer_norm(level: Level, rows: &mut BenchImage) {
    let (x, [gamma, beta], out) = rows.quantized();
    level.normalize(&Norm::Layer { gamma, beta, eps: 1e-5 }, FloatRows::F32(x), out);
}

/// Prints a line for each kernel and shape.
pub(super) fn table(options: &BenchOptions, pools: &[ThreadPool; 2]) {
    println!("\n{:<32} {:>8} {:>8} {:>9} {:>9}", "", "GB/s", "of copy", "2 threads", "speed-up");
    let shapes: &[(usize, usize)] = if options.smoke { &[(8, 24)] } else { &[(64, 320), (512, 128)] };
    for &(side, channels) in shapes {
        let mut rows = BenchImage::new(side, channels);
        let values = rows.x.len() as f64;
        let mut copy = f64::NAN;
        for kernel in &KERNELS {
            let name = format!("{} {channels}@{side}", kernel.name);
            if kernel.name != "copy" && !options.wants(&name) {
                continue;
            }
            let mut run = || (kernel.run)(options.level, &mut rows);
            let one = pools[0].install(|| options.time(thread_time, &mut run));
            let one_wall = pools[0].install(|| options.time(wall_time, &mut run));
            let two = pools[1].install(|| options.time(wall_time, &mut run));
            let rate = |seconds: f64| 1e-9 * values * kernel.bytes / seconds;
            if kernel.name == "copy" {
                copy = rate(one);
            }
            let share = 100.0 * rate(one) / copy;
            println!("{name:<32} {:>8.1} {share:>7.0}% {:>9.1} {:>8.2}x", rate(one), rate(two), one_wall / two);
        }
    }
}
