//! Bounds of the predicted image. Pixels have such bounds and latents have not, yet scheduler files of latent models ask for
//! them and the reference obeys.

use serde::{Deserialize, Serialize};

use super::method::Mix;

/// What bounds the predicted image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Clipping {
    /// Values are cut to -range..=range (`clip_sample` and `clip_sample_range`).
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022, <https://arxiv.org/abs/2205.11487>, section 2.3; `thresholding`): values
    /// are cut to a bound that follows from a quantile of their magnitudes, and divided by it.
    Quantile {
        /// Which quantile, 0 to 1 (`dynamic_thresholding_ratio`).
        ratio: f64,
        /// The bound is the quantile, but at least 1, and then at most this (`sample_max_value`).
        largest: f64,
    },
}

impl Clipping {
    /// The bounded image, from the factors of latents and the UNet's output that make the image.
    pub(super) fn image(self, image: Mix, latents: &[f32], output: &[f32]) -> Vec<f32> {
        let mut values = image.of(latents, output);
        let (bound, divisor) = match self {
            Clipping::Range(range) => (range as f32, 1.0),
            Clipping::Quantile { ratio, largest } => {
                let bound = quantile(&values, ratio as f32).max(1.0).min(largest as f32);
                (bound, bound)
            }
        };
        values.iter_mut().for_each(|value| *value = value.clamp(-bound, bound) / divisor);
        values
    }

    /// What makes no sense of it.
    pub(super) fn check(self) -> Result<(), String> {
        match self {
            Clipping::Range(range) if !(range > 0.0 && range.is_finite()) => {
                Err(format!("sampling.options.clipping.range is {range}; allowed are numbers above 0"))
            }
            Clipping::Quantile { ratio, .. } if !(0.0..=1.0).contains(&ratio) => {
                Err(format!("sampling.options.clipping.quantile.ratio is {ratio}; allowed is 0 to 1"))
            }
            Clipping::Quantile { largest, .. } if !(largest > 0.0 && largest.is_finite()) => {
                Err(format!("sampling.options.clipping.quantile.largest is {largest}; allowed are numbers above 0"))
            }
            _ => Ok(()),
        }
    }
}

/// The quantile of magnitudes, between two of them linearly, in f32 as `torch.quantile` has it.
fn quantile(values: &[f32], ratio: f32) -> f32 {
    let mut magnitudes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
    magnitudes.sort_unstable_by(f32::total_cmp);
    let last = magnitudes.len().saturating_sub(1);
    let rank = ratio * last as f32;
    let below = (rank as usize).min(last);
    let (low, high) = (magnitudes[below], magnitudes[(below + 1).min(last)]);
    let weight = rank - below as f32;
    if weight < 0.5 { low + weight * (high - low) } else { high - (high - low) * (1.0 - weight) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_magnitudes_next_to_them() {
        let values = [-4.0, 0.0, 1.0, -2.0, 3.0];
        for (ratio, wanted) in [(0.0, 0.0), (0.25, 1.0), (0.375, 1.5), (0.9, 3.6), (1.0, 4.0)] {
            assert!((quantile(&values, ratio) - wanted).abs() < 1e-6, "{ratio}");
        }
        assert_eq!(quantile(&[-7.0], 0.5), 7.0);
    }

    #[test]
    fn an_image_is_cut_and_divided_by_its_bound() {
        let of = |clipping: Clipping, values: &[f32]| clipping.image(Mix(1.0, 0.0), values, &vec![0.0; values.len()]);
        let values = [-4.0, 0.5, 2.0];
        assert_eq!(of(Clipping::Range(1.5), &values), [-1.5, 0.5, 1.5]);
        let quantile = |ratio, largest| of(Clipping::Quantile { ratio, largest }, &values);
        assert_eq!(quantile(0.5, 10.0), [-1.0, 0.25, 1.0]);
        assert_eq!(quantile(1.0, 2.5), [-1.0, 0.2, 0.8]);
        assert_eq!(quantile(0.0, 10.0), [-1.0, 0.5, 1.0]);
    }
}
