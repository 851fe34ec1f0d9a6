//! From a message's bytes to what is asked: the names of the A1111 web API, because people know them, and our own
//! beside them. All of it is untrusted input, so each value is checked, and each error names its key.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::request::Request;
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Options, Painting, Resolver};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::fault::Fault;
use crate::contract::request::FileFormat;
use crate::contract::topics::is_safe_level;
use crate::jobs::init_image::InitImage;
use crate::random;
use fields::Fields;
use payload::Payload;
pub use payload::trimmed;

mod fields;
mod payload;

/// The longest prompt that is taken, in bytes; the model itself reads no more than about 77 words.
const MAX_PROMPT: usize = 20_000;
/// The longest `transaction`, bytes: it is returned with every answer.
const MAX_TRANSACTION: usize = 1024;
/// The most images of one request.
const MAX_PICTURES: u64 = 16;
/// What the file names of init images begin with.
pub const INIT_IMAGE: &str = ".diffused-init-image-";

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
    /// The image that image to image starts from.
    #[serde(skip)]
    pub init_image: Option<InitImage>,
    /// How many images, with the seeds that follow.
    pub count: u64,
    /// The images' file format.
    pub format: FileFormat,
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
    /// Reads a payload. The bytes of its init image, if it has one, are to be stored: in a file in `folder`, as the job
    /// says.
    pub fn parse(payload: &[u8], mode: RequestMode, folder: &Path) -> Result<(Job, Option<Vec<u8>>), Rejection> {
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
        let bytes = init_image(&mut fields, mode).map_err(rejection)?;
        let mut job = interpret(&mut fields).map_err(rejection)?;
        (job.named, job.id) = (id.is_some(), id.clone().unwrap_or_else(random::id));
        let path = folder.join(format!("{INIT_IMAGE}{}", job.id));
        job.init_image = bytes.as_ref().map(|bytes| InitImage::of_bytes(bytes, path)).transpose().map_err(rejection)?;
        job.transaction = transaction;
        job.warnings.extend(warning);
        Ok((job, bytes))
    }

    /// Settles what is painted. Its init image must fit the memory of `options` when it is unpacked.
    pub fn resolve(&self, resolver: &Resolver, options: Options) -> Result<Painting, Fault> {
        let painting = resolver.resolve(&self.request, self.init_image.as_ref().map(InitImage::size))?;
        self.init_image.as_ref().map_or(Ok(()), |image| image.check(painting.parameters(), options))?;
        Ok(painting)
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
fn interpret(fields: &mut Fields) -> Result<Job, Fault> {
    let prompt = fields.text("prompt")?.ok_or_else(|| Fault::param("prompt", "is missing"))?;
    let negative_prompt = fields.text("negative_prompt")?.unwrap_or_default();
    for (field, text) in [("prompt", &prompt), ("negative_prompt", &negative_prompt)] {
        if text.len() > MAX_PROMPT {
            return Err(Fault::too_large(field, format!("{} bytes; {MAX_PROMPT} are allowed", text.len())));
        }
    }
    let request = Request {
        prompt,
        negative_prompt,
        width: fields.size("width")?,
        height: fields.size("height")?,
        steps: fields.size("steps")?,
        cfg_scale: fields.number("cfg_scale")?,
        seed: seed(fields)?,
        sampler: sampler(fields)?,
        strength: fields.number("denoising_strength")?,
        decoder: decoder(fields)?,
    };
    let job = Job {
        id: String::new(),
        named: false,
        transaction: None,
        init_image: None,
        count: fields.whole("n_iter", 1..=MAX_PICTURES as i64)?.map_or(1, |n| n as u64),
        format: format(fields)?,
        priority: fields.whole("priority", -100..=100)?.unwrap_or(0),
        not_after: not_after(fields)?,
        warnings: vec![],
        request,
    };
    if fields.take("mask").is_some() {
        return Err(Fault::param(
            "mask",
            "inpainting is not supported; without the mask another image would be painted",
        ));
    }
    Ok(Job { warnings: fields.leftovers(), ..job })
}

fn sampler(fields: &mut Fields) -> Result<Option<SamplerKind>, Fault> {
    let name = fields.text("sampler_name")?.map(|name| name.chars().take(80).collect::<String>());
    Ok(name.map(|name| name.parse()).transpose()?)
}

fn decoder(fields: &mut Fields) -> Result<Option<AutoencoderKind>, Fault> {
    let name = fields.text("decoder")?.map(|name| name.chars().take(80).collect::<String>());
    name.map(|name| name.parse().map_err(|message: String| Fault::param("decoder", message))).transpose()
}

/// −1 and nothing mean a random seed, small enough for every JSON reader.
fn seed(fields: &mut Fields) -> Result<u64, Fault> {
    let Some(value) = fields.take("seed") else { return Ok(random::seed()) };
    match fields::whole(&value) {
        Some(-1) => Ok(random::seed()),
        Some(seed) if seed >= 0 => Ok(seed as u64),
        _ => value.as_u64().ok_or_else(|| {
            Fault::param(
                "seed",
                format!("expected a whole number from 0, or -1 for a random one; got {}", fields::shown(&value)),
            )
        }),
    }
}

/// The one init image, out of its base64.
fn init_image(fields: &mut Fields, mode: RequestMode) -> Result<Option<Vec<u8>>, Fault> {
    const FIELD: &str = "init_images";
    let images = match (mode, fields.take(FIELD)) {
        (RequestMode::Txt2Img, None) => return Ok(None),
        (RequestMode::Txt2Img, Some(_)) => return Err(Fault::param(FIELD, "belongs to img2img; publish it there")),
        (RequestMode::Img2Img, images) => images,
    };
    let Some(Value::Array(images)) = images else {
        return Err(Fault::param(FIELD, "expected a list with one image in base64"));
    };
    let [Value::String(text)] = images.as_slice() else {
        return Err(Fault::param(FIELD, format!("expected one image in base64, got {} entries", images.len())));
    };
    let text = text.split_once("base64,").map_or(text.as_str(), |(_, data)| data);
    // Some tools wrap the lines.
    let unwrapped: String = text.split_ascii_whitespace().collect();
    let decoded = BASE64.decode(unwrapped);
    decoded.map(Some).map_err(|error| Fault::param(FIELD, format!("the image's base64 is broken: {error}")))
}

/// Some tools leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn format(fields: &mut Fields) -> Result<FileFormat, Fault> {
    match fields.text("format")?.map(|name| name.to_ascii_lowercase()).as_deref() {
        None | Some("png") => Ok(FileFormat::Png),
        Some("jpeg" | "jpg") => Ok(FileFormat::Jpeg),
        Some(other) => Err(Fault::param("format", format!("`{other}` is unknown; png and jpeg are allowed"))),
    }
}

fn not_after(fields: &mut Fields) -> Result<Option<SystemTime>, Fault> {
    let Some(seconds) = fields.number("not_after")? else { return Ok(None) };
    let after_epoch = Duration::try_from_secs_f64(seconds).ok();
    let time = after_epoch.and_then(|duration| SystemTime::UNIX_EPOCH.checked_add(duration));
    time.map(Some)
        .ok_or_else(|| Fault::param("not_after", format!("{seconds:e} is out of range; expected seconds since 1970")))
}

#[cfg(test)]
mod tests;
