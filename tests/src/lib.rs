//! What tests and benches of the whole program share: where things are, how the program is run, and a broker with a client.

pub mod contract;
pub mod mqtt;
mod program;
pub mod scripted;
pub mod tap;
pub mod wire;

use std::fs;
use std::path::{Path, PathBuf};

pub use program::{program, run};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The demo model's bundle, which the program carries.
pub fn demo_bundle() -> PathBuf {
    root().join("daemon/assets/demo")
}

/// Makes `folder` a copy of the demo model's bundle, for tests that damage it.
pub fn copy_demo_bundle(folder: &Path) {
    let source = demo_bundle();
    fs::create_dir_all(folder.join("tokenizer")).unwrap();
    for (sub, target) in [(source.clone(), folder.to_owned()), (source.join("tokenizer"), folder.join("tokenizer"))] {
        for entry in fs::read_dir(sub).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
        }
    }
}

/// Changes one byte in the file's middle.
pub fn edit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(file, bytes).unwrap();
}

/// SHA-256, lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    <sha2::Sha256 as sha2::Digest>::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
