//! What the engine computes is what diffusers computes: network by network, picture by picture, and what int8 costs.
//!
//! The goldens are in `tests/goldens`, with the scripts that made them.

mod adapters;
mod inpaint;
mod int8;
mod networks;
mod outliers;
mod pictures;
mod previews;
mod prompts;
mod small;
mod upscaler;

use std::path::{Path, PathBuf};

use diffused_engine::{Bundle, Source};
use model_prep::{Format, Options, SourceOptions, convert};
use tempfile::TempDir;

/// Tiny models of different layouts, and the demo model.
const MODELS: [&str; 6] = ["sd1", "sd2", "lcm", "sdxl", "ssd-1b", "demo"];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

/// A bundle of one of the models, made for this test.
struct Fresh {
    folder: TempDir,
}

impl Fresh {
    fn new(model: &str, weights: Format) -> Fresh {
        let source = match model {
            "demo" => diffused_tests::root().join("model-prep/demo/model"),
            tiny => goldens().join("models").join(tiny),
        };
        Fresh::of(&source, weights)
    }

    /// Of the model in the folder `source`.
    fn of(source: &Path, weights: Format) -> Fresh {
        Fresh::with(source, weights, SourceOptions::default())
    }

    /// Of that with something beside it.
    fn with(source: &Path, weights: Format, source_options: SourceOptions) -> Fresh {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { weights, source: source_options, ..Options::default() };
        convert(source, &folder.path().join("bundle"), &options, &mut |_| {}).unwrap();
        Fresh { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    fn source(&self) -> Source {
        Source::Folder(self.path())
    }

    fn bundle(&self) -> Bundle {
        Bundle::open(self.source()).unwrap()
    }
}
