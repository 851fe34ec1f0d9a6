//! The kernels on the shapes of SD 1.5: how fast, and what share of the CPU's peak.
//!
//! The peak is a loop that stays in registers. A figure is the best of several runs; on one thread it is the thread's own time, on two
//! it is the wall's, which wants a machine that has nothing else to do.
//! `--smoke` runs everything on tiny sizes; `--level NAME` picks a level; other words pick the cases that contain them.

use std::hint::black_box;
use std::time::Instant;

use diffused_kernels::attention::{AttentionShape, attention_at};
use diffused_kernels::cpu::{self, Level};
use diffused_kernels::matmul::{conv2d_at, linear_at};
use diffused_kernels::pack::{Format, Layout, PANEL};
use diffused_kernels::{Activation, ConvShape, Epilogue, Panels, Rows, Strip, peak};
use rustix::time::{ClockId, clock_gettime};

/// What a run was asked for.
struct Options {
    smoke: bool,
    level: Level,
    only: Vec<String>,
}

impl Options {
    fn parse() -> Options {
        let mut options = Options { smoke: false, level: cpu::level(), only: vec![] };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--smoke" => options.smoke = true,
                "--level" => {
                    let name = words.next().expect("--level takes a name");
                    let level = Level::ALL.into_iter().find(|l| l.name() == name && l.available());
                    options.level = level.unwrap_or_else(|| panic!("this CPU has no level called {name}"));
                }
                "--bench" => {}
                _ => options.only.push(word),
            }
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    /// The shortest of several runs, in seconds of a clock.
    fn best(&self, clock: fn() -> f64, mut run: impl FnMut()) -> f64 {
        let (least_runs, least_time) = if self.smoke { (1, 0.0) } else { (5, 0.4) };
        let (start, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
        while runs < least_runs || start.elapsed().as_secs_f64() < least_time {
            let start = clock();
            run();
            best = best.min(clock() - start);
            runs += 1;
        }
        best
    }
}

/// What this thread has run, in seconds: a machine that is busy with other things does not count.
fn thread_time() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

fn wall_time() -> f64 {
    seconds(ClockId::Monotonic)
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// One line of the table.
struct Case {
    name: String,
    macs: f64,
    int8: bool,
    /// Runs at a level.
    run: Box<dyn FnMut(Level) + Send>,
}

/// Memory whose values start at a cache line, as the engine's tensors do.
struct Aligned<T>(Vec<T>, usize);

impl<T: Copy + Default> Aligned<T> {
    fn new(values: &[T]) -> Aligned<T> {
        let mut all = vec![T::default(); values.len() + 64];
        let start = all.as_ptr().align_offset(64);
        all[start..start + values.len()].copy_from_slice(values);
        all.truncate(start + values.len());
        Aligned(all, start)
    }

    fn get(&self) -> &[T] {
        &self.0[self.1..]
    }

    fn get_mut(&mut self) -> &mut [T] {
        &mut self.0[self.1..]
    }
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + i / 3) % 1999) as f32 / 999.5 - 1.0).collect()
}

fn matrix(layout: Layout, outputs: usize) -> Vec<u8> {
    let len = outputs.div_ceil(PANEL) * layout.panel_bytes();
    match layout.format {
        Format::Int8 => (0..len).map(|i| (i * 7919 % 120) as u8).collect(),
        _ => numbers(len / 4).into_iter().flat_map(f32::to_le_bytes).collect(),
    }
}

fn linear(m: usize, k: usize, n: usize, format: Format, activation: Activation) -> Case {
    let layout = Layout { format, k, taps: 1 };
    let features = if activation == Activation::Geglu { n / 2 } else { n };
    let (x, weights) = (numbers(m * k), Aligned::new(&matrix(layout, n)));
    let q: Vec<i8> = x.iter().map(|x| (x * 127.0) as i8).collect();
    let (scale, mut out) = (vec![0.01; m], Aligned::new(&vec![0.0; m * features]));
    let int8 = format == Format::Int8;
    let note = if activation == Activation::Geglu { " geglu" } else { "" };
    Case {
        name: format!("linear {m}x{k}x{n} {}{note}", if int8 { "int8" } else { "f32" }),
        macs: (m * k * n) as f64,
        int8,
        run: Box::new(move |level| {
            let rows = if int8 { Rows::Int8 { q: &q, scale: &scale } } else { Rows::F32(&x) };
            let panels = Panels { layout, bytes: weights.get(), first: 0 };
            let epilogue = Epilogue { activation, ..Epilogue::NONE };
            linear_at(level, rows, m, &panels, features, &epilogue, out.get_mut());
        }),
    }
}

