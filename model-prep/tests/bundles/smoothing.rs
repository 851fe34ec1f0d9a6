//! Channels that stand out are evened out in int8 bundles, and only there.

use std::collections::BTreeMap;

use diffused_engine::Source;
use diffused_engine::bundle::WeightsFile;
use half::f16;
use model_prep::{Format, Options, SourceOptions, convert, verify};

use crate::changed::{SourceCopy, TensorData};

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

fn gamma(source: &SourceCopy, weights: Format) -> Vec<f32> {
    let options = Options { weights, force: true, ..Options::default() };
    convert(&source.path(), &source.bundle(), &options, &mut |_| ()).unwrap();
    let unet = WeightsFile::open(&Source::Folder(source.bundle()), "unet").unwrap();
    let mut values = Vec::new();
    unet.each_block(&format!("{BLOCK}.norm1"), |block| {
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
    let (exact, int8) = (gamma(&source, Format::F32), gamma(&source, Format::Int8));
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
        let least = if weights == Format::Int8 { 25.0 } else { f64::INFINITY };
        gamma(&source, weights);
        verify(&source.bundle(), &source.path(), &SourceOptions::default(), &mut |difference| {
            assert!(difference.snr() >= least, "{difference:?}: {} dB", difference.snr());
        })
        .unwrap();
    }
}
