//! `text_encoder/config.json`: CLIPTextModel's configuration, with transformers' defaults for what is absent.

use diffused_engine::layer::Activation;
use serde_json::{Value, json};

use super::keys::Keys;
use crate::error::{Error, Result};

/// The text encoder's configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TextConfig {
    /// Rows of the token table.
    pub(crate) vocabulary: usize,
    /// Tokens of a prompt.
    pub(crate) positions: usize,
    /// Width of an embedding.
    pub(crate) channels: usize,
    /// Width of the feed-forward's middle.
    pub(crate) inner: usize,
    /// Transformer blocks.
    pub(crate) layers: usize,
    /// How many of the last ones the embeddings do not go through.
    pub(crate) skip: usize,
    /// The embeddings go through the final norm; never where there is a projection.
    pub(crate) final_norm: bool,
    /// Width of the projection of the last block's result, if that is made, too (SDXL's second text encoder).
    pub(crate) projection: Option<usize>,
    /// Width of the projection where there is one.
    pub(crate) projection_dim: usize,
    /// The pooled embedding is that of the largest token id, else of the end token: transformers tells by the end
    /// token's id, which was once 2 by mistake.
    pub(crate) pooled_at_largest: bool,
    /// Attention heads.
    pub(crate) heads: usize,
    /// The feed-forward's activation.
    pub(crate) activation: Activation,
    /// Added to the variance by the norms.
    pub(crate) eps: f32,
}

/// Keys that change nothing of what is computed at inference. transformers once wrote every setting of its base class
/// into each configuration, those of text generation too.
const INERT: [&str; 65] = [
    "_class_name",
    "_commit_hash",
    "_name_or_path",
    "_attn_implementation_autoset",
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

impl TextConfig {
    /// Reads the configuration; what cannot be built is refused by name, what is not known goes into `warnings`.
    pub(crate) fn open(mut keys: Keys, warnings: &mut Vec<String>) -> Result<TextConfig> {
        // A whole CLIP, of which transformers takes the text's part.
        if let Some(text @ Value::Object(_)) = keys.some("text_config") {
            keys = Keys::of(keys.path(), text);
        }
        keys.only("model_type", &[json!("clip_text_model")])?;
        keys.ignore(&INERT);
        let activations = [(json!("quick_gelu"), Activation::QuickGelu), (json!("gelu"), Activation::Gelu)];
        let config = TextConfig {
            vocabulary: keys.count("vocab_size", 49408)?,
            positions: keys.count("max_position_embeddings", 77)?,
            channels: keys.count("hidden_size", 512)?,
            inner: keys.count("intermediate_size", 2048)?,
            layers: keys.layers("num_hidden_layers", 12)?,
            skip: 0,
            final_norm: true,
            projection: None,
            projection_dim: keys.optional_count("projection_dim")?.unwrap_or(512),
            pooled_at_largest: keys.take("eos_token_id") == Some(json!(2)),
            heads: keys.count("num_attention_heads", 8)?,
            activation: keys.choice("hidden_act", &activations)?.unwrap_or(Activation::QuickGelu),
            eps: keys.epsilon("layer_norm_eps", 1e-5)?,
        };
        if !config.channels.is_multiple_of(config.heads) {
            let divides = format!("a number that divides hidden_size, {}", config.channels);
            return Err(keys.refuse("num_attention_heads", &json!(config.heads), &divides));
        }
        warnings.extend(keys.left_over());
        Ok(config)
    }

    /// Leaves out the last `clip_skip` - 1 layers, as web interfaces count: 1 leaves out none. SDXL's embeddings leave
    /// out one anyway.
    pub(crate) fn clip_skip(&mut self, clip_skip: Option<u16>) -> Result<()> {
        let Some(clip_skip) = clip_skip else { return Ok(()) };
        let skip = self.skip.max(usize::from(clip_skip.saturating_sub(1)));
        if skip >= self.layers {
            let allowed = format!("1 to {}, the text encoder's layers", self.layers);
            return Err(Error::Default { option: "clip_skip", value: clip_skip.to_string(), allowed });
        }
        self.skip = skip;
        Ok(())
    }

    /// Whether a model of this kind needs the tensor: not the layers that are left out, nor, as the first of SDXL's two
    /// text encoders, the norm after them. SDXL's second one, which alone has a projection, needs all.
    pub(crate) fn needs(&self, name: &str) -> bool {
        let layer = name.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        let left_out = layer.is_some_and(|layer: usize| (self.layers - self.skip..self.layers).contains(&layer));
        let norm = name.starts_with("final_layer_norm.") && !self.final_norm;
        self.projection.is_some() || !(left_out || norm || name == "text_projection.weight")
    }

    /// SDXL's first text encoder: the embeddings are what the last block but one makes.
    pub(crate) fn first_of_two(self) -> TextConfig {
        TextConfig { skip: 1, final_norm: false, ..self }
    }

    /// The text encoder of a model that has no other.
    pub(crate) fn alone(self) -> TextConfig {
        TextConfig { skip: 0, final_norm: true, projection: None, ..self }
    }

    /// SDXL's second text encoder: as the first, and the last block's result is projected
    /// (CLIPTextModelWithProjection).
    pub(crate) fn second_of_two(self) -> TextConfig {
        TextConfig { projection: Some(self.projection_dim), ..self.first_of_two() }
    }
}
