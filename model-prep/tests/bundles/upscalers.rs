//! Upscalers that are given beside a model, `--upscaler`.

use std::collections::BTreeMap;
use std::fs;

use diffused_engine::bundle::{Manifest, UpscalerFields};
use model_prep::{Arch, Difference, Dtype, Format, Options, SourceOptions, convert, inspect, synth, verify};

use crate::changed::{SourceCopy, TensorData};
use crate::single_file::folder;

/// The tensors of a small upscaler to twice the size.
fn tensors() -> BTreeMap<String, TensorData> {
    let source = SourceCopy::of(&folder("sd1"));
    source.write("upscaler.safetensors", &fs::read(folder("upscaler-x2.safetensors")).unwrap());
    source.tensors("upscaler.safetensors")
}

/// Bundles of the model sd1 with an upscaler of these tensors, in the file `name`.
struct Upscaled {
    source: SourceCopy,
    options: Options,
}

impl Upscaled {
    fn new(name: &str, tensors: &BTreeMap<String, TensorData>) -> Upscaled {
        let source = SourceCopy::of(&folder("sd1"));
        source.write_tensors(name, tensors);
        let upscaler = Some(source.path().join(name));
        let options = Options { source: SourceOptions { upscaler, ..SourceOptions::default() }, ..Options::default() };
        Upscaled { source, options }
    }

    fn convert(&self) -> Result<Vec<String>, String> {
        let converted = convert(&self.source.path(), &self.source.bundle(), &self.options, &mut |_| ());
        converted.map(|converted| converted.warnings).map_err(|error| error.to_string())
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.source.bundle().join(name)).unwrap()
    }
}

/// What is said of an upscaler with something changed.
fn refused(change: impl FnOnce(&mut BTreeMap<String, TensorData>)) -> String {
    let mut tensors = tensors();
    change(&mut tensors);
    Upscaled::new("other.safetensors", &tensors).convert().unwrap_err()
}

#[test]
fn an_upscaler_is_told_by_its_shapes_and_named_by_its_file() {
    let plain = Upscaled::new("realesr-x2.safetensors", &tensors());
    assert_eq!(plain.convert().unwrap(), Vec::<String>::new());
    let manifest = Manifest::parse(&plain.file("bundle.json")).unwrap();
    assert_eq!(manifest.upscaler, Some(UpscalerFields { name: "realesr-x2".into(), scale: 2 }));
    let found = inspect(&plain.source.bundle(), &Options::default()).unwrap();
    let upscaler = found.networks.iter().find(|network| network.name == "upscaler").unwrap();
    // 6 convolutions, 5 PReLUs in them and a quantization before each of the 4 in the middle.
    assert_eq!((upscaler.operators, upscaler.tensors), (10, 11));
    let mut least = f64::INFINITY;
    let mut each = |difference: Difference| least = least.min(difference.snr());
    verify(&plain.source.bundle(), &plain.source.path(), &plain.options.source, &mut each).unwrap();
    assert!(least > 30.0, "{least} dB");
    let keyed = tensors().into_iter().map(|(name, tensor)| (format!("params.{name}"), tensor)).collect();
    let keyed = Upscaled::new("keyed.safetensors", &keyed);
    keyed.convert().unwrap();
    assert!(plain.file("upscaler.weights") == keyed.file("upscaler.weights"));
    assert!(plain.file("upscaler.onnx") == keyed.file("upscaler.onnx"));
}

#[test]
fn what_is_no_upscaler_of_this_kind_is_refused_by_name() {
    let large = refused(|tensors| {
        tensors.insert("body.0.rdb1.conv1.weight".into(), tensors["body.2.weight"].clone());
        tensors.retain(|name, _| name.contains("rdb1"));
    });
    assert!(large.contains("other.safetensors: holds an upscaler of the ESRGAN kind (RRDBNet)"), "{large}");
    assert!(large.contains("such as realesr-general-x4v3.pth"), "{large}");
    let other = refused(|tensors| tensors.retain(|name, _| name.starts_with("body.1.")));
    assert!(other.contains("other.safetensors: holds no upscaler that is read"), "{other}");
    let outputs = refused(|tensors| {
        tensors.insert("body.10.weight".into(), tensors["body.8.weight"].clone());
    });
    assert!(outputs.contains("body.10.weight: has 8 outputs; 3 · scale² are possible"), "{outputs}");
    let slope = refused(|tensors| drop(tensors.remove("body.3.weight")));
    assert!(slope.contains("body.3.weight: is missing; its shape should be [8]"), "{slope}");
    let grey = refused(|tensors| {
        let first = tensors.get_mut("body.0.weight").unwrap();
        (first.shape[1], first.bytes) = (1, first.bytes[..8 * 9 * 4].to_vec());
    });
    assert!(grey.contains("body.0.weight: has the shape [8, 1, 3, 3]; an upscaler's is [channels, 3, 3, 3]"), "{grey}");
}

/// In f16 and f32 too.
#[test]
fn synthetic_upscalers_convert() {
    let place = tempfile::tempdir().unwrap();
    let upscaler = place.path().join("anime");
    synth(Arch::RealesrAnime, 1, Dtype::F16, &upscaler, &mut |_, _| ()).unwrap();
    for weights in [Format::Int8, Format::F16, Format::F32] {
        let source =
            SourceOptions { upscaler: Some(upscaler.join("upscaler.safetensors")), ..SourceOptions::default() };
        let (options, bundle) = (Options { weights, source, ..Options::default() }, place.path().join(weights.name()));
        convert(&folder("sd1"), &bundle, &options, &mut |_| ()).unwrap();
        let manifest = Manifest::parse(&fs::read(bundle.join("bundle.json")).unwrap()).unwrap();
        assert_eq!(manifest.upscaler.as_ref().unwrap().scale, 4);
    }
}
