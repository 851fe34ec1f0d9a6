//! A request gives the same bytes on every level of the CPU, for any number of threads and any memory budget.

use std::path::Path;
use std::process::Command;

use diffused::painting::model::Model;
use diffused_engine::Options;
use diffused_engine::error::Error;
use diffused_engine::hires::{HiresRequest, HiresUpscaler};
use diffused_engine::inpainting::{Inpainting, MaskedContent};
use diffused_engine::request::Request;
use diffused_kernels::cpu::Level;
use diffused_tests::{program, root};
use model_prep::{SourceOptions, convert};

/// Width and height, pixels.
type Size = (u32, u32);

const PROMPT: &str = "a small yellow boat on the sea";

/// A PNG that the program paints, kept in `folder` as `name`, and what a display shows of it, if one is asked for.
fn paint(folder: &Path, name: &str, level: Level, options: &[&str], case: &PaintingCase) -> [Vec<u8>; 2] {
    let file = folder.join(name);
    let mut command = Command::new(program());
    let prompt = case.prompt.unwrap_or(PROMPT);
    command.args(["generate", prompt, "--seed", "11", "--steps", "2", "-o"]).arg(&file);
    let output = command.args(options).env("DIFFUSED_CPU", level.name()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = file.with_extension("").with_file_name(format!("{}-panel.png", file.file_stem().unwrap().display()));
    [std::fs::read(file).unwrap(), std::fs::read(shown).unwrap_or_default()]
}

/// What is painted beside the size.
#[derive(Default)]
struct PaintingCase<'a> {
    /// Of image to image.
    strength: Option<f64>,
    inpainting: Option<Inpainting>,
    /// Another bundle than the demo model's.
    model: Option<&'a Path>,
    upscale: Option<usize>,
    hires: Option<HiresRequest>,
    /// Another prompt than the usual.
    prompt: Option<&'a str>,
    guidance_interval: Option<[f64; 2]>,
    cache_interval: Option<usize>,
}

/// What the refusal of a tiny budget calls the smallest, for a picture of this size.
fn smallest_budget((width, height): Size, case: &PaintingCase) -> String {
    let PaintingCase { strength, inpainting, model, upscale, ref hires, prompt, guidance_interval, cache_interval } =
        *case;
    let model = Model::new(model, Options { memory: Some(1), ..Options::default() }).unwrap();
    let init_size = strength.map(|_| (width, height));
    let [width, height] = [width, height].map(|side| Some(side as usize));
    let hires = hires.clone();
    let prompt = prompt.unwrap_or_default().to_owned();
    let request = Request {
        prompt,
        width,
        height,
        strength,
        inpainting,
        upscale,
        hires,
        guidance_interval,
        cache_interval,
        ..Request::default()
    };
    let painting = model.resolver().unwrap().resolve(&request, init_size).unwrap();
    let Err(Error::OutOfMemory(message)) = model.open().unwrap().plan(&painting) else {
        panic!("one byte cannot be enough")
    };
    message.split("at least ").nth(1).unwrap().replace(' ', "")
}

/// Paints with every choice and compares.
fn check(name: &str, size: Size, options: &[&str], case: &PaintingCase) {
    let folder = tempfile::tempdir().unwrap();
    let (width, height) = (size.0.to_string(), size.1.to_string());
    let mut options = options.to_vec();
    options.extend(["--width", &width, "--height", &height]);
    let wanted = paint(folder.path(), name, Level::Scalar, &options, case);
    assert_eq!(wanted[1].is_empty(), !options.contains(&"--panel"));
    for level in Level::ALL.into_iter().filter(|level| level.available()) {
        for threads in ["1", "2", "3", "4"] {
            let options = [&options[..], &["--threads", threads]].concat();
            assert!(paint(folder.path(), name, level, &options, case) == wanted, "{level}, {threads} threads");
            if level == Level::Scalar {
                break; // one is enough of the slowest
            }
        }
    }
    for memory in [&smallest_budget(size, case), "64M", "2G"] {
        let options = [&options[..], &["--memory", memory]].concat();
        assert!(paint(folder.path(), name, Level::detected(), &options, case) == wanted, "a budget of {memory}");
    }
}

