//! The command line: commands and options.

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::hires::{HiresRequest, HiresUpscaler};
use diffused_engine::picture::{Colour, Fit};
use diffused_engine::prompt::PromptSyntax;
use diffused_engine::sampler::{NoiseSchedule, SamplerChoice};

use crate::config::ByteSize;
use crate::contract::fault::Fault;
use crate::contract::request::FileFormat;
use crate::display::spec::OutputRequest;
use crate::random;
pub use client::{CancelArgs, DeviceArgs, HttpArgs, MoveArgs, SubmitArgs, WatchArgs};
pub use mask::MaskArgs;

mod client;
mod mask;

/// Prints a line to stdout. Write errors are ignored: a reader that closes the pipe, as `head` does, must not end the
/// work.
pub fn print_line(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Images from prompts, on this machine's processor and in little memory.
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
    /// Serve requests from an MQTT broker until stopped
    Run(ConfigFile),
    /// Check a configuration and its model, as `run` does before it connects
    Check(ConfigFile),
    /// Look for what hinders the service: board, configuration, model, disk, broker
    Doctor(DoctorArgs),
    /// Measure how fast this board is, and what a picture takes
    Bench(BenchArgs),
    /// Paint one image
    Generate(Box<GenerateArgs>),
    /// Show how much memory an image needs
    Plan(PlanArgs),
    /// Send a prompt to a device over MQTT, and wait for the image
    Submit(Box<SubmitArgs>),
    /// Follow the jobs of a device
    Watch(WatchArgs),
    /// Cancel jobs of a device
    Cancel(CancelArgs),
    /// Give a job that waits another place in the queue
    Move(MoveArgs),
    /// Show the jobs of a device
    List(DeviceArgs),
    /// Start no further job on a device
    Pause(DeviceArgs),
    /// Go on after a pause
    Resume(DeviceArgs),
    /// Show how a device is
    Status(DeviceArgs),
    /// Write the page in the browser, for a broker or a web server to serve
    Page(PageArgs),
    /// Answer A1111's web API for a device, so that programs made for it paint there
    Http(HttpArgs),
    /// Show the whole way from an MQTT prompt to an image, with a built-in broker
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
}

/// The configuration's path.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file; without it /etc/diffused/config.toml if that exists, else all defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `diffused doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration
    #[command(flatten)]
    pub file: ConfigFile,
    /// Leave out what reads the whole model or paints with it
    #[arg(long)]
    pub quick: bool,
    /// Print lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// `diffused bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Its model, threads and memory
    #[command(flatten)]
    pub file: ConfigFile,
    /// The model's bundle; the configuration's if not given
    #[arg(long, value_name = "FOLDER")]
    pub model: Option<PathBuf>,
    /// Worker threads, 1 to 256; the configuration's, or one for each CPU, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Print JSON, to be sent in
    #[arg(long)]
    pub json: bool,
}

/// `diffused page`
#[derive(Debug, Args)]
pub struct PageArgs {
    /// The folder to write it into; it is made if it is missing
    #[arg(long, value_name = "FOLDER")]
    pub into: PathBuf,
}

/// The groups of options that paint, in their order.
const PROMPT: &str = "Prompt";
const IMAGE: &str = "Image";
const IMAGE_TO_IMAGE: &str = "Image to image";
const SAMPLING: &str = "Sampling";
const OUTPUT: &str = "Output";
const MACHINE: &str = "Machine";

