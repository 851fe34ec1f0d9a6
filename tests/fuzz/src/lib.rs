//! What is fuzzed: the parsers of everything that comes from outside. A damaged or hostile input is an error or is
//! taken; it must not panic, run for ever or take more memory than its own size explains.
//!
//! `tests/fuzz/run` feeds these functions with cargo-fuzz; `tests/corpus.rs` replays the committed inputs with any
//! toolchain.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use diffused::jobs::init_image::Header;
use diffused::jobs::journal::{JournalState, Record};
use diffused::jobs::request::{Job, RequestMode};
use diffused::jobs::wildcards::Wildcards;
use diffused_engine::bundle::{AddedToken, Manifest, Text, WeightsIndex};
use diffused_engine::hash::{sha256, xxh3};
use diffused_engine::picture::Colour;
use diffused_engine::prompt::PromptSyntax;
use diffused_engine::sampler::{Sampler, SamplerKind};
use diffused_engine::text_encoder::TextEncoder;
use diffused_engine::tokenizer::Tokenizer;
use diffused_engine::{Bundle, Options, Resolver, Source, StepCheckpoint};
use tempfile::TempDir;

#[allow(dead_code, reason = "the pickles that it writes are for other tests")]
#[path = "../../../model-prep/tests/bundles/torch_file.rs"]
mod torch_file;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in `corpus`.
pub const TARGETS: [(&str, Target); 13] = [
    ("checkpoint", checkpoint),
    ("gguf", weights_file),
    ("graph", graph),
    ("init_image", init_image),
    ("journal", journal),
    ("manifest", manifest),
    ("pickle", pickle),
    ("prompt", prompt),
    ("request", request),
    ("safetensors_header", weights_file),
    ("tokenizer", tokenizer),
    ("weights_index", weights_index),
    ("zip", weights_file),
];

/// The demo model's bundle.
fn demo() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut folders = above.map(|folder| folder.join("daemon/assets/demo"));
    folders.find(|folder| folder.exists()).expect("the repository's root is above")
}

/// A folder for files that a target has to write.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for temporary files"));

/// A checkpoint of a painting but for its checksum, which is added.
pub fn checkpoint(input: &[u8]) {
    let bytes = [input, &xxh3(input).to_le_bytes()].concat();
    if let Ok(checkpoint) = StepCheckpoint::from_bytes(&bytes) {
        assert_eq!(checkpoint.to_bytes().len(), bytes.len());
    }
}

/// `bundle.json`, and every sampler with what it says.
pub fn manifest(input: &[u8]) {
    let Ok(manifest) = Manifest::parse(input) else { return };
    let again = Manifest::parse(&manifest.to_json()).expect("what was parsed can be written");
    assert_eq!(again.to_json(), manifest.to_json());
    for kind in SamplerKind::ALL {
        for steps in [1, 2, 20] {
            for strength in [None, Some(0.5)] {
                let _ = Sampler::new(kind, &manifest.sampling, steps, strength);
            }
        }
    }
}

/// The index of a `.weights` file: eight bytes with the file's length, then the JSON.
pub fn weights_index(input: &[u8]) {
    let Some((len, json)) = input.split_first_chunk() else { return };
    let len = u64::from_le_bytes(*len);
    let Ok(index) = WeightsIndex::parse(json, len) else { return };
    for (name, entry) in index.entries() {
        assert!(index.entry(name).is_some());
        let blocks = (0..entry.blocks()).map(|block| entry.block_len(block) as u64);
        assert!(entry.offset() + entry.bytes() as u64 <= len && blocks.take(1000).all(|block| block <= len));
    }
}

