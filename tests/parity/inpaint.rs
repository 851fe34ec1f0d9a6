//! Inpainting with masks: whole pictures by ordinary models and those of nine channels, and the arithmetic on masks.

use diffused_engine::inpainting::{Inpainting, Mask, MaskedContent, Region, filled, luminance};
use diffused_engine::picture::Fit;
use diffused_engine::request::{NoObserver, Observer, PaintingProgress, Request, Start};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Engine, Options, Resolver, StepCheckpoint};
use image::{GrayImage, RgbImage};
use model_prep::Format;
use serde::Deserialize;

use crate::pictures::{agreement, open};
use crate::{Fresh, goldens};

#[derive(Debug, Deserialize)]
struct MaskedGolden {
    model: String,
    sampler: SamplerKind,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    steps: usize,
    cfg_scale: f64,
    width: usize,
    height: usize,
    init_image: String,
    strength: f64,
    mask: String,
    padding: Option<u32>,
    file: String,
}

fn mask(file: &str, inpainting: &Inpainting) -> Mask {
    Mask::new(luminance(&open(file)), inpainting)
}

impl MaskedGolden {
    fn request(&self, inpainting: Inpainting) -> Request {
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            width: Some(self.width),
            height: Some(self.height),
            steps: Some(self.steps),
            cfg_scale: Some(self.cfg_scale),
            seed: self.seed,
            sampler: Some(self.sampler),
            strength: Some(self.strength),
            inpainting: Some(inpainting),
            ..Request::default()
        }
    }

    /// The picture; with a padding the mask's box alone is painted, as the reference's `padding_mask_crop` does.
    fn paint(&self, resolver: &Resolver, engine: &mut Engine) -> RgbImage {
        let inpainting = Inpainting { region_only: self.padding.is_some(), ..Inpainting::default() };
        let (mut image, mask) = (open(&self.init_image), mask(&self.mask, &inpainting));
        let painting = resolver.resolve(&self.request(inpainting), Some(image.dimensions())).unwrap();
        let mut paint = |image, mask| {
            engine.paint(&painting, Start::Masked { image, mask, checkpoint: None }, &mut NoObserver).unwrap()
        };
        let (width, height) = (self.width, self.height);
        let Some(padding) = self.padding else { return paint(image, mask) };
        let region = mask.region(width, height, padding);
        let painted = paint(region.crop(&image, width, height), mask.crop(&region, width, height));
        region.put_masked(&mut image, painted, &mask);
        image
    }
}

#[test]
fn pictures_agree() {
    check_pictures("pictures-inpaint.json", &["sd1", "inpaint", "sdxl", "sdxl-inpaint"]);
}

/// Unmasked latents follow between the calls of a step, too.
#[test]
fn pictures_of_two_calls_a_step_agree() {
    check_pictures("pictures-inpaint-two-calls.json", &["sd1"]);
}

/// Paints the pictures of the list `file` by these models, and holds them against the reference's.
fn check_pictures(file: &str, models: &[&str]) {
    let list = std::fs::read_to_string(goldens().join(file)).unwrap();
    let list: Vec<MaskedGolden> = serde_json::from_str(&list).unwrap();
    let (mut wrong, mut painted) = (vec![], 0);
    for &model in models {
        let fresh = Fresh::new(model, Format::F32);
        let resolver = Resolver::open(fresh.source()).unwrap();
        let mut engine = Engine::open(fresh.source(), Options::default()).unwrap();
        for golden in list.iter().filter(|golden| golden.model == model) {
            let agreement = agreement(&golden.paint(&resolver, &mut engine), &open(&golden.file));
            println!("{}: {:.2} %", golden.file, 100.0 * agreement);
            if agreement < 0.999 {
                wrong.push(format!("{} ({:.2} %)", golden.file, 100.0 * agreement));
            }
            painted += 1;
        }
    }
    assert!(wrong.is_empty(), "less than 99.9 % agree: {wrong:?}");
    assert_eq!(painted, list.len(), "every picture is of one of these models");
}

const SIZES: [&str; 2] = ["40x24", "7x33"];

fn grey(file: &str) -> GrayImage {
    image::open(goldens().join(file)).unwrap().into_luma8()
}

#[test]
fn filled_images_are_the_web_interfaces() {
    for size in SIZES {
        let [image, wanted] = ["image", "fill"].map(|name| open(&format!("inpaint/{name}-{size}.png")));
        let mask = Mask::new(grey(&format!("inpaint/mask-{size}.png")), &Inpainting::default());
        assert!(filled(&image, &mask) == wanted, "{size}");
    }
}

#[test]
fn blurred_masks_are_open_cvs() {
    for size in SIZES {
        for (blur_x, blur_y) in [(4.0, 4.0), (0.7, 0.0), (0.0, 9.5)] {
            let inpainting = Inpainting { blur_x, blur_y, ..Inpainting::default() };
            let ours = Mask::new(grey(&format!("inpaint/mask-{size}.png")), &inpainting);
            let theirs = Mask::new(grey(&format!("inpaint/blur-{blur_x}-{blur_y}-{size}.png")), &Inpainting::default());
            assert!(ours == theirs, "{blur_x}, {blur_y}, {size}");
        }
    }
}

