//! The command line of model-prep.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use model_prep::{Options, Progress, Weights, convert};

/// Turns Stable Diffusion models into bundles that diffused runs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Convert a diffusers folder to a bundle.
    Convert {
        /// The diffusers folder (the one that holds model_index.json).
        source: PathBuf,
        /// Where the bundle goes.
        #[arg(short, long, value_name = "BUNDLE")]
        output: PathBuf,
        /// How matrices are stored.
        #[arg(long, value_enum, default_value = "int8")]
        weights: WeightsArg,
        /// The model's name [default: the folder's].
        #[arg(long)]
        name: Option<String>,
        /// Default number of steps.
        #[arg(long)]
        steps: Option<usize>,
        /// Default guidance scale.
        #[arg(long)]
        cfg_scale: Option<f64>,
        /// Replace a bundle that is already there.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum WeightsArg {
    Int8,
    F16,
    F32,
}

impl From<WeightsArg> for Weights {
    fn from(weights: WeightsArg) -> Weights {
        match weights {
            WeightsArg::Int8 => Weights::Int8,
            WeightsArg::F16 => Weights::F16,
            WeightsArg::F32 => Weights::F32,
        }
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Convert { source, output, weights, name, steps, cfg_scale, force } => {
            let options = Options { weights: weights.into(), name, steps, cfg_scale, force };
            let bar = bytes_bar()?;
            let warnings = convert(&source, &output, &options, &mut |progress| show(&bar, progress))
                .with_context(|| format!("cannot convert {}", source.display()))?;
            bar.finish_and_clear();
            for warning in warnings {
                eprintln!("warning: {warning}");
            }
            println!("{}", output.display());
        }
    }
    Ok(())
}

/// A progress bar of bytes; draws nothing where there is no terminal.
fn bytes_bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:12} {wide_bar} {bytes}/{total_bytes} {eta}")?;
    Ok(ProgressBar::no_length().with_style(style))
}

fn show(bar: &ProgressBar, Progress { network, done, total }: Progress) {
    bar.set_message(network);
    bar.set_length(total);
    bar.set_position(done);
}
