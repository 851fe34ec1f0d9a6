//! The operators of a bundle's graphs: the contract between model-prep, which writes them, and the engine, which runs
//! them.
//!
//! A graph is ONNX; a node's `op_type` is the variant's name here and its attributes are the variant's fields
//! (integers and booleans as INT, floats as FLOAT, names as STRING). Weights are named, never inline: a name is a key
//! of the network's `.weights` file. Activations are token-major f32: `[batch, tokens, channels]` for text and
//! transformer blocks, `[batch, height, width, channels]` for images. Where `quantize` is set an operator has two
//! outputs instead of one: `q` (i8, the same shape) and `scale` (f32, the shape without the channels), one scale per
//! row or pixel; these are what a matrix in int8 takes as its first two inputs. A matrix in f16 or f32 takes one f32
//! input.
//!
//! What is not here is standard ONNX: `Concat` along the last axis, and `Cast` between f32 and f16.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

/// What is applied to a linear layer's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Nothing.
    None,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` with the error function (torch's default GELU).
    Gelu,
    /// `x · sigmoid(1.702 x)` (CLIP).
    QuickGelu,
    /// `value · gelu(gate)`: the matrix holds panels of 16 values and 16 gates by turns; the result has half its
    /// outputs.
    Geglu,
}

/// How a convolution pads with zeros. A 1×1 convolution never pads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// One pixel on every side.
    Same,
    /// One pixel to the right and below (the VAE encoder's downsampling).
    End,
}

/// One operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Layer {
    /// Token ids (i64 `[batch, tokens]`) to `[batch, tokens, channels]`: a row of `tokens` plus a row of `positions`.
    Embedding {
        /// The table `[vocabulary, channels]`.
        tokens: String,
        /// The table `[positions, channels]`.
        positions: String,
    },
    /// A timestep (f32 `[1]`) to its sinusoidal embedding `[1, channels]` (diffusers' `get_timestep_embedding`); of `n`
    /// numbers `[n]` or `[batch, n]` the embeddings side by side, `[1, n·channels]` or `[batch, n·channels]`.
    /// Also takes LCM's guidance-scale embedding, which is the same function of `(scale - 1) · 1000`.
    TimeEmbedding {
        /// Width of the embedding.
        channels: usize,
        /// Cosines first.
        #[serde(deserialize_with = "flag")]
        flip_sin_to_cos: bool,
        /// diffusers' `downscale_freq_shift`.
        freq_shift: f32,
    },
    /// `silu(a + b)`. Inputs: `a` (f32 `[1, channels]`, added to every row) and `b` (f32 `[batch, channels]`).
    AddSilu {},
    /// `act(x · Wᵀ + b) [+ residual]`. Inputs: `x` (or `q, scale`), then the residual if there is one (f32, the
    /// output's shape).
    Linear {
        /// The matrix.
        weight: String,
        /// Outputs (after GEGLU's halving).
        features: usize,
        /// Applied before the residual is added.
        activation: Activation,
        /// The last input is added to the result.
        #[serde(deserialize_with = "flag")]
        residual: bool,
        /// Two outputs, `q` and `scale`.
        #[serde(deserialize_with = "flag")]
        quantize: bool,
    },
    /// Convolution over pixels. Inputs: `x` (or `q, scale`), then `time` (f32 `[1, features]`, added to every pixel, or
    /// `[batch, features]`, to those of each image its own) if there is one, then the residual (f32, the output's
    /// shape) or the image that gives the size, if there is one.
    Conv2d {
        /// The matrix: 9 taps for a 3×3 kernel, 1 for 1×1; or in phases (`diffused_kernels::pack`) where a 3×3 kernel
        /// with a stride of 1 and a pixel of padding on every side slides over an input that is doubled.
        weight: String,
        /// Output channels.
        features: usize,
        /// 1 or 3.
        kernel: usize,
        /// 1 or 2.
        stride: usize,
        /// Ignored by a 1×1 kernel.
        padding: Padding,
        /// The input is first enlarged, nearest neighbour: to twice its height and width, or as `size` says.
        #[serde(deserialize_with = "flag")]
        upsample: bool,
        /// The last input is an image of which only the shape is read: the input is enlarged to its height and width,
        /// each twice the input's or one less or more. Not together with a residual.
        #[serde(deserialize_with = "flag")]
        size: bool,
        /// There is a `time` input.
        #[serde(deserialize_with = "flag")]
        time: bool,
        /// The last input is added to the result.
        #[serde(deserialize_with = "flag")]
        residual: bool,
        /// Not 0: the result is rounded to half precision in units of this power of two, so that it may be kept in f16
        /// until it is used. f16 ends at 65504: in units of 256, at 16 million.
        half: usize,
        /// What is negative in the result, with the residual, becomes 0. An attribute only where it is set.
        #[serde(default, deserialize_with = "flag", skip_serializing_if = "is_unset")]
        relu: bool,
        /// What is negative in the result, with the residual, is multiplied by its feature's slope (PReLU): the table
        /// `[1, features]`. Not together with `relu`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slopes: Option<String>,
    },
    /// Group normalisation over `[batch, height, width, channels]`, then scale and shift, then SiLU if set.
    GroupNorm {
        /// `gamma` then `beta`: the table `[2, channels]`.
        weight: String,
        /// Groups; divides the channels.
        groups: usize,
        /// Added to the variance.
        eps: f32,
        /// SiLU afterwards.
        #[serde(deserialize_with = "flag")]
        silu: bool,
        /// Two outputs, `q` and `scale`.
        #[serde(deserialize_with = "flag")]
        quantize: bool,
    },
    /// Layer normalisation over the last axis, then scale and shift.
    LayerNorm {
        /// `gamma` then `beta`: the table `[2, channels]`.
        weight: String,
        /// Added to the variance.
        eps: f32,
        /// Two outputs, `q` and `scale`.
        #[serde(deserialize_with = "flag")]
        quantize: bool,
    },
    /// `softmax(q kᵀ / √d) v` per head. Inputs: `q [batch, n, heads·d]`, `k` and `v [batch, m, heads·d]` (or images
    /// `[batch, height, width, heads·d]`, whose pixels are the tokens). Output: the shape of `q`.
    Attention {
        /// Heads.
        heads: usize,
        /// A token sees itself and those before it.
        #[serde(deserialize_with = "flag")]
        causal: bool,
        /// Both products are in int8.
        #[serde(deserialize_with = "flag")]
        int8: bool,
        /// Keys and values come from a text: they are few, and the first may have most of the weight. In int8 alone.
        #[serde(default, deserialize_with = "flag", skip_serializing_if = "is_unset")]
        cross: bool,
        /// Two outputs, `q` and `scale`.
        #[serde(deserialize_with = "flag")]
        quantize: bool,
    },
    /// `x · factor + offset`, in place where nothing else reads `x`.
    Affine {
        /// Multiplied first.
        factor: f32,
        /// Added then.
        offset: f32,
    },
    /// `limit · tanh(x / limit)`, in place where nothing else reads `x`: nearly `x` where that is small, and never
    /// beyond `limit`.
    SoftClamp {
        /// The largest result.
        limit: f32,
    },
    /// One int8 scale per row: `scale = max|x| / 127`, `q = round-half-even(x / scale)`. Outputs `q` and `scale`.
    Quantize {},
}

/// The largest size that an operator may have: channels, outputs, heads or groups.
const MAX_SIZE: usize = 1 << 20;
/// The largest unit of results in half precision.
const MAX_HALF_UNIT: usize = 1 << 16;

/// The unit in which a convolution's results are rounded to half precision, of its field `half`.
pub(crate) fn half_unit(half: usize) -> Option<f32> {
    (half > 0).then_some(half as f32)
}

/// A boolean, for which ONNX has only integers.
fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match i64::deserialize(from)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(D::Error::invalid_value(Unexpected::Signed(other), &"0 or 1")),
    }
}

/// Whether an optional flag needs no attribute.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_unset(flag: &bool) -> bool {
    !flag
}

impl Layer {
    /// The operators' names, as `op_type` has them.
    pub const NAMES: [&'static str; 11] = [
        "Embedding",
        "TimeEmbedding",
        "AddSilu",
        "Linear",
        "Conv2d",
        "GroupNorm",
        "LayerNorm",
        "Attention",
        "Affine",
        "SoftClamp",
        "Quantize",
    ];

    /// Its `op_type`.
    pub fn name(&self) -> &'static str {
        match self {
            Layer::Embedding { .. } => "Embedding",
            Layer::TimeEmbedding { .. } => "TimeEmbedding",
            Layer::AddSilu {} => "AddSilu",
            Layer::Linear { .. } => "Linear",
            Layer::Conv2d { .. } => "Conv2d",
            Layer::GroupNorm { .. } => "GroupNorm",
            Layer::LayerNorm { .. } => "LayerNorm",
            Layer::Attention { .. } => "Attention",
            Layer::Affine { .. } => "Affine",
            Layer::SoftClamp { .. } => "SoftClamp",
            Layer::Quantize {} => "Quantize",
        }
    }

    /// Checks the fields for themselves; whether they fit inputs and weights is found when shapes are inferred.
    ///
    /// # Errors
    ///
    /// The first field that no model has, with its value and what is allowed.
    pub(crate) fn check(&self) -> Result<(), String> {
        let size = |name: &str, value: usize| match (1..=MAX_SIZE).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is {value}; allowed is 1 to {MAX_SIZE}")),
        };
        let one_of = |name: &str, value: usize, allowed: [usize; 2]| match allowed.contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is {value}; allowed are {} and {}", allowed[0], allowed[1])),
        };
        let variance = |eps: f32| match eps > 0.0 && eps < 1.0 {
            true => Ok(()),
            false => Err(format!("eps is {eps}; allowed is more than 0 and less than 1")),
        };
        match *self {
            Layer::TimeEmbedding { channels, freq_shift, .. } => {
                size("channels", channels)?;
                match freq_shift.abs() <= 1.0 {
                    true => Ok(()),
                    false => Err(format!("freq_shift is {freq_shift}; allowed is -1 to 1")),
                }
            }
            Layer::Linear { features, .. } => size("features", features),
            Layer::Conv2d { features, kernel, stride, half, relu, ref slopes, .. } => {
                size("features", features)?;
                if half > MAX_HALF_UNIT || !(half == 0 || half.is_power_of_two()) {
                    return Err(format!("half is {half}; allowed are 0 and powers of two up to {MAX_HALF_UNIT}"));
                }
                if relu && slopes.is_some() {
                    return Err("relu and slopes exclude each other".into());
                }
                one_of("kernel", kernel, [1, 3])?;
                one_of("stride", stride, [1, 2])
            }
            Layer::GroupNorm { groups, eps, .. } => size("groups", groups).and(variance(eps)),
            Layer::LayerNorm { eps, .. } => variance(eps),
            Layer::Attention { heads, .. } => size("heads", heads),
            Layer::SoftClamp { limit } => match limit > 0.0 && limit.is_finite() {
                true => Ok(()),
                false => Err(format!("limit is {limit}; allowed is more than 0")),
            },
            Layer::Embedding { .. } | Layer::AddSilu {} | Layer::Affine { .. } | Layer::Quantize {} => Ok(()),
        }
    }

    /// It has two outputs, `q` and `scale`.
    pub fn quantizes(&self) -> bool {
        match self {
            Layer::Linear { quantize, .. }
            | Layer::GroupNorm { quantize, .. }
            | Layer::LayerNorm { quantize, .. }
            | Layer::Attention { quantize, .. } => *quantize,
            Layer::Quantize {} => true,
            Layer::Embedding { .. }
            | Layer::TimeEmbedding { .. }
            | Layer::AddSilu {}
            | Layer::Conv2d { .. }
            | Layer::Affine { .. }
            | Layer::SoftClamp { .. } => false,
        }
    }

    /// The names of the weights that this operator reads, in the order in which it reads them.
    pub fn weights(&self) -> Vec<&str> {
        match self {
            Layer::Embedding { tokens, positions } => vec![tokens, positions],
            Layer::Conv2d { weight, slopes, .. } => std::iter::once(weight).chain(slopes).map(String::as_str).collect(),
            Layer::Linear { weight, .. } | Layer::GroupNorm { weight, .. } | Layer::LayerNorm { weight, .. } => {
                vec![weight]
            }
            Layer::TimeEmbedding { .. }
            | Layer::AddSilu {}
            | Layer::Attention { .. }
            | Layer::Affine { .. }
            | Layer::SoftClamp { .. }
            | Layer::Quantize {} => vec![],
        }
    }
}
