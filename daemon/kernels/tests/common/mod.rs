//! What the tests of the levels share: stamping, thread pools, values that provoke trouble.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::Write;
use std::sync::OnceLock;

use diffused_kernels::Level;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};

/// Runs a case at a level, or says on the real stderr, which the test harness does not capture, that it cannot.
pub(crate) fn run(level: Level, name: &str, case: fn(Level)) {
    if level.available() {
        return case(level);
    }
    writeln!(std::io::stderr(), "skipped: {name} at {level}: this CPU does not have it").expect("stderr");
}

// A new level belongs into `on_every_level`: without its line nothing would be tested on it.
const _: () = assert!(Level::ALL.len() == 5);

/// Makes a test of each case for every level but the scalar one, which is what they are compared with.
#[macro_export]
macro_rules! on_every_level {
    ($($case:ident)*) => {
        $crate::on_every_level!(@ neon Neon [$($case)*]);
        $crate::on_every_level!(@ dotprod Dotprod [$($case)*]);
        $crate::on_every_level!(@ avx2 Avx2 [$($case)*]);
        $crate::on_every_level!(@ vnni Vnni [$($case)*]);
    };
    (@ $module:ident $level:ident [$($case:ident)*]) => {
        mod $module {
            $(#[test]
            fn $case() {
                $crate::common::run(diffused_kernels::Level::$level, stringify!($case), super::$case);
            })*
        }
    };
}

/// Holds a property for that many values of a strategy; panics with the smallest counter-example.
pub(crate) fn check<S: Strategy>(count: u32, strategy: S, property: impl Fn(S::Value)) {
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    let property = |value| {
        property(value);
        Ok(())
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, property) {
        panic!("{error}");
    }
}

/// Runs in a pool of 1 to 4 threads.
pub(crate) fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    static POOLS: OnceLock<Vec<rayon::ThreadPool>> = OnceLock::new();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    POOLS.get_or_init(|| (1..=4).map(pool).collect())[threads - 1].install(work)
}

/// The size of the numbers that a test uses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Magnitude {
    /// Around 1.
    Plain,
    /// All of the same size, the largest there is (±127 once quantized).
    Extreme,
    /// Too small for a normal f32, among others.
    Denormal,
    /// Large, without making a sum infinite.
    Big,
}

/// Any of them.
pub(crate) fn magnitudes() -> impl Strategy<Value = Magnitude> {
    proptest::sample::select(vec![Magnitude::Plain, Magnitude::Extreme, Magnitude::Denormal, Magnitude::Big])
}

/// A reproducible stream of numbers (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// The next 32 bits.
    pub(crate) fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// A number in −1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        self.bits() as i32 as f32 / 2f32.powi(31)
    }

    /// `len` numbers of a kind.
    pub(crate) fn vec(&mut self, len: usize, kind: Magnitude) -> Vec<f32> {
        let one = |numbers: &mut Numbers| match kind {
            Magnitude::Plain => numbers.unit() * 3.0,
            Magnitude::Extreme => 1f32.copysign(numbers.unit()),
            Magnitude::Denormal => {
                f32::from_bits(numbers.bits() >> (8 + numbers.bits() % 16)) * numbers.unit().signum()
            }
            Magnitude::Big => numbers.unit() * 1e8,
        };
        (0..len).map(|_| one(self)).collect()
    }
}

/// A slice that starts `by` values after where its memory is aligned.
pub(crate) struct Shifted<T>(Vec<T>, usize);

impl<T: Copy + Default> Shifted<T> {
    /// A copy of `values`.
    pub(crate) fn new(values: &[T], by: usize) -> Shifted<T> {
        let mut all = vec![T::default(); by];
        all.extend_from_slice(values);
        Shifted(all, by)
    }

    /// The values.
    pub(crate) fn get(&self) -> &[T] {
        &self.0[self.1..]
    }

    /// The values.
    pub(crate) fn get_mut(&mut self) -> &mut [T] {
        &mut self.0[self.1..]
    }
}

/// Equal to the bit.
#[track_caller]
pub(crate) fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            a.to_bits() == b.to_bits(),
            "{what}: value {i} is {a:e} ({:#x}), not {b:e} ({:#x})",
            a.to_bits(),
            b.to_bits()
        );
    }
}
