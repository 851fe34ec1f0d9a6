//! The second pass, in each of its forms: `hires`, an object or a number, or the keys of A1111's web API.

use diffused_engine::hires::{HiresRequest, HiresUpscaler};
use serde_json::Value;

use crate::contract::fault::Fault;
use crate::jobs::request::fields::{Fields, shown};
use crate::jobs::request::{MAX_PROMPT, values};

/// How a request asks for the second pass, which decides by which keys errors name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HiresForm {
    /// By an object.
    #[default]
    Object,
    /// By a number, or true.
    Value,
    /// By the web API's keys.
    WebApi,
}

/// The keys of the object, and the web API's for the same.
const KEYS: [(&str, &str); 11] = [
    ("hires.scale", "hr_scale"),
    ("hires.width", "hr_resize_x"),
    ("hires.height", "hr_resize_y"),
    ("hires.steps", "hr_second_pass_steps"),
    ("hires.denoising_strength", "denoising_strength"),
    ("hires.upscaler", "hr_upscaler"),
    ("hires.prompt", "hr_prompt"),
    ("hires.negative_prompt", "hr_negative_prompt"),
    ("hires.sampler_name", "hr_sampler_name"),
    ("hires.scheduler", "hr_scheduler"),
    ("hires.cfg_scale", "hr_cfg"),
];

impl HiresForm {
    /// `fault` by the key that the client wrote.
    pub fn rename(self, fault: Fault) -> Fault {
        let Some(field) = fault.field.as_deref().filter(|field| field.starts_with("hires")) else { return fault };
        let field = match self {
            HiresForm::Object => field,
            HiresForm::Value => "hires",
            HiresForm::WebApi => KEYS.iter().find(|(key, _)| *key == field).map_or("enable_hr", |(_, web_api)| web_api),
        };
        Fault { field: Some(field.to_owned()), ..fault }
    }
}

/// The second pass, if one is asked for, and how.
pub(super) fn hires(fields: &mut Fields) -> Result<(Option<HiresRequest>, HiresForm), Fault> {
    let value = fields.take("hires");
    let form = match &value {
        None => HiresForm::WebApi,
        Some(Value::Object(_)) => HiresForm::Object,
        Some(_) => HiresForm::Value,
    };
    Ok((second_pass(fields, value)?, form))
}

fn second_pass(fields: &mut Fields, value: Option<Value>) -> Result<Option<HiresRequest>, Fault> {
    match value {
        None => enable_hr(fields),
        Some(Value::Bool(false)) => Ok(None),
        Some(Value::Bool(true)) => Ok(Some(HiresRequest::default())),
        Some(Value::Number(scale)) => Ok(Some(HiresRequest { scale: scale.as_f64(), ..HiresRequest::default() })),
        Some(Value::Object(object)) => {
            let mut own = Fields::new(object);
            let at = |fault: Fault| Fault { field: fault.field.map(|key| format!("hires.{key}")), ..fault };
            let hires = own_keys(&mut own).map_err(at)?;
            fields.put_back("hires", own);
            Ok(Some(hires))
        }
        Some(other) => {
            let message = format!("expected an object such as {{\"scale\": 2}}, or a number, got {}", shown(&other));
            Err(Fault::param("hires", message))
        }
    }
}

/// The keys of the object.
fn own_keys(own: &mut Fields) -> Result<HiresRequest, Fault> {
    let (sampler, schedule) = (("sampler_name", own.text("sampler_name")?), ("scheduler", own.text("scheduler")?));
    let (sampler, schedule) = values::sampler_named(sampler, schedule)?;
    Ok(HiresRequest {
        scale: own.number("scale")?,
        width: own.size("width")?,
        height: own.size("height")?,
        steps: own.size("steps")?,
        denoising_strength: own.number("denoising_strength")?,
        upscaler: upscaler("upscaler", own.text("upscaler")?)?,
        prompt: prompt("prompt", own.text("prompt")?)?,
        negative_prompt: prompt("negative_prompt", own.text("negative_prompt")?)?,
        sampler,
        schedule,
        cfg_scale: own.number("cfg_scale")?,
    })
}