/// A network's graph, against the weights of the demo model's text encoder.
pub fn graph(input: &[u8]) {
    static SOURCE: LazyLock<Source> = LazyLock::new(|| {
        for file in ["bundle.json", "text_encoder.weights"] {
            fs::copy(demo().join(file), FOLDER.path().join(file)).expect("a copy of the demo's bundle");
        }
        Source::Folder(FOLDER.path().to_owned())
    });
    let mut bundle = Bundle::open(SOURCE.clone()).expect("the demo's bundle");
    let file = "text_encoder.onnx";
    fs::write(FOLDER.path().join(file), input).expect("a file for the graph");
    let mut fields = (*bundle.manifest).clone();
    fields.files.insert(file.to_owned(), sha256(input));
    bundle.manifest = Manifest::new(fields).expect("only a checksum has changed");
    let _ = TextEncoder::open(&bundle);
}

/// A vocabulary, a byte of zero, merges, and perhaps another byte of zero and a prompt.
pub fn tokenizer(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let added = AddedToken { text: "<a>".into(), ids: vec![2, 3], exact: false };
    let Ok(tokenizer) = Tokenizer::new(part(), part(), &[added]) else { return };
    let (second, words, added, clip_skip) = (None, None, vec![], None);
    let sizes = Text { tokens: 77, bos: 0, eos: 1, pad: 1, channels: 8, second, words, added, clip_skip };
    let encoded = tokenizer.encode(&String::from_utf8_lossy(part()), &sizes);
    assert_eq!(encoded.ids.len(), 77);
}

/// A file of weights: safetensors, torch's zip archive or GGUF, by its first bytes.
pub fn weights_file(input: &[u8]) {
    let path = FOLDER.path().join("weights");
    fs::write(&path, input).expect("a file for the weights");
    let _ = model_prep::probe_weights(&path);
}

/// The pickle of a torch archive.
pub fn pickle(input: &[u8]) {
    weights_file(&torch_file::archive([("a/data.pkl", input), ("a/data/0", &[0; 64])]));
}

/// A prompt, which is also the negative one, in each syntax.
pub fn prompt(input: &[u8]) {
    let prompt = String::from_utf8_lossy(input).into_owned();
    for syntax in PromptSyntax::ALL {
        let request = diffused_engine::request::Request {
            prompt: prompt.clone(),
            negative_prompt: prompt.clone(),
            prompt_syntax: Some(syntax),
            steps: Some(30),
            ..Default::default()
        };
        let _ = RESOLVER.resolve(&request, None);
    }
}

/// The demo model's resolver.
static RESOLVER: LazyLock<Resolver> = LazyLock::new(|| Resolver::open(Source::Folder(demo())).expect("the demo model"));

/// The payload of a request for either kind of picture, as far as the queue.
pub fn request(input: &[u8]) {
    for mode in [RequestMode::Txt2Img, RequestMode::Img2Img] {
        if let Ok((mut job, _)) = Job::parse(input, mode, FOLDER.path()) {
            if job.draw(&Wildcards::default(), &RESOLVER).is_err() {
                continue;
            }
            let _ = job.resolve(&RESOLVER, Options { threads: Some(1), memory: Some(100 << 20), beside: 0 });
        }
    }
}

/// An image file, which is unpacked if it is small.
pub fn init_image(input: &[u8]) {
    let Ok(header) = Header::read(Cursor::new(input)) else { return };
    let (width, height) = header.size();
    if width * height <= 1 << 16 {
        let _ = header.decode(Cursor::new(input), Colour::WHITE);
    }
}

/// The journal of the state folder: its lines, or what they hold, whose checksums are made here.
pub fn journal(input: &[u8]) {
    let lines = input.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| match serde_json::from_slice::<Record>(line) {
        Ok(record) => record.line().into_bytes(),
        Err(_) => line.to_vec(),
    });
    let journal = JournalState::replay(&lines.collect::<Vec<_>>().concat());
    let _ = journal.foreign();
    let shortest = journal.lines();
    let again = JournalState::replay(shortest.as_bytes());
    assert_eq!((again.damaged.len(), again.lines()), (0, shortest));
}
