//! What prompts that come as plain text are painted with: a prompt alone has no place for anything else. Buttons and sliders,
//! as Home Assistant has them, set it once for all that follow.

use diffused_engine::request::Request;
use diffused_engine::sampler::{NoiseSchedule, SamplerKind};
use serde::{Deserialize, Serialize};

#[cfg(test)]
use crate::contract::asyncapi::types::{SamplerName, ScheduleName};

/// Keys of a request; what is missing is the device's own choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PromptSettings {
    /// What to avoid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Sampling steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Guidance scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cfg_scale: Option<f64>,
    /// The sampler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<SamplerName>"))]
    pub sampler_name: Option<SamplerKind>,
    /// Its noise schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<ScheduleName>"))]
    pub scheduler: Option<NoiseSchedule>,
}

impl PromptSettings {
    /// The keys that there are.
    pub const KEYS: [&str; 5] = ["negative_prompt", "steps", "cfg_scale", "sampler_name", "scheduler"];

    /// What of `request` can be set.
    pub fn of(request: &Request) -> PromptSettings {
        let Request { negative_prompt, steps, cfg_scale, sampler, schedule, .. } = request.clone();
        PromptSettings {
            negative_prompt: Some(negative_prompt).filter(|text| !text.is_empty()),
            steps,
            cfg_scale,
            sampler_name: sampler,
            scheduler: schedule,
        }
    }

    /// Completes a `request` that is a prompt and nothing else.
    pub fn complete(&self, request: &mut Request) {
        let PromptSettings { negative_prompt, steps, cfg_scale, sampler_name, scheduler } = self.clone();
        request.negative_prompt = negative_prompt.unwrap_or_default();
        (request.steps, request.cfg_scale) = (steps, cfg_scale);
        (request.sampler, request.schedule) = (sampler_name, scheduler);
    }
}