fn conv(channels: usize, side: usize, format: Format) -> Case {
    let shape =
        ConvShape { batch: 1, height: side, width: side, kernel: 3, stride: 1, pad_end_only: false, upsample: false };
    let layout = Layout { format, k: channels, taps: 9 };
    let (x, weights) = (numbers(side * side * channels), Aligned::new(&matrix(layout, channels)));
    let q: Vec<i8> = x.iter().map(|x| (x * 127.0) as i8).collect();
    let (scale, mut out) = (vec![0.01; side * side], Aligned::new(&vec![0.0; side * side * channels]));
    let int8 = format == Format::Int8;
    Case {
        name: format!("conv3x3 {channels}@{side} {}", if int8 { "int8" } else { "f32" }),
        macs: (side * side * channels * channels * 9) as f64,
        int8,
        run: Box::new(move |level| {
            let rows = if int8 { Rows::Int8 { q: &q, scale: &scale } } else { Rows::F32(&x) };
            let panels = Panels { layout, bytes: weights.get(), first: 0 };
            conv2d_at(level, rows, &shape, &Strip::whole(&shape), &panels, channels, &Epilogue::NONE, out.get_mut());
        }),
    }
}

fn attention(queries: usize, keys: usize, heads: usize, head_dim: usize) -> Case {
    let shape = AttentionShape { batch: 1, heads, head_dim, queries, keys, causal: false };
    let channels = heads * head_dim;
    let (q, k, v) = (numbers(queries * channels), numbers(keys * channels), numbers(keys * channels));
    let mut out = vec![0.0; queries * channels];
    Case {
        name: format!("attention {queries}x{keys} {heads}x{head_dim}"),
        macs: (2 * queries * keys * channels) as f64,
        int8: false,
        run: Box::new(move |level| attention_at(level, &q, &k, &v, &shape, &mut out)),
    }
}

fn cases(smoke: bool) -> Vec<Case> {
    let (int8, f32, plain) = (Format::Int8, Format::F32, Activation::None);
    if smoke {
        return vec![
            linear(20, 64, 48, int8, plain),
            linear(20, 64, 96, int8, Activation::Geglu),
            linear(20, 64, 48, f32, plain),
            conv(32, 9, int8),
            conv(32, 9, f32),
            attention(40, 40, 2, 8),
        ];
    }
    vec![
        linear(4096, 320, 320, int8, plain),
        linear(4096, 320, 2560, int8, Activation::Geglu),
        linear(1024, 640, 640, int8, plain),
        linear(256, 1280, 1280, int8, plain),
        linear(128, 1280, 1280, int8, plain),
        conv(320, 64, int8),
        conv(640, 32, int8),
        conv(1280, 16, int8),
        conv(1280, 8, int8),
        conv(128, 512, int8),
        linear(1024, 640, 640, f32, plain),
        conv(320, 64, f32),
        attention(4096, 4096, 8, 40),
        attention(1024, 1024, 8, 80),
        attention(4096, 77, 8, 40),
    ]
}

/// Multiply-adds a second of a register-only loop.
fn measure_peak(options: &Options, peak: fn(Level, usize) -> usize) -> f64 {
    let rounds = if options.smoke { 1000 } else { 2_000_000 };
    let mut macs = 0;
    let seconds = options.best(thread_time, || macs = black_box(peak(options.level, rounds)));
    macs as f64 / seconds
}

fn main() {
    let options = Options::parse();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    let pools = [pool(1), pool(2)];
    println!("{}; at {}", cpu::describe(), options.level);
    let (int8, fma) = (measure_peak(&options, peak::int8), measure_peak(&options, peak::fma));
    println!("peak of a core: {:.0} GOP/s int8, {:.0} GFLOP/s f32\n", 2e-9 * int8, 2e-9 * fma);
    println!("{:<32} {:>9} {:>6} {:>10} {:>8}", "", "GOP/s x1", "peak", "GOP/s x2", "speed-up");
    for mut case in cases(options.smoke).into_iter().filter(|case| options.wants(&case.name)) {
        let one = pools[0].install(|| options.best(thread_time, || (case.run)(options.level)));
        let two = pools[1].install(|| options.best(wall_time, || (case.run)(options.level)));
        let share = case.macs / one / if case.int8 { int8 } else { fma };
        let rate = |seconds: f64| 2e-9 * case.macs / seconds;
        println!(
            "{:<32} {:>9.0} {:>5.0}% {:>10.0} {:>7.2}x",
            case.name,
            rate(one),
            100.0 * share,
            rate(two),
            one / two
        );
    }
}
