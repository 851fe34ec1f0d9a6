//! From a message's bytes to what is asked: the names of the A1111 web API, because people know them, and our own
//! beside them. All of it is untrusted input, so each value is checked, and each error names its key.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

use std::path::Path;
use std::time::SystemTime;

use diffused_engine::bundle::{MAX_SIDE, Manifest, PictureSizes};
use diffused_engine::hires::HiresRequest;
use diffused_engine::prompt::PromptSyntax;
use diffused_engine::request::Request;
use diffused_engine::{Options, Painting, Resolver};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::fault::Fault;
use crate::contract::request::FileFormat;
use crate::contract::topics::is_safe_level;
use crate::display::size::{PaintableSides, painted};
use crate::display::spec::{DisplaySpec, OutputRequest};
use crate::jobs::init_image::InitImage;
use crate::jobs::sources::{SourceBytes, Sources, of_mask};
use crate::jobs::wildcards::{DrawnPrompts, Wildcards};
use crate::random;
use fields::Fields;
pub use fields::whole;
pub use hires::HiresForm;
pub use masks::PADDING;
use payload::Payload;
pub use payload::{is_plain_text, object, trimmed};

mod fields;
mod hires;
mod images;
mod masks;
mod payload;
mod values;

/// The longest prompt that is taken, in bytes; the model itself reads no more than about 77 words.
const MAX_PROMPT: usize = 20_000;
/// The longest `transaction`, bytes: it is returned with every answer.
const MAX_TRANSACTION: usize = 1024;
/// The most images of one request.
pub const MAX_PICTURES: u64 = 16;
/// What the file names of init images begin with.
pub const INIT_IMAGE: &str = ".diffused-init-image-";
/// What the file names of masks begin with.
pub const MASK: &str = ".diffused-mask-";

/// Which of the two topics a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestMode {
    /// A prompt alone.
    Txt2Img,
    /// A prompt and an image to start from.
    Img2Img,
}

/// What is asked for, checked as far as it can be without the model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The client's, or one of ours.
    pub id: String,
    /// Whether it is the client's.
    pub named: bool,
    /// The client's own name for it, returned as it came.
    pub transaction: Option<Value>,
    /// The image.
    pub request: Request,
    /// For each image: the prompts that were drawn for it; empty where nothing was left open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drawn: Vec<DrawnPrompts>,
    /// How the second pass was asked for.
    #[serde(skip)]
    pub hires_form: HiresForm,
    /// The image that image to image starts from.
    #[serde(skip)]
    pub init_image: Option<InitImage>,
    /// What of it is repainted.
    #[serde(skip)]
    pub mask: Option<InitImage>,
    /// How many images, with the seeds that follow.
    pub count: u64,
    /// The images' file format.
    pub format: FileFormat,
    /// What a display shows of them, as asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRequest>,
    /// Whether previews of them are published; `None`: as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<bool>,
    /// Larger goes first.
    pub priority: i64,
    /// Not started after this time.
    pub not_after: Option<SystemTime>,
    /// Keys that were not understood and left out.
    pub warnings: Vec<String>,
}

/// Why a request was not taken, with as much of its name as could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// The request's id, if it has a usable one.
    pub id: Option<String>,
    /// See `Job::transaction`.
    pub transaction: Option<Value>,
    /// What is wrong.
    pub fault: Fault,
}

impl Rejection {
    /// Of a payload that is not read but for its names.
    pub fn of_names(payload: &[u8], fault: Fault) -> Rejection {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Names {
            id: Option<Value>,
            transaction: Option<Value>,
        }
        let names: Names = serde_json::from_slice(payload).unwrap_or_default();
        let names = [("id", names.id), ("transaction", names.transaction)];
        let small = names.into_iter().filter_map(|(key, value)| {
            // What is too large is not returned.
            value.filter(|value| value.to_string().len() <= MAX_TRANSACTION).map(|value| (key.to_owned(), value))
        });
        let mut fields = Fields::new(small.collect());
        let transaction = fields.take("transaction");
        let id = identify(&mut fields, transaction.as_ref()).unwrap_or_default();
        Rejection { id, transaction, fault }
    }
}