/// The web API's keys. Its clients send all of them and switch them on with one.
fn enable_hr(fields: &mut Fields) -> Result<Option<HiresRequest>, Fault> {
    let Some(value) = fields.take("enable_hr") else { return Ok(None) };
    let Value::Bool(enabled) = value else {
        return Err(Fault::param("enable_hr", format!("expected true or false, got {}", shown(&value))));
    };
    let sampler = ("hr_sampler_name", fields.text("hr_sampler_name")?);
    let schedule = ("hr_scheduler", fields.text("hr_scheduler")?);
    let (sampler, schedule) = values::sampler_named(sampler, schedule)?;
    let hires = HiresRequest {
        scale: fields.number("hr_scale")?,
        width: fields.size("hr_resize_x")?,
        height: fields.size("hr_resize_y")?,
        steps: fields.size("hr_second_pass_steps")?,
        denoising_strength: None,
        upscaler: upscaler("hr_upscaler", fields.text("hr_upscaler")?)?,
        prompt: prompt("hr_prompt", fields.text("hr_prompt")?)?,
        negative_prompt: prompt("hr_negative_prompt", fields.text("hr_negative_prompt")?)?,
        sampler,
        schedule,
        cfg_scale: fields.number("hr_cfg")?,
    };
    Ok(enabled.then_some(hires))
}

/// A text that is as long as a prompt may be.
fn prompt(key: &str, text: Option<String>) -> Result<Option<String>, Fault> {
    let len = text.as_ref().map_or(0, String::len);
    if len > MAX_PROMPT {
        return Err(Fault::too_large(key, format!("{len} bytes; {MAX_PROMPT} are allowed")));
    }
    Ok(text)
}

fn upscaler(key: &str, name: Option<String>) -> Result<Option<HiresUpscaler>, Fault> {
    let name = name.map(|name| name.chars().take(80).collect::<String>());
    name.map(|name| name.parse().map_err(|message: String| Fault::param(key, message))).transpose()
}

#[cfg(test)]
mod tests {
    use diffused_engine::sampler::{NoiseSchedule, SamplerKind};
    use serde_json::json;

    use super::*;

    /// What is asked for, and the keys that are left.
    fn read(request: Value) -> (Result<Option<HiresRequest>, Fault>, Vec<String>) {
        let Value::Object(object) = request else { panic!("{request}") };
        let mut fields = Fields::new(object);
        (hires(&mut fields).map(|(hires, _)| hires), fields.leftovers())
    }

    #[test]
    fn both_forms_say_the_same() {
        let expected = HiresRequest {
            scale: Some(1.5),
            steps: Some(12),
            upscaler: Some(HiresUpscaler::LatentNearest),
            ..HiresRequest::default()
        };
        let object = json!({"hires": {"scale": 1.5, "steps": 12.0, "upscaler": "latent (nearest)"}});
        let flat = json!({
            "enable_hr": true, "hr_scale": 1.5, "hr_second_pass_steps": 12, "hr_upscaler": "Latent (nearest)"
        });
        for request in [object, flat] {
            assert_eq!(read(request), (Ok(Some(expected.clone())), vec![]));
        }
        for (short, scale) in [(json!({"hires": 3}), Some(3.0)), (json!({"hires": true}), None)] {
            assert_eq!(read(short), (Ok(Some(HiresRequest { scale, ..HiresRequest::default() })), vec![]));
        }
        let sides = json!({"enable_hr": true, "hr_resize_x": 1024, "hr_resize_y": 0});
        let expected = HiresRequest { width: Some(1024), height: Some(0), ..HiresRequest::default() };
        assert_eq!(read(sides), (Ok(Some(expected)), vec![]));
    }

