//! Pictures to start from, at the edge of the memory budget.

use std::path::Path;

use image::{ImageBuffer, Rgba};

use crate::bench::run;

/// A picture of the kind that takes the most memory to unpack.
fn save(path: &Path, side: u32) {
    let pixel = |x, y| Rgba([x as u16 * 20, y as u16 * 20, (x ^ y) as u16 * 20, u16::MAX]);
    ImageBuffer::from_fn(side, side, pixel).save(path).unwrap();
}

#[test]
fn a_large_one_stays_within_the_memory_and_a_larger_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paint = |side: u32| {
        save(&folder.path().join("init.png"), side);
        let flags = ["--init-image", "init.png", "--width", "128", "--height", "128", "--memory", "80M"];
        let words = ["generate", "a red house", "--steps", "1", "--strength", "1", "--json", "-o", "a.png"];
        run(&[&words[..], &flags].concat(), folder.path())
    };
    let (code, stdout, stderr) = paint(1500);
    assert_eq!(code, Some(0), "{stderr}");
    let done: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let peak = done["timings"]["peak_rss"].as_u64().unwrap();
    assert!(peak <= 80 << 20, "{peak} bytes");

    let (code, _, stderr) = paint(2300);
    assert_eq!(code, Some(2), "{stderr}");
    for part in ["--init-image", "2300×2300", "in 80 MiB at most "] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}
