//! The specification: each kernel as plain loops, one operation after the other, with the order of the sums fixed.
//!
//! The other levels are held to these bits by the tests, and CPUs that have no other level run this.
//! "Sixteen lanes" means that lane `l` sums the elements `l, l + 16, l + 32, …`, each sum starting from 0, and that the
//! lanes are then folded: `l` and `l + 8`, `l` and `l + 4`, `l` and `l + 2`, `l` and `l + 1`.

pub(crate) mod attention;
pub mod math;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod rows;
pub(crate) mod weights;

/// The sum of sixteen lanes, in their order.
pub(crate) fn fold_lanes(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// The sum of values that are given in order, by sixteen lanes.
pub(crate) fn sum_lanes(values: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0; 16];
    for (i, value) in values.enumerate() {
        lanes[i % 16] += value;
    }
    fold_lanes(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_folded_in_halves() {
        let big = |lane: usize| if lane.is_multiple_of(8) { 1e8 } else { 1.0 };
        let lanes: [f32; 16] = std::array::from_fn(|l| if l == 8 { -1e8 } else { big(l) });
        assert_eq!(fold_lanes(lanes), 14.0, "0 and 8 cancel first");
        assert_eq!(sum_lanes((0..35).map(|i| i as f32)), (34 * 35 / 2) as f32);
    }
}
