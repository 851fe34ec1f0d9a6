//! Latents: the small picture that the UNet works on.

/// Latents of one picture, pixel by pixel. (torch's lie channel by channel; `Noise::randn_nhwc` draws in its order.)
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
    /// The shape of `batch` such latents.
    pub(crate) fn shape(&self, batch: usize) -> Vec<usize> {
        vec![batch, self.height, self.width, self.channels]
    }
}
