//! The demo model's source with something changed: a folder of links, in which single files are replaced.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// The demo model's source.
pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model")
}

/// A tensor of a file that is being rewritten.
#[derive(Clone)]
pub(crate) struct TensorData {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// A copy of the demo model's source.
pub(crate) struct SourceCopy {
    folder: TempDir,
}

impl SourceCopy {
    /// An unchanged copy.
    pub(crate) fn new() -> SourceCopy {
        SourceCopy::of(&demo())
    }

    /// An unchanged copy of another model's source.
    pub(crate) fn of(source: &Path) -> SourceCopy {
        let folder = tempfile::tempdir().unwrap();
        link(source, &folder.path().join("model"));
        SourceCopy { folder }
    }

    /// The folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    /// A place for a bundle.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    /// Replaces `file`.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        let path = self.path().join(file);
        let _ = fs::remove_file(&path);
        fs::write(path, bytes).unwrap();
    }

    /// Takes `file` away.
    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.path().join(file)).unwrap();
    }

    /// Sets a key of a configuration.
    pub(crate) fn set(&self, file: &str, key: &str, value: Value) {
        let mut json: Value = serde_json::from_slice(&fs::read(self.path().join(file)).unwrap()).unwrap();
        json[key] = value;
        self.write(file, json.to_string().as_bytes());
    }

    /// The tensors of a file.
    pub(crate) fn tensors(&self, file: &str) -> BTreeMap<String, TensorData> {
        let bytes = fs::read(self.path().join(file)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |view: &TensorView| TensorData {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        tensors.iter().map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
    }

    /// Writes tensors to a file.
    pub(crate) fn write_tensors(&self, file: &str, tensors: &BTreeMap<String, TensorData>) {
        let views = tensors.iter().map(|(name, TensorData { dtype, shape, bytes })| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        self.write(file, &safetensors::serialize(views, None).unwrap());
    }

    /// Changes the tensors of a file.
    pub(crate) fn change(&self, file: &str, change: impl FnOnce(&mut BTreeMap<String, TensorData>)) {
        let mut tensors = self.tensors(file);
        change(&mut tensors);
        self.write_tensors(file, &tensors);
    }
}

fn link(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() { link(&path, &to.join(name)) } else { symlink(&path, to.join(name)).unwrap() }
    }
}
