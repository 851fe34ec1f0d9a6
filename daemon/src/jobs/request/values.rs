//! Keys whose values are names, times or seeds.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::error::Error;
use diffused_engine::prompt::PromptSyntax;
use diffused_engine::sampler::{NoiseSchedule, SamplerChoice, SamplerKind};

use serde_json::{Map, Value};

use crate::contract::fault::Fault;
use crate::contract::request::FileFormat;
use crate::display::spec::{self, OutputRequest};
use crate::jobs::request::fields::{self, Fields};
use crate::random;

/// The sampler and its noise schedule.
pub(super) fn sampler(fields: &mut Fields) -> Result<(Option<SamplerKind>, Option<NoiseSchedule>), Fault> {
    sampler_named(("sampler_name", fields.text("sampler_name")?), ("scheduler", fields.text("scheduler")?))
}

/// The sampler and the noise schedule of these names, each with its key: a schedule at the end of the sampler's name goes
/// before the other, as in the web interface, where "Use same …" is what there is without them.
pub(super) fn sampler_named(
    sampler: (&str, Option<String>),
    schedule: (&str, Option<String>),
) -> Result<(Option<SamplerKind>, Option<NoiseSchedule>), Fault> {
    let choice: Option<SamplerChoice> = named(sampler, &["use same sampler"])?;
    let schedule: Option<NoiseSchedule> = named(schedule, &["automatic", "use same scheduler"])?;
    let kind = choice.map(|choice| choice.kind);
    Ok((kind, choice.and_then(|choice| choice.schedule).or(schedule)))
}

/// What a name means, unless it is one of those that stand for nothing.
fn named<T: FromStr<Err = Error>>((key, name): (&str, Option<String>), silent: &[&str]) -> Result<Option<T>, Fault> {
    let name = name.map(|name| name.chars().take(80).collect::<String>());
    let name = name.filter(|name| !silent.iter().any(|silent| name.trim().eq_ignore_ascii_case(silent)));
    let wrong = |error| Fault { field: Some(key.to_owned()), ..Fault::from(error) };
    name.map(|name| name.parse().map_err(wrong)).transpose()
}

pub(super) fn decoder(fields: &mut Fields) -> Result<Option<AutoencoderKind>, Fault> {
    let name = fields.text("decoder")?.map(|name| name.chars().take(80).collect::<String>());
    name.map(|name| name.parse().map_err(|message: String| Fault::param("decoder", message))).transpose()
}

pub(super) fn prompt_syntax(fields: &mut Fields) -> Result<Option<PromptSyntax>, Fault> {
    let name = fields.text("prompt_syntax")?.map(|name| name.chars().take(80).collect::<String>());
    name.map(|name| name.parse().map_err(|message: String| Fault::param("prompt_syntax", message))).transpose()
}

/// Also as A1111 has it, among the settings of its own that a request overrides.
pub(super) fn clip_skip(fields: &mut Fields) -> Result<Option<usize>, Fault> {
    const SETTING: &str = "CLIP_stop_at_last_layers";
    let own = fields.size("clip_skip")?;
    let mut settings = match fields.take("override_settings") {
        None => return Ok(own),
        Some(Value::Object(settings)) => settings,
        Some(other) => {
            let message = format!("expected an object, got {}", fields::shown(&other));
            return Err(Fault::param("override_settings", message));
        }
    };
    let setting = settings.remove(SETTING).map(|value| Fields::new(Map::from_iter([(SETTING.to_owned(), value)])));
    fields.put_back("override_settings", Fields::new(settings));
    Ok(own.or(setting.map(|mut setting| setting.size(SETTING)).transpose()?.flatten()))
}

/// Two numbers.
pub(super) fn guidance_interval(fields: &mut Fields) -> Result<Option<[f64; 2]>, Fault> {
    let Some(value) = fields.take("guidance_interval") else { return Ok(None) };
    let numbers = value.as_array().map(|values| values.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
    let interval = numbers.flatten().and_then(|numbers| <[f64; 2]>::try_from(numbers).ok());
    let wrong = || Fault::param("guidance_interval", "expected two numbers from 0 to 1, as in [0.2, 0.9]");
    interval.map(Some).ok_or_else(wrong)
}

/// A panel's name or an object.
pub(super) fn output(fields: &mut Fields) -> Result<Option<OutputRequest>, Fault> {
    let Some(value) = fields.take("output") else { return Ok(None) };
    spec::name_or_keys(value).map_err(|error| Fault::param("output", error.to_string()))
}

/// −1 and nothing mean a random seed, small enough for every JSON reader.
pub(super) fn seed(fields: &mut Fields) -> Result<u64, Fault> {
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

pub(super) fn format(fields: &mut Fields) -> Result<FileFormat, Fault> {
    let name = fields.text("format")?.map(|name| name.chars().take(80).collect::<String>());
    let wrong = |message: String| Fault::param("format", message);
    Ok(name.map(|name| name.parse().map_err(wrong)).transpose()?.unwrap_or(FileFormat::Png))
}

pub(super) fn not_after(fields: &mut Fields) -> Result<Option<SystemTime>, Fault> {
    let Some(seconds) = fields.number("not_after")? else { return Ok(None) };
    let after_epoch = Duration::try_from_secs_f64(seconds).ok();
    let time = after_epoch.and_then(|duration| SystemTime::UNIX_EPOCH.checked_add(duration));
    time.map(Some)
        .ok_or_else(|| Fault::param("not_after", format!("{seconds:e} is out of range; expected seconds since 1970")))
}
