//! Each operation of each level by itself, against the same operation on one number.

use half::f16;

use super::{CHUNK, LANES, Simd, SimdFn, at_level, math};
use crate::cpu::Level;
use crate::scalar;
use crate::scalar::weights::{GREATEST_POWER, weight, weight_bytes};

/// Numbers where rounding, signs and ranges matter.
const VALUES: [f32; 24] = [
    0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 126.5, -126.5, 1e-40, -1e-40, 3.4e38, -3.4e38, 88.5, -87.5, 1e-8, 7.3,
    -0.1, 65519.9, 0.333_333, 5.0, -125.5, 4.1,
];

type Unary = (&'static str, fn(f32) -> f32);

/// Runs the vector form of each function on sixteen values at a time.
struct Check;

impl Check {
    fn unary<S: Simd>(simd: S, (name, expected): Unary, found: impl Fn(S::F) -> S::F) {
        for start in 0..VALUES.len() - LANES {
            let x = &VALUES[start..start + LANES];
            let mut out = [0.0; LANES];
            simd.store(found(simd.load(x)), &mut out);
            for (x, out) in x.iter().zip(out) {
                assert_eq!(out.to_bits(), expected(*x).to_bits(), "{name}({x:e}) is {out:e}");
            }
        }
    }

    fn binary<S: Simd>(simd: S, name: &str, expected: fn(f32, f32) -> f32, found: impl Fn(S::F, S::F) -> S::F) {
        for b in VALUES {
            for x in VALUES.chunks(LANES) {
                let mut out = [0.0; LANES];
                simd.store(found(simd.load(x), simd.splat(b)), &mut out);
                for (x, out) in x.iter().zip(out) {
                    assert_eq!(out.to_bits(), expected(*x, b).to_bits(), "{name}({x:e}, {b:e}) is {out:e}");
                }
            }
        }
    }
}

impl SimdFn for Check {
    type Output = ();

    fn call<S: Simd>(self, s: S) {
        Check::unary(s, ("exp2", |x| scalar::math::exp2(x.min(126.0))), |x| math::exp2(s, s.min(x, s.splat(126.0))));
        Check::unary(s, ("silu", scalar::math::silu), |x| math::silu(s, x));
        Check::unary(s, ("gelu", scalar::math::gelu), |x| math::gelu(s, x));
        Check::unary(s, ("quick_gelu", scalar::math::quick_gelu), |x| math::quick_gelu(s, x));
        Check::unary(s, ("fma", |x| x.mul_add(x, 3.0)), |x| s.fma(x, x, s.splat(3.0)));
        Check::unary(s, ("zero_below", |x| if x < 0.5 { 0.0 } else { x }), |x| s.zero_below(x, s.splat(0.5), x));
        Check::unary(s, ("shift_to_exponent", |x| f32::from_bits(x.to_bits() << 23)), |x| s.shift_to_exponent(x));
        Check::binary(s, "add", |a, b| a + b, |a, b| s.add(a, b));
        Check::binary(s, "sub", |a, b| a - b, |a, b| s.sub(a, b));
        Check::binary(s, "mul", |a, b| a * b, |a, b| s.mul(a, b));
        Check::binary(
            s,
            "div",
            |a, b| if b == 0.0 { 0.0 } else { a / b },
            |a, b| {
                let mut divisor = [0.0; LANES];
                s.store(b, &mut divisor);
                if divisor[0] == 0.0 { s.splat(0.0) } else { s.div(a, b) }
            },
        );
        Check::binary(s, "max", |a, b| if a > b { a } else { b }, |a, b| s.max(a, b));
        let max_magnitude = |a: f32, b: f32| if a.abs() > b.abs() { a.abs() } else { b.abs() };
        Check::binary(s, "max_magnitude", max_magnitude, |a, b| s.max_magnitude(a, s.max_magnitude(b, s.splat(0.0))));
        Check::binary(s, "min", |a, b| if a < b { a } else { b }, |a, b| s.min(a, b));
        folds(s);
        transposes(s);
        short_slices(s);
        conversions(s);
        columns(s);
        words(s);
        powers(s);
    }
}

fn transposes<S: Simd>(s: S) {
    let mut rows = [s.splat(0.0); LANES];
    for (row, vector) in rows.iter_mut().enumerate() {
        *vector = s.load(&std::array::from_fn::<f32, LANES, _>(|column| (row * LANES + column) as f32));
    }
    for (column, vector) in s.transpose(rows).into_iter().enumerate() {
        let mut found = [0.0; LANES];
        s.store(vector, &mut found);
        assert_eq!(found, std::array::from_fn(|row| (row * LANES + column) as f32));
    }
}

fn folds<S: Simd>(s: S) {
    for rotation in 0..LANES {
        let mut lanes: [f32; LANES] = std::array::from_fn(|l| VALUES[l + 4] + 1e-3 * l as f32);
        lanes.rotate_left(rotation);
        let a = s.load(&lanes);
        assert_eq!(s.fold(a).to_bits(), scalar::fold_lanes(lanes).to_bits(), "the order of the sum");
        assert_eq!(s.fold_max(a), lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }
}

/// Nothing is written past the end, and what is past the end reads as zero.
fn short_slices<S: Simd>(s: S) {
    for len in 0..=LANES {
        let (mut out, mut half, mut int) = ([9.0; LANES + 1], [f16::ONE; LANES + 1], [9; LANES + 1]);
        let a = s.load(&VALUES[2..2 + len]);
        s.store(a, &mut out[..LANES]);
        assert_eq!(out[..len], VALUES[2..2 + len]);
        assert!(out[len..LANES].iter().all(|x| *x == 0.0));
        let a = s.splat(2.0);
        out.fill(9.0);
        s.store(a, &mut out[..len]);
        s.store_f16(a, &mut half[..len]);
        s.store_i8(a, s.splat(1.0), &mut int[..len]);
        for i in 0..=LANES {
            let expected = if i < len { (2.0, f16::from_f32(2.0), 2) } else { (9.0, f16::ONE, 9) };
            assert_eq!((out[i], half[i], int[i]), expected, "lane {i} of {len}");
        }
    }
}

fn conversions<S: Simd>(s: S) {
    let x: [f32; LANES] = std::array::from_fn(|i| [0.5, 1.5, -0.5, -1.5, 126.5, -126.5, 127.0, -127.0][i % 8]);
    let mut out = [0; LANES];
    s.store_i8(s.load(&x), s.splat(1.0), &mut out);
    assert_eq!(out[..8], [0, 2, 0, -2, 126, -126, 127, -127]);
    // Halves beside a bit of a product that a rounded one would not have.
    let (x, factor) = (s.splat(0.500_000_06), [1.000_000_1, 0.999_999_9]);
    for (factor, expected) in factor.into_iter().zip([1, 0]) {
        s.store_i8(x, s.splat(factor), &mut out);
        assert_eq!((out, scalar::rows::rounded(0.500_000_06, factor)), ([expected; LANES], expected));
    }
    let mut half = [f16::ZERO; LANES];
    s.store_f16(s.load(&VALUES[4..]), &mut half);
    assert_eq!(
        half.map(f16::to_bits)[..],
        VALUES[4..20].iter().map(|x| f16::from_f32(*x).to_bits()).collect::<Vec<_>>()
    );
    let mut back = [0.0; LANES];
    s.store(s.load_f16(&half), &mut back);
    assert_eq!(back.map(f32::to_bits), half.map(|x| x.to_f32().to_bits()));
}

fn columns<S: Simd>(s: S) {
    let a: [[f32; LANES]; 4] =
        std::array::from_fn(|i| std::array::from_fn(|l| (i * 61 + l * 17) as f32 - 219.5 + 0.25 * i as f32));
    let a = a.map(|a| a.map(|a| a.clamp(-127.0, 127.0)));
    let integers = a.map(|a| a.map(|a| a.round_ties_even() as i8));
    let (mut sums, mut bytes) = ([1000; LANES], [0; CHUNK]);
    s.store_columns(a.map(|a| s.load(&a)), s.splat(1.0), &mut sums, &mut bytes);
    assert_eq!(bytes, std::array::from_fn(|i| integers[i % 4][i / 4] as u8));
    if S::FLIP == 0 {
        let of_lane = |l: usize| 1000 + integers.iter().map(|integers| i32::from(integers[l])).sum::<i32>();
        assert_eq!(sums, std::array::from_fn(of_lane));
    }
}

/// A vector of two keys' numbers is only ever loaded as the score tiles leave it, so what is tested has both keys alike.
fn words<S: Simd>(s: S) {
    let numbers: [i16; 20] =
        std::array::from_fn(|i| [0, 1, -1, 100, -3000, 16_383, -16_384, 32_767, -32_768][i * 4 % 9]);
    for b in [0, 1, 2, 3, 255, 16_384, 30_720] {
        for a in numbers.as_chunks::<4>().0 {
            let a: [i16; LANES] = std::array::from_fn(|l| a[l % 4].wrapping_add(l as i16));
            let (left, right) = (s.of_queries(&a), s.of_queries(&[b; LANES]));
            assert_eq!(s.greatest_of_keys(left), a);
            assert_eq!(s.greatest_of_keys(s.max_words(left, right)), a.map(|a| a.max(b)));
            assert_eq!(s.greatest_of_keys(s.sub_words(left, right)), a.map(|a| a.wrapping_sub(b)));
            assert_eq!(s.greatest_of_keys(s.mul_words(left, right)), a.map(|a| a.wrapping_mul(b)));
            let scaled = a.map(|a| ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16);
            assert_eq!(s.greatest_of_keys(s.scale_words(left, right)), scaled);
        }
    }
}

fn powers<S: Simd>(s: S) {
    let flip = if S::FLIP == 0 { 0x80 } else { 0 };
    for first in (0..128).step_by(4) {
        for least in (1 - 240 * 128..=GREATEST_POWER).step_by(31) {
            let of_queries: [i16; LANES] = std::array::from_fn(|l| (least + l as i16).min(GREATEST_POWER));
            let mut bytes = [[0; CHUNK]; 3];
            // Of keys 2 and 3 one less.
            let of_others = of_queries.map(|power| power - 1);
            let powers = [s.of_queries(&of_queries), s.of_queries(&of_others)];
            let power = |i: usize| if i % 4 < 2 { of_queries[i / 4] } else { of_others[i / 4] };
            let [dithered, whole, fraction] = &mut bytes;
            s.store_weights(powers, first, dithered);
            s.store_weight_bytes(powers, [whole, fraction]);
            let expected = std::array::from_fn(|i| weight(power(i), first + i % 4) ^ flip);
            assert_eq!(bytes[0], expected, "powers from {least}, keys from {first}");
            for (byte, found) in bytes[1..].iter().enumerate() {
                let expected = std::array::from_fn(|i| weight_bytes(power(i))[byte] ^ flip);
                assert_eq!(*found, expected, "byte {byte} of powers from {least}");
            }
        }
    }
}

#[test]
fn every_operation_equals_the_scalar_one() {
    for level in Level::ALL.into_iter().filter(|level| level.available()) {
        at_level!(level, simd => simd.run(Check), scalar => ());
    }
}
