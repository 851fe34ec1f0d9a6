//! The command line's commands and flags.

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use diffused_engine::sampler::SamplerKind;

use crate::config::Size;
use crate::fault::Fault;
use crate::random;

/// Prints a line. Where the reader has left, as `head` does, the work goes on without one.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Pictures from prompts, on this machine's processor and in little memory.
#[derive(Debug, Parser)]
#[command(name = "diffused", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take prompts from an MQTT broker, until stopped
    Run(ConfigFile),
    /// Check a configuration and the model it names, and do nothing else
    Check(ConfigFile),
    /// Show what was found on this machine: processor, memory, configuration, model
    Doctor(ConfigFile),
    /// Paint one picture
    Generate(Generate),
    /// Show what a picture would take of the memory
    Plan(Plan),
    /// Show the whole way from an MQTT prompt to a picture, with a broker of its own
    #[cfg(feature = "demo")]
    Demo(Demo),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration; without one, /etc/diffused/config.toml if it is there, else all defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `diffused generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// What to paint
    pub prompt: String,
    /// What to avoid
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub negative_prompt: String,
    /// The noise's seed: the same seed paints the same picture; a random one if not given or -1
    #[arg(long, allow_negative_numbers = true, value_parser = seed)]
    pub seed: Option<u64>,
    /// Where to write the picture: a .png or .jpg file; named after the prompt if not given
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Sampling steps
    #[arg(long)]
    pub steps: Option<usize>,
    /// Guidance scale: how closely the prompt is followed; 1 turns guidance off
    #[arg(long, value_name = "SCALE")]
    pub cfg_scale: Option<f64>,
    /// ddim, pndm, euler, euler_ancestral, dpmpp_2m, dpmpp_2m_karras or lcm
    #[arg(long, value_name = "NAME", value_parser = sampler)]
    pub sampler: Option<SamplerKind>,
    /// Width in pixels, a multiple of 8
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<usize>,
    /// Height in pixels, a multiple of 8
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<usize>,
    /// Start from this picture
    #[arg(long, value_name = "FILE")]
    pub init_image: Option<PathBuf>,
    /// How much of the init image is repainted, 0 to 1
    #[arg(long, requires = "init_image")]
    pub strength: Option<f64>,
    /// The model's bundle; the demo model if not given
    #[arg(long, value_name = "FOLDER")]
    pub model: Option<PathBuf>,
    /// Worker threads; one for each processor if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// The most memory to use, as in 200M
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Tell the progress and the result as lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// `diffused plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// Width in pixels; the model's own if not given
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<usize>,
    /// Height in pixels; the model's own if not given
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<usize>,
    /// Guidance scale: above 1 each step works on two pictures at once
    #[arg(long, value_name = "SCALE")]
    pub cfg_scale: Option<f64>,
    /// Plan for painting from a picture
    #[arg(long)]
    pub image_to_image: bool,
    /// The model's bundle; the demo model if not given
    #[arg(long, value_name = "FOLDER")]
    pub model: Option<PathBuf>,
    /// Worker threads; one for each processor if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// The most memory to use, as in 200M; what the machine or its control group has free if not given
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `diffused demo`
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub struct Demo {
    /// What to paint; without it, an example is painted and the words that the demo model knows are listed
    pub prompt: Option<String>,
    /// The noise's seed; a random one if not given or -1
    #[arg(long, allow_negative_numbers = true, value_parser = seed)]
    pub seed: Option<u64>,
    /// Where to write the picture; named after the prompt if not given
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A sampler's name; clap adds the flag to the message.
fn sampler(text: &str) -> Result<SamplerKind, String> {
    text.parse().map_err(|error| Fault::from(error).message)
}

/// A seed, where -1 stands for a random one, as in requests.
fn seed(text: &str) -> Result<u64, String> {
    if text == "-1" {
        return Ok(random::seed());
    }
    text.parse().map_err(|_| "a seed is a whole number from 0, or -1 for a random one".into())
}
