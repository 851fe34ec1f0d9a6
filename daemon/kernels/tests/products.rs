//! Linear layers and convolutions: every level equals the scalar one to the bit, however the work is cut.

mod common;

use common::{Magnitude, Numbers, Shifted, assert_same, check, magnitudes, on_threads};
use diffused_kernels::pack::{Format, Layout, PANEL, PHASES, pack_panel};
use diffused_kernels::{
    ActivationFn, ConvCall, ConvShape, Enlarged, Epilogue, FloatRows, InputRows, Level, LinearCall, Panels, Rectifier,
    Strip,
};
use proptest::prelude::*;

on_every_level! {
    linear_equals_scalar
    linear_of_every_length
    linear_of_the_largest_integers
    linear_in_chunks_of_panels
    convolution_equals_scalar
    convolution_in_strips
    convolution_in_chunks_of_panels
    phases_of_every_size
    slopes_are_for_what_is_negative
}

const FORMATS: [Format; 3] = [Format::Int8, Format::F16, Format::F32];
const ACTIVATIONS: [ActivationFn; 5] =
    [ActivationFn::None, ActivationFn::Silu, ActivationFn::Gelu, ActivationFn::QuickGelu, ActivationFn::Geglu];

/// A packed matrix of random weights.
struct PackedMatrix {
    layout: Layout,
    bytes: Vec<u8>,
}

impl PackedMatrix {
    fn new(numbers: &mut Numbers, layout: Layout, outputs: usize, kind: Magnitude) -> PackedMatrix {
        let weights = match kind {
            Magnitude::Extreme => Magnitude::Extreme,
            _ => Magnitude::Plain,
        };
        let mut bytes = vec![0; outputs.div_ceil(PANEL) * layout.panel_bytes()];
        for (i, panel) in bytes.chunks_exact_mut(layout.panel_bytes()).enumerate() {
            let rows: Vec<_> = (i * PANEL..outputs.min((i + 1) * PANEL))
                .map(|_| numbers.vec(layout.taps * layout.k, weights))
                .collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let bias = numbers.vec(rows.len(), weights);
            pack_panel(&layout, &rows, &bias, panel);
        }
        PackedMatrix { layout, bytes }
    }

    fn panels(&self, range: std::ops::Range<usize>) -> PanelBlocks<'_> {
        let size = self.layout.panel_bytes();
        let bytes = &self.bytes[range.start * size..range.end * size];
        PanelBlocks { layout: self.layout, blocks: bytes.chunks(BLOCK * size).collect(), first: range.start }
    }

    fn all(&self) -> PanelBlocks<'_> {
        self.panels(0..self.bytes.len() / self.layout.panel_bytes())
    }
}

/// Panels of a block: a pair for GEGLU may lie in two.
const BLOCK: usize = 3;

/// Panels, in blocks.
struct PanelBlocks<'a> {
    layout: Layout,
    blocks: Vec<&'a [u8]>,
    first: usize,
}

impl PanelBlocks<'_> {
    fn get(&self) -> Panels<'_> {
        Panels { layout: self.layout, blocks: &self.blocks, first: self.first }
    }
}

/// Rows in the form that a format takes, shifted in memory.
struct ShiftedRows {
    x: Shifted<f32>,
    q: Shifted<i8>,
    scale: Shifted<f32>,
    int8: bool,
}

impl ShiftedRows {
    fn new(x: &[f32], channels: usize, format: Format, shift: usize) -> ShiftedRows {
        let (mut q, mut scale) = (vec![0; x.len()], vec![0.0; x.len() / channels]);
        Level::current().quantize_rows(FloatRows::F32(x), channels, &mut q, &mut scale);
        let int8 = format == Format::Int8;
        ShiftedRows { x: Shifted::new(x, shift), q: Shifted::new(&q, shift), scale: Shifted::new(&scale, shift), int8 }
    }

    fn rows(&self) -> InputRows<'_> {
        if self.int8 {
            InputRows::Int8 { q: self.q.get(), scale: self.scale.get() }
        } else {
            InputRows::F32(self.x.get())
        }
    }
}

#[derive(Debug, Clone)]
struct LinearCase {
    seed: u64,
    kind: Magnitude,
    format: Format,
    m: usize,
    k: usize,
    features: usize,
    activation: ActivationFn,
    accumulate: bool,
    shift: usize,
    threads: usize,
}

fn linear_cases() -> impl Strategy<Value = LinearCase> {
    let shape = (prop_oneof![0..20usize, 0..130usize], 1..80usize, 1..100usize);
    let options = (proptest::sample::select(&FORMATS), proptest::sample::select(&ACTIVATIONS), any::<bool>());
    (any::<u64>(), magnitudes(), shape, options, 0..4usize, 1..=4usize).prop_map(
        |(seed, kind, (m, k, features), (format, activation, accumulate), shift, threads)| {
            let k = if format == Format::Int8 { k * 4 } else { k };
            LinearCase { seed, kind, format, m, k, features, activation, accumulate, shift, threads }
        },
    )
}