    #[test]
    fn the_second_pass_may_have_another_prompt_sampler_and_guidance() {
        let expected = HiresRequest {
            prompt: Some("a cat".into()),
            negative_prompt: Some(String::new()),
            sampler: Some(SamplerKind::Euler),
            schedule: Some(NoiseSchedule::Karras),
            cfg_scale: Some(3.0),
            ..HiresRequest::default()
        };
        let object = json!({"hires": {
            "prompt": "a cat", "negative_prompt": "", "sampler_name": "Euler", "scheduler": "Karras", "cfg_scale": 3
        }});
        let flat = json!({
            "enable_hr": true, "hr_prompt": "a cat", "hr_negative_prompt": "", "hr_sampler_name": "Euler Karras",
            "hr_cfg": 3.0
        });
        for request in [object, flat] {
            assert_eq!(read(request), (Ok(Some(expected.clone())), vec![]));
        }
        let same = json!({
            "enable_hr": true, "hr_prompt": null, "hr_sampler_name": "Use same sampler", "hr_scheduler": "Use same scheduler"
        });
        assert_eq!(read(same), (Ok(Some(HiresRequest::default())), vec![]));
        let automatic = json!({"hires": {"scheduler": "Automatic"}});
        assert_eq!(read(automatic), (Ok(Some(HiresRequest::default())), vec![]));
    }

    #[test]
    fn what_is_switched_off_is_left_out_and_what_is_unknown_is_told() {
        let off = json!({"enable_hr": false, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0});
        assert_eq!(read(off), (Ok(None), vec![]));
        assert_eq!(read(json!({"hires": false})), (Ok(None), vec![]));
        let (hires, left) = read(json!({"hires": {"scale": 2, "sampler": "Euler"}}));
        assert!(hires.unwrap().is_some());
        assert_eq!(left, ["`hires.sampler` is unknown and was left out"]);
    }

    #[test]
    fn what_the_model_refuses_is_told_by_the_key_that_the_client_wrote() {
        let told = |request: Value, field: &str| {
            let Value::Object(object) = request else { panic!("{request}") };
            let (_, form) = hires(&mut Fields::new(object)).unwrap();
            form.rename(Fault::param(field, "wrong")).field.unwrap()
        };
        let web_api = json!({"enable_hr": true, "hr_upscaler": "Model"});
        assert_eq!(told(web_api.clone(), "hires.upscaler"), "hr_upscaler");
        assert_eq!(told(web_api.clone(), "hires.denoising_strength"), "denoising_strength");
        assert_eq!(told(web_api.clone(), "hires"), "enable_hr");
        assert_eq!(told(web_api, "width"), "width");
        assert_eq!(told(json!({"hires": {"scale": 9}}), "hires.scale"), "hires.scale");
        assert_eq!(told(json!({"hires": 9}), "hires.scale"), "hires");
    }

    #[test]
    fn each_complaint_names_its_key() {
        for (request, field) in [
            (json!({"hires": "2x"}), "hires"),
            (json!({"hires": {"scale": "2"}}), "hires.scale"),
            (json!({"hires": {"upscaler": "R-ESRGAN 4x+"}}), "hires.upscaler"),
            (json!({"enable_hr": "yes"}), "enable_hr"),
            (json!({"hires": {"prompt": 7}}), "hires.prompt"),
            (json!({"hires": {"prompt": "x".repeat(20_001)}}), "hires.prompt"),
            (json!({"hires": {"sampler_name": "magic"}}), "hires.sampler_name"),
            (json!({"enable_hr": true, "hr_scheduler": "turbo"}), "hr_scheduler"),
            (json!({"enable_hr": true, "hr_cfg": "7"}), "hr_cfg"),
            (json!({"enable_hr": true, "hr_scale": "2"}), "hr_scale"),
            (json!({"enable_hr": true, "hr_upscaler": "SwinIR 4x"}), "hr_upscaler"),
        ] {
            assert_eq!(read(request).0.unwrap_err().field.as_deref(), Some(field));
        }
    }
}
