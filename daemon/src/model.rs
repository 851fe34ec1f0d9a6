//! Which model is painted with: a bundle's folder, or the demo model that the program carries.

use std::path::Path;

use diffused_engine::error::Result;
use diffused_engine::{Engine, Options, Source};

/// The demo model's bundle, by its files' paths in it.
macro_rules! demo_bundle {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_bytes!(concat!("../../model-prep/demo/bundle/", $file)))),+]
    };
}

static DEMO: &[(&str, &[u8])] = demo_bundle![
    "bundle.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder.onnx",
    "text_encoder.weights",
    "unet.onnx",
    "unet.weights",
    "vae_decoder.onnx",
    "vae_decoder.weights",
    "vae_encoder.onnx",
    "vae_encoder.weights",
];

/// How to open a model, again if need be.
#[derive(Debug, Clone)]
pub struct Model {
    source: Source,
    options: Options,
}

impl Model {
    /// The bundle in `folder`, or the demo model.
    pub fn new(folder: Option<&Path>, options: Options) -> Model {
        let source = folder.map_or(Source::Embedded(DEMO), |folder| Source::Folder(folder.to_owned()));
        Model { source, options }
    }

    /// How its engine may use the machine.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Reads and checks what is small of it.
    pub fn open(&self) -> Result<Engine> {
        Engine::open(self.source.clone(), self.options)
    }
}
