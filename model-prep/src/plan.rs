//! What a model would need, without converting it: graphs and the places of the weights are written as for a bundle,
//! the weights themselves are not, and the engine plans with that.

use std::fs;
use std::path::Path;

use diffused_engine::bundle::{self, NewTensor, write_weights_index};
use diffused_engine::memory_plan::MemoryPlan;
use diffused_engine::request::{Parameters, Request};
use diffused_engine::{Engine, Resolver, Source};

use crate::arch;
use crate::convert::{Options, UNKNOWN_SHA256, checksums, manifest, manifest_fields, write};
use crate::error::{Error, Result};
use crate::inspect::{Inspection, summary};
use crate::parameter::Parameter;
use crate::source::ModelSource;

/// What painting an image with a model would need.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The model as a bundle.
    pub inspection: Inspection,
    /// The image that is planned.
    pub parameters: Parameters,
    /// How the memory would be divided.
    pub memory: MemoryPlan,
    /// The smallest budget in which this image can be painted, bytes.
    pub smallest: u64,
    /// Multiply-adds of the image, all its steps included.
    pub work: u64,
}

/// Plans `request` with the bundle that `source` would become; the init image of an image to image has the size that is
/// painted.
///
/// # Errors
///
/// A source that cannot be converted, a request that the model does not take, a budget that is too small.
pub fn plan(
    source: &Path,
    options: &Options,
    request: &Request,
    image_to_image: bool,
    engine: diffused_engine::Options,
) -> Result<Plan> {
    let mut source = ModelSource::open(source, &options.source)?;
    let inspection = summary(&mut source, options)?;
    let folder = tempfile::tempdir().map_err(Error::io(&std::env::temp_dir()))?;
    write_without_values(&source, options, folder.path())?;
    let place = Source::Folder(folder.path().to_owned());
    let resolver = Resolver::open(place.clone())?;
    let default = resolver.manifest().picture.default;
    let [width, height] = [request.width, request.height].map(|side| side.unwrap_or(default));
    let request = Request { width: Some(width), height: Some(height), ..request.clone() };
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let painting = resolver.resolve(&request, image_to_image.then(|| (side(width), side(height))))?;
    let mut engine = Engine::open(place, engine)?;
    let (memory, smallest) = (engine.plan(&painting)?, engine.smallest_budget(&painting)?);
    let work = engine.work(&painting)?;
    Ok(Plan { inspection, parameters: painting.parameters().clone(), memory, smallest, work })
}

/// Writes the bundle of `source` to `folder`, but for the weights' values.
fn write_without_values(source: &ModelSource, options: &Options, folder: &Path) -> Result<()> {
    let networks = arch::networks(&source.configs, options.weights);
    for network in &networks {
        write(&folder.join(format!("{}.onnx", network.name)), &network.to_onnx())?;
        let tensors: Vec<NewTensor> = network.parameters.iter().map(Parameter::tensor).collect();
        write_weights_index(&folder.join(format!("{}.weights", network.name)), &tensors)?;
    }
    let tokenizer = folder.join("tokenizer");
    fs::create_dir(&tokenizer).map_err(Error::io(&tokenizer))?;
    write(&folder.join("tokenizer/vocab.json"), &source.tokenizer.vocab)?;
    write(&folder.join("tokenizer/merges.txt"), &source.tokenizer.merges)?;
    let mut fields = manifest_fields(source, options, UNKNOWN_SHA256.to_owned());
    let (weights, small): (Vec<String>, Vec<String>) = bundle::files(networks.iter().map(|network| network.name))
        .into_iter()
        .partition(|file| file.ends_with(".weights"));
    fields.files = checksums(folder, &small)?;
    fields.files.extend(weights.into_iter().map(|file| (file, UNKNOWN_SHA256.to_owned())));
    write(&folder.join("bundle.json"), &manifest(source, fields)?.to_json())
}
