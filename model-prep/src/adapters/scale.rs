//! PEFT's configuration of an adapter, from which its alphas are known where no key of the file has them: diffusers
//! writes it to the file's metadata, PEFT to `adapter_config.json` beside the file.

use std::path::Path;

use serde_json::{Map, Value};

use super::nearest;
use crate::error::{Error, Result};
use crate::tensors::TensorFile;

/// The metadata's key (diffusers, `LORA_ADAPTER_METADATA_KEY`).
const METADATA: &str = "lora_adapter_metadata";

/// The configuration: PEFT's keys, for several networks with the network's name before them.
pub(super) struct PeftConfig(Map<String, Value>);

impl PeftConfig {
    /// What `file` or the file beside it says; without either nothing.
    pub(super) fn of(file: &TensorFile) -> Result<PeftConfig> {
        let beside = file.path.with_file_name("adapter_config.json");
        let named_by_peft = file.path.file_stem().is_some_and(|stem| stem == "adapter_model");
        let (path, text): (&Path, String) = match file.metadata.get(METADATA) {
            Some(text) => (&file.path, text.clone()),
            None if named_by_peft && beside.exists() => {
                (&beside, std::fs::read_to_string(&beside).map_err(Error::io(&beside))?)
            }
            None => return Ok(PeftConfig(Map::new())),
        };
        let config = serde_json::from_str(&text);
        config.map(PeftConfig).map_err(|error| Error::file(path, format!("no configuration of an adapter: {error}")))
    }

    /// What the product of the factors of `module` is scaled by: alpha over the rank, or over its root (rsLoRA,
    /// Kalajdzievski 2023). Where nothing is said it is 1.
    pub(super) fn scale(&self, network: &str, module: &str, rank: usize) -> f32 {
        let get = |key: &str| self.0.get(&format!("{network}.{key}")).or_else(|| self.0.get(key));
        let pattern = get("alpha_pattern").and_then(Value::as_object);
        let fits = |key: &str| [module, &format!("text_model.{module}")].iter().any(|name| ends_with_name(name, key));
        let own = pattern.and_then(|pattern| pattern.iter().find(|(key, _)| fits(key))).map(|(_, alpha)| alpha);
        let Some(alpha) = own.or_else(|| get("lora_alpha")).and_then(Value::as_f64) else { return 1.0 };
        let root = get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        let rank = rank as f64;
        nearest(alpha / if root { rank.sqrt() } else { rank })
    }
}

/// Whether `name` ends with the whole names of `end`.
fn ends_with_name(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> PeftConfig {
        PeftConfig(value.as_object().unwrap().clone())
    }

    #[test]
    fn alphas_are_looked_up_by_network_and_module() {
        let config = config(json!({
            "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2, "conv_in": 1},
            "text_encoder.lora_alpha": 16, "text_encoder.use_rslora": true,
            "text_encoder.alpha_pattern": {"text_model.encoder.layers.0.mlp.fc1": 4},
        }));
        assert_eq!(config.scale("unet", "mid_block.attn1.to_k", 4), 2.0);
        assert_eq!(config.scale("unet", "mid_block.attn1.to_q", 4), 0.5);
        assert_eq!(config.scale("unet", "other_conv_in", 4), 2.0);
        assert_eq!(config.scale("text_encoder", "encoder.layers.1.mlp.fc1", 4), 8.0);
        assert_eq!(config.scale("text_encoder", "encoder.layers.0.mlp.fc1", 4), 2.0);
        assert_eq!(config.scale("text_encoder_2", "encoder.layers.0.mlp.fc1", 4), 1.0);
    }

    #[test]
    fn one_network_needs_no_name() {
        assert_eq!(config(json!({"lora_alpha": 1.0, "r": 4})).scale("unet", "conv_in", 4), 0.25);
        assert_eq!(config(json!({})).scale("unet", "conv_in", 4), 1.0);
    }
}
