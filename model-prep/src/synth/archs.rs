//! The configurations of models that people have, as their `config.json` files say.

use serde_json::{Value, json};

use crate::source::UpscalerConfig;

/// A model's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// Stable Diffusion 1.5 (Rombach et al. 2022).
    Sd15,
    /// Stable Diffusion 2.1, 768×768, v-prediction.
    Sd21,
    /// BK-SDM-Tiny (Kim et al. 2023): Stable Diffusion 1 with blocks removed.
    BkSdmTiny,
    /// SD-Turbo (Sauer et al. 2023): Stable Diffusion 2.1 that paints in one step.
    SdTurbo,
    /// Stable Diffusion XL base 1.0 (Podell et al. 2023).
    Sdxl,
    /// SDXL-Turbo (Sauer et al. 2023): SDXL for one step at 512×512.
    SdxlTurbo,
    /// SSD-1B (Gupta et al. 2024): SDXL with half of its transformer blocks.
    Ssd1b,
    /// SDXS-512 (Song et al. 2024): three levels, no attention in the outermost, a tiny autoencoder, one step.
    Sdxs,
    /// A tiny autoencoder alone, for Stable Diffusion 1 and 2 (TAESD).
    Taesd,
    /// A tiny autoencoder alone, for SDXL (TAESDXL): of the same shape.
    Taesdxl,
    /// An upscaler alone, to four times the width and height (realesr-general-x4v3).
    RealesrGeneral,
    /// The same with half of the convolutions (realesr-animevideov3).
    RealesrAnime,
}

impl Arch {
    /// Every JSON file of the folder.
    pub(super) fn files(self) -> Vec<(&'static str, Value)> {
        if self.is_autoencoder() {
            return vec![("config.json", tiny_vae())];
        }
        if self.upscaler().is_some() {
            return vec![];
        }
        if self.is_xl() {
            return super::xl::files(self);
        }
        vec![
            ("model_index.json", self.model_index()),
            ("text_encoder/config.json", self.text_encoder()),
            ("tokenizer/tokenizer_config.json", tokenizer_config()),
            ("tokenizer/special_tokens_map.json", self.special_tokens()),
            ("unet/config.json", self.unet()),
            ("vae/config.json", if self == Arch::Sdxs { tiny_vae() } else { vae() }),
            ("scheduler/scheduler_config.json", self.scheduler()),
        ]
    }

    /// It is an autoencoder and nothing else.
    pub(super) fn is_autoencoder(self) -> bool {
        matches!(self, Arch::Taesd | Arch::Taesdxl)
    }

    /// Of an upscaler, which is nothing else, its configuration.
    pub(super) fn upscaler(self) -> Option<UpscalerConfig> {
        let config = |between| UpscalerConfig { name: "upscaler".into(), channels: 64, between, scale: 4 };
        match self {
            Arch::RealesrGeneral => Some(config(32)),
            Arch::RealesrAnime => Some(config(16)),
            _ => None,
        }
    }

    /// It is a part and no whole model.
    pub(super) fn is_alone(self) -> bool {
        self.is_autoencoder() || self.upscaler().is_some()
    }

    /// It has two text encoders.
    pub(super) fn is_xl(self) -> bool {
        matches!(self, Arch::Sdxl | Arch::SdxlTurbo | Arch::Ssd1b)
    }

    /// It has Stable Diffusion 2's text encoder and UNet.
    fn is_sd2(self) -> bool {
        matches!(self, Arch::Sd21 | Arch::SdTurbo)
    }

    /// The UNet's transformers begin and end in linear layers, else in 1×1 convolutions.
    pub(super) fn linear_projections(self) -> bool {
        self.is_xl() || self.unet()["use_linear_projection"] == json!(true)
    }

