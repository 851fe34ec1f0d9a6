//! What the commands of model-prep do.

#![warn(clippy::unwrap_used)]

mod print;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use diffused_engine::request::Request;
use indicatif::{ProgressBar, ProgressStyle};
use model_prep::cli::{ArchArg, Cli, Command, Convert, DtypeArg, PlanArguments, SourceArgs};
use model_prep::{Arch, Dtype, Error, Options, SourceOptions};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Gives back large blocks, so that the pictures of `--calibrate` keep to their memory.
#[global_allocator]
static HEAP: diffused_heap::Heap = diffused_heap::Heap;

fn main() -> ExitCode {
    diffused_heap::configure_malloc();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output, `head` for one, has closed the pipe.
fn reader_left(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Convert(arguments) => convert(arguments),
        Command::Inspect(SourceArgs { source, weights, options }) => {
            let options = Options { weights: weights.format(), source: options, ..Options::default() };
            match model_prep::inspect(&source, &options) {
                Err(other @ Error::OtherKind { .. }) => Ok(writeln!(io::stdout(), "{other}")?),
                inspection => Ok(print::inspection(&mut io::stdout(), &inspection?)?),
            }
        }
        Command::Plan(arguments) => plan(arguments),
        Command::Verify { bundle, source, min_snr, options } => verify(&bundle, &source, &options, min_snr),
        Command::Synth { arch, seed, output, dtype } => synth(arch, seed, dtype, &output),
    }
}

fn convert(arguments: Convert) -> Result<()> {
    let Convert { source, output, weights, name, steps, cfg_scale, force, calibrate, options } = arguments;
    let weights = weights.format();
    let options = Options { weights, name, steps, cfg_scale, force, calibrate, source: options };
    let bar = bytes_bar()?;
    leave_nothing_on_signals()?;
    let converted = model_prep::convert(&source, &output, &options, &mut |progress| {
        bar.set_message(progress.network);
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let converted = converted.with_context(|| format!("cannot convert {}", source.display()))?;
    eprintln!("{}", converted.recognised);
    for warning in converted.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", output.display());
    Ok(())
}

/// A signal that ends the program deletes the bundle that is being written before.
fn leave_nothing_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            model_prep::remove_unfinished();
            // Ends the program as if nobody had waited for the signal.
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

fn plan(arguments: PlanArguments) -> Result<()> {
    let PlanArguments { source: SourceArgs { source, weights, options }, memory, threads, image_to_image, .. } =
        arguments;
    let request = Request {
        width: arguments.width,
        height: arguments.height,
        cfg_scale: arguments.cfg_scale,
        steps: arguments.steps,
        decoder: arguments.decoder,
        upscale: arguments.upscale,
        ..Request::default()
    };
    let options = Options { weights: weights.format(), source: options, ..Options::default() };
    let memory = memory.map(|size| size.0);
    let engine = diffused_engine::Options { threads: threads.map(usize::from), memory, beside: 0 };
    let plan = model_prep::plan(&source, &options, &request, image_to_image, engine)?;
    Ok(print::plan(&mut io::stdout(), &plan, engine)?)
}

fn verify(bundle: &Path, source: &Path, options: &SourceOptions, min_snr: f64) -> Result<()> {
    let (mut out, mut tensors, mut worst) = (io::stdout(), 0, Vec::new());
    let mut printed = print::difference_header(&mut out);
    model_prep::verify(bundle, source, options, &mut |difference| {
        if printed.is_ok() {
            printed = print::difference(&mut out, &difference);
        }
        tensors += 1;
        if difference.snr() < min_snr {
            worst.push(difference.tensor);
        }
    })?;
    printed?;
    ensure!(worst.is_empty(), "{}", print::too_far_off(&worst, tensors, min_snr));
    writeln!(out, "{tensors} tensors, none below {min_snr} dB")?;
    Ok(())
}

fn synth(arch: ArchArg, seed: u64, dtype: DtypeArg, output: &Path) -> Result<()> {
    let arch = match arch {
        ArchArg::Sd15 => Arch::Sd15,
        ArchArg::Sd21 => Arch::Sd21,
        ArchArg::BkSdmTiny => Arch::BkSdmTiny,
        ArchArg::SdTurbo => Arch::SdTurbo,
        ArchArg::Sdxl => Arch::Sdxl,
        ArchArg::SdxlTurbo => Arch::SdxlTurbo,
        ArchArg::Ssd1b => Arch::Ssd1b,
        ArchArg::Sdxs => Arch::Sdxs,
        ArchArg::Taesd => Arch::Taesd,
        ArchArg::Taesdxl => Arch::Taesdxl,
        ArchArg::RealesrGeneral => Arch::RealesrGeneral,
        ArchArg::RealesrAnime => Arch::RealesrAnime,
    };
    let dtype = match dtype {
        DtypeArg::F16 => Dtype::F16,
        DtypeArg::F32 => Dtype::F32,
    };
    let bar = bytes_bar()?;
    model_prep::synth(arch, seed, dtype, output, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    println!("{}", output.display());
    Ok(())
}

/// A progress bar of bytes; draws nothing where there is no terminal.
fn bytes_bar() -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:12} {wide_bar} {bytes}/{total_bytes} {eta}")?;
    Ok(ProgressBar::no_length().with_style(style))
}
