//! Brownian motion over sigma, drawn for a seed as torchsde's `BrownianInterval` with a halfway tree draws it, which
//! k-diffusion and diffusers take for DPM++ SDE: an interval is halved until an end of a half is the place that is asked
//! for, and each halving has noise of a seed of its own. So the way to a place depends on the seed alone.

/// Words that a seed is mixed into (`pool_size`).
const POOL: usize = 24;

/// Brownian motion between two times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Brownian {
    seed: u64,
    start: f64,
    end: f64,
    /// Of the motion over the whole interval.
    deviation: f64,
}

impl Brownian {
    /// For `seed`, between two times.
    pub(super) fn new(seed: u64, start: f64, end: f64) -> Brownian {
        Brownian { seed, start: rounded(start), end: rounded(end), deviation: (end - start).sqrt() }
    }

    /// The motion from one time to a later one, over the square root of the time: standard normal values. `draw` gives
    /// those of a seed.
    pub(super) fn normals(&self, from: f64, to: f64, draw: &dyn Fn(u32) -> Vec<f32>) -> Vec<f32> {
        let (before, after) = (self.since_start(from, draw), self.since_start(to, draw));
        let scale = 1.0 / (to - from).sqrt();
        after.iter().zip(&before).map(|(after, before)| ((after - before) * scale) as f32).collect()
    }

    /// The motion until `time`.
    fn since_start(&self, time: f64, draw: &dyn Fn(u32) -> Vec<f32>) -> Vec<f64> {
        let time = rounded(time).clamp(self.start, self.end);
        let first = draw(SeedSequence::new(self.seed, None).state());
        let mut motion: Vec<f64> = first.iter().map(|value| f64::from(*value) * self.deviation).collect();
        let mut passed = vec![0.0; motion.len()];
        if motion.is_empty() {
            return passed;
        }
        let (mut start, mut end, mut path, mut depth) = (self.start, self.end, 0u64, 0u64);
        while start < time && time < end {
            let middle = rounded(0.5 * (start + end));
            if middle <= start || middle >= end {
                break;
            }
            let part = (middle - start) / (end - start);
            let deviation = ((middle - start) * (end - middle) / (end - start)).sqrt();
            let noise = draw(SeedSequence::new(self.seed, Some([path, depth])).state());
            let left = |motion: f64, noise: f32| part * motion + deviation * f64::from(noise);
            let is_left = time <= middle;
            for ((motion, passed), noise) in motion.iter_mut().zip(&mut passed).zip(noise) {
                let half = left(*motion, noise);
                if is_left {
                    *motion = half;
                } else {
                    *motion -= half;
                    *passed += half;
                }
            }
            (start, end) = if is_left { (start, middle) } else { (middle, end) };
            (path, depth) = (2 * path + u64::from(!is_left), depth + 1);
        }
        if time >= end {
            passed.iter_mut().zip(&motion).for_each(|(passed, motion)| *passed += motion);
        }
        passed
    }
}

/// To six decimal digits, torchsde's tolerance.
fn rounded(time: f64) -> f64 {
    format!("{time:.6}").parse().unwrap_or(time)
}

/// numpy's `SeedSequence` with a pool of 24 words.
struct SeedSequence([u32; POOL]);

impl SeedSequence {
    /// Of `entropy` and, where there is one, a key of two numbers (`spawn_key`).
    fn new(entropy: u64, key: Option<[u64; 2]>) -> SeedSequence {
        let mut words = words(entropy);
        if let Some(key) = key {
            words.resize(POOL, 0);
            words.extend(key.into_iter().flat_map(self::words));
        }
        words.resize(words.len().max(POOL), 0);
        let mut constant: u32 = 0x43b0_d7e5;
        let mut hashed = |value: u32| {
            let value = value ^ constant;
            constant = constant.wrapping_mul(0x931e_8875);
            folded(value.wrapping_mul(constant))
        };
        let mixed = |x: u32, y: u32| folded(x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715)));
        let mut pool = [0; POOL];
        pool.iter_mut().zip(&words).for_each(|(place, word)| *place = hashed(*word));
        for from in 0..POOL {
            for to in (0..POOL).filter(|to| *to != from) {
                pool[to] = mixed(pool[to], hashed(pool[from]));
            }
        }
        for word in &words[POOL..] {
            for place in &mut pool {
                *place = mixed(*place, hashed(*word));
            }
        }
        SeedSequence(pool)
    }

    /// The first word of `generate_state`.
    fn state(&self) -> u32 {
        const FIRST: u32 = 0x8b51_f9dd;
        folded((self.0[0] ^ FIRST).wrapping_mul(FIRST.wrapping_mul(0x58f3_8ded)))
    }
}

fn folded(value: u32) -> u32 {
    value ^ (value >> 16)
}

/// The number's words, the lowest first; one for 0.
fn words(number: u64) -> Vec<u32> {
    let (low, high) = (number as u32, (number >> 32) as u32);
    if high == 0 { vec![low] } else { vec![low, high] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By numpy.random.SeedSequence(entropy, spawn_key=…, pool_size=24).generate_state(1).
    #[test]
    fn seeds_are_numpys() {
        let state = |entropy, key| SeedSequence::new(entropy, key).state();
        assert_eq!(state(7, None), 1_376_543_887);
        assert_eq!(state(0, None), 4_025_752_534);
        assert_eq!(state(1_099_511_627_781, None), 2_754_131_497);
        assert_eq!(state(7, Some([0, 0])), 261_727_054);
        assert_eq!(state(7, Some([5, 3])), 1_167_487_741);
        assert_eq!(state(9_223_372_036_854_775_808, Some([1_048_577, 21])), 4_282_273_082);
        assert_eq!(state(12_345, Some([8_589_934_599, 34])), 2_486_936_863);
    }

    #[test]
    fn times_are_rounded_as_python_rounds() {
        for (time, wanted) in
            [(14.614_642_143_249_512, 14.614_642), (0.029_167_475_6, 0.029_167), (0.007_812_5, 0.007_812)]
        {
            assert_eq!(rounded(time), wanted);
        }
    }

    /// By torchsde's BrownianInterval(t0=0.029167475, t1=14.614646, entropy=7, tol=1e-6, pool_size=24, halfway_tree=True)
    /// of twenty values, the first three of them.
    #[test]
    fn the_motion_is_torchsdes() {
        let f32_of = |time: f32| f64::from(time);
        let motion = Brownian::new(7, f32_of(0.029_167_475), f32_of(14.614_646));
        let draw = |seed: u32| crate::noise::Noise::new(u64::from(seed)).randn(20);
        for (from, to, wanted) in [
            (0.029_167_475, 0.5, [0.992_476_4, -0.689_477_2, -0.954_456_9]),
            (0.5, 3.25, [0.124_230_61, -1.003_485_1, 0.866_778_7]),
            (3.25, 14.614_646, [-0.053_349_19, 0.000_465_641_8, -1.041_971_8]),
            (1.234_567, 1.9, [0.810_192_8, -1.377_630_4, -0.376_739_7]),
        ] {
            let found = motion.normals(f32_of(from), f32_of(to), &draw);
            let off = found.iter().zip(wanted).map(|(a, b): (&f32, f32)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 2e-6, "{from} to {to}: {:?}, not {wanted:?}", &found[..3]);
        }
    }
}
