//! The hearts of NEON's inner loops in assembly, for the order of their instructions alone.
//!
//! A Cortex-A53 or A55 runs its instructions in the order in which they stand, and waits for a load that is used at once.
//! The compiler puts each load right before its use; here it comes some ten instructions earlier, and so does each
//! multiplication before what adds to it; a block begins with products of its first row, which do not wait for the others.
//! Larger cores sort that out by themselves and are as fast either way.

use std::arch::aarch64::*;
use std::arch::asm;

/// A multiplication of a vector of weights with an element of each of the four rows, into the rows' sums `n`.
macro_rules! rows {
    ($op:literal, $weights:literal, $element:literal, $w:literal, $n:literal, $x:literal, $lane:literal) => {
        concat!(
            rows!(@ $op, $weights, $element, $w, $n, $x, $lane, "0"),
            rows!(@ $op, $weights, $element, $w, $n, $x, $lane, "1"),
            rows!(@ $op, $weights, $element, $w, $n, $x, $lane, "2"),
            rows!(@ $op, $weights, $element, $w, $n, $x, $lane, "3"),
        )
    };
    (@ $op:literal, $weights:literal, $element:literal, $w:literal, $n:literal, $x:literal, $lane:literal, $row:literal) => {
        concat!($op, " {s", $row, $n, ":v}.4s, {w", $w, ":v}.", $weights, ", {", $x, $row, ":v}.", $element, "[", $lane, "]\n")
    };
}

/// The first quad of a row by two of the vectors of a line of weights, which are in the registers of their numbers.
macro_rules! half_row {
    ($op:literal, $weights:literal, $element:literal, $a:literal, $b:literal, $row:literal) => {
        concat!(
            rows!(@ $op, $weights, $element, $a, $a, "x", "0", $row),
            rows!(@ $op, $weights, $element, $b, $b, "x", "0", $row),
        )
    };
}

/// Loads 32 bytes of weights.
macro_rules! load {
    ($a:literal, $b:literal, $at:literal) => {
        concat!("ldp {w", $a, ":q}, {w", $b, ":q}, [{panel}, #", $at, "]\n")
    };
}