impl LinearCase {
    fn outputs(&self) -> usize {
        if self.activation == ActivationFn::Geglu { self.features.div_ceil(PANEL) * 2 * PANEL } else { self.features }
    }

    /// The results at the scalar level and at `level`, whose panels come in two chunks.
    fn run(&self, level: Level, cut: usize) -> (Vec<f32>, Vec<f32>) {
        let mut numbers = Numbers(self.seed);
        let matrix = PackedMatrix::new(
            &mut numbers,
            Layout { format: self.format, k: self.k, taps: 1 },
            self.outputs(),
            self.kind,
        );
        let input = ShiftedRows::new(&numbers.vec(self.m * self.k, self.kind), self.k, self.format, self.shift);
        let held = numbers.vec(self.m * self.features, self.kind);
        let epilogue = Epilogue { activation: self.activation, accumulate: self.accumulate, ..Epilogue::NONE };
        let (x, features) = (input.rows(), self.features);
        let mut expected = held.clone();
        let blocks = matrix.all();
        let call = LinearCall { x, panels: blocks.get(), features, epilogue };
        Level::Scalar.linear(&call, &mut expected);
        let mut found = Shifted::new(&held, self.shift);
        let count = matrix.all().get().count();
        let cut = cut.min(count) / 2 * 2;
        let bytes = Shifted::new(&matrix.bytes, self.shift);
        let matrix = PackedMatrix { layout: matrix.layout, bytes: bytes.get().to_vec() };
        for range in [0..cut, cut..count] {
            let blocks = matrix.panels(range);
            let call = LinearCall { x, panels: blocks.get(), features, epilogue };
            on_threads(self.threads, || level.linear(&call, found.get_mut()));
        }
        (found.get().to_vec(), expected)
    }

    fn assert_equal(&self, level: Level, cut: usize) {
        let (found, expected) = self.run(level, cut);
        assert_same(&found, &expected, "linear");
    }
}

fn linear_equals_scalar(level: Level) {
    check(60, linear_cases(), |case| case.assert_equal(level, 0));
}

fn linear_in_chunks_of_panels(level: Level) {
    check(20, (linear_cases(), 0..8usize), |(case, cut)| case.assert_equal(level, cut));
}

fn linear_of_every_length(level: Level) {
    for format in FORMATS {
        for length in 0..=67 {
            let k = if format == Format::Int8 { (length + 1) * 4 } else { length + 1 };
            let case = LinearCase {
                seed: length as u64,
                kind: Magnitude::Plain,
                format,
                m: length,
                k,
                features: 67 - length.min(66),
                activation: ActivationFn::None,
                accumulate: false,
                shift: length % 4,
                threads: 1,
            };
            case.assert_equal(level, 0);
        }
    }
}

/// The sums reach 127 · 127 · k, with every partial product at its limit.
fn linear_of_the_largest_integers(level: Level) {
    for (x, w) in [(127i8, 1f32), (-127, 1.0), (127, -1.0), (-127, -1.0)] {
        let (m, k, features) = (13, 5120, 33);
        let layout = Layout { format: Format::Int8, k, taps: 1 };
        let mut bytes = vec![0; 3 * layout.panel_bytes()];
        for panel in bytes.chunks_exact_mut(layout.panel_bytes()) {
            pack_panel(&layout, &[vec![w; k].as_slice(); 16], &[0.0; 16], panel);
        }
        let (q, scale) = (vec![x; m * k], vec![1.0; m]);
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        let mut out = vec![0.0; m * features];
        let x_rows = InputRows::Int8 { q: &q, scale: &scale };
        level.linear(&LinearCall { x: x_rows, panels, features, epilogue: Epilogue::NONE }, &mut out);
        let dot = 127 * i32::from(x) * w as i32 * k as i32;
        let expected = (dot as f32).mul_add(1.0 / 127.0, 0.0);
        assert!(out.iter().all(|v| *v == expected), "{x} by {w}: {:?}, not {expected}", &out[..3]);
    }
}

#[derive(Debug, Clone)]
struct ConvCase {
    seed: u64,
    kind: Magnitude,
    format: Format,
    shape: ConvShape,
    k: usize,
    features: usize,
    /// Times that are added: none, one for all images, or one for each.
    times: Times,
    accumulate: bool,
    rectified: Rectified,
    threads: usize,
}

/// Which `Rectifier`.
#[derive(Debug, Clone, Copy)]
enum Rectified {
    No,
    Relu,
    Prelu,
}

