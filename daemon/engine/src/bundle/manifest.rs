//! `bundle.json`: what the pipeline has to know of a model beside its graphs and weights.

use std::collections::BTreeMap;
use std::ops::Deref;

use diffused_kernels::pack::Format;
use serde::{Deserialize, Serialize};

use super::{AutoencoderKind, Family, NETWORKS, OLDEST_SCHEMA, SCHEMA, limits, network_files};
use crate::sampler;

/// `bundle.json`, parsed and checked: every value lies where the engine can work with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest(ManifestFields);

/// The keys of `bundle.json`, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFields {
    /// The format's version: from `OLDEST_SCHEMA` to `SCHEMA`.
    pub schema: u32,
    /// The model's name, for people.
    pub name: String,
    /// SHA-256 over the source's weight files, in the order text encoder, UNet, VAE.
    pub source_sha256: String,
    /// The model family.
    pub family: Family,
    /// How matrices are stored by default.
    #[serde(with = "super::index::format_name")]
    pub weights: Format,
    /// The text encoder's sizes.
    pub text: Text,
    /// The latents' and images' sizes.
    pub picture: PictureSizes,
    /// How the UNet was trained and is sampled.
    pub sampling: sampler::SamplingConfig,
    /// The upscaler, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upscaler: Option<UpscalerFields>,
    /// Prompts that show what the model can paint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
    /// SHA-256 of every other file of the bundle, by its path in it.
    pub files: BTreeMap<String, String>,
}

impl ManifestFields {
    /// The networks of which any file is listed, in the order of `NETWORKS`.
    pub(super) fn networks(&self) -> impl Iterator<Item = &'static str> {
        NETWORKS.into_iter().filter(|network| network_files(network).iter().any(|file| self.files.contains_key(file)))
    }
}

/// What the tokenizer and the text encoder need to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Tokens of a prompt, start and end included (77).
    pub tokens: usize,
    /// Id of the start token.
    pub bos: u32,
    /// Id of the end token.
    pub eos: u32,
    /// Id that fills up short prompts (SD 1: the end token; SD 2: 0).
    pub pad: u32,
    /// Width of an embedding, of both text encoders together where there are two.
    pub channels: usize,
    /// The second text encoder (SDXL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondText>,
    /// The words that the model was trained with, in lower case and sorted; `None`: it takes any words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<String>>,
    /// Tokens beside the vocabulary's, of textual inversions most of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<AddedToken>,
    /// Up to which layer from the end the text encoder was converted, as requests count it (`clip_skip`); `None`: to the
    /// last one, 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
}

/// A text that stands for embeddings of its own wherever it occurs in a prompt, also within a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedToken {
    /// How a prompt spells it.
    pub text: String,
    /// The token ids that it becomes: rows of the text encoder's token table.
    pub ids: Vec<u32>,
    /// It is found only as it is spelled here; otherwise upper and lower case are the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
}

/// What SDXL's second text encoder has for itself. It makes the last channels of each embedding, and the pooled one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondText {
    /// Id that fills up short prompts (SDXL: 0).
    pub pad: u32,
    /// Width of its embeddings, a part of `Text::channels`.
    pub channels: usize,
    /// Width of the pooled embedding, which stands for the whole prompt.
    pub pooled: usize,
    /// The pooled embedding is that of the token with the largest id, else of the end token. They differ where tokens
    /// were added to the vocabulary (transformers' `eos_token_id` 2, which published models have).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pooled_at_largest: bool,
    /// Without a negative prompt all embeddings are zeros, else those of the empty prompt (diffusers'
    /// `force_zeros_for_empty_prompt`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub zeros_without_prompt: bool,
}

/// What is to be known of the upscaler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpscalerFields {
    /// Its name, for people.
    pub name: String,
    /// By how much it enlarges width and height.
    pub scale: usize,
}

impl UpscalerFields {
    /// How many times as wide and high an image can become: what divides the scale, and 1, which leaves it as it is.
    pub fn factors(&self) -> impl Iterator<Item = usize> {
        let scale = self.scale;
        (1..=scale).filter(move |factor| scale.is_multiple_of(*factor))
    }
}

