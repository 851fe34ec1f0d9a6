//! Small autoencoders, few-step models and inpainting models, in f32 bundles.

use std::fs;

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::latents::Latents;
use diffused_engine::memory_plan::RunBudget;
use diffused_engine::vae::{VaeDecoder, VaeEncoder};
use model_prep::{Format, SourceOptions};

use safetensors::SafeTensors;

use crate::networks::{Goldens, check, go_on};
use crate::pictures::check_pictures;
use crate::{Fresh, goldens};

/// A bundle of the model sd1 and a tiny autoencoder, from the folder or file `vae`.
pub(crate) fn with_tiny(vae: &str, weights: Format) -> Fresh {
    let source = SourceOptions { vae: Some(goldens().join("models").join(vae)), ..SourceOptions::default() };
    Fresh::with(&goldens().join("models/sd1"), weights, source)
}

#[test]
fn tiny_autoencoders_agree() {
    let (goldens, fresh) = (Goldens::open("taesd"), with_tiny("taesd", Format::F32));
    let bundle = fresh.bundle();
    let mut decoder = VaeDecoder::open(&bundle, AutoencoderKind::Tiny).unwrap();
    for case in goldens.cases("decode") {
        let latents = goldens.get(&format!("{case}.in")).latents();
        let pixels = decoder.decode(&latents, RunBudget::ample(), &mut go_on).unwrap();
        check(&case, &pixels, &goldens.get(&format!("{case}.out")).latents().values, 1e-3);
    }
    let mut encoder = VaeEncoder::open(&bundle, AutoencoderKind::Tiny).unwrap();
    for case in goldens.cases("encode") {
        let Latents { height, width, values, .. } = goldens.get(&format!("{case}.in")).latents();
        let moments = encoder.encode(values, (width, height), RunBudget::ample(), &mut go_on).unwrap();
        let ours = moments.sample(|| unreachable!("a tiny encoder draws nothing"));
        check(&case, &ours.values, &goldens.get(&format!("{case}.out")).latents().values, 1e-3);
    }
}

#[test]
fn pictures_agree() {
    let fresh = |model: &str| match model {
        "sd1" => with_tiny("taesd", Format::F32),
        other => Fresh::new(other, Format::F32),
    };
    check_pictures("pictures-small.json", &["sd1", "sdxs", "turbo", "inpaint"], fresh);
}

/// TAESD's own files, together and one by one, hold what the diffusers folder holds.
#[test]
fn every_wrapping_gives_the_same_autoencoder() {
    let [whole, halves, decoder] =
        ["taesd", "taesd-halves", "taesd-halves/taesd_decoder.safetensors"].map(|vae| with_tiny(vae, Format::Int8));
    for (name, other) in [("tiny_decoder", &halves), ("tiny_encoder", &halves), ("tiny_decoder", &decoder)] {
        for file in [format!("{name}.onnx"), format!("{name}.weights")] {
            let read = |fresh: &Fresh| fs::read(fresh.path().join(&file)).unwrap();
            assert!(read(&whole) == read(other), "{file}");
        }
    }
    assert!(decoder.bundle().manifest.has("vae_decoder") && !decoder.bundle().manifest.has("tiny_encoder"));
}

/// A full autoencoder's weights alone, under the names of original checkpoints, take the place of the model's own.
#[test]
fn an_autoencoder_in_a_file_takes_the_models_place() {
    let vae = goldens().join("models/sd1/vae/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&vae).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.tensors().into_iter().map(|(name, view)| (original_name(&name), view));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vae.safetensors");
    safetensors::serialize_to_file(renamed.collect::<Vec<_>>(), None, &file).unwrap();
    // The model sd1's own autoencoder is found under either name, in another model as in itself.
    let [own, given] = [None, Some(file)].map(|vae| {
        let source = SourceOptions { vae, ..SourceOptions::default() };
        Fresh::with(&goldens().join("models/sd1"), Format::F32, source)
    });
    for file in ["vae_decoder.weights", "vae_encoder.weights", "vae_decoder.onnx", "vae_encoder.onnx"] {
        let read = |fresh: &Fresh| fs::read(fresh.path().join(file)).unwrap();
        assert!(read(&own) == read(&given), "{file}");
    }
}

/// The name in an original checkpoint of an autoencoder of two levels.
fn original_name(name: &str) -> String {
    let blocks =
        [("down_blocks.0", "down.0"), ("down_blocks.1", "down.1"), ("up_blocks.0", "up.1"), ("up_blocks.1", "up.0")];
    let parts = [
        (".resnets.", ".block."),
        ("mid_block.block.0", "mid.block_1"),
        ("mid_block.block.1", "mid.block_2"),
        ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
        ("mid_block.attentions.0.to_q", "mid.attn_1.q"),
        ("mid_block.attentions.0.to_k", "mid.attn_1.k"),
        ("mid_block.attentions.0.to_v", "mid.attn_1.v"),
        ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
        ("downsamplers.0.conv", "downsample.conv"),
        ("upsamplers.0.conv", "upsample.conv"),
    ];
    blocks.iter().chain(&parts).fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
}