#[derive(Debug, Clone, Copy)]
enum Times {
    Absent,
    Shared,
    Own,
}

/// How a convolution reads its image.
#[derive(Debug, Clone, Copy)]
enum Reading {
    Plain {
        kernel: usize,
        stride: usize,
        pad_end_only: bool,
    },
    /// So many rows and columns more than the double less one.
    Enlarged {
        stride: usize,
        pad_end_only: bool,
        more: [usize; 2],
    },
    Phases,
}

fn readings() -> impl Strategy<Value = Reading> {
    let (stride, pad_end_only) = (1..=2usize, any::<bool>());
    let plain = (prop_oneof![Just(1usize), Just(3)], stride.clone(), pad_end_only);
    let enlarged = (stride, any::<bool>(), [0..=2usize, 0..=2usize]);
    prop_oneof![
        plain.prop_map(|(kernel, stride, pad_end_only)| Reading::Plain { kernel, stride, pad_end_only }),
        enlarged.prop_map(|(stride, pad_end_only, more)| Reading::Enlarged { stride, pad_end_only, more }),
        Just(Reading::Phases),
    ]
}

/// The convolution that reads its images so, if they are large enough.
fn shape(reading: Reading, [batch, height, width]: [usize; 3]) -> Option<ConvShape> {
    let (kernel, stride, pad_end_only, enlarged) = match reading {
        Reading::Plain { kernel, stride, pad_end_only } => (kernel, stride, pad_end_only, Enlarged::No),
        Reading::Enlarged { stride, pad_end_only, more: [rows, columns] } => {
            (3, stride, pad_end_only, Enlarged::To([2 * height - 1 + rows, 2 * width - 1 + columns]))
        }
        Reading::Phases => (3, 1, false, Enlarged::Phases),
    };
    let least = if kernel == 3 && pad_end_only { 2 } else { 1 };
    let [rows, columns] = if let Enlarged::To(size) = enlarged { size } else { [height, width] };
    let shape = ConvShape { batch, height, width, kernel, stride, pad_end_only, enlarged };
    (rows >= least && columns >= least).then_some(shape)
}

fn conv_cases() -> impl Strategy<Value = ConvCase> {
    let image = (1..=2usize, 1..10usize, prop_oneof![1..12usize, 1..40usize]);
    let times = proptest::sample::select(&[Times::Absent, Times::Shared, Times::Own]);
    let rectified = proptest::sample::select(&[Rectified::No, Rectified::Relu, Rectified::Prelu]);
    let options = (proptest::sample::select(&FORMATS), times, any::<bool>(), rectified);
    (any::<u64>(), magnitudes(), image, readings(), options, 1..24usize, 1..40usize, 1..=4usize).prop_filter_map(
        "a image smaller than its kernel",
        |(
            seed,
            kind,
            (batch, height, width),
            reading,
            (format, times, accumulate, rectified),
            k,
            features,
            threads,
        )| {
            let k = if format == Format::Int8 { k * 4 } else { k };
            let shape = shape(reading, [batch, height, width])?;
            Some(ConvCase { seed, kind, format, shape, k, features, times, accumulate, rectified, threads })
        },
    )
}

impl ConvCase {
    /// The results at the scalar level and at `level`, whose panels come in chunks of at most so many.
    fn run(&self, level: Level, strip_rows: usize, chunk: usize) -> (Vec<f32>, Vec<f32>) {
        let ConvCase { shape, k, features, .. } = *self;
        let mut numbers = Numbers(self.seed);
        let layout = Layout { format: self.format, k, taps: shape.taps() };
        let outputs = match shape.enlarged {
            Enlarged::Phases => PHASES * features.next_multiple_of(PANEL),
            Enlarged::No | Enlarged::To(_) => features,
        };
        let matrix = PackedMatrix::new(&mut numbers, layout, outputs, self.kind);
        let x = numbers.vec(shape.batch * shape.height * shape.width * k, self.kind);
        let time = match self.times {
            Times::Absent => None,
            Times::Shared => Some(numbers.vec(features, self.kind)),
            Times::Own => Some(numbers.vec(shape.batch * features, self.kind)),
        };
        let (height, width) = (shape.out_height(), shape.out_width());
        let held = numbers.vec(shape.batch * height * width * features, self.kind);
        let slopes = numbers.vec(features, Magnitude::Plain);
        let rectifier = match self.rectified {
            Rectified::No => Rectifier::None,
            Rectified::Relu => Rectifier::Relu,
            Rectified::Prelu => Rectifier::Prelu(&slopes),
        };
        let (activation, accumulate, time) = (ActivationFn::Silu, self.accumulate, time.as_deref());
        let epilogue = Epilogue { activation, accumulate, time, rectifier };
        let input = ShiftedRows::new(&x, k, self.format, 1);
        let mut expected = held.clone();
        let blocks = matrix.all();
        let (panels, count) = (blocks.get(), blocks.get().count());
        let call = ConvCall { x: input.rows(), shape, strip: Strip::whole(&shape), panels, features, epilogue };
        Level::Scalar.conv2d(&call, &mut expected);
        let mut found = held;
        for first in (0..height).step_by(strip_rows) {
            let out_rows = first..height.min(first + strip_rows);
            let strip = Strip { in_rows: shape.rows_for(&out_rows), out_rows };
            let part = pick(&x, shape.height, shape.width * k, &strip.in_rows);
            let mut out = pick(&found, height, width * features, &strip.out_rows);
            let input = ShiftedRows::new(&part, k, self.format, 3);
            for first in (0..count).step_by(chunk) {
                let blocks = matrix.panels(first..count.min(first + chunk));
                let (x, panels, strip) = (input.rows(), blocks.get(), strip.clone());
                let call = ConvCall { x, shape, strip, panels, features, epilogue };
                on_threads(self.threads, || level.conv2d(&call, &mut out));
            }
            let rows = found.chunks_exact_mut(height * width * features);
            for (image, out) in rows.zip(out.chunks_exact(strip.out_rows.len() * width * features)) {
                image[first * width * features..][..out.len()].copy_from_slice(out);
            }
        }
        (found, expected)
    }
}