/// What is painted.
#[derive(Debug, Args)]
pub struct PaintArgs {
    /// What to paint
    pub prompt: String,
    /// What to avoid
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, help_heading = PROMPT)]
    pub negative_prompt: String,
    /// How prompts are read: a1111, with (weights:1.2), BREAK and `[from:to:when]`, or plain text
    #[arg(long, value_name = "a1111|plain", help_heading = PROMPT)]
    pub prompt_syntax: Option<PromptSyntax>,
    /// Take the embeddings this many layers from the text encoder's end; 1 is the last, many anime models want 2
    #[arg(long, value_name = "N", help_heading = PROMPT)]
    pub clip_skip: Option<usize>,
    /// Width in pixels, a multiple of 8; the model's own, or in the init image's shape, if not given
    #[arg(long, value_name = "PIXELS", help_heading = IMAGE)]
    pub width: Option<usize>,
    /// Height in pixels, as the width
    #[arg(long, value_name = "PIXELS", help_heading = IMAGE)]
    pub height: Option<usize>,
    /// The seed of the noise: the same seed gives the same image; random if not given or -1
    #[arg(long, allow_negative_numbers = true, value_parser = seed, help_heading = IMAGE)]
    pub seed: Option<u64>,
    /// Start from this image
    #[arg(long, value_name = "FILE", help_heading = IMAGE_TO_IMAGE)]
    pub init_image: Option<PathBuf>,
    /// How much of the init image to repaint, 0 to 1
    #[arg(long, requires = "init_image", help_heading = IMAGE_TO_IMAGE)]
    pub strength: Option<f64>,
    /// How an init image of another shape fits: stretch it, cover the image and cut it, or contain all of it
    #[arg(long, value_name = "stretch|cover|contain", requires = "init_image", help_heading = IMAGE_TO_IMAGE)]
    pub fit: Option<Fit>,
    /// What lies under an init image's transparency and beside it: #rrggbb, white or black
    #[arg(long, value_name = "COLOUR", requires = "init_image", help_heading = IMAGE_TO_IMAGE)]
    pub background: Option<Colour>,
    /// What of the init image is repainted
    #[command(flatten)]
    pub mask: MaskArgs,
    /// Sampling steps
    #[arg(long, help_heading = SAMPLING)]
    pub steps: Option<usize>,
    /// Guidance scale: how closely to follow the prompt; 1 turns guidance off
    #[arg(long, value_name = "SCALE", help_heading = SAMPLING)]
    pub cfg_scale: Option<f64>,
    /// ddim, euler, euler_ancestral, dpmpp_2m, unipc, … (docs/samplers.md has all)
    #[arg(long, value_name = "NAME", value_parser = sampler, help_heading = SAMPLING)]
    pub sampler: Option<SamplerChoice>,
    /// The sampler's noise schedule: karras, exponential, sgm_uniform, beta, …
    #[arg(long, value_name = "NAME", value_parser = schedule, help_heading = SAMPLING)]
    pub scheduler: Option<NoiseSchedule>,
    /// How much new noise a step adds, 0 to 1: with ddim, tcd and the ancestral samplers
    #[arg(long, help_heading = SAMPLING)]
    pub eta: Option<f64>,
    /// The decoder, where the model has both: full, or tiny, nearly the same image in a fraction of the time
    #[arg(long, value_name = "full|tiny", help_heading = SAMPLING)]
    pub decoder: Option<AutoencoderKind>,
    /// Guide only from this part of the way from noise to image to that one: 0.2,0.9. The other steps take half the time
    #[arg(long, value_name = "FROM,TO", value_parser = interval, help_heading = SAMPLING)]
    pub guidance_interval: Option<[f64; 2]>,
    /// Compute what lies deep in the UNet once for N calls, 2 to 20; the calls between take a fraction of the time
    #[arg(long, value_name = "N", help_heading = SAMPLING)]
    pub cache_interval: Option<usize>,
    /// Make the image 2 or 4 times as wide and high by the model's upscaler, if it has one
    #[arg(long, value_name = "N", help_heading = IMAGE)]
    pub upscale: Option<usize>,
    /// Write what a display shows too: a panel's name, or keys as in {"width": 800, "height": 480, "palette": "grey-4"}
    #[arg(long, value_name = "NAME", value_parser = panel, help_heading = OUTPUT)]
    pub panel: Option<OutputRequest>,
    /// Write what the image looks like so far, a small JPEG, to this file, at most once a second
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub preview: Option<PathBuf>,
    /// A second pass at a larger size
    #[command(flatten)]
    pub hires: HiresArgs,
}

