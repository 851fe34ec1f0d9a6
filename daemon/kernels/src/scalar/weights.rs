//! The softmax of int8 attention: scores, powers of 2 and weights in integers, which are the same everywhere by themselves.
//!
//! Accuracy was measured against f64: weights of a relative error of at most 0.5 % before their fraction is rounded or cut off, tested
//! below.

/// Scores are below 2 to this power in magnitude, so that their differences fit 16 bits.
const SCORE_BITS: u32 = 14;
/// A power of 2 has this many bits after the point.
const FRACTION: u32 = 7;
/// The greatest power: of log₂ 254.6 beside the weight that power 1 stands for, in units of `2^-FRACTION`.
pub(crate) const GREATEST_POWER: i16 = (1 << FRACTION) + 52;
/// Differences of scores are multiplied by at most this, in units of 2⁻¹⁵: so no power is below −240, as NEON's shifts want it.
const GREATEST_FACTOR: f32 = 30_720.0;
/// Doublings of a difference at most. Beyond, a weight is all or nothing.
const MOST_DOUBLINGS: u32 = 14;
/// What is added to weights in units of 1/128 before the fraction is dropped: for key `j` of a block the seven bits of `j` in
/// reverse (van der Corput's sequence). So weights below 1 count on average as much as they should, where rounding would drop all
/// of those below ½.
pub(crate) const DITHERS: [u8; 128] = {
    let mut dithers = [0; 128];
    let mut j = 0;
    while j < 128 {
        dithers[j] = (j as u8).reverse_bits() >> 1;
        j += 1;
    }
    dithers
};

/// `(a · b + 2¹⁴) >> 15`: the product of two numbers, one of which is in units of 2⁻¹⁵ and not negative.
fn rounded_product(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16
}

/// How far a dot product is shifted to be a score: the least number from 1 on with which no query's product with a key of the head
/// leaves [`SCORE_BITS`]. `sum` is the greatest sum of a key's magnitudes.
pub(crate) fn score_shift(sum: u32) -> u32 {
    (1..)
        .find(|shift| (127 * u64::from(sum) + (1 << (shift - 1))) >> shift < 1 << SCORE_BITS)
        .expect("a shift of 32 does")
}

/// What scales a head's scores, by the greatest of its keys' scales.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyUnit {
    inverse: f32,
    /// What a score of 1 is, beside the query's scale.
    pub(crate) unit: f32,
}

impl KeyUnit {
    /// For a head whose keys' scales are at most `greatest`, and whose scores are shifted by `shift`.
    pub(crate) fn new(greatest: f32, shift: u32) -> KeyUnit {
        let inverse = if greatest > 0.0 { 32_767.0 / greatest } else { 0.0 };
        KeyUnit { inverse, unit: greatest * (32_768.0 / 32_767.0) * (1u32 << shift) as f32 }
    }

    /// A key's scale beside the greatest, in units of 2⁻¹⁵.
    pub(crate) fn factor(&self, scale: f32) -> i16 {
        (scale * self.inverse).round_ties_even() as i16
    }
}

/// A score: of a dot product, which is shifted, by its key's factor.
pub(crate) fn score(dot: i32, shift: u32, factor: i16) -> i16 {
    rounded_product(((dot + (1 << (shift - 1))) >> shift) as i16, factor)
}

/// How a query's scores become powers of 2 in units of `2^-FRACTION`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PowerScale {
    /// What multiplies differences of scores after they are doubled, in units of 2⁻¹⁵.
    pub(crate) factor: i16,
    /// How often differences are doubled: more than never where attention is sharp.
    pub(crate) doublings: u32,
    /// What the greatest score's difference is, so that its power is [`GREATEST_POWER`], or less where attention is flat.
    pub(crate) above: i16,
}

impl PowerScale {
    /// For scores whose unit is this power of 2.
    pub(crate) fn new(unit: f32) -> PowerScale {
        let (mut factor, mut doublings) = (unit * (1u32 << (FRACTION + 15)) as f32, 0);
        while factor > GREATEST_FACTOR && doublings < MOST_DOUBLINGS {
            factor *= 0.5;
            doublings += 1;
        }
        let factor = factor.round_ties_even().min(GREATEST_FACTOR) as i16;
        // The greatest difference of which the power is rounded to `GREATEST_POWER`.
        let most = ((i32::from(GREATEST_POWER) + 1) << 15) - (1 << 14) - 1;
        let above = most.checked_div(i32::from(factor) << doublings).map_or(i16::MAX, |most| most.min(32_767) as i16);
        PowerScale { factor, doublings, above }
    }

    /// The least difference that may be doubled: powers of those below are as small.
    pub(crate) fn least(&self) -> i16 {
        i16::MIN >> self.doublings
    }

    /// The power of a score beside the greatest of its block.
    pub(crate) fn power(&self, score: i16, greatest: i16) -> i16 {
        let difference = (i32::from(score) - i32::from(greatest) + i32::from(self.above)) as i16;
        rounded_product(difference.max(self.least()) << self.doublings, self.factor)
    }
}

