//! The command line: commands and options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::byte_size::ByteSize;
use diffused_kernels::pack::Format;

use crate::SourceOptions;

/// Turns Stable Diffusion models into bundles that diffused runs.
#[derive(Debug, Parser)]
#[command(name = "model-prep", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Convert a model to a bundle.
    Convert(Convert),
    /// Show what a model is and what its bundle would hold; or check a bundle and show what it holds.
    Inspect(SourceArgs),
    /// Show how much memory a model would take, without converting it.
    Plan(PlanArguments),
    /// Compare a bundle with its source, tensor by tensor.
    Verify {
        /// The bundle's folder.
        bundle: PathBuf,
        /// The model that it was made from; with the options that it was made with.
        source: PathBuf,
        /// The least signal to noise of a tensor, decibels.
        #[arg(long, value_name = "DB", default_value_t = 30.0)]
        min_snr: f64,
        /// What the source does not say.
        #[command(flatten)]
        options: SourceOptions,
    },
    /// Write a model of true shapes and random weights, to try memory and speed with.
    Synth {
        /// Whose shapes it has.
        #[arg(long, value_enum)]
        arch: ArchArg,
        /// Where the diffusers folder goes.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// Seed of the weights.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// How values are stored.
        #[arg(long, value_enum, value_name = "f16|f32", default_value = "f16", hide_possible_values = true)]
        dtype: DtypeArg,
    },
}

/// A model and how it would be converted.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// A file (.safetensors, .ckpt, .gguf), a diffusers folder, or a hub's cache of one.
    pub source: PathBuf,
    /// How weights are stored.
    #[arg(long, value_enum, value_name = "int8|f16|f32", default_value = "int8", hide_possible_values = true)]
    pub weights: WeightsArg,
    /// What the source does not say.
    #[command(flatten)]
    pub options: SourceOptions,
}

/// `model-prep plan`
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The most memory to use, for example 200M or 1.5G [default: as much as it takes].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Width in pixels [default: the model's own].
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<usize>,
    /// Height in pixels [default: the model's own].
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<usize>,
    /// Guidance scale; above 1 each step computes two batch entries.
    #[arg(long, value_name = "SCALE")]
    pub cfg_scale: Option<f64>,
    /// Sampling steps [default: the model's own].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// The decoder, where the bundle would have both [default: full].
    #[arg(long, value_name = "full|tiny")]
    pub decoder: Option<AutoencoderKind>,
    /// How many times as wide and high the image becomes by the upscaler.
    #[arg(long, value_name = "N")]
    pub upscale: Option<usize>,
    /// Plan for an init image (img2img).
    #[arg(long)]
    pub image_to_image: bool,
    /// Worker threads, 1 to 256 [default: one for each CPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// The model.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `model-prep convert`
#[derive(Debug, Args)]
pub struct Convert {
    /// A file (.safetensors, .ckpt, .gguf), a diffusers folder, or a hub's cache of one.
    pub source: PathBuf,
    /// Where the bundle goes.
    #[arg(short, long, value_name = "BUNDLE")]
    pub output: PathBuf,
    /// The model's name [default: the source's].
    #[arg(long)]
    pub name: Option<String>,
    /// How weights are stored.
    #[arg(long, value_enum, value_name = "int8|f16|f32", default_value = "int8", hide_possible_values = true)]
    pub weights: WeightsArg,
    /// Even channels out by what two small pictures show, painted for it.
    #[arg(long)]
    pub calibrate: bool,
    /// Replace a bundle that is already there, and nothing else.
    #[arg(long)]
    pub force: bool,
    /// What the source does not say.
    #[command(flatten)]
    pub options: SourceOptions,
    /// Steps [default: 20, or what a few-step model needs].
    #[arg(long, value_name = "N", help_heading = "Defaults of requests")]
    pub steps: Option<usize>,
    /// Guidance scale [default: 7.5, or what a few-step model needs].
    #[arg(long, value_name = "SCALE", help_heading = "Defaults of requests")]
    pub cfg_scale: Option<f64>,
}

/// How weights are stored, as the command line names it.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs)] // a comment on a variant would be help
pub enum WeightsArg {
    Int8,
    F16,
    F32,
}

impl WeightsArg {
    /// The format that it names.
    pub fn format(self) -> Format {
        match self {
            WeightsArg::Int8 => Format::Int8,
            WeightsArg::F16 => Format::F16,
            WeightsArg::F32 => Format::F32,
        }
    }
}

/// A model whose shapes `synth` knows, as the command line names it.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs)] // a comment on a variant would be help
pub enum ArchArg {
    Sd15,
    Sd21,
    BkSdmTiny,
    SdTurbo,
    Sdxl,
    SdxlTurbo,
    #[value(name = "ssd-1b")]
    Ssd1b,
    Sdxs,
    Taesd,
    Taesdxl,
    RealesrGeneral,
    RealesrAnime,
}

/// How a synthetic model's values are stored, as the command line names it.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs)] // a comment on a variant would be help
pub enum DtypeArg {
    F16,
    F32,
}
