//! Which family a model is of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Stable Diffusion 1 and its like, with OpenAI's text encoder.
    Sd1,
    /// Stable Diffusion 2 and its like, with OpenCLIP's text encoder.
    Sd2,
    /// Stable Diffusion XL and its like, with both text encoders.
    Sdxl,
}

impl Family {
    /// Its name in the manifest: `sd1`, `sd2`, `sdxl`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Sd1 => "sd1",
            Family::Sd2 => "sd2",
            Family::Sdxl => "sdxl",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
