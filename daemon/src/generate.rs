//! `diffused generate`: one picture from the command line.

use std::fs::File;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diffused_engine::request::{Observer, Parameters, Request, Stage};
use diffused_engine::{Options, parameters};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::Access;
use serde_json::{Value, json};

use crate::budget;
use crate::cli::{Failure, Generate, say};
use crate::fault::{Code, Fault};
use crate::init_image::InitImage;
use crate::model::Model;
use crate::pictures;
use crate::progress::{Meter, Progress};
use crate::random;
use crate::request::Format;

/// Paints and writes the picture.
pub fn run(arguments: &Generate) -> Result<(), Failure> {
    paint(arguments).inspect_err(|failure| {
        if arguments.json {
            say(json!({"event": "error", "message": failure.to_string()}));
        }
    })
}

fn paint(arguments: &Generate) -> Result<(), Failure> {
    crate::logging::start("error");
    let (request, start) = request(arguments)?;
    let output = match &arguments.output {
        Some(path) => path.clone(),
        None => free_name(Path::new(""), &arguments.prompt, request.seed),
    };
    let format = format(&output)?;
    check_writable(&output)?;
    let memory = budget::or_free(arguments.memory);
    let options = Options { threads: arguments.threads.map(usize::from), memory };
    let mut engine = Model::new(arguments.model.as_deref(), options)?.open().map_err(failure)?;
    let init_size = start.as_ref().map(InitImage::size);
    let parameters = parameters::resolve_from(&request, init_size, engine.manifest()).map_err(failure)?;
    let request = match start {
        Some(start) => unpack(&start, &request, &parameters, options)?,
        None => request,
    };
    let mut teller = Teller::new(arguments.json, Meter::new(&parameters, 1, Instant::now()));
    let picture = engine.generate(&request, &mut teller).map_err(failure)?;
    let file = pictures::encode(&picture, format).map_err(|fault| Failure::Other(fault.to_string()))?;
    pictures::write_atomically(&output, &file.bytes)
        .map_err(|error| Failure::Other(format!("--output: {}: {error}", output.display())))?;
    teller.finish(&json!({
        "event": "done",
        "path": output,
        "bytes": file.bytes.len(),
        "sha256": file.sha256(),
        "parameters": picture.parameters,
        "model_sha256": engine.model_sha256(),
        "timings": teller.meter.timings(Instant::now()),
    }));
    Ok(())
}

/// `request` with the picture that it starts from.
fn unpack(start: &InitImage, request: &Request, parameters: &Parameters, options: Options) -> Result<Request, Failure> {
    start.check(parameters, options).and_then(|()| start.start(request, parameters)).map_err(failure)
}

fn request(arguments: &Generate) -> Result<(Request, Option<InitImage>), Failure> {
    let start = arguments.init_image.as_deref().map(|path| {
        let wrong = |error: String| Failure::Usage(format!("--init-image: {}: {error}", path.display()));
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        InitImage::open(file).map_err(|fault| wrong(fault.message))
    });
    let request = Request {
        prompt: arguments.prompt.clone(),
        negative_prompt: arguments.negative_prompt.clone(),
        width: arguments.width,
        height: arguments.height,
        steps: arguments.steps,
        cfg_scale: arguments.cfg_scale,
        seed: arguments.seed.unwrap_or_else(random::seed),
        sampler: arguments.sampler,
        init_image: None,
        strength: arguments.strength,
    };
    Ok((request, start.transpose()?))
}

fn format(output: &Path) -> Result<Format, Failure> {
    let extension = output.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("png") => Ok(Format::Png),
        Some("jpg" | "jpeg") => Ok(Format::Jpeg),
        _ => Err(Failure::Usage(format!("--output: {}: the name must end in .png or .jpg", output.display()))),
    }
}

/// Painting may take long, so it is known first whether the picture can be written.
fn check_writable(output: &Path) -> Result<(), Failure> {
    let wrong = |error: String| Failure::Usage(format!("--output: {}: {error}", output.display()));
    if output.is_dir() {
        return Err(wrong("is a folder; name a file in it".into()));
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(wrong(format!("there is no folder {}", folder.display())));
    }
    rustix::fs::access(folder, Access::WRITE_OK)
        .map_err(|error| wrong(format!("the folder {} cannot be written to: {error}", folder.display())))
}

/// A file name made of the prompt's words and the seed, which no file in `folder` has yet.
pub fn free_name(folder: &Path, prompt: &str, seed: u64) -> PathBuf {
    let words = prompt.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let stem: Vec<String> = words.take(8).map(str::to_lowercase).collect();
    let mut stem = stem.join("-");
    stem.truncate(60);
    let stem = if stem.is_empty() { "picture".to_owned() } else { stem };
    let names = std::iter::once(format!("{stem}-{seed}.png"));
    let mut names = names.chain((2..).map(|n| format!("{stem}-{seed}-{n}.png"))).map(|name| folder.join(name));
    names.find(|path| !path.exists()).unwrap_or_else(|| folder.join("picture.png"))
}

