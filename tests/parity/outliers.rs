//! Large trained networks have channels tens of times larger than the others. The demo model has not, so it is given
//! some: in every transformer block of its UNet, 2 % of the channels of norms, values and gated values are multiplied
//! by `k`, and the weights that read them divided by it, which is the same function.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::f16;
use model_prep::Format;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::Fresh;
use crate::int8::{median, paint, psnr, report};

/// The UNet's weights in the model's folder.
const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
/// Part of the channels that stand out.
const PART: f64 = 0.02;
/// How many prompts are painted.
const PROMPTS: usize = 8;

/// What makes a value and what reads it, in a transformer block.
const LINKS: [(&str, &[&str]); 6] = [
    ("norm1", &["attn1.to_q", "attn1.to_k", "attn1.to_v"]),
    ("norm2", &["attn2.to_q"]),
    ("norm3", &["ff.net.0.proj"]),
    ("attn1.to_v", &["attn1.to_out.0"]),
    ("attn2.to_v", &["attn2.to_out.0"]),
    ("ff.net.0.proj", &["ff.net.2"]),
];

/// ModuleTensors in f32 with their shapes.
struct ModuleTensors(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl ModuleTensors {
    /// Of a file in f16.
    fn read(path: &Path) -> ModuleTensors {
        let bytes = fs::read(path).unwrap();
        let values =
            |view: &TensorView| view.data().as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        ModuleTensors(
            tensors.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(&view)))).collect(),
        )
    }

    fn write(&self, path: &Path) {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let tensors: Vec<_> =
            self.0.iter().map(|(name, (shape, values))| (name, shape.clone(), bytes(values))).collect();
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    /// Multiplies channels of what a module makes.
    fn scale_outputs(&mut self, module: &str, channels: &[usize], k: f32) {
        for tensor in [format!("{module}.weight"), format!("{module}.bias")] {
            let Some((shape, values)) = self.0.get_mut(&tensor) else { continue };
            let len = values.len() / shape[0];
            for channel in channels {
                values[channel * len..][..len].iter_mut().for_each(|value| *value *= k);
            }
        }
    }

    /// Divides the weights that read channels.
    fn scale_inputs(&mut self, module: &str, channels: &[usize], k: f32) {
        let (shape, values) = self.0.get_mut(&format!("{module}.weight")).unwrap();
        for row in values.chunks_exact_mut(shape[1]) {
            channels.iter().for_each(|channel| row[*channel] /= k);
        }
    }

    /// Lets channels of every transformer block stand out by `k`.
    fn add_outliers(&mut self, k: f32) {
        let blocks: Vec<String> =
            self.0.keys().filter_map(|name| name.strip_suffix("attn1.to_q.weight")).map(str::to_owned).collect();
        assert!(blocks.len() > 5, "there are transformer blocks");
        for (seed, (block, (maker, readers))) in
            blocks.iter().flat_map(|block| LINKS.map(|link| (block, link))).enumerate()
        {
            let width = self.0[&format!("{block}{}.weight", readers[0])].0[1];
            let count = (width as f64 * PART).ceil() as usize;
            let channels: Vec<usize> = (0..count).map(|i| (13 + seed * 7919 + i * 104_729) % width).collect();
            self.scale_outputs(&format!("{block}{maker}"), &channels, k);
            readers.iter().for_each(|reader| self.scale_inputs(&format!("{block}{reader}"), &channels, k));
        }
    }
}

/// Copies the files of a folder, and those in its folders.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if from.is_dir() { copy(&from, &to) } else { fs::copy(&from, &to).map(|_| ()).unwrap() }
    }
}

/// A bundle of the demo model with outliers.
fn with_outliers(k: f32, weights: Format) -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("demo");
    copy(&diffused_tests::root().join("model-prep/demo/model"), &model);
    let mut unet = ModuleTensors::read(&model.join(UNET));
    unet.add_outliers(k);
    unet.write(&model.join(UNET));
    Fresh::of(&model, weights)
}

#[test]
fn channels_that_stand_out_cost_no_quality() {
    let exact = paint(&with_outliers(1.0, Format::F32), PROMPTS);
    let quality = |k: f32| {
        let int8 = paint(&with_outliers(k, Format::Int8), PROMPTS);
        let median = median(exact.iter().zip(&int8).map(|(exact, int8)| psnr(exact, int8)).collect());
        report(&format!("int8 pictures with outliers of {k}: PSNR {median:.1} dB in the median of {PROMPTS} prompts"));
        median
    };
    let plain = quality(1.0);
    for k in [8.0, 32.0, 100.0] {
        assert!(quality(k) >= plain - 1.5, "outliers of {k} cost more than 1.5 dB");
    }
}
