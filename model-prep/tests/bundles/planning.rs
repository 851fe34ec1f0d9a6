//! What is said of a source before it is converted is what its bundle says.

use std::path::PathBuf;

use crate::changed::{SourceCopy, demo};
use diffused_engine::request::Request;
use diffused_engine::{Engine, Resolver, Source};
use model_prep::{Inspection, Options, convert, inspect, plan};

/// Plans within `memory` bytes, with one thread.
fn engine(memory: Option<u64>) -> diffused_engine::Options {
    diffused_engine::Options { threads: Some(1), memory, beside: 0 }
}

fn committed() -> PathBuf {
    demo().join("../../../daemon/assets/demo")
}

#[test]
fn a_source_is_planned_as_its_bundle() {
    let source = SourceCopy::new();
    let options = Options { cfg_scale: Some(5.0), ..Options::default() };
    let request = Request { width: Some(192), height: Some(128), ..Request::default() };
    let resolver = Resolver::open(Source::Folder(committed())).unwrap();
    for memory in [None, Some(40 << 20)] {
        for (image_to_image, init_size) in [(false, None), (true, Some((192, 128)))] {
            let found = plan(&source.path(), &options, &request, image_to_image, engine(memory)).unwrap();
            let painting = resolver.resolve(&request, init_size).unwrap();
            let mut bundle = Engine::open(Source::Folder(committed()), engine(memory)).unwrap();
            assert_eq!(found.memory, bundle.plan(&painting).unwrap());
            assert_eq!(found.smallest, bundle.smallest_budget(&painting).unwrap());
            assert_eq!((found.parameters.width, found.parameters.height), (192, 128));
        }
    }
    let error = plan(&source.path(), &options, &request, false, engine(Some(1 << 20))).unwrap_err().to_string();
    assert!(error.starts_with("1 MiB is too little for this size"), "{error}");
}

#[test]
fn a_source_is_inspected_as_its_bundle() {
    let source = SourceCopy::new();
    let options = Options { name: Some("mine".into()), ..Options::default() };
    let before = inspect(&source.path(), &options).unwrap();
    let converted = convert(&source.path(), &source.bundle(), &options, &mut |_| ()).unwrap();
    let after = inspect(&source.bundle(), &Options::default()).unwrap();
    assert_eq!(before.networks, after.networks);
    assert_eq!(before.source, Some((converted.recognised, converted.warnings)));
    let without_checksums = |Inspection { manifest, .. }: Inspection| {
        let mut json: serde_json::Value = serde_json::from_slice(&manifest.to_json()).unwrap();
        json["source_sha256"].take();
        json["files"].as_object_mut().unwrap().values_mut().for_each(|sum| *sum = "".into());
        json
    };
    assert_eq!(without_checksums(before), without_checksums(after));
}
