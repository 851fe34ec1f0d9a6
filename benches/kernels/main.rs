//! The kernels on the shapes of SD 1.5: how fast, and what share of the CPU's peak.
//!
//! The peak is a loop that stays in registers. Matrices lie in blocks, as the engine has them. What only moves and rounds
//! values is compared with copying memory. Times of one thread are the thread's own; those of two are the wall's and want a
//! machine that does nothing else.
//! `--smoke` runs everything on tiny sizes; `--level NAME` picks a level; other words pick the cases that contain them.

mod rows;

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use diffused_kernels::pack::{Format, Layout, PANEL, PHASES};
use diffused_kernels::{
    ActivationFn, AttentionCall, AttentionShape, ConvCall, ConvShape, Enlarged, Epilogue, InputRows, Level, LinearCall,
    Panels, Strip, cpu, peak,
};

/// Bytes of a block of weights, as bundles have them.
const BLOCK: usize = 256 << 10;

/// The command line.
struct BenchOptions {
    smoke: bool,
    level: Level,
    only: Vec<String>,
}

impl BenchOptions {
    fn parse() -> BenchOptions {
        let mut options = BenchOptions { smoke: false, level: Level::current(), only: vec![] };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--smoke" => options.smoke = true,
                "--level" => {
                    let name = words.next().expect("--level takes a name");
                    let level = Level::named(&name).filter(|level| level.available());
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

    /// Seconds of a clock that a run takes: on average over a tenth of a second (a thread's own time is too coarse for a
    /// single run), in the best of five.
    fn time(&self, clock: fn() -> f64, mut run: impl FnMut()) -> f64 {
        let (clock, rounds, least) = if self.smoke { (wall_time as fn() -> f64, 1, 0.0) } else { (clock, 5, 0.1) };
        run();
        let mut round = || {
            let (start, mut runs) = (clock(), 0);
            while runs == 0 || clock() - start < least {
                run();
                runs += 1;
            }
            (clock() - start) / f64::from(runs)
        };
        (0..rounds).map(|_| round()).fold(f64::INFINITY, f64::min)
    }
}

/// What this thread has run so far, in seconds: what else the machine does, does not count.
fn thread_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells a thread's time");
    1e-9 * stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds")
}

fn wall_time() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// One line of the table.
struct KernelCase {
    name: String,
    macs: f64,
    int8: bool,
    /// Builds the inputs and returns what runs at a level.
    ours: Box<dyn Fn() -> Ours + Sync>,
}

type Ours = Box<dyn FnMut(Level) + Send>;

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

/// Rows as they are and quantized.
struct BenchRows {
    x: Vec<f32>,
    q: Vec<i8>,
    scale: Vec<f32>,
}

impl BenchRows {
    fn new(rows: usize, channels: usize) -> BenchRows {
        let x = numbers(rows * channels);
        let q = x.iter().map(|x| (x * 127.0) as i8).collect();
        BenchRows { x, q, scale: vec![0.01; rows] }
    }