/// A function that multiplies four rows of 32 bytes (64 apart) with eight lines of weights.
macro_rules! four_by_eight {
    ($name:ident, $features:literal, $sums:ty, $op:literal, $weights:literal, $element:literal, $what:literal) => {
        #[doc = $what]
        ///
        /// `panel` and `row` go to what follows.
        ///
        /// # Safety
        ///
        /// There are eight lines of 64 bytes at `panel`, and 32 bytes at `row` and 64, 128 and 192 bytes after it.
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(sums: &mut [[$sums; 4]; 4], panel: &mut *const u8, row: &mut *const u8) {
            let [[s00, s01, s02, s03], [s10, s11, s12, s13], [s20, s21, s22, s23], [s30, s31, s32, s33]] = sums;
            // SAFETY: reads what the caller guarantees.
            unsafe {
                asm!(
                    "ldp {x0:q}, {y0:q}, [{row}], #32",
                    "ldp {w0:q}, {w1:q}, [{panel}], #512",
                    "ldp {x1:q}, {y1:q}, [{row}, #32]",
                    load!("2", "3", "-480"),
                    half_row!($op, $weights, $element, "0", "1", "0"),
                    "ldp {x2:q}, {y2:q}, [{row}, #96]",
                    half_row!($op, $weights, $element, "2", "3", "0"),
                    "ldp {x3:q}, {y3:q}, [{row}, #160]",
                    half_row!($op, $weights, $element, "0", "1", "1"),
                    half_row!($op, $weights, $element, "2", "3", "1"),
                    load!("4", "5", "-448"),
                    half_row!($op, $weights, $element, "0", "1", "2"),
                    half_row!($op, $weights, $element, "2", "3", "2"),
                    half_row!($op, $weights, $element, "0", "1", "3"),
                    load!("0", "1", "-416"),
                    half_row!($op, $weights, $element, "2", "3", "3"),
                    rows!($op, $weights, $element, "4", "0", "x", "1"),
                    load!("2", "3", "-384"),
                    rows!($op, $weights, $element, "5", "1", "x", "1"),
                    rows!($op, $weights, $element, "0", "2", "x", "1"),
                    load!("4", "5", "-352"),
                    rows!($op, $weights, $element, "1", "3", "x", "1"),
                    rows!($op, $weights, $element, "2", "0", "x", "2"),
                    load!("0", "1", "-320"),
                    rows!($op, $weights, $element, "3", "1", "x", "2"),
                    rows!($op, $weights, $element, "4", "2", "x", "2"),
                    load!("2", "3", "-288"),
                    rows!($op, $weights, $element, "5", "3", "x", "2"),
                    rows!($op, $weights, $element, "0", "0", "x", "3"),
                    load!("4", "5", "-256"),
                    rows!($op, $weights, $element, "1", "1", "x", "3"),
                    rows!($op, $weights, $element, "2", "2", "x", "3"),
                    load!("0", "1", "-224"),
                    rows!($op, $weights, $element, "3", "3", "x", "3"),
                    rows!($op, $weights, $element, "4", "0", "y", "0"),
                    load!("2", "3", "-192"),
                    rows!($op, $weights, $element, "5", "1", "y", "0"),
                    rows!($op, $weights, $element, "0", "2", "y", "0"),
                    load!("4", "5", "-160"),
                    rows!($op, $weights, $element, "1", "3", "y", "0"),
                    rows!($op, $weights, $element, "2", "0", "y", "1"),
                    load!("0", "1", "-128"),
                    rows!($op, $weights, $element, "3", "1", "y", "1"),
                    rows!($op, $weights, $element, "4", "2", "y", "1"),
                    load!("2", "3", "-96"),
                    rows!($op, $weights, $element, "5", "3", "y", "1"),
                    rows!($op, $weights, $element, "0", "0", "y", "2"),
                    load!("4", "5", "-64"),
                    rows!($op, $weights, $element, "1", "1", "y", "2"),
                    rows!($op, $weights, $element, "2", "2", "y", "2"),
                    load!("0", "1", "-32"),
                    rows!($op, $weights, $element, "3", "3", "y", "2"),
                    rows!($op, $weights, $element, "4", "0", "y", "3"),
                    rows!($op, $weights, $element, "5", "1", "y", "3"),
                    rows!($op, $weights, $element, "0", "2", "y", "3"),
                    rows!($op, $weights, $element, "1", "3", "y", "3"),
                    row = inout(reg) *row,
                    panel = inout(reg) *panel,
                    s00 = inout(vreg) *s00, s01 = inout(vreg) *s01, s02 = inout(vreg) *s02, s03 = inout(vreg) *s03,
                    s10 = inout(vreg) *s10, s11 = inout(vreg) *s11, s12 = inout(vreg) *s12, s13 = inout(vreg) *s13,
                    s20 = inout(vreg) *s20, s21 = inout(vreg) *s21, s22 = inout(vreg) *s22, s23 = inout(vreg) *s23,
                    s30 = inout(vreg) *s30, s31 = inout(vreg) *s31, s32 = inout(vreg) *s32, s33 = inout(vreg) *s33,
                    x0 = out(vreg) _, x1 = out(vreg) _, x2 = out(vreg) _, x3 = out(vreg) _,
                    y0 = out(vreg) _, y1 = out(vreg) _, y2 = out(vreg) _, y3 = out(vreg) _,
                    w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _,
                    w3 = out(vreg) _, w4 = out(vreg) _, w5 = out(vreg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
        }
    };
}

/// A function that multiplies four rows of 16 bytes (64 apart) with four lines of weights.
macro_rules! four_by_four {
    ($name:ident, $features:literal, $sums:ty, $op:literal, $weights:literal, $element:literal, $what:literal) => {
        #[doc = $what]
        ///
        /// `panel` and `row` go to what follows.
        ///
        /// # Safety
        ///
        /// There are four lines of 64 bytes at `panel`, and 16 bytes at `row` and 64, 128 and 192 bytes after it.
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(sums: &mut [[$sums; 4]; 4], panel: &mut *const u8, row: &mut *const u8) {
            let [[s00, s01, s02, s03], [s10, s11, s12, s13], [s20, s21, s22, s23], [s30, s31, s32, s33]] = sums;
            // SAFETY: reads what the caller guarantees.
            unsafe {
                asm!(
                    "ldr {x0:q}, [{row}], #16",
                    "ldp {w0:q}, {w1:q}, [{panel}], #256",
                    "ldr {x1:q}, [{row}, #48]",
                    load!("2", "3", "-224"),
                    half_row!($op, $weights, $element, "0", "1", "0"),
                    "ldr {x2:q}, [{row}, #112]",
                    half_row!($op, $weights, $element, "2", "3", "0"),
                    "ldr {x3:q}, [{row}, #176]",
                    half_row!($op, $weights, $element, "0", "1", "1"),
                    half_row!($op, $weights, $element, "2", "3", "1"),
                    load!("4", "5", "-192"),
                    half_row!($op, $weights, $element, "0", "1", "2"),
                    half_row!($op, $weights, $element, "2", "3", "2"),
                    half_row!($op, $weights, $element, "0", "1", "3"),
                    load!("0", "1", "-160"),
                    half_row!($op, $weights, $element, "2", "3", "3"),
                    rows!($op, $weights, $element, "4", "0", "x", "1"),
                    load!("2", "3", "-128"),
                    rows!($op, $weights, $element, "5", "1", "x", "1"),
                    rows!($op, $weights, $element, "0", "2", "x", "1"),
                    load!("4", "5", "-96"),
                    rows!($op, $weights, $element, "1", "3", "x", "1"),
                    rows!($op, $weights, $element, "2", "0", "x", "2"),
                    load!("0", "1", "-64"),
                    rows!($op, $weights, $element, "3", "1", "x", "2"),
                    rows!($op, $weights, $element, "4", "2", "x", "2"),
                    load!("2", "3", "-32"),
                    rows!($op, $weights, $element, "5", "3", "x", "2"),
                    rows!($op, $weights, $element, "0", "0", "x", "3"),
                    rows!($op, $weights, $element, "1", "1", "x", "3"),
                    rows!($op, $weights, $element, "2", "2", "x", "3"),
                    rows!($op, $weights, $element, "3", "3", "x", "3"),
                    row = inout(reg) *row,
                    panel = inout(reg) *panel,
                    s00 = inout(vreg) *s00, s01 = inout(vreg) *s01, s02 = inout(vreg) *s02, s03 = inout(vreg) *s03,
                    s10 = inout(vreg) *s10, s11 = inout(vreg) *s11, s12 = inout(vreg) *s12, s13 = inout(vreg) *s13,
                    s20 = inout(vreg) *s20, s21 = inout(vreg) *s21, s22 = inout(vreg) *s22, s23 = inout(vreg) *s23,
                    s30 = inout(vreg) *s30, s31 = inout(vreg) *s31, s32 = inout(vreg) *s32, s33 = inout(vreg) *s33,
                    x0 = out(vreg) _, x1 = out(vreg) _, x2 = out(vreg) _, x3 = out(vreg) _,
                    w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _,
                    w3 = out(vreg) _, w4 = out(vreg) _, w5 = out(vreg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
        }
    };
}

four_by_eight!(sdot_eight, "neon,dotprod", int32x4_t, "sdot", "16b", "4b", "32 int8 of each row: SDOT by element.");
four_by_four!(sdot, "neon,dotprod", int32x4_t, "sdot", "16b", "4b", "Sixteen int8 of each row.");
four_by_eight!(fmla_eight, "neon", float32x4_t, "fmla", "4s", "s", "Eight f32 of each row: FMLA by element, in order.");
four_by_four!(fmla, "neon", float32x4_t, "fmla", "4s", "s", "Four f32 of each row.");

/// Sixteen sums of 0. Loads, where the compiler would have as many instructions of arithmetic.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn zeros() -> [[int32x4_t; 4]; 4] {
    static ZEROS: [i32; 8] = [0; 8];
    let mut sums = [[vdupq_n_s32(0); 4]; 4];
    for [a, b, c, d] in &mut sums {
        // SAFETY: reads `ZEROS`. Not pure, lest one result is copied.
        unsafe {
            asm!(
                "ldp {a:q}, {b:q}, [{at}]",
                "ldp {c:q}, {d:q}, [{at}]",
                at = in(reg) ZEROS.as_ptr(),
                a = out(vreg) *a, b = out(vreg) *b, c = out(vreg) *c, d = out(vreg) *d,
                options(readonly, nostack, preserves_flags),
            );
        }
    }
    sums
}

/// For each row four times the four numbers at its address.
///
/// # Safety
///
/// They are there.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn four_times(rows: [*const i32; 4]) -> [[int32x4_t; 4]; 4] {
    let mut sums = [[vdupq_n_s32(0); 4]; 4];
    for ([a, b, c, d], at) in sums.iter_mut().zip(rows) {
        // SAFETY: reads what the caller guarantees.
        unsafe {
            asm!(
                "ldr {a:q}, [{at}]",
                "ldr {b:q}, [{at}]",
                "ldr {c:q}, [{at}]",
                "ldr {d:q}, [{at}]",
                at = in(reg) at,
                a = out(vreg) *a, b = out(vreg) *b, c = out(vreg) *c, d = out(vreg) *d,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
    }
    sums
}

/// A step of the eight products of two vectors of weights (`$a`, `$b`) with the quads of two rows (`$x`, `$y`).
macro_rules! products {
    ($op:literal, $a:literal, $b:literal, $x:literal, $y:literal) => {
        concat!(
            products!(@ $op, "0", $a, $x), products!(@ $op, "2", $a, $y),
            products!(@ $op, "4", $b, $x), products!(@ $op, "6", $b, $y),
        )
    };
    (@ $op:literal, "0", $w:literal, $x:literal) => { products!(@@ $op, "0", "1", $w, $x) };
    (@ $op:literal, "2", $w:literal, $x:literal) => { products!(@@ $op, "2", "3", $w, $x) };
    (@ $op:literal, "4", $w:literal, $x:literal) => { products!(@@ $op, "4", "5", $w, $x) };
    (@ $op:literal, "6", $w:literal, $x:literal) => { products!(@@ $op, "6", "7", $w, $x) };
    (@@ $op:literal, $low:literal, $high:literal, $w:literal, $x:literal) => {
        concat!(
            $op, " {p", $low, ":v}.8h, {w", $w, ":v}.8b, {", $x, ":v}.8b\n",
            $op, "2 {p", $high, ":v}.8h, {w", $w, ":v}.16b, {", $x, ":v}.16b\n",
        )
    };
}

/// The eight products, in pairs, onto the sums of four outputs of two rows, or to them (`$op`).
macro_rules! add_pairs {
    ($op:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            add_pairs!(@ $op, "0", $a, "0"), add_pairs!(@ $op, "0", $b, "1"),
            add_pairs!(@ $op, "1", $a, "2"), add_pairs!(@ $op, "1", $b, "3"),
            add_pairs!(@ $op, "0", $c, "4"), add_pairs!(@ $op, "0", $d, "5"),
            add_pairs!(@ $op, "1", $c, "6"), add_pairs!(@ $op, "1", $d, "7"),
        )
    };
    (@ $op:literal, $row:literal, $n:literal, $p:literal) => {
        concat!($op, " {s", $row, $n, ":v}.4s, {p", $p, ":v}.8h\n")
    };
}

/// A function that multiplies two quads of two rows with two lines of weights: SMULL and SMLAL (two products of at most
/// 128 · 127 never leave an i16), then `$op`. The sums of output `o` are lanes `2 (o % 2)` and the next of a row's `o / 2`.
macro_rules! two_by_two {
    ($name:ident, $op:literal, $direction:ident, $what:literal) => {
        #[doc = $what]
        ///
        /// `panel` and `quads`, the two of the first row and those of the second, go to what follows.
        ///
        /// # Safety
        ///
        /// There are two lines of 64 bytes at `panel`, and four bytes at each of the `quads`.
        #[inline]
        #[target_feature(enable = "neon")]
        pub(super) unsafe fn $name(
            sums: &mut [[int32x4_t; 8]; 2],
            panel: &mut *const u8,
            [quad0, next0, quad1, next1]: &mut [*const u8; 4],
        ) {
            let [[s00, s01, s02, s03, s04, s05, s06, s07], [s10, s11, s12, s13, s14, s15, s16, s17]] = sums;
            // SAFETY: reads what the caller guarantees.
            unsafe {
                asm!(
                    "ld1r {{{x0:v}.4s}}, [{quad0}]",
                    load!("0", "1", "0"),
                    "ld1r {{{x1:v}.4s}}, [{quad1}]",
                    load!("2", "3", "64"),
                    "ld1r {{{y0:v}.4s}}, [{next0}]",
                    "ld1r {{{y1:v}.4s}}, [{next1}]",
                    products!("smull", "0", "1", "x0", "x1"),
                    load!("0", "1", "32"),
                    "add {quad0}, {quad0}, #8",
                    "add {quad1}, {quad1}, #8",
                    products!("smlal", "2", "3", "y0", "y1"),
                    load!("2", "3", "96"),
                    "add {next0}, {next0}, #8",
                    "add {next1}, {next1}, #8",
                    "add {panel}, {panel}, #128",
                    add_pairs!($op, "0", "1", "2", "3"),
                    products!("smull", "0", "1", "x0", "x1"),
                    products!("smlal", "2", "3", "y0", "y1"),
                    add_pairs!($op, "4", "5", "6", "7"),
                    quad0 = inout(reg) *quad0,
                    next0 = inout(reg) *next0,
                    quad1 = inout(reg) *quad1,
                    next1 = inout(reg) *next1,
                    panel = inout(reg) *panel,
                    s00 = $direction(vreg) *s00, s01 = $direction(vreg) *s01, s02 = $direction(vreg) *s02,
                    s03 = $direction(vreg) *s03, s04 = $direction(vreg) *s04, s05 = $direction(vreg) *s05,
                    s06 = $direction(vreg) *s06, s07 = $direction(vreg) *s07, s10 = $direction(vreg) *s10,
                    s11 = $direction(vreg) *s11, s12 = $direction(vreg) *s12, s13 = $direction(vreg) *s13,
                    s14 = $direction(vreg) *s14, s15 = $direction(vreg) *s15, s16 = $direction(vreg) *s16,
                    s17 = $direction(vreg) *s17,
                    x0 = out(vreg) _, x1 = out(vreg) _, y0 = out(vreg) _, y1 = out(vreg) _,
                    w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
                    p0 = out(vreg) _, p1 = out(vreg) _, p2 = out(vreg) _, p3 = out(vreg) _,
                    p4 = out(vreg) _, p5 = out(vreg) _, p6 = out(vreg) _, p7 = out(vreg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
        }
    };
}

two_by_two!(smull, "sadalp", inout, "Adds to the sums.");
two_by_two!(smull_fresh, "saddlp", out, "Writes the sums, whatever lies there.");

/// [`super::Simd::horner`]. FMLA overwrites what it adds to, so each coefficient is loaded again rather than copied: a load
/// keeps no arithmetic waiting.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn horner(
    mut sums: [float32x4_t; 4],
    [x0, x1, x2, x3]: [float32x4_t; 4],
    coefficients: &[[f32; 8]],
) -> [float32x4_t; 4] {
    let mut next = coefficients.as_ptr();
    for _ in coefficients {
        let [s0, s1, s2, s3] = sums;
        let (t0, t1, t2, t3);
        // SAFETY: reads the eight numbers at `next`, which goes through `coefficients`.
        unsafe {
            asm!(
                "ldp {t0:q}, {t1:q}, [{next}]",
                "ldp {t2:q}, {t3:q}, [{next}], #32",
                "fmla {t0:v}.4s, {s0:v}.4s, {x0:v}.4s",
                "fmla {t1:v}.4s, {s1:v}.4s, {x1:v}.4s",
                "fmla {t2:v}.4s, {s2:v}.4s, {x2:v}.4s",
                "fmla {t3:v}.4s, {s3:v}.4s, {x3:v}.4s",
                next = inout(reg) next,
                t0 = out(vreg) t0, t1 = out(vreg) t1, t2 = out(vreg) t2, t3 = out(vreg) t3,
                s0 = in(vreg) s0, s1 = in(vreg) s1, s2 = in(vreg) s2, s3 = in(vreg) s3,
                x0 = in(vreg) x0, x1 = in(vreg) x1, x2 = in(vreg) x2, x3 = in(vreg) x3,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        sums = [t0, t1, t2, t3];
    }
    sums
}
