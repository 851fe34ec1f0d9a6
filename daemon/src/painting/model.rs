//! Which model is painted with: a bundle's folder, or the demo model. The program carries that if it was built with
//! `demo-model`; otherwise it is a bundle that an installation brings beside the program.

use std::path::{Path, PathBuf};

use diffused_engine::error;
use diffused_engine::{Bundle, Engine, Options, Resolver, Source};

/// The demo model's bundle, by its files' paths in it.
#[cfg(feature = "demo-model")]
macro_rules! demo_bundle {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_bytes!(concat!("../../assets/demo/", $file)))),+]
    };
}

#[cfg(feature = "demo-model")]
static DEMO: Option<&[(&str, &[u8])]> = Some(demo_bundle![
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
]);

#[cfg(not(feature = "demo-model"))]
static DEMO: Option<&[(&str, &[u8])]> = None;

/// Where the demo model lies, seen from the program's folder: a Debian package's `/usr/share` and `/usr/bin`, or an
/// unpacked archive.
const DEMO_BESIDE: [&str; 2] = ["../share/diffused/demo", "demo"];

/// There is no model to open.
#[derive(Debug, thiserror::Error)]
#[error(
    "no model is given, and the demo model is neither inside this program nor beside it (in `demo` or \
     `../share/diffused/demo`): name a bundle's folder, with `model` in the configuration or `--model` on the command line"
)]
pub struct NoModel;

/// How to open a model, again if need be.
#[derive(Debug, Clone)]
pub struct Model {
    source: Source,
    options: Options,
}

impl Model {
    /// The bundle in `folder`, or the demo model.
    ///
    /// # Errors
    /// There is no folder, and the demo model is neither inside the program nor beside it.
    pub fn new(folder: Option<&Path>, options: Options) -> Result<Model, NoModel> {
        let source = match (folder, DEMO) {
            (Some(folder), _) => Source::Folder(folder.to_owned()),
            (None, Some(files)) => Source::Embedded(files),
            (None, None) => {
                let program = std::env::current_exe().map_err(|_| NoModel)?;
                Source::Folder(demo_beside(&program).ok_or(NoModel)?)
            }
        };
        Ok(Model { source, options })
    }

    /// How its engine may use the machine.
    pub fn options(&self) -> Options {
        self.options
    }

    /// What resolves requests for it, without the networks.
    pub fn resolver(&self) -> error::Result<Resolver> {
        Resolver::open(self.source.clone())
    }

    /// Reads every file through and compares it with its checksum.
    pub fn check_files(&self) -> error::Result<()> {
        Bundle::open(self.source.clone())?.check_files()
    }

    /// Reads and checks what is small of its networks.
    pub fn open(&self) -> error::Result<Engine> {
        let engine = Engine::open(self.source.clone(), self.options);
        // Parsing the graphs takes more memory than keeping them.
        diffused_heap::trim();
        engine
    }
}

/// The demo model's folder beside `program`.
fn demo_beside(program: &Path) -> Option<PathBuf> {
    let places = DEMO_BESIDE.iter().map(|place| program.parent().map(|folder| folder.join(place)));
    places.flatten().find(|folder| folder.join("bundle.json").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_folder_it_is_the_demo_model_where_there_is_one() {
        let model = Model::new(None, Options::default());
        if cfg!(feature = "demo-model") {
            assert_eq!(model.unwrap().open().unwrap().manifest().name, "demo");
        } else {
            assert!(model.unwrap_err().to_string().contains("neither inside this program nor beside it"));
        }
    }

    #[test]
    fn the_demo_model_is_found_beside_an_installed_or_an_unpacked_program() {
        for place in ["share/diffused/demo", "bin/demo"] {
            let root = tempfile::tempdir().unwrap();
            let (program, folder) = (root.path().join("bin/diffused"), root.path().join(place));
            std::fs::create_dir_all(root.path().join("bin")).unwrap();
            std::fs::create_dir_all(&folder).unwrap();
            assert_eq!(demo_beside(&program), None, "an empty folder");
            std::fs::write(folder.join("bundle.json"), "{}").unwrap();
            assert_eq!(demo_beside(&program).unwrap().canonicalize().unwrap(), folder.canonicalize().unwrap());
        }
    }
}
