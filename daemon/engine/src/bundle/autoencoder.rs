//! Which of a model's two autoencoders.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An autoencoder of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoencoderKind {
    /// The one that the model was trained with (AutoencoderKL).
    #[default]
    Full,
    /// One that was trained to give nearly the same in a fraction of the time (TAESD, AutoencoderTiny).
    Tiny,
}

impl AutoencoderKind {
    /// Both, the default first.
    pub const ALL: [AutoencoderKind; 2] = [AutoencoderKind::Full, AutoencoderKind::Tiny];

    /// As requests and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            AutoencoderKind::Full => "full",
            AutoencoderKind::Tiny => "tiny",
        }
    }

    /// The name of its decoder, one of `NETWORKS`.
    pub fn decoder(self) -> &'static str {
        match self {
            AutoencoderKind::Full => "vae_decoder",
            AutoencoderKind::Tiny => "tiny_decoder",
        }
    }

    /// The name of its encoder, one of `NETWORKS`.
    pub fn encoder(self) -> &'static str {
        match self {
            AutoencoderKind::Full => "vae_encoder",
            AutoencoderKind::Tiny => "tiny_encoder",
        }
    }
}

impl fmt::Display for AutoencoderKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AutoencoderKind {
    type Err = String;

    fn from_str(name: &str) -> Result<AutoencoderKind, String> {
        let found = AutoencoderKind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("`{name}` is unknown; known are full and tiny"))
    }
}