/// The engine's errors as the command line's: with the flag for the field.
pub fn failure(error: impl Into<Fault>) -> Failure {
    match error.into() {
        Fault { field: Some(field), message, .. } => Failure::Usage(format!("{}: {message}", flag(&field))),
        Fault { code: Code::OutOfMemory, message, .. } => Failure::Usage(format!("--memory: {message}")),
        Fault { code: Code::ModelCorrupt, message, .. } => Failure::Model(message),
        fault => Failure::Other(fault.message),
    }
}

fn flag(field: &str) -> String {
    match field {
        "sampler_name" => "--sampler".into(),
        "denoising_strength" => "--strength".into(),
        "init_images" => "--init-image".into(),
        "prompt" => "the prompt".into(),
        other => format!("--{}", other.replace('_', "-")),
    }
}

/// Tells how far it is: a bar on a terminal, or lines of JSON, or nothing.
struct Teller {
    meter: Meter,
    bar: ProgressBar,
    json: bool,
    told: Option<(Instant, Stage, usize)>,
}

impl Teller {
    fn new(json: bool, meter: Meter) -> Teller {
        let bar = if json || !std::io::stderr().is_terminal() { ProgressBar::hidden() } else { ProgressBar::new(1000) };
        let style =
            ProgressStyle::with_template("{msg:<22} {bar:36.green/240} {percent:>3} %  {elapsed} · {eta} to go");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸━"));
        Teller { meter, bar, json, told: None }
    }

    fn tell(&mut self, progress: Progress, now: Instant) {
        let label = match progress.stage {
            Stage::TextEncoder => "reading the prompt".to_owned(),
            Stage::VaeEncoder => "reading the picture".to_owned(),
            Stage::Unet => format!("step {} of {}", progress.step, progress.steps),
            Stage::VaeDecoder => "painting".to_owned(),
        };
        self.bar.set_message(label);
        self.bar.set_position((progress.progress * 1000.0) as u64);
        let state = (progress.stage, progress.step);
        let due = self.told.is_none_or(|(at, stage, step)| {
            (stage, step) != state || now.saturating_duration_since(at) >= Duration::from_secs(1)
        });
        if self.json && due {
            self.told = Some((now, progress.stage, progress.step));
            let mut line = json!(progress);
            line["event"] = json!("progress");
            say(line);
        }
    }

    fn finish(&self, result: &Value) {
        self.bar.finish_and_clear();
        if self.json {
            say(result);
        } else {
            let path = result["path"].as_str().unwrap_or_default();
            say(format!("{path}  (seed {}, {} s)", result["parameters"]["seed"], result["timings"]["total"]));
        }
    }
}

impl Observer for Teller {
    fn tick(&mut self, stage: Stage, done: usize, total: usize) -> ControlFlow<()> {
        let now = Instant::now();
        let progress = self.meter.tick(stage, done, total, now);
        self.tell(progress, now);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use diffused_engine::error::Error;

    use super::*;

    #[test]
    fn pictures_are_named_after_their_prompts() {
        let folder = tempfile::tempdir().unwrap();
        let name = |prompt: &str| {
            let path = free_name(folder.path(), prompt, 7);
            path.file_name().unwrap().to_string_lossy().into_owned()
        };
        assert_eq!(name("A large, red house!"), "a-large-red-house-7.png");
        assert_eq!(name("../../etc/passwd"), "etc-passwd-7.png");
        assert_eq!(name("家"), "picture-7.png");
        std::fs::write(folder.path().join("a-cat-7.png"), b"").unwrap();
        assert_eq!(name("a cat"), "a-cat-7-2.png");
    }

    #[test]
    fn errors_name_the_flag() {
        let error = Error::InvalidParam { field: "sampler_name", message: "wrong".into() };
        assert_eq!(failure(error).to_string(), "--sampler: wrong");
        let error = Error::InvalidParam { field: "cfg_scale", message: "wrong".into() };
        assert_eq!(failure(error).to_string(), "--cfg-scale: wrong");
    }

    #[test]
    fn the_files_name_says_the_format() {
        assert_eq!(format(Path::new("a.PNG")).unwrap(), Format::Png);
        assert_eq!(format(Path::new("a.jpeg")).unwrap(), Format::Jpeg);
        assert!(format(Path::new("a.gif")).is_err() && format(Path::new("a")).is_err());
    }
}
