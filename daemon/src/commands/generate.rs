//! `diffused generate`: one image from the command line.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diffused_engine::prompt::PromptSyntax;
use diffused_engine::request::{Observer, PaintingProgress, Request, Stage};
use diffused_engine::{Options, Painting, Resolver};
use image::RgbImage;
use serde_json::{Value, json};

use crate::budget;
use crate::commands::cli::{GenerateArgs, PaintArgs, print_line};
use crate::commands::output::{self, ImageSink};
use crate::commands::preview_file::PreviewFile;
use crate::commands::progress_line::ProgressLine;
use crate::config::Config;
use crate::contract::messages::JobProgress;
use crate::contract::request::FileFormat;
use crate::display::panels::KnownPanels;
use crate::display::spec::DisplaySpec;
use crate::failure::Failure;
use crate::files;
use crate::jobs::init_image::InitImage;
use crate::jobs::request::{drawn_request, fit_to};
use crate::jobs::sources::Sources;
use crate::jobs::wildcards::Wildcards;
use crate::painting::model::Model;
use crate::painting::output as panel_output;
use crate::painting::pictures::{self, free_name};
use crate::painting::preview::{self, PreviewClock};
use crate::painting::progress::Meter;
use crate::random;

/// Paints and writes the image.
pub fn run(arguments: &GenerateArgs) -> Result<(), Failure> {
    paint(arguments).inspect_err(|failure| {
        if arguments.json {
            print_line(json!({"event": "error", "message": failure.to_string()}));
        }
    })
}

fn paint(arguments: &GenerateArgs) -> Result<(), Failure> {
    crate::logging::start("error");
    let [init_image, mask] = files(&arguments.paint)?;
    let sources = Sources { init_image: init_image.as_ref(), mask: mask.as_ref() };
    let mut request = request(&arguments.paint);
    let display = display(arguments)?;
    let own_format = arguments.format.unwrap_or(FileFormat::Png);
    let own_name = || free_name(Path::new(""), &arguments.paint.prompt, request.seed, own_format);
    let path = arguments.output.clone().unwrap_or_else(own_name);
    let format = output::format(&path, arguments.format)?;
    let output = ImageSink::check(&path, arguments.json)?;
    let preview = PreviewFile::check(arguments.paint.preview.as_deref())?;
    let memory = budget::or_free(arguments.memory);
    let options = Options { threads: arguments.threads.map(usize::from), memory, beside: 0 };
    let model = Model::new(arguments.model.as_deref(), options)?;
    let resolver = model.resolver()?;
    if init_image.is_none() {
        fit_to(&mut request, display.as_ref(), resolver.manifest());
    }
    let request = draw(request, &resolver, arguments)?;
    let painting = resolver.resolve(&request, sources.init_image.map(InitImage::size))?;
    let painting = painting.with_previews(arguments.paint.preview.is_some());
    let warnings = warnings(&painting, arguments.json);
    let parameters = painting.parameters();
    sources.check(parameters, options)?;
    display.as_ref().map_or(Ok(()), |spec| panel_output::check(spec, parameters, options))?;
    let mut engine = model.open()?;
    let start = sources.start(parameters, None)?;
    let mut console = Console::new(arguments.json, Meter::new(1, 0, Instant::now()), preview);
    let image = engine.paint(&painting, start, &mut console)?;
    diffused_heap::trim();
    let image = sources.finish(parameters, image)?;
    let file = pictures::encode(&image, parameters, format).map_err(|fault| Failure::Other(fault.to_string()))?;
    output.write(&file.bytes)?;
    let mut result = json!({
        "event": "done",
        "path": path,
        "bytes": file.bytes.len(),
        "sha256": file.sha256(),
        "parameters": parameters,
        "model_sha256": engine.model_sha256(),
        "timings": console.meter.times(Instant::now()).timings,
    });
    if let Some(spec) = &display {
        engine.forget();
        diffused_heap::trim();
        result["output"] = write_panel(&image, spec, &path)?;
    }
    if !warnings.is_empty() {
        result["warnings"] = json!(warnings);
    }
    console.finish(&result, &output);
    Ok(())
}

/// With the prompts that are drawn from what they leave open.
fn draw(request: Request, resolver: &Resolver, arguments: &GenerateArgs) -> Result<Request, Failure> {
    if resolver.prompt_syntax(&request) == PromptSyntax::Plain {
        return Ok(request);
    }
    let wildcards = Wildcards::new(arguments.wildcards.clone());
    let drawn = wildcards.draw(&request, request.seed);
    let drawn = drawn.map_err(|fault| Failure::Usage(fault.to_string()))?;
    Ok(drawn_request(&request, &drawn, request.seed))
}

/// What a display is to show, of those that the program and the configuration know.
fn display(arguments: &GenerateArgs) -> Result<Option<DisplaySpec>, Failure> {
    let Some(wanted) = &arguments.paint.panel else { return Ok(None) };
    let wrong = |error: String| Failure::Usage(format!("--panel: {error}"));
    let config = arguments.config.as_deref().map(|path| Config::load(Some(path))).transpose();
    let config = config.map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let panels = config.map_or_else(KnownPanels::default, |config| config.panels());
    let resolved = wanted.resolve(&panels).map_err(wrong)?;
    if resolved.is_some() && arguments.output.as_deref().is_some_and(output::is_stdout) {
        return Err(wrong("stdout has no place for a second file; name a file with --output".into()));
    }
    Ok(resolved)
}