/// Some rows of each image.
fn pick(images: &[f32], height: usize, row: usize, rows: &std::ops::Range<usize>) -> Vec<f32> {
    images.chunks_exact(height * row).flat_map(|image| &image[rows.start * row..rows.end * row]).copied().collect()
}

/// More than any case has.
const ALL: usize = usize::MAX / 2;

fn convolution_equals_scalar(level: Level) {
    check(60, conv_cases(), |case| {
        let (found, expected) = case.run(level, ALL, ALL);
        assert_same(&found, &expected, "conv2d");
    });
}

fn convolution_in_chunks_of_panels(level: Level) {
    check(40, (conv_cases(), 1..8usize), |(case, chunk)| {
        let (found, expected) = case.run(level, ALL, chunk);
        assert_same(&found, &expected, "conv2d in chunks of panels");
    });
}

/// From a single pixel on, in strips of rows that begin and end in the midst of a pair, with panels that are not full.
fn phases_of_every_size(level: Level) {
    for (i, (height, width)) in (1..5).flat_map(|height| (1..28).map(move |width| (height, width))).enumerate() {
        let (format, features) = (FORMATS[i % 3], [1, 15, 16, 17, 33, 48][i % 6]);
        let k = if format == Format::Int8 { 4 + i % 3 * 32 } else { 1 + i % 19 };
        let shape = shape(Reading::Phases, [1 + i % 2, height, width]).unwrap();
        let (times, rectified) = (Times::Absent, Rectified::No);
        let (seed, kind, accumulate, threads) = (i as u64, Magnitude::Plain, i % 4 == 3, 1 + i % 2);
        let case = ConvCase { seed, kind, format, shape, k, features, times, accumulate, rectified, threads };
        let (found, expected) = case.run(level, 1 + i % 4, 1 + i % 5);
        assert_same(&found, &expected, "phases");
    }
}

fn convolution_in_strips(level: Level) {
    check(40, (conv_cases(), 1..5usize), |(case, rows)| {
        let (found, expected) = case.run(level, rows, ALL);
        assert_same(&found, &expected, "conv2d in strips");
    });
}

/// Sums of -2, -0.5, 0 and 3 under slopes of 0.25, -1, 2 and 10.
fn slopes_are_for_what_is_negative(level: Level) {
    let layout = Layout { format: Format::F32, k: 1, taps: 1 };
    let mut bytes = vec![0; layout.panel_bytes()];
    let rows: [&[f32]; 4] = [&[-2.0], &[-0.5], &[0.0], &[3.0]];
    pack_panel(&layout, &rows, &[0.0; 4], &mut bytes);
    let panels = Panels { layout, blocks: &[&bytes], first: 0 };
    let rectified = |rectifier| {
        let epilogue = Epilogue { rectifier, ..Epilogue::NONE };
        let mut out = vec![0.0; 4];
        level.linear(&LinearCall { x: InputRows::F32(&[1.0]), panels, features: 4, epilogue }, &mut out);
        out
    };
    assert_eq!(rectified(Rectifier::Prelu(&[0.25, -1.0, 2.0, 10.0])), [-0.5, 0.5, 0.0, 3.0]);
    assert_eq!(rectified(Rectifier::Relu), [0.0, 0.0, 0.0, 3.0]);
}
