//! What the vector levels have in common: sixteen lanes of f32, and the two inner loops of every matrix product.
//!
//! The kernels are written once over [`Simd`]; a level supplies one instruction (or a few) per method. A value of a type that
//! implements it is the proof that this CPU has the instructions, so only its constructor checks. [`Simd::run`] enters a
//! function that is compiled with them; everything below it is inlined into that function.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_tiles;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_tiles;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_blocks;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_peak;
#[cfg(target_arch = "aarch64")]
mod neon_sdot;
#[cfg(target_arch = "aarch64")]
mod neon_smull;
#[cfg(target_arch = "aarch64")]
mod neon_tiles;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_peak;

use half::f16;

use crate::scalar;

/// Lanes of a vector, and outputs of a panel.
pub(crate) const LANES: usize = crate::layout::PANEL;
/// Bytes of a chunk of a packed row: 64 int8 or 16 f32 values.
pub(crate) const CHUNK: usize = 64;

/// A chunk of packed rows or weights in scratch memory, aligned to a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Chunk<T>(pub(crate) [T; CHUNK]);

impl Chunk<u8> {
    /// The bytes as sixteen f32, for moving them.
    pub(crate) fn floats(&self) -> &[f32; LANES] {
        // SAFETY: as large, as well aligned, and any bits are an f32.
        unsafe { &*std::ptr::from_ref(&self.0).cast() }
    }

    /// The same to be written.
    pub(crate) fn floats_mut(&mut self) -> &mut [f32; LANES] {
        // SAFETY: as large, as well aligned, and any bits are an f32 as well as bytes.
        unsafe { &mut *std::ptr::from_mut(&mut self.0).cast() }
    }
}

/// Sixteen f32 in scratch memory, aligned to a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; LANES]);

impl Line {
    pub(crate) const ZERO: Line = Line([0.0; LANES]);
}

/// Scores of two keys for sixteen queries each, in the order of [`Simd::Words`], in scratch memory.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Scores(pub(crate) [i16; 2 * LANES]);

/// A 16-bit number of a key, four times: two keys' numbers fill 16 bytes.
pub(crate) type OfKey = [i16; 4];
/// A number of a row, four times: a NEON register.
pub(crate) type OfRow = [i32; 4];

/// Lengthens `values` to at least `len`. Whatever is in them stays.
pub(crate) fn reserve<T: Copy>(values: &mut Vec<T>, len: usize, filler: T) {
    values.resize(len.max(values.len()), filler);
}

/// Lengthens `lines` to at least `len`. Whatever is in them stays.
pub(crate) fn reserve_lines(lines: &mut Vec<Line>, len: usize) {
    reserve(lines, len, Line::ZERO);
}

/// A polynomial's coefficients, highest power first, each as often as two NEON registers hold it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coefficients<const N: usize>(pub(crate) [[f32; 8]; N]);

impl<const N: usize> Coefficients<N> {
    pub(crate) const fn new(coefficients: [f32; N]) -> Coefficients<N> {
        let (mut all, mut i) = ([[0.0; 8]; N], 0);
        while i < N {
            all[i] = [coefficients[i]; 8];
            i += 1;
        }
        Coefficients(all)
    }
}

/// A function to run with a level's instructions: its arguments, and its body for any level.
pub(crate) trait SimdFn {
    /// The type of the result.
    type Output;
    /// Runs it. Implementations are `#[inline(always)]`.
    fn call<S: Simd>(self, simd: S) -> Self::Output;
}

/// What [`scalar::rows::rounded`] adds.
static INTEGERS: Coefficients<1> = Coefficients::new([scalar::rows::INTEGERS]);

