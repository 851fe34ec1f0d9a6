//! Normally distributed values, fast and the same on every machine.
//!
//! A tensor's values are picked from a table of a few thousand that were drawn for it: a billion draws of their own would
//! take minutes, and what they are for is to have a plausible distribution.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Draw;

/// Values in a tensor's table: a power of two, so that some bits of a random number are an index.
const TABLE: usize = 1 << BITS;
const BITS: u32 = 12;
/// Indices in one random number.
const PICKS: u32 = u64::BITS / BITS;
/// Bytes that are handed on at once.
const CHUNK: usize = 1 << 16;

/// SplitMix64 (Steele et al. 2014).
pub(super) struct Random(u64);

impl Random {
    /// A generator of its own for each name, so that no tensor depends on another.
    pub(super) fn new(seed: u64, name: &str) -> Random {
        Random(xxh3_64_with_seed(name.as_bytes(), seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Nearly normal values: the sum of twelve uniform ones has a variance of one, and is exact everywhere.
    pub(super) fn table(&mut self, draw: Draw) -> [f32; TABLE] {
        std::array::from_fn(|_| {
            let sum: f32 = (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum();
            draw.mean + draw.deviation * (sum - 6.0)
        })
    }

    /// Hands `count` values of `table` to `write`, as bytes.
    pub(super) fn pick<const N: usize, E>(
        &mut self,
        table: &[[u8; N]; TABLE],
        count: usize,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut left = count;
        while left > 0 {
            let values = left.min(CHUNK / N);
            chunk.clear();
            while chunk.len() < values * N {
                let bits = self.next();
                (0..PICKS).for_each(|i| chunk.extend(table[(bits >> (i * BITS)) as usize % TABLE]));
            }
            write(&chunk[..values * N])?;
            left -= values;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_mean_and_deviation_asked_for() {
        let draw = Draw { mean: 1.0, deviation: 0.5 };
        let mut random = Random::new(7, "weight");
        let table = random.table(draw).map(f32::to_le_bytes);
        let mut values = Vec::new();
        let done: Result<(), ()> = random.pick(&table, 100_001, |bytes| {
            values.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            Ok(())
        });
        assert_eq!((done, values.len()), (Ok(()), 100_001));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!((mean - 1.0).abs() < 0.03 && (variance.sqrt() - 0.5).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn names_and_seeds_make_the_difference() {
        let first = |seed, name| Random::new(seed, name).next();
        assert_eq!(first(0, "a"), first(0, "a"));
        assert_ne!(first(0, "a"), first(0, "b"));
        assert_ne!(first(0, "a"), first(1, "a"));
    }
}
