//! The noise that a seed stands for, as torch's CPU generator draws it.
//!
//! People share seeds: the same seed must give the image that diffusers would give. So this is torch's generator, draw for
//! draw: MT19937 (Matsumoto & Nishimura 1998) and the two ways in which `torch.randn` makes normals of it (Box & Muller
//! 1958). torch computes in f32 with its SIMD library; here it is f64 through `libm`, rounded once, so that every CPU
//! paints the same bits, within 2e-6 of torch's.

use std::f64::consts::TAU;

/// Words of the Mersenne twister's state.
const STATE: usize = 624;
/// How far ahead the recurrence looks.
const SHIFT: usize = 397;
/// Values that `torch.randn` transforms together; shorter tensors take another way.
const BLOCK: usize = 16;

/// Words of a generator's state.
pub(crate) const WORDS: usize = STATE + 4;

/// A generator of normal noise: `torch.Generator("cpu")`.
#[derive(Debug, Clone, PartialEq)]
pub struct Noise {
    twister: Twister,
    /// The second normal of the last scalar pair, if it was not drawn yet.
    spare: Option<f64>,
}

impl Noise {
    /// The generator after `manual_seed(seed)`. As in torch, only the lower 32 bits of the seed count.
    pub fn new(seed: u64) -> Noise {
        Noise { twister: Twister::new(seed as u32), spare: None }
    }

    /// `torch.randn(len, generator=self)`: `len` values of mean 0 and deviation 1.
    pub fn randn(&mut self, len: usize) -> Vec<f32> {
        if len < BLOCK {
            return (0..len).map(|_| self.scalar() as f32).collect();
        }
        let mut values: Vec<f32> = (0..len).map(|_| self.twister.uniform_f32()).collect();
        values.chunks_exact_mut(BLOCK).for_each(box_muller);
        if !len.is_multiple_of(BLOCK) {
            let last = &mut values[len - BLOCK..];
            last.fill_with(|| self.twister.uniform_f32());
            box_muller(last);
        }
        values
    }

    /// The generator's state, from which `from_words` goes on.
    pub(crate) fn to_words(&self) -> [u32; WORDS] {
        let spare = self.spare.unwrap_or_default().to_bits();
        let rest = [self.twister.next as u32, u32::from(self.spare.is_some()), spare as u32, (spare >> 32) as u32];
        let mut words = self.twister.state.iter().chain(&rest);
        std::array::from_fn(|_| words.next().copied().unwrap_or_default())
    }

    /// The generator in a state that `to_words` gave; `None` where it never has this one.
    pub(crate) fn from_words(words: &[u32; WORDS]) -> Option<Noise> {
        let (state, &[next, has_spare, low, high]) = words.split_first_chunk::<STATE>()? else { return None };
        let spare = f64::from_bits(u64::from(high) << 32 | u64::from(low));
        let next = next as usize;
        let known = next <= STATE && has_spare <= 1 && spare.is_finite();
        known.then(|| Noise {
            twister: Twister { state: Box::new(*state), next },
            spare: (has_spare == 1).then_some(spare),
        })
    }

    /// One normal, from a pair that is made of two 53-bit uniforms.
    fn scalar(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.twister.uniform_f64(), self.twister.uniform_f64());
        let radius = libm::sqrt(-2.0 * libm::log1p(-u2));
        self.spare = Some(radius * libm::sin(TAU * u1));
        radius * libm::cos(TAU * u1)
    }
}

/// Turns 16 uniforms into 16 normals: each of the first eight with the value eight further on.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - f64::from(*a)));
        let theta = TAU * f64::from(*b);
        (*a, *b) = ((radius * libm::cos(theta)) as f32, (radius * libm::sin(theta)) as f32);
    }
}

/// MT19937.
#[derive(Debug, Clone, PartialEq)]
struct Twister {
    state: Box<[u32; STATE]>,
    next: usize,
}

impl Twister {
    fn new(seed: u32) -> Twister {
        let mut state = Box::new([seed; STATE]);
        for i in 1..STATE {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Twister { state, next: STATE }
    }

    /// The next 32 bits.
    fn random(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Renews the whole state.
    fn twist(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7fff_ffff);
            let mixed = (y >> 1) ^ if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % STATE] ^ mixed;
        }
        self.next = 0;
    }

    /// 24 bits in [0, 1).
    fn uniform_f32(&mut self) -> f32 {
        const BITS: u32 = 24;
        (self.random() & ((1 << BITS) - 1)) as f32 / (1 << BITS) as f32
    }

    /// 53 bits in [0, 1); the first draw is the upper half.
    fn uniform_f64(&mut self) -> f64 {
        const BITS: u32 = 53;
        let bits = u64::from(self.random()) << 32 | u64::from(self.random());
        (bits & ((1 << BITS) - 1)) as f64 / (1u64 << BITS) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference output of MT19937 for seed 5489: the 10000th draw (C++ standard, [rand.predef]).
    #[test]
    fn the_twister_passes_the_standards_check() {
        let mut twister = Twister::new(5489);
        let last = (0..10_000).map(|_| twister.random()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn only_the_lower_half_of_the_seed_counts() {
        assert_eq!(Noise::new(7).randn(20), Noise::new((1 << 40) + 7).randn(20));
        assert_ne!(Noise::new(7).randn(20), Noise::new(8).randn(20));
    }

    #[test]
    fn a_generator_goes_on_from_its_words() {
        for drawn in [0, 3, 20, 625] {
            let mut noise = Noise::new(7);
            noise.randn(drawn);
            let mut other = Noise::from_words(&noise.to_words()).unwrap();
            assert_eq!((&other, other.clone().randn(7)), (&noise, noise.clone().randn(7)));
            assert_eq!(other.randn(700), noise.randn(700));
        }
    }
}