/// A second pass at a larger size.
#[derive(Debug, Args)]
pub struct HiresArgs {
    /// A second pass at SCALE times the width and height, 1 to 4: large images without doubled subjects
    #[arg(long, value_name = "SCALE", conflicts_with = "init_image", help_heading = "Sampling")]
    pub hires: Option<f64>,
    /// Steps of the second pass; as many as --steps if not given
    #[arg(long, value_name = "N", requires = "hires", help_heading = "Sampling")]
    pub hires_steps: Option<usize>,
    /// How much the second pass repaints, above 0 to 1; 0.75 if not given
    #[arg(long, value_name = "STRENGTH", requires = "hires", help_heading = "Sampling")]
    pub hires_strength: Option<f64>,
    /// What enlarges the image before it: Latent, "Latent (nearest-exact)", "Latent (bicubic)", …, Lanczos, or Model, its upscaler
    #[arg(long, value_name = "NAME", requires = "hires", help_heading = "Sampling")]
    pub hires_upscaler: Option<HiresUpscaler>,
    /// What the second pass paints; the prompt if not given
    #[arg(long, value_name = "TEXT", requires = "hires", help_heading = "Sampling")]
    pub hires_prompt: Option<String>,
    /// The second pass's sampler; as the first one's if not given
    #[arg(long, value_name = "NAME", value_parser = sampler, requires = "hires", help_heading = "Sampling")]
    pub hires_sampler: Option<SamplerChoice>,
    /// The second pass's guidance scale; as the first one's if not given
    #[arg(long, value_name = "SCALE", requires = "hires", help_heading = "Sampling")]
    pub hires_cfg_scale: Option<f64>,
}

impl HiresArgs {
    /// What is asked for, if anything.
    pub fn request(&self) -> Option<HiresRequest> {
        let scale = Some(self.hires?);
        let sampler = self.hires_sampler;
        Some(HiresRequest {
            scale,
            steps: self.hires_steps,
            denoising_strength: self.hires_strength,
            upscaler: self.hires_upscaler,
            prompt: self.hires_prompt.clone(),
            sampler: sampler.map(|choice| choice.kind),
            schedule: sampler.and_then(|choice| choice.schedule),
            cfg_scale: self.hires_cfg_scale,
            ..HiresRequest::default()
        })
    }
}

/// `diffused generate`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArgs {
    /// The image
    #[command(flatten)]
    pub paint: PaintArgs,
    /// The file to write, .png or .jpg, or - for stdout; named after the prompt if not given
    #[arg(short, long, value_name = "FILE", help_heading = OUTPUT)]
    pub output: Option<PathBuf>,
    /// png or jpeg; by the output's name if not given, else png
    #[arg(long, value_name = "FORMAT", help_heading = OUTPUT)]
    pub format: Option<FileFormat>,
    /// A configuration whose panels --panel knows too
    #[arg(long, value_name = "FILE", requires = "panel", help_heading = OUTPUT)]
    pub config: Option<PathBuf>,
    /// Print progress and result as lines of JSON
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// Where the files are that prompts name as __file__
    #[arg(long, value_name = "FOLDER", help_heading = PROMPT)]
    pub wildcards: Option<PathBuf>,
    /// The model's bundle; the demo model if not given
    #[arg(long, value_name = "FOLDER", help_heading = MACHINE)]
    pub model: Option<PathBuf>,
    /// Worker threads, 1 to 256; one for each CPU if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = MACHINE)]
    pub threads: Option<u16>,
    /// The most memory to use, for example 200M or 1.5G
    #[arg(long, value_name = "SIZE", help_heading = MACHINE)]
    pub memory: Option<ByteSize>,
}