impl Job {
    /// Reads a payload. Its images, with their bytes, are to be stored: in files in `folder`, as the job says.
    pub fn parse(payload: &[u8], mode: RequestMode, folder: &Path) -> Result<(Job, SourceBytes), Rejection> {
        let anonymous = |fault| Rejection { id: None, transaction: None, fault };
        let (mut fields, warning) = match payload::read(payload).map_err(anonymous)? {
            Payload::Prompt(prompt, warning) => (Fields::of_prompt(prompt), warning),
            Payload::Object(fields) => (fields, None),
        };
        let transaction = fields.take("transaction");
        if transaction.as_ref().is_some_and(|transaction| transaction.to_string().len() > MAX_TRANSACTION) {
            let fault =
                Fault::too_large("transaction", format!("more than {MAX_TRANSACTION} bytes, which are allowed"));
            return Err(Rejection::of_names(payload, fault));
        }
        let id = identify(&mut fields, transaction.as_ref()).map_err(|fault| Rejection {
            id: None,
            transaction: transaction.clone(),
            fault,
        })?;
        let rejection = |fault| Rejection { id: id.clone(), transaction: transaction.clone(), fault };
        let init_image = images::init_image(&mut fields, mode).map_err(rejection)?;
        let mask = masks::mask(&mut fields, mode).map_err(rejection)?;
        let mut job = interpret(&mut fields, mask.is_some()).map_err(rejection)?;
        (job.named, job.id) = (id.is_some(), id.clone().unwrap_or_else(random::id));
        let mut files = vec![];
        let mut read = |bytes: Option<Vec<u8>>, prefix: &str| {
            let Some(bytes) = bytes else { return Ok(None) };
            let image = InitImage::of_bytes(&bytes, folder.join(format!("{prefix}{}", job.id)))?;
            files.push((image.clone(), bytes));
            Ok(Some(image))
        };
        let init_image = read(init_image, INIT_IMAGE).map_err(rejection)?;
        let mask = read(mask, MASK).map_err(|fault| rejection(of_mask(fault)))?;
        (job.init_image, job.mask) = (init_image, mask);
        job.transaction = transaction;
        job.warnings.extend(warning);
        Ok((job, files))
    }

    /// The images that it is made of.
    pub fn sources(&self) -> Sources<'_> {
        Sources { init_image: self.init_image.as_ref(), mask: self.mask.as_ref() }
    }

    /// Draws what its prompts leave open, for each image by its seed: once, so that a restart paints the same.
    pub fn draw(&mut self, wildcards: &Wildcards, resolver: &Resolver) -> Result<(), Fault> {
        if resolver.prompt_syntax(&self.request) == PromptSyntax::A1111 {
            let draw = |index| wildcards.draw(&self.request, self.request.seed.wrapping_add(index));
            let drawn = (0..self.count).map(draw).collect::<Result<Vec<_>, _>>()?;
            let templates = DrawnPrompts::templates(&self.request);
            let leaves_open = drawn.iter().any(|drawn| *drawn != templates);
            self.drawn = if leaves_open { drawn } else { vec![] };
        }
        Ok(())
    }

    /// Chooses the size of an image that only a display's shape decides.
    pub fn paint_for(&mut self, display: Option<&DisplaySpec>, manifest: &Manifest) {
        if self.init_image.is_none() {
            fit_to(&mut self.request, display, manifest);
        }
    }

    /// Settles what is painted: a painting for each image. Its images must fit the memory of `options` when they are
    /// unpacked.
    pub fn resolve(&self, resolver: &Resolver, options: Options) -> Result<Vec<Painting>, Fault> {
        let resolve = |request: &Request| resolver.resolve(request, self.init_image.as_ref().map(InitImage::size));
        let seeds = (0..self.count).map(|index| self.request.seed.wrapping_add(index));
        let paintings = if self.drawn.is_empty() {
            let first = resolve(&self.request)?;
            seeds.map(|seed| first.with_seed(seed)).collect()
        } else {
            let drawn =
                self.drawn.iter().zip(seeds).map(|(drawn, seed)| resolve(&drawn_request(&self.request, drawn, seed)));
            drawn.collect::<diffused_engine::error::Result<Vec<_>>>()?
        };
        for painting in &paintings {
            self.sources().check(painting.parameters(), options)?;
        }
        Ok(paintings)
    }
}