/// The weight, 0 to 255, of key `j` of a block: `⌊96 · 2^x + dither⌋`, for a power `x` from −240 to
/// 2^-FRACTION · [`GREATEST_POWER`].
pub(crate) fn weight(power: i16, j: usize) -> u8 {
    ((fine_weight(power) + u32::from(DITHERS[j])) >> 7) as u8
}

/// The weight of [`weight`] without a dither, in two bytes: its whole part, and its fraction in units of 1/128.
pub(crate) fn weight_bytes(power: i16) -> [u8; 2] {
    let weight = fine_weight(power);
    [weight >> 7, weight & 127].map(|byte| byte as u8)
}

/// `96 · 2^x` in units of 1/128.
///
/// `2^f` is `(2 + (1 + f)²) / 3` for the power's fraction `f`.
fn fine_weight(power: i16) -> u32 {
    let one = 1 << FRACTION;
    let fraction = u32::from(power as u16) % one + one;
    let mantissa = (fraction * fraction + 2 * one * one + 1) >> 1;
    let shift = 1 - (power >> FRACTION);
    mantissa >> shift.min(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a block's weights are on average for a power.
    fn mean_weight(power: i16) -> f64 {
        (0..128).map(|j| f64::from(weight(power, j))).sum::<f64>() / 128.0
    }

    #[test]
    fn weights_are_powers_of_two_on_average() {
        for power in -16 * 128..=GREATEST_POWER {
            let expected = 96.0 * 2f64.powf(f64::from(power) / 128.0);
            let error = mean_weight(power) - expected;
            assert!(error.abs() < 0.005 * expected + 1.0 / 64.0, "2^({power}/128): {error}");
        }
    }

    #[test]
    fn weights_grow_with_powers_from_0_to_255() {
        for j in 0..128 {
            assert!((-30_720..GREATEST_POWER).all(|power| weight(power, j) <= weight(power + 1, j)));
            assert_eq!((weight(-30_720, j), weight(-14 * 128, j)), (0, 0));
            assert!(weight(GREATEST_POWER, j) >= 254);
        }
    }

    #[test]
    fn two_bytes_are_powers_of_two() {
        for power in -16 * 128..=GREATEST_POWER {
            let [whole, fraction] = weight_bytes(power).map(f64::from);
            let expected = 96.0 * 2f64.powf(f64::from(power) / 128.0);
            let error = whole + fraction / 128.0 - expected;
            assert!(fraction < 128.0 && error.abs() < 0.005 * expected + 1.0 / 64.0, "2^({power}/128): {error}");
        }
    }

    #[test]
    fn scores_fit_and_so_do_their_differences() {
        for sum in [0, 1, 127, 1000, 40 * 127, 160 * 127, 16_909_320] {
            let shift = score_shift(sum);
            let dot = (127 * u64::from(sum)).min(i32::MAX as u64 - (1 << (shift - 1))) as i32;
            let greatest = score(dot, shift, i16::MAX);
            assert!(greatest < 1 << SCORE_BITS && score(-dot, shift, i16::MAX) >= -(1 << SCORE_BITS));
            assert!(shift == 1 || i32::from(greatest) >= (1 << SCORE_BITS) / 2 - 1, "{greatest}: as precise as can be");
        }
    }

    #[test]
    fn powers_are_differences_by_the_unit() {
        for exponent in -20..12 {
            let unit = 1.3 * 2f32.powi(exponent);
            let scale = PowerScale::new(unit);
            assert!(scale.power(700, 700) <= GREATEST_POWER);
            for below in [0, 1, 2, 10, 100, 1000, 10_000, 32_000] {
                let found = f64::from(scale.power((700 - below) as i16, 700)) - f64::from(scale.power(700, 700));
                let expected = -f64::from(below) * f64::from(unit) * 128.0;
                // Weights of powers below −16 are 0.
                let near = (found - expected).abs() <= 1.0 + 1e-4 * expected.abs() + f64::from(below) / 65_536.0;
                assert!(
                    near || (found < -17.0 * 128.0 && expected < -17.0 * 128.0),
                    "{below} · {unit}: {found}, {expected}"
                );
            }
        }
        for unit in [0.0, f32::INFINITY, f32::NAN] {
            let scale = PowerScale::new(unit);
            assert!(scale.power(-16_383, 16_383) >= -240 * 128 && scale.power(16_383, 16_383) <= GREATEST_POWER);
        }
    }

    #[test]
    fn keys_factors_are_their_scales() {
        let unit = KeyUnit::new(0.3, 4);
        assert_eq!((unit.factor(0.3), unit.factor(0.15), unit.factor(0.0)), (32_767, 16_384, 0));
        assert!((unit.unit / 16.0 * 32_767.0 / 32_768.0 - 0.3).abs() < 1e-6);
        assert_eq!(KeyUnit::new(0.0, 1).factor(0.0), 0);
    }
}