/// Writes what a display shows beside the image at `output`, and describes the file.
fn write_panel(image: &RgbImage, spec: &DisplaySpec, output: &Path) -> Result<Value, Failure> {
    let file = panel_output::encode(image, spec).map_err(|fault| Failure::Other(fault.to_string()))?;
    let path = pictures::panel_path(output, file.format);
    files::write_atomically(&path, &file.bytes)
        .map_err(|error| Failure::Other(format!("--panel: {}: {error}", path.display())))?;
    let (width, height) = spec.size((image.width() as usize, image.height() as usize));
    let (bytes, sha256) = (file.bytes.len(), file.sha256());
    Ok(json!({"path": path, "width": width, "height": height, "bytes": bytes, "sha256": sha256}))
}

/// What of the request has no effect: shown before the wait, or, as JSON, part of the result.
fn warnings(painting: &Painting, json: bool) -> Vec<String> {
    let warnings: Vec<String> = painting.warnings().iter().map(ToString::to_string).collect();
    if !json {
        warnings.iter().for_each(|warning| eprintln!("diffused: warning: {warning}"));
    }
    warnings
}

/// The init image and the mask.
fn files(arguments: &PaintArgs) -> Result<[Option<InitImage>; 2], Failure> {
    let open = |flag: &str, path: &Option<PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let wrong = |error: String| Failure::Usage(format!("{flag}: {}: {error}", path.display()));
        InitImage::open(path).map(Some).map_err(|fault| wrong(fault.message))
    };
    Ok([open("--init-image", &arguments.init_image)?, open("--mask", &arguments.mask.mask)?])
}

fn request(arguments: &PaintArgs) -> Request {
    Request {
        prompt: arguments.prompt.clone(),
        negative_prompt: arguments.negative_prompt.clone(),
        width: arguments.width,
        height: arguments.height,
        steps: arguments.steps,
        cfg_scale: arguments.cfg_scale,
        seed: arguments.seed.unwrap_or_else(random::seed),
        sampler: arguments.sampler.map(|choice| choice.kind),
        schedule: arguments.schedule(),
        eta: arguments.eta,
        strength: arguments.strength,
        decoder: arguments.decoder,
        fit: arguments.fit,
        background: arguments.background,
        inpainting: arguments.mask.inpainting(),
        prompt_syntax: arguments.prompt_syntax,
        upscale: arguments.upscale,
        clip_skip: arguments.clip_skip,
        guidance_interval: arguments.guidance_interval,
        cache_interval: arguments.cache_interval,
        prompt_template: None,
        negative_prompt_template: None,
        hires: arguments.hires.request(),
    }
}

/// Shows the progress: a bar on a terminal, or lines of JSON, or nothing.
struct Console {
    meter: Meter,
    line: ProgressLine,
    json: bool,
    shown: Option<(Instant, Stage, usize)>,
    preview: PreviewFile,
    previews: PreviewClock,
}

impl Console {
    fn new(json: bool, meter: Meter, preview: PreviewFile) -> Console {
        let line = ProgressLine::new(!json);
        Console { meter, line, json, shown: None, preview, previews: PreviewClock::default() }
    }

    fn show(&mut self, progress: JobProgress, now: Instant) {
        self.line.show(&progress);
        let state = (progress.stage, progress.step);
        let due = self.shown.is_none_or(|(at, stage, step)| {
            (stage, step) != state || now.saturating_duration_since(at) >= Duration::from_secs(1)
        });
        if self.json && due {
            self.shown = Some((now, progress.stage, progress.step));
            let mut line = json!(progress);
            line["event"] = json!("progress");
            print_line(line);
        }
    }

    fn finish(&self, result: &Value, output: &ImageSink) {
        self.line.clear();
        let said = format!("(seed {}, {} s)", result["parameters"]["seed"], result["timings"]["total"]);
        match output {
            _ if self.json => print_line(result),
            ImageSink::File(path) => {
                print_line(format!("{}  {said}", path.display()));
                let panel = &result["output"];
                if let Some(path) = panel["path"].as_str() {
                    print_line(format!("{path}  ({} × {}, {} bytes)", panel["width"], panel["height"], panel["bytes"]));
                }
            }
            ImageSink::Stdout => eprintln!("stdout  {said}"),
        }
    }
}

impl Observer for Console {
    fn tick(&mut self, progress: PaintingProgress) {
        let now = Instant::now();
        let progress = self.meter.tick(progress, now);
        self.show(progress, now);
    }

    fn wants_preview(&mut self) -> bool {
        self.previews.is_due(Instant::now())
    }

    fn preview(&mut self, image: RgbImage) {
        match preview::jpeg(&image) {
            Ok(file) => self.preview.write(&file),
            Err(error) => eprintln!("diffused: warning: a preview could not be made: {error}"),
        }
    }

    fn memory_freed(&mut self) {
        diffused_heap::trim();
    }
}