/// A level's vectors of sixteen f32 and its inner loops.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen queries' 16-bit numbers for each of two keys, in an order of the level's own.
    type Words: Copy;
    /// The most rows that are taken at once.
    const ROWS: usize;
    /// The most rows of a product's tile: [`Simd::ROWS`], or a multiple where a tile's fixed cost is noticeable.
    const TILE_ROWS: usize;
    /// What packed int8 activations are XORed with: 0x80 makes them unsigned for VNNI.
    const FLIP: u8;
    /// Whether 64 f64 sums, and as many of squares, stay in registers.
    const MANY_SUMS: bool;

    /// Runs `function` compiled for the level.
    fn run<F: SimdFn>(self, function: F) -> F::Output;

    /// Prefetches a cache line that is soon read, perhaps by other threads too. The address need not be valid.
    fn prefetch_read(self, at: *const f32);
    /// Prefetches a cache line that is soon written: where the CPU can, for this core alone. The address need not be valid.
    fn prefetch_write(self, at: *const f32);
    /// The same value in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// The first sixteen values, with zeros after the end of `x`.
    fn load(self, x: &[f32]) -> Self::F;
    /// Writes the first `out.len()` lanes, sixteen at most.
    fn store(self, a: Self::F, out: &mut [f32]);
    /// [`Simd::load`] of half precision.
    fn load_f16(self, x: &[f16]) -> Self::F;
    /// [`Simd::store`] in half precision.
    fn store_f16(self, a: Self::F, out: &mut [f16]);
    /// [`Simd::store`] of `a · factor` as [`scalar::rows::rounded`] has it.
    fn store_i8(self, a: Self::F, factor: Self::F, out: &mut [i8]);
    /// Two keys' scores.
    fn load_scores(self, scores: &Scores) -> Self::Words;
    /// A number for each query, the same for both keys.
    fn of_queries(self, numbers: &[i16; LANES]) -> Self::Words;
    /// The greater number of the two keys, for each query.
    fn greatest_of_keys(self, a: Self::Words) -> [i16; LANES];
    /// The greater numbers.
    fn max_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a − b`, modulo 2¹⁶.
    fn sub_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a · b`, modulo 2¹⁶.
    fn mul_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `(a · b + 2¹⁴) >> 15`.
    fn scale_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Stores the weights ([`scalar::weights::weight`]) of four keys' powers, of which the first is key `first` of its block, less
    /// 128 where [`Simd::FLIP`] is 0: that of query `l` and key `i` of the four as byte `4 l + i`.
    fn store_weights(self, powers: [Self::Words; 2], first: usize, out: &mut [u8; CHUNK]);
    /// The same of both [`scalar::weights::weight_bytes`].
    fn store_weight_bytes(self, powers: [Self::Words; 2], out: [&mut [u8; CHUNK]; 2]);
    /// Stores `a · factor` of four vectors as [`scalar::rows::rounded`] has it: lane `l` of number `i` of the four as byte
    /// `4 l + i`. Where [`Simd::FLIP`] is 0, adds the four to `sums`.
    fn store_columns(self, a: [Self::F; 4], factor: Self::F, sums: &mut [i32; LANES], out: &mut [u8; CHUNK]);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a − b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b`.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `bound > a ? bound : a`, where `bound` is a number other than 0.
    #[inline(always)]
    fn at_least(self, bound: Self::F, a: Self::F) -> Self::F {
        self.max(bound, a)
    }
    /// `bound < a ? bound : a`, where `bound` is a number other than 0.
    #[inline(always)]
    fn at_most(self, bound: Self::F, a: Self::F) -> Self::F {
        self.min(bound, a)
    }
    /// Horner's scheme: `sum` becomes `fma(sum, x, c)` for one coefficient after the other.
    #[inline(always)]
    fn horner(self, mut sum: Self::F, x: Self::F, coefficients: &'static [[f32; 8]]) -> Self::F {
        for c in coefficients {
            sum = self.fma(sum, x, self.splat(c[0]));
        }
        sum
    }
    /// Floats whose lowest bytes are `a · factor` as [`scalar::rows::rounded`] has it.
    #[inline(always)]
    fn rounded(self, a: Self::F, factor: Self::F) -> Self::F {
        self.horner(a, factor, &INTEGERS.0)
    }
    /// `|a| > b ? |a| : b`, where `b` is a number.
    fn max_magnitude(self, a: Self::F, b: Self::F) -> Self::F;
    /// The lanes whose bits are those of `a`, shifted to the left by 23.
    fn shift_to_exponent(self, a: Self::F) -> Self::F;
    /// `x < least ? 0 : a`.
    fn zero_below(self, x: Self::F, least: Self::F, a: Self::F) -> Self::F;

    /// Adds an int8 tile to its sums. As many rows as [`Simd::ROWS`] are taken at once.
    ///
    /// # Safety
    ///
    /// Everything the tile points to is there: see [`DotTile`].
    unsafe fn dot_tile(self, tile: &DotTile);
    /// Writes a tile's scores.
    ///
    /// # Safety
    ///
    /// Everything the tile points to is there: see [`ScoreTile`].
    unsafe fn score_tile(self, tile: &ScoreTile);
    /// Adds an f32 tile to its sums.
    ///
    /// # Safety
    ///
    /// Everything the tile points to is there: see [`FmaTile`].
    unsafe fn fma_tile(self, tile: &FmaTile);

    /// Alternating lanes of `a` and `b`: `a0 b0 … a7 b7` and `a8 b8 … a15 b15`.
    fn interleave(self, a: Self::F, b: Self::F) -> [Self::F; 2];
    /// Sixteen rows to sixteen columns. Interleaving rows `i` and `i + 8` rotates the bits of each value's row and column, taken as
    /// one number, by one; four times four bits swaps the two.
    #[inline(always)]
    fn transpose(self, mut rows: [Self::F; LANES]) -> [Self::F; LANES] {
        for _ in 0..4 {
            let mut next = rows;
            for i in 0..LANES / 2 {
                [next[2 * i], next[2 * i + 1]] = self.interleave(rows[i], rows[i + LANES / 2]);
            }
            rows = next;
        }
        rows
    }
    /// The sum of the lanes: lanes `l` and `l + 8`, then `l + 4`, `l + 2`, `l + 1`.
    fn fold(self, a: Self::F) -> f32;
    /// The greatest lane.
    fn fold_max(self, a: Self::F) -> f32;
}

/// One tap of an int8 product of packed rows, any number, by one or two panels: `sums = fma(dot, scale, sums)`.
///
/// Row `r` has its chunk `c` of 64 values at `rows + c · chunk_stride + r · 64` (XORed with [`Simd::FLIP`]); all of
/// `k / 4` quads may be read, and whole chunks. `panels` point to `k / 4` lines of 64 bytes and `weight_sums` to 16 i32 each.
/// `scales` has one f32 per row. Where `by_lane` is set, it has 16 for each panel, and the panels' values are from 0 to 255:
/// they are XORed with 0x80 where rows otherwise are not, and rows never are; `row_sums` then has the sum of each row's values,
/// times 128. The sums of panel `p` and row `r` are the 16 f32 at `sums + p · panel_stride + r · 16`; where
/// `fresh` is set, never with `by_lane`, they become `dot · scale`, whatever lies there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DotTile {
    pub(crate) rows: *const u8,
    pub(crate) chunk_stride: usize,
    pub(crate) count: usize,
    pub(crate) panels: [*const u8; 2],
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "VNNI alone needs them"))]
    pub(crate) weight_sums: [*const u8; 2],
    pub(crate) pair: bool,
    pub(crate) k: usize,
    pub(crate) scales: *const f32,
    pub(crate) by_lane: bool,
    pub(crate) row_sums: *const OfRow,
    pub(crate) fresh: bool,
    pub(crate) sums: *mut f32,
    pub(crate) panel_stride: usize,
}

impl DotTile {
    /// The number of panels.
    #[inline(always)]
    pub(crate) fn panel_count(&self) -> usize {
        if self.pair { 2 } else { 1 }
    }
}

/// Scores of int8 attention ([`crate::scalar::weights::score`]) of some keys, an even number, for one or two panels of queries.
///
/// Of `dots`, which is not by lane, the scales and sums are not used. `factors` has one number per key. The scores of keys `2 i`
/// and `2 i + 1` for panel `p` are at `scores + p · panel_stride + i`, in the order of [`Simd::Words`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScoreTile {
    pub(crate) dots: DotTile,
    pub(crate) factors: *const OfKey,
    pub(crate) shift: u32,
    pub(crate) scores: *mut Scores,
    pub(crate) panel_stride: usize,
}

/// One tap of an f32 product of some packed rows by one or two panels: `sums = fma(x[k], w[k], sums)`, k in order.
///
/// As [`DotTile`], with at most [`Simd::ROWS`] rows and chunks of 16 f32; `panels` point to `k` lines of 16 f32, or f16 where
/// `half` is set. Of the last panel the first `outputs` are wanted, 1 to 16: the sums of the others may become anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FmaTile {
    pub(crate) rows: *const u8,
    pub(crate) chunk_stride: usize,
    pub(crate) count: usize,
    pub(crate) panels: [*const u8; 2],
    pub(crate) half: bool,
    pub(crate) pair: bool,
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "narrow registers alone leave any out"))]
    pub(crate) outputs: usize,
    pub(crate) k: usize,
    pub(crate) fresh: bool,
    pub(crate) sums: *mut f32,
    pub(crate) panel_stride: usize,
}

/// Runs `$vector`, where `$simd` is the level's proof, or `$scalar` at the scalar level.
macro_rules! at_level {
    ($level:expr, $simd:ident => $vector:expr, scalar => $scalar:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::Level::Vnni => {
                let $simd = $crate::simd::avx512::Avx512::new();
                $vector
            }
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::Level::Avx2 => {
                let $simd = $crate::simd::avx2::Avx2::new();
                $vector
            }
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::Level::Dotprod => {
                let $simd = $crate::simd::neon::Neon::<true>::new();
                $vector
            }
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::Level::Neon => {
                let $simd = $crate::simd::neon::Neon::<false>::new();
                $vector
            }
            $crate::cpu::Level::Scalar => $scalar,
            #[allow(unreachable_patterns, reason = "levels of other architectures")]
            other => panic!("this CPU has no {other}"),
        }
    };
}
pub(crate) use at_level;

/// Sixteen values from `$x` on: a copy with zeros after its end, kept in `$copy`, where fewer are left.
macro_rules! padded {
    ($x:expr, $copy:ident) => {
        if $x.len() < $crate::simd::LANES {
            $copy = [Default::default(); $crate::simd::LANES];
            $copy[..$x.len()].copy_from_slice($x);
            &$copy
        } else {
            $x
        }
    };
}
pub(crate) use padded;

/// Evaluates an expression in which `R`, the number of rows that are taken at once, is a constant.
macro_rules! for_rows {
    ($count:expr, [$($rows:literal)*], $r:ident => $body:expr) => {
        match $count {
            $($rows => {
                const $r: usize = $rows;
                $body
            })*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(crate) use for_rows;
