//! Pictures that are painted to see how large the channels of values are in truth.

use std::collections::BTreeMap;
use std::path::Path;

use diffused_engine::bundle::Manifest;
use diffused_engine::error::Result;
use diffused_engine::quantized::{ChannelSquares, QuantizedValues};
use diffused_engine::request::{Observer, PaintingProgress, Request, Start};
use diffused_engine::{Engine, Options, Resolver, Source};

/// Painted where the model brings no examples.
const PROMPTS: [&str; 2] =
    ["a photo of a red bicycle on a street in front of a house", "portrait of a smiling old woman"];
/// Most steps of a picture.
const STEPS: usize = 4;
/// Bytes that painting may take.
const MEMORY: u64 = 256 << 20;

/// Paints small pictures with `bundle`, and counts what its networks quantize. The engine gives the same on every
/// machine.
pub(crate) fn count(bundle: &Path) -> Result<BTreeMap<String, ChannelSquares>> {
    let source = Source::Folder(bundle.to_owned());
    let (resolver, values) = (Resolver::open(source.clone())?, QuantizedValues::default());
    let mut engine =
        Engine::open_counting(source, Options { memory: Some(MEMORY), ..Options::default() }, values.clone())?;
    for (prompt, seed) in prompts(engine.manifest()).into_iter().zip(1..) {
        let request = request(engine.manifest(), prompt, seed);
        engine.paint(&resolver.resolve(&request, None)?, Start::Noise, &mut GiveBack)?;
    }
    Ok(values.counted())
}

/// Gives memory that a stage has freed back to the system before the next one takes any.
struct GiveBack;

impl Observer for GiveBack {
    fn tick(&mut self, _: PaintingProgress) {}

    fn memory_freed(&mut self) {
        diffused_heap::trim();
    }
}

/// The model's own examples, or ours.
fn prompts(manifest: &Manifest) -> Vec<String> {
    let own: Vec<String> = manifest.examples.iter().take(PROMPTS.len()).cloned().collect();
    if own.is_empty() { PROMPTS.map(str::to_owned).to_vec() } else { own }
}

/// Half the default width and height, few steps.
fn request(manifest: &Manifest, prompt: String, seed: u64) -> Request {
    let (sizes, steps) = (&manifest.picture, manifest.sampling.steps.min(STEPS));
    let side = (sizes.default / 2 / sizes.factor * sizes.factor).max(sizes.smallest);
    Request { prompt, seed, width: Some(side), height: Some(side), steps: Some(steps), ..Request::default() }
}