/// Sizes of latents and images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureSizes {
    /// Default width and height, pixels.
    pub default: usize,
    /// Smallest width and height, pixels: the UNet's lowest level has a pixel.
    pub smallest: usize,
    /// Pixels per latent along an axis (8): widths and heights are multiples of it.
    pub factor: usize,
    /// Latent channels (4).
    pub latent_channels: usize,
    /// The UNet's input is latents times this, the decoder's divided by it.
    pub latent_scale: f64,
    /// The same for the tiny autoencoder (1), where the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiny_latent_scale: Option<f64>,
    /// The UNet inpaints: its input also holds a mask and the masked image's latents.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub inpainting: bool,
    /// Width of the guidance-scale embedding (LCM), if the UNet has one: a fourth input.
    pub guidance_embedding: Option<usize>,
}

/// Whether a flag is left out of the file.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_unset(flag: &bool) -> bool {
    !flag
}

impl PictureSizes {
    /// The UNet's latents are this autoencoder's times this.
    #[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
    pub(crate) fn scale(&self, autoencoder: AutoencoderKind) -> f32 {
        let scale = match autoencoder {
            AutoencoderKind::Full => self.latent_scale,
            AutoencoderKind::Tiny => self.tiny_latent_scale.unwrap_or(1.0),
        };
        scale as f32
    }

    /// The shape of the smallest image's latents: `[batch, height, width, channels]`.
    pub(crate) fn smallest_latents(&self) -> [usize; 4] {
        let side = self.smallest / self.factor;
        [1, side, side, self.latent_channels]
    }
}

impl Manifest {
    /// Checks the fields of a manifest.
    ///
    /// # Errors
    ///
    /// The first key that has a value outside of its range, with the value and the range.
    pub fn new(fields: ManifestFields) -> Result<Manifest, String> {
        limits::check(&fields)?;
        Ok(Manifest(fields))
    }

    /// Parses and checks `bundle.json`.
    ///
    /// # Errors
    ///
    /// What is wrong with the JSON, by line or key; another version; or a value outside of its range.
    pub fn parse(json: &[u8]) -> Result<Manifest, String> {
        /// The version is read before the rest, whose form depends on it.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } =
            serde_json::from_slice(json).map_err(|error| format!("not a bundle's manifest: {error}"))?;
        if !(OLDEST_SCHEMA..=SCHEMA).contains(&schema) {
            let way = if schema > SCHEMA { "update this program, or convert" } else { "convert" };
            return Err(format!(
                "the bundle has schema {schema}, this program reads {OLDEST_SCHEMA} to {SCHEMA}; {way} the model again with \
                 this version's model-prep"
            ));
        }
        let mut parser = serde_json::Deserializer::from_slice(json);
        let fields = serde_path_to_error::deserialize(&mut parser).map_err(|error| error.to_string())?;
        Manifest::new(fields)
    }

    /// Whether the bundle holds this one of `NETWORKS`.
    pub fn has(&self, network: &str) -> bool {
        self.networks().any(|name| name == network)
    }

    /// The autoencoders whose decoder the bundle holds; the first is the default.
    pub fn decoders(&self) -> impl Iterator<Item = AutoencoderKind> {
        AutoencoderKind::ALL.into_iter().filter(|kind| self.has(kind.decoder()))
    }

    /// The networks that the bundle holds, in the order of `NETWORKS`.
    pub fn networks(&self) -> impl Iterator<Item = &'static str> {
        self.0.networks()
    }

    /// The bytes of `bundle.json`.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&self.0).expect("a manifest has only strings as keys, and finite numbers")
    }
}

impl Deref for Manifest {
    type Target = ManifestFields;

