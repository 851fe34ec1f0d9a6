//! The configurations of Stable Diffusion XL and its like, as published.

use serde_json::{Value, json};

use super::archs::{self, Arch, special_tokens, tokenizer_config, vae};

/// Every JSON file of the folder.
pub(super) fn files(arch: Arch) -> Vec<(&'static str, Value)> {
    let scheduler = scheduler(arch);
    vec![
        ("model_index.json", model_index(&scheduler["_class_name"])),
        ("text_encoder/config.json", text_encoder("CLIPTextModel", "quick_gelu", [768, 12, 12])),
        ("text_encoder_2/config.json", text_encoder("CLIPTextModelWithProjection", "gelu", [1280, 32, 20])),
        ("tokenizer/tokenizer_config.json", tokenizer_config()),
        ("tokenizer/special_tokens_map.json", special_tokens("<|endoftext|>")),
        ("tokenizer_2/tokenizer_config.json", tokenizer_config()),
        ("tokenizer_2/special_tokens_map.json", special_tokens("!")),
        ("unet/config.json", unet(arch)),
        ("vae/config.json", autoencoder()),
        ("scheduler/scheduler_config.json", scheduler),
    ]
}

fn model_index(scheduler: &Value) -> Value {
    json!({
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": true,
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// With the end token's id that published models have, which means the largest id of a prompt.
fn text_encoder(class: &str, activation: &str, sizes: [usize; 3]) -> Value {
    let mut config = archs::text_encoder(class, activation, sizes, sizes[0]);
    config["eos_token_id"] = json!(2);
    config
}

fn unet(arch: Arch) -> Value {
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": if arch == Arch::SdxlTurbo { 64 } else { 128 },
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 2,
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": true,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
    });
    if arch == Arch::Ssd1b {
        config["transformer_layers_per_block"] = json!([1, [2, 2], [4, 4]]);
        config["reverse_transformer_layers_per_block"] = json!([[4, 4, 10], [2, 1, 1], 1]);
        config["mid_block_type"] = json!("UNetMidBlock2D");
    }
    config
}

fn autoencoder() -> Value {
    let mut config = vae();
    config["sample_size"] = json!(1024);
    config["scaling_factor"] = json!(0.13025);
    config["force_upcast"] = json!(true);
    config
}

fn scheduler(arch: Arch) -> Value {
    let (class, spacing) = match arch == Arch::SdxlTurbo {
        true => ("EulerAncestralDiscreteScheduler", "trailing"),
        false => ("EulerDiscreteScheduler", "leading"),
    };
    json!({
        "_class_name": class,
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "timestep_spacing": spacing,
    })
}