#[test]
fn scaled_images_are_pillows() {
    let noise = open("resized/noise.png");
    let red = GrayImage::from_fn(noise.width(), noise.height(), |x, y| image::Luma([noise.get_pixel(x, y)[0]]));
    for (width, height) in [(16, 16), (64, 50), (37, 60), (11, 29), (90, 3), (1, 1), (36, 30)] {
        let size = format!("{width}x{height}");
        let colours = Fit::Stretch.place(&noise, width, height, image::Rgb([0; 3]));
        assert!(colours == open(&format!("resized/RGB-{size}.png")), "{size}");
        let greys = Fit::Stretch.place(&red, width, height, image::Luma([0]));
        assert!(greys == grey(&format!("resized/L-{size}.png")), "{size} in grey");
    }
}

#[test]
fn overlays_agree() {
    for size in SIZES {
        let [image, other, wanted] =
            ["image", "other", "overlay"].map(|name| open(&format!("inpaint/{name}-{size}.png")));
        let mask = Mask::new(grey(&format!("inpaint/mask-{size}.png")), &Inpainting::default());
        let ours = mask.overlay(image, &other);
        assert!(ours.as_raw().iter().zip(wanted.as_raw()).all(|(a, b)| a.abs_diff(*b) <= 1), "{size}");
    }
}

#[derive(Debug, Deserialize)]
struct GoldenRegion {
    size: [u32; 2],
    /// Left, top, right and bottom of what is masked.
    #[serde(rename = "box")]
    masked: [u32; 4],
    padding: u32,
    target: [usize; 2],
    /// Left, top, right and bottom.
    region: [u32; 4],
}

#[test]
fn regions_are_the_references() {
    let list = std::fs::read(goldens().join("inpaint/regions.json")).unwrap();
    for golden in serde_json::from_slice::<Vec<GoldenRegion>>(&list).unwrap() {
        let [left, top, right, bottom] = golden.masked;
        let inside = |x, y| (left..right).contains(&x) && (top..bottom).contains(&y);
        let value = |x, y| image::Luma([if inside(x, y) { 255 } else { 0 }]);
        let mask = GrayImage::from_fn(golden.size[0], golden.size[1], value);
        let mask = Mask::new(mask, &Inpainting::default());
        let Region { x, y, width, height } = mask.region(golden.target[0], golden.target[1], golden.padding);
        assert_eq!([x, y, x + width, y + height], golden.region, "{golden:?}");
    }
}

/// Keeps what the engine reports.
#[derive(Default)]
struct CheckpointList(Vec<StepCheckpoint>);

impl Observer for CheckpointList {
    fn tick(&mut self, _: PaintingProgress) {}

    fn step_done(&mut self, checkpoint: &StepCheckpoint) {
        self.0.push(checkpoint.clone());
    }
}

/// The bytes of a painting that was never interrupted, for whatever is under the mask at the beginning.
#[test]
fn a_painting_goes_on_after_every_call() {
    for model in ["sd1", "inpaint"] {
        let fresh = Fresh::new(model, Format::Int8);
        let resolver = Resolver::open(fresh.source()).unwrap();
        let mut engine = Engine::open(fresh.source(), Options::default()).unwrap();
        let mut seen = vec![];
        for (sampler, strength, content) in [
            (SamplerKind::EulerAncestral, 0.6, MaskedContent::Original),
            (SamplerKind::Dpmpp2m, 0.6, MaskedContent::Fill),
            (SamplerKind::Pndm, 0.6, MaskedContent::LatentNoise),
            (SamplerKind::Lcm, 0.6, MaskedContent::LatentNothing),
            (SamplerKind::EulerAncestral, 0.6, MaskedContent::LatentNothing),
            (SamplerKind::EulerAncestral, 1.0, MaskedContent::Original),
        ] {
            let inpainting = Inpainting { content, ..Inpainting::default() };
            let image = open("pictures/sd1-init.png");
            let request = Request {
                prompt: "a red car".into(),
                steps: Some(6),
                seed: 3,
                sampler: Some(sampler),
                strength: Some(strength),
                inpainting: Some(inpainting),
                ..Request::default()
            };
            let painting = resolver.resolve(&request, Some(image.dimensions())).unwrap();
            let mut paint = |checkpoint, recorder: &mut CheckpointList| {
                let mask = mask("inpaint/mask-disc-16x16.png", &inpainting);
                engine.paint(&painting, Start::Masked { image: image.clone(), mask, checkpoint }, recorder).unwrap()
            };
            let mut whole = CheckpointList::default();
            let picture = paint(None, &mut whole);
            assert_eq!(whole.0.len(), painting.calls());
            for (index, checkpoint) in whole.0.iter().enumerate() {
                let mut rest = CheckpointList::default();
                assert!(paint(Some(checkpoint.clone()), &mut rest) == picture, "{model}, {sampler}, call {index}");
                assert!(rest.0 == whole.0[index + 1..]);
            }
            assert!(!seen.contains(&picture), "{model}: {content:?} and {strength} show");
            seen.push(picture);
        }
    }
}