    fn deref(&self) -> &ManifestFields {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bundle::files;
    use crate::sampler::{BetaSchedule, Prediction, SamplerKind, SamplerOptions, SamplingConfig};

    const NETWORKS_OF_SD15: [&str; 4] = ["text_encoder", "unet", "vae_decoder", "vae_encoder"];

    fn fields() -> ManifestFields {
        ManifestFields {
            schema: SCHEMA,
            name: "test".into(),
            source_sha256: "0".repeat(64),
            family: Family::Sd1,
            weights: Format::Int8,
            text: Text {
                tokens: 77,
                bos: 49406,
                eos: 49407,
                pad: 49407,
                channels: 768,
                second: None,
                words: None,
                added: Vec::new(),
                clip_skip: None,
            },
            picture: PictureSizes {
                default: 512,
                smallest: 64,
                factor: 8,
                latent_channels: 4,
                latent_scale: 0.18215,
                tiny_latent_scale: None,
                inpainting: false,
                guidance_embedding: None,
            },
            sampling: SamplingConfig {
                default: SamplerKind::Pndm,
                steps: 20,
                cfg_scale: 7.5,
                prediction: Prediction::Epsilon,
                beta_start: 0.00085,
                beta_end: 0.012,
                beta_schedule: BetaSchedule::ScaledLinear,
                train_timesteps: 1000,
                spacing: None,
                steps_offset: None,
                set_alpha_to_one: None,
                skip_prk_steps: None,
                rescale_betas_zero_snr: false,
                original_inference_steps: None,
                schedule: None,
                options: SamplerOptions::default(),
            },
            upscaler: None,
            examples: Vec::new(),
            files: files(NETWORKS_OF_SD15).into_iter().map(|file| (file, "0".repeat(64))).collect(),
        }
    }

    /// Stable Diffusion 1.5's manifest.
    pub(crate) fn sample() -> Manifest {
        Manifest::new(fields()).unwrap()
    }

    /// What is said where `key` has the value `value`.
    fn refused(key: &str, value: Value) -> String {
        let mut json = serde_json::to_value(fields()).unwrap();
        match key.split_once('.') {
            Some((part, name)) => json[part][name] = value,
            None => json[key] = value,
        }
        Manifest::parse(json.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn a_manifest_comes_back_from_its_bytes() {
        let manifest = sample();
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn a_network_is_there_where_both_of_its_files_are_listed() {
        let mut fields = fields();
        assert!(sample().has("unet") && !sample().has("tiny_decoder"));
        fields.files.insert("tiny_decoder.onnx".into(), "0".repeat(64));
        let error = Manifest::new(fields.clone()).unwrap_err();
        assert!(error.starts_with("files does not list tiny_decoder.weights"), "{error}");
        fields.files.insert("tiny_decoder.weights".into(), "0".repeat(64));
        let manifest = Manifest::new(fields.clone()).unwrap();
        assert!(manifest.networks().eq(NETWORKS_OF_SD15.into_iter().chain(["tiny_decoder"])));
        fields.files.retain(|file, _| !file.contains("vae"));
        assert!(Manifest::new(fields.clone()).unwrap().has("tiny_decoder"));
        fields.files.retain(|file, _| !file.contains("tiny"));
        let error = Manifest::new(fields).unwrap_err();
        assert!(error.starts_with("files lists neither vae_decoder nor tiny_decoder"), "{error}");
    }

    #[test]
    fn an_upscaler_is_there_with_its_files() {
        let mut fields = fields();
        fields.upscaler = Some(UpscalerFields { name: "general".into(), scale: 4 });
        let error = Manifest::new(fields.clone()).unwrap_err();
        assert!(error.starts_with("upscaler is there, but files does not list upscaler.onnx"), "{error}");
        fields.files.extend(files(["upscaler"]).into_iter().map(|file| (file, "0".repeat(64))));
        let manifest = Manifest::new(fields.clone()).unwrap();
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
        assert!(manifest.upscaler.as_ref().unwrap().factors().eq([1, 2, 4]));
        for scale in [0, 1, 9] {
            fields.upscaler = Some(UpscalerFields { name: "general".into(), scale });
            let error = Manifest::new(fields.clone()).unwrap_err();
            assert_eq!(error, format!("upscaler.scale is {scale}; allowed is 2 to 8"));
        }
        fields.upscaler = None;
        let error = Manifest::new(fields).unwrap_err();
        assert_eq!(error, "files lists upscaler, but the key upscaler is missing");
    }

    #[test]
    fn each_value_out_of_range_is_refused_with_key_value_and_range() {
        for (key, value, allowed) in [
            ("picture.factor", json!(0), "0; allowed is 1 to 64"),
            ("picture.factor", json!(65), "65; allowed is 1 to 64"),
            ("picture.smallest", json!(0), "0; allowed is 8 to 2048"),
            ("picture.smallest", json!(60), "60; allowed are multiples of picture.factor, 8"),
            ("picture.default", json!(56), "56; allowed is 64 to 2048"),
            ("picture.default", json!(2056), "2056; allowed is 64 to 2048"),
            ("picture.latent_channels", json!(0), "0; allowed is 1 to 65536"),
            ("picture.latent_scale", json!(0.0), "0; allowed is 0.001 to 1000"),
            ("picture.latent_scale", json!(1e30), "1000000000000000000000000000000; allowed is 0.001 to 1000"),
            ("picture.latent_scale", json!(-0.18), "-0.18; allowed is 0.001 to 1000"),
            ("picture.tiny_latent_scale", json!(0.0), "0; allowed is 0.001 to 1000"),
            ("picture.guidance_embedding", json!(0), "0; allowed is 1 to 65536"),
            ("text.tokens", json!(0), "0; allowed is 3 to 1024"),
            ("text.channels", json!(0), "0; allowed is 1 to 65536"),
            ("sampling.train_timesteps", json!(0), "0; allowed is 2 to 100000"),
            ("sampling.steps", json!(0), "0; allowed is 1 to 1000"),
            ("sampling.steps", json!(1001), "1001; allowed is 1 to 1000"),
            ("sampling.cfg_scale", json!(-1.0), "-1; allowed is 0 to 50"),
            ("sampling.beta_start", json!(0.0), "0; allowed is 0.000000001 to 0.999"),
            ("sampling.beta_end", json!(0.0001), "0.0001; allowed is 0.00085 to 0.999"),
            ("sampling.beta_end", json!(5.0), "5; allowed is 0.00085 to 0.999"),
            ("sampling.steps_offset", json!(u64::MAX), "18446744073709551615; allowed is 0 to 999"),
            ("sampling.original_inference_steps", json!(0), "0; allowed is 1 to 1000"),
        ] {
            assert_eq!(refused(key, value), format!("{key} is {allowed}"));
        }
    }

    #[test]
    fn names_types_and_keys_are_refused_by_their_path() {
        for (key, value, message) in [
            ("family", json!("sd3"), "family: unknown variant `sd3`, expected one of `sd1`, `sd2`, `sdxl`"),
            ("weights", json!("int4"), "weights: unknown variant `int4`, expected one of `int8`, `f16`, `f32`"),
            ("picture.factor", json!(-8), "picture.factor: invalid value: integer `-8`"),
            ("picture.factor", json!(null), "picture.factor: invalid type: null"),
            ("picture.latent_scale", json!("NaN"), "picture.latent_scale: invalid type: string"),
            ("sampling.prediction", json!("sample"), "sampling.prediction: unknown variant `sample`"),
            ("text.bias", json!(1), "unknown field `bias`"),
            ("source_sha256", json!("12"), "source_sha256 is \"12\""),
            ("name", json!("a".repeat(1001)), "the length of name is 1001"),
            ("text.words", json!(["a", "B"]), "text.words has \"B\""),
            ("text.words", json!(["b", "a"]), "text.words is not sorted"),
            ("text.words", json!([]), "the number of text.words is 0"),
            ("text.added", json!([{"text": "", "ids": [8]}]), "the length of a text of text.added is 0"),
            ("text.added", json!([{"text": "a", "ids": []}]), "the number of ids of \"a\" in text.added is 0"),
            ("text.added", json!([{"text": "a", "ids": [8]}, {"text": "a", "ids": [9]}]), "text.added has \"a\" twice"),
            ("examples", json!([""]), "the length of an example is 0"),
            ("files", json!({}), "files does not list tokenizer/merges.txt"),
            ("files", json!({"../a": "0".repeat(64)}), "files names \"../a\""),
            ("files", json!({"/etc/a": "0".repeat(64)}), "files names \"/etc/a\""),
            ("files", json!({"a": "x"}), "the checksum of a is \"x\""),
        ] {
            let found = refused(key, value.clone());
            assert!(found.contains(message), "{key} = {value}: {found}");
        }
    }

    #[test]
    fn the_defaults_must_be_possible() {
        let message = refused("sampling.steps", json!(2));
        assert!(message.starts_with("sampling.default is pndm and sampling.steps: 2 is out of range"), "{message}");
    }
}