/// `template` with the prompts that were drawn from it.
pub fn drawn_request(template: &Request, drawn: &DrawnPrompts, seed: u64) -> Request {
    let DrawnPrompts(prompt, negative_prompt, hires, hires_negative) = drawn;
    let of = |template: &String, drawn: &String| Some(template.clone()).filter(|template| template != drawn);
    Request {
        prompt: prompt.clone(),
        negative_prompt: negative_prompt.clone(),
        prompt_template: of(&template.prompt, prompt),
        negative_prompt_template: of(&template.negative_prompt, negative_prompt),
        seed,
        hires: template.hires.as_ref().map(|template| HiresRequest {
            prompt: hires.clone(),
            negative_prompt: hires_negative.clone(),
            ..template.clone()
        }),
        ..template.clone()
    }
}

/// Gives a request that has no size, and is to be shown on a display that has one, a size of the display's shape.
pub fn fit_to(request: &mut Request, display: Option<&DisplaySpec>, manifest: &Manifest) {
    let Some((width, height)) = display.and_then(DisplaySpec::upright) else { return };
    if request.width.is_none() && request.height.is_none() {
        let PictureSizes { default, smallest, factor, .. } = manifest.picture;
        let sides = PaintableSides { default, smallest, largest: MAX_SIDE, multiple: factor };
        let (width, height) = painted(width, height, sides);
        (request.width, request.height) = (Some(width), Some(height));
    }
}

/// The request's `id`; without one, its `transaction` where that can stand in a topic.
fn identify(fields: &mut Fields, transaction: Option<&Value>) -> Result<Option<String>, Fault> {
    if !matches!(transaction, None | Some(Value::String(_) | Value::Number(_))) {
        return Err(Fault::param("transaction", "expected text or a number"));
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match fields.take("id") {
        None => Ok(transaction.map(text).filter(|id| is_safe_level(id))),
        Some(id @ (Value::String(_) | Value::Number(_))) if is_safe_level(&text(&id)) => Ok(Some(text(&id))),
        Some(id) => {
            let shown = text(&id).chars().take(80).collect::<String>().escape_debug().to_string();
            Err(Fault::param("id", format!("`{shown}` cannot be an id: use 1 to 64 letters, digits, `-`, `_` and `.`")))
        }
    }
}

/// Every key but the names.
fn interpret(fields: &mut Fields, with_mask: bool) -> Result<Job, Fault> {
    let prompt = fields.text("prompt")?.ok_or_else(|| Fault::param("prompt", "is missing"))?;
    let negative_prompt = fields.text("negative_prompt")?.unwrap_or_default();
    for (field, text) in [("prompt", &prompt), ("negative_prompt", &negative_prompt)] {
        if text.len() > MAX_PROMPT {
            return Err(Fault::too_large(field, format!("{} bytes; {MAX_PROMPT} are allowed", text.len())));
        }
    }
    let (inpainting, warning) = masks::inpainting(fields, with_mask)?;
    let (sampler, schedule) = values::sampler(fields)?;
    let (hires, hires_form) = hires::hires(fields)?;
    let request = Request {
        prompt,
        negative_prompt,
        width: fields.size("width")?,
        height: fields.size("height")?,
        steps: fields.size("steps")?,
        cfg_scale: fields.number("cfg_scale")?,
        seed: values::seed(fields)?,
        sampler,
        schedule,
        eta: fields.number("eta")?,
        strength: fields.number("denoising_strength")?,
        decoder: values::decoder(fields)?,
        fit: images::fit(fields)?,
        background: images::background(fields)?,
        inpainting,
        prompt_syntax: values::prompt_syntax(fields)?,
        upscale: fields.size("upscale")?,
        clip_skip: values::clip_skip(fields)?,
        guidance_interval: values::guidance_interval(fields)?,
        cache_interval: fields.size("cache_interval")?,
        prompt_template: None,
        negative_prompt_template: None,
        hires,
    };
    let job = Job {
        id: String::new(),
        named: false,
        transaction: None,
        drawn: vec![],
        hires_form,
        init_image: None,
        mask: None,
        count: fields.whole("n_iter", 1..=MAX_PICTURES as i64)?.map_or(1, |n| n as u64),
        format: values::format(fields)?,
        output: values::output(fields)?,
        preview: fields.flag("preview")?,
        priority: fields.whole("priority", -100..=100)?.unwrap_or(0),
        not_after: values::not_after(fields)?,
        warnings: vec![],
        request,
    };
    Ok(Job { warnings: fields.leftovers().into_iter().chain(warning).collect(), ..job })
}

#[cfg(test)]
mod tests;
