//! Bundles for tests, and what paints with them.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::Path;

use diffused_engine::{Engine, Options, Resolver, Source};
use serde_json::Value;

/// The demo model's bundle with other keys in its `sampling`.
pub(crate) fn bundle(folder: &Path, sampling: &Value) -> Source {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo");
    fs::create_dir(folder.join("tokenizer")).unwrap();
    for part in ["", "tokenizer"] {
        for entry in fs::read_dir(demo.join(part)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), folder.join(part).join(entry.file_name())).unwrap();
        }
    }
    let manifest = fs::read(folder.join("bundle.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for (key, value) in sampling.as_object().unwrap() {
        manifest["sampling"][key] = value.clone();
    }
    fs::write(folder.join("bundle.json"), manifest.to_string()).unwrap();
    Source::Folder(folder.to_owned())
}

/// The demo model.
pub(crate) fn demo() -> Source {
    Source::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo"))
}

/// What turns requests into images.
pub(crate) struct Studio {
    pub(crate) resolver: Resolver,
    pub(crate) engine: Engine,
}

impl Studio {
    pub(crate) fn open(source: Source, options: Options) -> Studio {
        Studio { resolver: Resolver::open(source.clone()).unwrap(), engine: Engine::open(source, options).unwrap() }
    }
}
