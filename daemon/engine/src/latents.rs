//! Latents: the small image that the UNet works on.

use crate::noise::Noise;

/// Latents of one image, pixel by pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// `[height][width][channels]`.
    pub values: Vec<f32>,
}

impl Latents {
    /// From values that lie channel by channel, as torch has them.
    pub fn from_planes(planes: &[f32], height: usize, width: usize, channels: usize) -> Latents {
        let pixels = height * width;
        let values = (0..pixels).flat_map(|pixel| (0..channels).map(move |c| planes[c * pixels + pixel])).collect();
        Latents { height, width, channels, values }
    }

    /// `torch.randn(1, channels, height, width)`.
    pub fn noise(noise: &mut Noise, (height, width, channels): (usize, usize, usize)) -> Latents {
        Latents::from_planes(&noise.randn(height * width * channels), height, width, channels)
    }

    /// The shape of `batch` such latents.
    pub(crate) fn shape(&self, batch: usize) -> Vec<usize> {
        vec![batch, self.height, self.width, self.channels]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let latents = Latents::from_planes(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], 1, 3, 2);
        assert_eq!(latents.values, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
    }
}