    fn rows(&self, int8: bool) -> InputRows<'_> {
        if int8 { InputRows::Int8 { q: &self.q, scale: &self.scale } } else { InputRows::F32(&self.x) }
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

/// A matrix's blocks: as many panels as fit, but at least one.
fn blocks(layout: Layout, bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks((BLOCK / layout.panel_bytes()).max(1) * layout.panel_bytes()).collect()
}

fn linear(m: usize, k: usize, n: usize, format: Format, activation: ActivationFn) -> KernelCase {
    let layout = Layout { format, k, taps: 1 };
    let int8 = format == Format::Int8;
    let note = if activation == ActivationFn::Geglu { " geglu" } else { "" };
    let ours = move || -> Ours {
        let features = if activation == ActivationFn::Geglu { n / 2 } else { n };
        let (input, weights) = (BenchRows::new(m, k), Aligned::new(&matrix(layout, n)));
        let mut out = Aligned::new(&vec![0.0; m * features]);
        Box::new(move |level| {
            let epilogue = Epilogue { activation, ..Epilogue::NONE };
            let panels = Panels { layout, blocks: &blocks(layout, weights.get()), first: 0 };
            level.linear(&LinearCall { x: input.rows(int8), panels, features, epilogue }, out.get_mut());
        })
    };
    KernelCase {
        name: format!("linear {m}x{k}x{n} {}{note}", if int8 { "int8" } else { "f32" }),
        macs: (m * k * n) as f64,
        int8,
        ours: Box::new(ours),
    }
}

fn conv(channels: usize, side: usize, format: Format, enlarged: Enlarged) -> KernelCase {
    let shape = ConvShape { batch: 1, height: side, width: side, kernel: 3, stride: 1, pad_end_only: false, enlarged };
    let (layout, phases) = (Layout { format, k: channels, taps: shape.taps() }, enlarged == Enlarged::Phases);
    let int8 = format == Format::Int8;
    let values = shape.out_height() * shape.out_width() * channels;
    let ours = move || -> Ours {
        let outputs = if phases { PHASES * channels } else { channels };
        let (input, weights) = (BenchRows::new(side * side, channels), Aligned::new(&matrix(layout, outputs)));
        let mut out = Aligned::new(&vec![0.0; values]);
        Box::new(move |level| {
            let (x, strip, epilogue) = (input.rows(int8), Strip::whole(&shape), Epilogue::NONE);
            let panels = Panels { layout, blocks: &blocks(layout, weights.get()), first: 0 };
            level.conv2d(&ConvCall { x, shape, strip, panels, features: channels, epilogue }, out.get_mut());
        })
    };
    KernelCase {
        name: format!(
            "conv3x3{} {channels}@{side} {}",
            if phases { " doubled" } else { "" },
            if int8 { "int8" } else { "f32" }
        ),
        macs: (values * layout.k * layout.taps) as f64,
        int8,
        ours: Box::new(ours),
    }
}

type AttentionKernel = fn(Level, &AttentionCall, &mut [f32]);

const SELF_INT8: (&str, AttentionKernel) = ("self-attention int8", Level::attention_int8);
const CROSS_INT8: (&str, AttentionKernel) = ("cross-attention int8", Level::cross_attention_int8);
const F32: (&str, AttentionKernel) = ("attention", Level::attention);

fn attention(
    (name, attention): (&str, AttentionKernel),
    [queries, keys]: [usize; 2],
    heads: usize,
    head_dim: usize,
) -> KernelCase {
    let shape = AttentionShape { batch: 1, heads, head_dim, queries, keys, causal: false };
    let channels = heads * head_dim;
    let ours = move || -> Ours {
        let (mut q, k, v) = (numbers(queries * channels), numbers(keys * channels), numbers(keys * channels));
        Box::new(move |level| attention(level, &AttentionCall { k: &k, v: &v, shape }, &mut q))
    };
    KernelCase {
        name: format!("{name} {queries}x{keys} {heads}x{head_dim}"),
        macs: (2 * queries * keys * channels) as f64,
        int8: name.ends_with("int8"),
        ours: Box::new(ours),
    }
}

fn cases(smoke: bool) -> Vec<KernelCase> {
    let (int8, f32, plain) = (Format::Int8, Format::F32, ActivationFn::None);
    let (as_is, doubled) = (Enlarged::No, Enlarged::Phases);
    if smoke {
        return vec![
            linear(20, 64, 48, int8, plain),
            linear(20, 64, 96, int8, ActivationFn::Geglu),
            linear(20, 64, 48, f32, plain),
            conv(32, 9, int8, as_is),
            conv(32, 9, f32, as_is),
            conv(32, 9, int8, doubled),
            attention(SELF_INT8, [40, 40], 2, 8),
            attention(CROSS_INT8, [40, 9], 2, 8),
            attention(F32, [40, 40], 2, 8),
        ];
    }
    vec![
        linear(4096, 320, 320, int8, plain),
        linear(4096, 320, 2560, int8, ActivationFn::Geglu),
        linear(1024, 640, 640, int8, plain),
        linear(256, 1280, 1280, int8, plain),
        linear(128, 1280, 1280, int8, plain),
        conv(320, 64, int8, as_is),
        conv(640, 32, int8, as_is),
        conv(1280, 16, int8, as_is),
        conv(1280, 8, int8, as_is),
        conv(128, 512, int8, as_is),
        conv(512, 64, int8, doubled),
        conv(256, 256, int8, doubled),
        linear(1024, 640, 640, f32, plain),
        conv(320, 64, f32, as_is),
        attention(SELF_INT8, [4096, 4096], 8, 40),
        attention(SELF_INT8, [1024, 1024], 8, 80),
        attention(CROSS_INT8, [4096, 77], 8, 40),
        attention(CROSS_INT8, [1024, 77], 8, 80),
        attention(F32, [4096, 4096], 8, 40),
        attention(F32, [4096, 77], 8, 40),
    ]
}

/// Multiply-adds a second of a register-only loop.
fn measure_peak(options: &BenchOptions, peak: fn(Level, usize) -> usize) -> f64 {
    let rounds = if options.smoke { 1000 } else { 10_000_000 };
    let mut macs = 0;
    let seconds = options.time(thread_time, || macs = black_box(peak(options.level, rounds)));
    macs as f64 / seconds
}

fn main() {
    let options = BenchOptions::parse();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    let pools = [pool(1), pool(2)];
    println!("{}; at {}", cpu::describe(), options.level);
    let (int8, fma) = (measure_peak(&options, peak::int8), measure_peak(&options, peak::fma));
    println!("peak of a core: {:.0} GOP/s int8, {:.0} GFLOP/s f32\n", 2e-9 * int8, 2e-9 * fma);
    println!("{:<32} {:>8} {:>7} {:>9} {:>9}", "", "GOP/s", "of peak", "2 threads", "speed-up");
    for case in cases(options.smoke).into_iter().filter(|case| options.wants(&case.name)) {
        let mut ours = (case.ours)();
        let one = pools[0].install(|| options.time(thread_time, || ours(options.level)));
        let one_wall = pools[0].install(|| options.time(wall_time, || ours(options.level)));
        let two = pools[1].install(|| options.time(wall_time, || ours(options.level)));
        drop(ours);
        let share = case.macs / one / if case.int8 { int8 } else { fma };
        let rate = |seconds: f64| 2e-9 * case.macs / seconds;
        println!(
            "{:<32} {:>8.0} {:>6.0}% {:>9.0} {:>8.2}x",
            case.name,
            rate(one),
            100.0 * share,
            rate(two),
            one_wall / two
        );
    }
    rows::table(&options, &pools);
}