#[test]
fn text_to_image() {
    check("boat.png", (128, 96), &[], &PaintingCase::default());
}

/// Latents of 13 × 9, which no halving divides.
#[test]
fn text_to_image_of_an_odd_size() {
    check("boat.png", (104, 72), &[], &PaintingCase::default());
}

#[test]
fn image_to_image() {
    let init = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/pictures/demo-init.png");
    check(
        "boat.png",
        (128, 96),
        &["--init-image", init, "--strength", "0.9"],
        &PaintingCase { strength: Some(0.9), ..PaintingCase::default() },
    );
}

#[test]
fn inpainting() {
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens");
    let [image, mask] = ["pictures/demo-init.png", "inpaint/mask-40x24.png"].map(|file| format!("{goldens}/{file}"));
    let options =
        ["--init-image", &image, "--mask", &mask, "--strength", "0.9", "--mask-blur", "5", "--inpainting-fill", "fill"];
    let inpainting = Some(Inpainting { content: MaskedContent::Fill, ..Inpainting::default() });
    check(
        "boat.png",
        (128, 96),
        &options,
        &PaintingCase { strength: Some(0.9), inpainting, ..PaintingCase::default() },
    );
}

#[test]
fn an_enlarged_image() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    let upscaler = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/models/upscaler-x4.pth");
    let source = SourceOptions { upscaler: Some(upscaler), ..SourceOptions::default() };
    let options = model_prep::Options { source, ..model_prep::Options::default() };
    convert(&root().join("model-prep/demo/model"), &bundle, &options, &mut |_| ()).unwrap();
    let model = ["--model", bundle.to_str().unwrap()];
    let case = || PaintingCase { model: Some(&bundle), ..PaintingCase::default() };
    check(
        "boat.png",
        (72, 40),
        &[&model[..], &["--upscale", "4"]].concat(),
        &PaintingCase { upscale: Some(4), ..case() },
    );
    let (scale, upscaler) = (Some(1.5), Some(HiresUpscaler::Model));
    let hires = Some(HiresRequest { scale, upscaler, ..HiresRequest::default() });
    let options = [&model[..], &["--hires", "1.5", "--hires-upscaler", "Model"]].concat();
    check("boat.png", (64, 48), &options, &PaintingCase { hires, ..case() });
}

#[test]
fn two_passes_of_latents_and_of_pixels() {
    for upscaler in [HiresUpscaler::Latent, HiresUpscaler::Lanczos] {
        let hires = HiresRequest { scale: Some(1.5), upscaler: Some(upscaler), ..HiresRequest::default() };
        let options = ["--hires", "1.5", "--hires-upscaler", &upscaler.to_string()];
        check("boat.png", (64, 48), &options, &PaintingCase { hires: Some(hires), ..PaintingCase::default() });
    }
}

/// A guided step and one without, and one that takes up what the one before it kept.
#[test]
fn steps_that_leave_something_out() {
    let (guidance_interval, cache_interval) = (Some([0.0, 0.5]), Some(2));
    let case = PaintingCase { guidance_interval, ..PaintingCase::default() };
    check("boat.png", (104, 72), &["--guidance-interval", "0,0.5"], &case);
    let case = PaintingCase { cache_interval, ..PaintingCase::default() };
    check("boat.png", (104, 72), &["--cache-interval", "2"], &case);
}

/// Three chunks of words, changes from step to step and a second prompt; and a display's picture.
#[test]
fn long_and_joined_prompts_and_what_a_display_shows() {
    let long = "a [red:blue:0.5] house on a (hill:1.3), [day|night], ".repeat(16) + "AND a boat:0.7";
    let panel = r#"{"width": 48, "height": 32, "palette": "spectra-6"}"#;
    let case = PaintingCase { prompt: Some(&long), ..PaintingCase::default() };
    check("boat.png", (64, 48), &["--panel", panel], &case);
}