    fn model_index(self) -> Value {
        json!({
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": [null, null],
            "requires_safety_checker": false,
            "safety_checker": [null, null],
            "scheduler": ["diffusers", self.scheduler()["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", if self == Arch::Sdxs { "AutoencoderTiny" } else { "AutoencoderKL" }],
        })
    }

    fn text_encoder(self) -> Value {
        match self.is_sd2() {
            true => text_encoder("CLIPTextModel", "gelu", [1024, 23, 16], 512),
            false => text_encoder("CLIPTextModel", "quick_gelu", [768, 12, 12], 768),
        }
    }

    fn special_tokens(self) -> Value {
        special_tokens(if self.is_sd2() { "!" } else { "<|endoftext|>" })
    }

    fn unet(self) -> Value {
        let mut config = json!({
            "_class_name": "UNet2DConditionModel",
            "in_channels": 4,
            "out_channels": 4,
            "sample_size": 64,
            "block_out_channels": [320, 640, 1280, 1280],
            "layers_per_block": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
            "down_block_types":
                ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "flip_sin_to_cos": true,
            "freq_shift": 0,
            "norm_num_groups": 32,
            "norm_eps": 1e-5,
        });
        match self {
            Arch::Sd15
            | Arch::Sdxl
            | Arch::SdxlTurbo
            | Arch::Ssd1b
            | Arch::Taesd
            | Arch::Taesdxl
            | Arch::RealesrGeneral
            | Arch::RealesrAnime => {}
            Arch::Sd21 | Arch::SdTurbo => {
                config["sample_size"] = json!(if self == Arch::Sd21 { 96 } else { 64 });
                config["attention_head_dim"] = json!([5, 10, 20, 20]);
                config["cross_attention_dim"] = json!(1024);
                config["use_linear_projection"] = json!(true);
            }
            Arch::BkSdmTiny => {
                config["block_out_channels"] = json!([320, 640, 1280]);
                config["layers_per_block"] = json!(1);
                config["down_block_types"] = json!(vec!["CrossAttnDownBlock2D"; 3]);
                config["mid_block_type"] = json!(null);
                config["up_block_types"] = json!(vec!["CrossAttnUpBlock2D"; 3]);
            }
            Arch::Sdxs => {
                config["block_out_channels"] = json!([320, 640, 1280]);
                config["layers_per_block"] = json!(1);
                config["down_block_types"] = json!(["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]);
                config["mid_block_type"] = json!(null);
                config["up_block_types"] = json!(["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]);
            }
        }
        config
    }

    fn scheduler(self) -> Value {
        let mut config = json!({
            "_class_name": match self {
                Arch::Sd21 => "DDIMScheduler",
                Arch::SdTurbo => "EulerDiscreteScheduler",
                _ => "PNDMScheduler",
            },
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "set_alpha_to_one": false,
            "steps_offset": 1,
        });
        match self {
            Arch::Sd21 => config["prediction_type"] = json!("v_prediction"),
            Arch::SdTurbo => {}
            _ => config["skip_prk_steps"] = json!(true),
        }
        if matches!(self, Arch::SdTurbo | Arch::Sdxs) {
            config["timestep_spacing"] = json!("trailing");
        }
        config
    }
}

/// CLIP's text transformer of this width, so many layers and heads.
pub(super) fn text_encoder(
    class: &str,
    activation: &str,
    [hidden, layers, heads]: [usize; 3],
    projection: usize,
) -> Value {
    json!({
        "architectures": [class],
        "model_type": "clip_text_model",
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": projection,
    })
}

pub(super) fn special_tokens(pad: &str) -> Value {
    let [bos, eos] = ["<|startoftext|>", "<|endoftext|>"];
    json!({"bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": pad})
}

pub(super) fn tokenizer_config() -> Value {
    json!({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": true})
}

fn tiny_vae() -> Value {
    json!({
        "_class_name": "AutoencoderTiny",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "encoder_block_out_channels": [64, 64, 64, 64],
        "decoder_block_out_channels": [64, 64, 64, 64],
        "num_encoder_blocks": [1, 3, 3, 3],
        "num_decoder_blocks": [3, 3, 3, 1],
        "act_fn": "relu",
        "latent_magnitude": 3,
        "latent_shift": 0.5,
        "upsampling_scaling_factor": 2,
        "scaling_factor": 1.0,
        "force_upcast": false,
    })
}

pub(super) fn vae() -> Value {
    json!({
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "sample_size": 512,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "down_block_types": vec!["DownEncoderBlock2D"; 4],
        "up_block_types": vec!["UpDecoderBlock2D"; 4],
        "scaling_factor": 0.18215,
    })
}
