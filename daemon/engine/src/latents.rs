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

    /// What is in the middle, `height` × `width` of them.
    pub(crate) fn middle(self, height: usize, width: usize) -> Latents {
        if (self.height, self.width) == (height, width) {
            return self;
        }
        let (top, left, channels) = ((self.height - height) / 2, (self.width - width) / 2, self.channels);
        let rows = self.values.chunks_exact(self.width * channels).skip(top).take(height);
        let values = rows.flat_map(|row| &row[left * channels..][..width * channels]).copied().collect();
        Latents { height, width, channels, values }
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
    fn the_middle_leaves_as_much_on_both_sides() {
        let latents = Latents { height: 3, width: 4, channels: 1, values: (0..12).map(|n| n as f32).collect() };
        assert_eq!(latents.clone().middle(1, 2).values, [5.0, 6.0]);
        assert_eq!(latents.clone().middle(3, 4), latents);
    }

    #[test]
    fn planes_become_pixels() {
        let latents = Latents::from_planes(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], 1, 3, 2);
        assert_eq!(latents.values, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
    }
}
