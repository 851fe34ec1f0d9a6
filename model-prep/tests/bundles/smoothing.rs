//! Channels that stand out are evened out in int8 bundles, and only there.

use std::collections::BTreeMap;

use diffused_engine::Source;
use diffused_engine::bundle::WeightsFile;
use half::f16;
use model_prep::{Format, Options, SourceOptions, convert, verify};

use crate::changed::{SourceCopy, TensorData};
use crate::conversion::least_in_half;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const BLOCK: &str = "down_blocks.0.attentions.0.transformer_blocks.0";
/// The channel that stands out in this test.
const CHANNEL: usize = 5;

/// Multiplies a row of a matrix, or a value of a list, in f16.
fn scale_row(tensors: &mut BTreeMap<String, TensorData>, name: &str, k: f32) {
    let tensor = tensors.get_mut(&format!("{BLOCK}.{name}")).unwrap();
    let row = tensor.bytes.len() / tensor.shape[0];
    for bytes in tensor.bytes[CHANNEL * row..][..row].as_chunks_mut().0 {
        *bytes = f16::from_f32(f16::from_le_bytes(*bytes).to_f32() * k).to_le_bytes();
    }
}

/// The demo model with a channel of a norm, of an attention's values and of gated values that are 64 times as large.
fn with_outliers() -> SourceCopy {
    let source = SourceCopy::new();
    source.change(UNET, |tensors| {
        for tensor in ["norm1.weight", "norm1.bias", "attn1.to_v.weight", "ff.net.0.proj.weight", "ff.net.0.proj.bias"]
        {
            scale_row(tensors, tensor, 64.0);
        }
    });
    source
}

fn bundle(source: &SourceCopy, weights: Format, calibrate: bool) {
    let options = Options { weights, calibrate, force: true, ..Options::default() };
    let converted = convert(&source.path(), &source.bundle(), &options, &mut |_| ()).unwrap();
    assert_eq!(converted.warnings, Vec::<String>::new());
}

/// The first list of a norm in the bundle.
fn gamma(source: &SourceCopy, network: &str, norm: &str) -> Vec<f32> {
    let file = WeightsFile::open(&Source::Folder(source.bundle()), network).unwrap();
    let mut values = Vec::new();
    file.each_block(norm, |block| {
        values.extend(block.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        Ok::<(), diffused_engine::error::Error>(())
    })
    .unwrap();
    values.truncate(values.len() / 2); // beta follows
    values
}

#[test]
fn a_channel_that_stands_out_is_made_smaller_and_read_with_larger_weights() {
    let source = with_outliers();
    let [exact, int8] = [Format::F32, Format::Int8].map(|weights| {
        bundle(&source, weights, false);
        gamma(&source, "unet", &format!("{BLOCK}.norm1"))
    });
    for (channel, (exact, int8)) in exact.into_iter().zip(int8).enumerate() {
        // The weights that read the channel are as they were, so half of the 64 is theirs.
        let expected = if channel == CHANNEL { 8.0 } else { 1.0 };
        assert_eq!(exact / int8, expected, "channel {channel}");
    }
}

#[test]
fn a_bundle_whose_channels_were_evened_out_is_verified() {
    let source = with_outliers();
    for weights in [Format::Int8, Format::F16, Format::F32] {
        bundle(&source, weights, true);
        verify(&source.bundle(), &source.path(), &SourceOptions::default(), &mut |difference| {
            let least = if weights == Format::Int8 { 25.0 } else { least_in_half(&difference) };
            assert!(difference.snr() >= least, "{difference:?}: {} dB", difference.snr());
        })
        .unwrap();
    }
}

/// A channel of the text encoder's residual stream that is large because its embeddings are: its norms do not show it.
#[test]
fn a_channel_that_only_activations_show_is_found_by_painting() {
    const TEXT: &str = "text_encoder/model.safetensors";
    let source = SourceCopy::new();
    source.change(TEXT, |tensors| {
        let (_, tokens) = tensors.iter_mut().find(|(name, _)| name.ends_with("token_embedding.weight")).unwrap();
        let width = tokens.shape[1];
        for row in tokens.bytes.chunks_exact_mut(2 * width) {
            let bytes = &mut row.as_chunks_mut().0[CHANNEL];
            *bytes = f16::from_f32(f16::from_le_bytes(*bytes).to_f32() * 500.0).to_le_bytes();
        }
    });
    let [by_weights, calibrated] = [false, true].map(|calibrate| {
        bundle(&source, Format::Int8, calibrate);
        verify(&source.bundle(), &source.path(), &SourceOptions::default(), &mut |difference| {
            assert!(difference.snr() >= 25.0, "{difference:?}: {} dB", difference.snr());
        })
        .unwrap();
        gamma(&source, "text_encoder", "encoder.layers.0.layer_norm1")
    });
    assert!(by_weights[CHANNEL] / calibrated[CHANNEL] >= 8.0, "{} {}", by_weights[CHANNEL], calibrated[CHANNEL]);
}