const EXAMPLES: &str = "\
Examples:
  diffused generate \"a large red house on the left, at night with a moon\" --seed 7 -o house.png
  diffused generate \"a red house at sunset\" --init-image house.png --strength 0.6 -o sunset.png
  diffused generate \"a red house\" --init-image photo.jpg --width 512 --height 512 --fit cover
  diffused generate \"a blue boat on the sea\" -o - | display";

/// `diffused plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Width in pixels; the model's own if not given
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<usize>,
    /// Height in pixels; the model's own if not given
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<usize>,
    /// Guidance scale; above 1 each step computes two batch entries
    #[arg(long, value_name = "SCALE")]
    pub cfg_scale: Option<f64>,
    /// From which part of the way from noise to image to which there is guidance: 0.2,0.9
    #[arg(long, value_name = "FROM,TO", value_parser = interval)]
    pub guidance_interval: Option<[f64; 2]>,
    /// For how many calls of the UNet its deep features are computed once
    #[arg(long, value_name = "N")]
    pub cache_interval: Option<usize>,
    /// Sampling steps; the model's own number if not given
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// The decoder, where the model has both: full or tiny
    #[arg(long, value_name = "full|tiny")]
    pub decoder: Option<AutoencoderKind>,
    /// How many times as wide and high the image becomes by the model's upscaler
    #[arg(long, value_name = "N")]
    pub upscale: Option<usize>,
    /// Plan for an init image (img2img)
    #[arg(long)]
    pub image_to_image: bool,
    /// Plan for a second pass at SCALE times the width and height
    #[arg(long, value_name = "SCALE", conflicts_with = "image_to_image")]
    pub hires: Option<f64>,
    /// What enlarges the image before it: Latent, Lanczos, Model, …
    #[arg(long, value_name = "NAME", requires = "hires")]
    pub hires_upscaler: Option<HiresUpscaler>,
    /// The model's bundle; the demo model if not given
    #[arg(long, value_name = "FOLDER")]
    pub model: Option<PathBuf>,
    /// Worker threads, 1 to 256; one for each CPU if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// The most memory to use, for example 200M or 1.5G; seven eighths of what is free if not given
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `diffused demo`
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// What to paint; without it, an example is painted and the words that the demo model knows are listed
    pub prompt: Option<String>,
    /// The seed of the noise; random if not given or -1
    #[arg(long, allow_negative_numbers = true, value_parser = seed)]
    pub seed: Option<u64>,
    /// The file to write; named after the prompt if not given
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Parses a sampler's name; clap adds the option to the error.
fn sampler(text: &str) -> Result<SamplerChoice, String> {
    text.parse().map_err(|error| Fault::from(error).message)
}

/// Parses a panel's name or an object of keys.
fn panel(text: &str) -> Result<OutputRequest, String> {
    let name = || OutputRequest { panel: Some(text.to_owned()), ..OutputRequest::default() };
    if text.starts_with('{') { serde_json::from_str(text).map_err(|error| error.to_string()) } else { Ok(name()) }
}

/// Parses two numbers; whether they are in order is the engine's to say.
fn interval(text: &str) -> Result<[f64; 2], String> {
    let numbers =
        text.split_once(',').and_then(|(from, to)| Some([from.trim().parse().ok()?, to.trim().parse().ok()?]));
    numbers.ok_or_else(|| "two numbers from 0 to 1 with a comma between them are expected, as in 0.2,0.9".into())
}

/// Parses a noise schedule's name.
fn schedule(text: &str) -> Result<NoiseSchedule, String> {
    text.parse().map_err(|error| Fault::from(error).message)
}

impl PaintArgs {
    /// The noise schedule: one at the end of the sampler's name goes before the option.
    pub fn schedule(&self) -> Option<NoiseSchedule> {
        self.sampler.and_then(|choice| choice.schedule).or(self.scheduler)
    }
}

/// Parses a seed; -1 is a random one, as in requests.
fn seed(text: &str) -> Result<u64, String> {
    if text == "-1" {
        return Ok(random::seed());
    }
    text.parse().map_err(|_| "a seed is a whole number from 0, or -1 for a random one".into())
}
