//! Latents made larger, as `torch.nn.functional.interpolate` does it in each of its modes, without aligned corners.

use super::HiresUpscaler;
use crate::latents::Latents;

/// The values that a value of the result is made of along an axis: their indices, and how much of each.
type LatentTaps = Vec<(usize, f32)>;

/// `latents` scaled to `height` × `width`, neither smaller than it is. An upscaler of pixels is taken as `Latent`.
pub(crate) fn resize(latents: &Latents, height: usize, width: usize, upscaler: HiresUpscaler) -> Latents {
    let channels = latents.channels;
    let (rows, columns) = (taps(latents.height, height, upscaler), taps(latents.width, width, upscaler));
    let row = latents.width * channels;
    let mut tall = vec![0.0; height * row];
    for (out, taps) in tall.chunks_exact_mut(row).zip(&rows) {
        for &(from, part) in taps {
            add(out, &latents.values[from * row..][..row], part);
        }
    }
    let mut values = vec![0.0; height * width * channels];
    for (out, tall) in values.chunks_exact_mut(width * channels).zip(tall.chunks_exact(row)) {
        for (out, taps) in out.chunks_exact_mut(channels).zip(&columns) {
            for &(from, part) in taps {
                add(out, &tall[from * channels..][..channels], part);
            }
        }
    }
    Latents { height, width, channels, values }
}

fn add(out: &mut [f32], values: &[f32], part: f32) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out += part * value);
}

/// The taps of each of `to` values that are made of `from`.
fn taps(from: usize, to: usize, upscaler: HiresUpscaler) -> Vec<LatentTaps> {
    let scale = from as f64 / to as f64;
    // The place of a value's middle, where 0 is the middle of the first value that it is made of.
    let middle = |at: usize| (at as f64 + 0.5) * scale - 0.5;
    let within = |at: f64| at.clamp(0.0, (from - 1) as f64) as usize;
    // torch finds the nearest value in f32.
    let nearest = |at: f32| within(f64::from(at * (from as f32 / to as f32)));
    let tap = |at: usize| match upscaler {
        HiresUpscaler::LatentNearest => vec![(nearest(at as f32), 1.0)],
        HiresUpscaler::LatentNearestExact => vec![(nearest(at as f32 + 0.5), 1.0)],
        HiresUpscaler::LatentBicubic => {
            around(middle(at), 2).map(|(at, distance)| (within(at), cubic(distance, -0.75) as f32)).collect()
        }
        // Where values become more, torch's antialiasing leaves the kernel as wide as it is. What lies outside the image has
        // no part, and the cubic kernel is Catmull and Rom's.
        HiresUpscaler::LatentBicubicAntialiased => {
            let inside = around(middle(at), 2).filter(|(at, _)| (0.0..from as f64).contains(at));
            let inside: Vec<(f64, f64)> = inside.map(|(at, distance)| (at, cubic(distance, -0.5))).collect();
            let sum: f64 = inside.iter().map(|(_, part)| part).sum();
            inside.into_iter().map(|(at, part)| (within(at), (part / sum) as f32)).collect()
        }
        HiresUpscaler::Latent | HiresUpscaler::LatentAntialiased | HiresUpscaler::Lanczos | HiresUpscaler::Model => {
            around(middle(at), 1).map(|(at, distance)| (within(at), (1.0 - distance) as f32)).collect()
        }
    };
    (0..to).map(tap).collect()
}

/// The whole numbers less than `reach` from `place`, with their distances; some may lie outside the image.
fn around(place: f64, reach: i32) -> impl Iterator<Item = (f64, f64)> {
    let first = libm::floor(place);
    (1 - reach..=reach).map(move |step| {
        let at = first + f64::from(step);
        (at, (at - place).abs())
    })
}

/// Keys' cubic convolution kernel (1981) with the parameter `a`, at a distance of at most 2.
fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 { ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0 } else { (((x - 5.0) * x + 8.0) * x - 4.0) * a }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latents in rows of pixels, and torch's of each mode.
    #[derive(serde::Deserialize)]
    struct ScaledLatents {
        height: usize,
        width: usize,
        channels: usize,
        values: Vec<f32>,
        cases: Vec<ScaledCase>,
    }

    #[derive(serde::Deserialize)]
    struct ScaledCase {
        upscaler: HiresUpscaler,
        height: usize,
        width: usize,
        values: Vec<f32>,
    }

    #[test]
    fn every_mode_is_torchs() {
        let golden = include_str!("../../../../tests/goldens/hires_latents.json");
        let ScaledLatents { height, width, channels, values, cases } = serde_json::from_str(golden).unwrap();
        let latents = Latents { height, width, channels, values };
        assert_eq!(cases.len(), 3 * HiresUpscaler::NAMES.iter().filter(|(kind, _)| !kind.scales_pixels()).count());
        for ScaledCase { upscaler, height, width, values } in cases {
            let ours = resize(&latents, height, width, upscaler);
            let most = ours.values.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(ours.values.len() == values.len() && most < 2e-6, "{upscaler}, {height} x {width}: {most}");
        }
    }

    #[test]
    fn every_kernel_keeps_an_even_image() {
        let even = Latents { height: 3, width: 5, channels: 2, values: [1.5, -2.0].repeat(15) };
        for (upscaler, name) in HiresUpscaler::NAMES {
            let large = resize(&even, 7, 11, upscaler);
            let deviation = |(value, wanted): (&f32, &f32)| (value - wanted).abs();
            let most = large.values.iter().zip([1.5, -2.0].iter().cycle()).map(deviation).fold(0.0, f32::max);
            assert!(large.values.len() == 7 * 11 * 2 && most < 1e-6, "{name}: {most}");
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let latents = Latents { height: 2, width: 2, channels: 1, values: vec![1.0, -2.0, 3.0, 4.0] };
        for (upscaler, name) in HiresUpscaler::NAMES {
            assert_eq!(resize(&latents, 2, 2, upscaler), latents, "{name}");
        }
    }
}
