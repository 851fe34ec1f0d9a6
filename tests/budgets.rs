//! What the program holds in the smallest budget that it accepts: models whose activations are nearly all of it, since
//! their latents are large and their weights few.

use std::path::Path;

use diffused_tests::run;
use model_prep::{Format, Options, SourceOptions, convert};
use serde_json::Value;

/// What `arguments` print, the last line of it.
fn json(arguments: &[&str], folder: &Path) -> Value {
    let (status, output, errors) = run(arguments, folder);
    assert_eq!(status, Some(0), "{arguments:?}: {errors}");
    serde_json::from_str(output.lines().last().unwrap()).unwrap()
}

/// Paints with the tiny model `model` in the smallest budget; what was held stays within it.
fn paint_in_smallest(model: &str, weights: Format, image: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/models").join(model);
    let options = Options { weights, ..Options::default() };
    convert(&source, &folder.path().join("bundle"), &options, &mut |_| {}).unwrap();
    let size = ["--model", "bundle", "--width", "384", "--height", "384", "--cfg-scale", "5", "--threads", "1"];
    let from_image = image.map(|_| "--image-to-image");
    let plan = json(&[&["plan", "--json"], &size[..], from_image.as_slice()].concat(), folder.path());
    let smallest = plan["smallest"].as_u64().unwrap();
    let budget = smallest.to_string();
    let rest = ["--memory", &budget, "--steps", "2", "--seed", "3", "--json"];
    let image: Vec<&str> = image.map(|path| ["--init-image", path, "--strength", "1"]).into_iter().flatten().collect();
    let done = json(&[&["generate", "a red car"], &size[..], &rest, &image].concat(), folder.path());
    let held = done["timings"]["peak_rss"].as_u64().unwrap();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("{model} {weights:?}: {:.1} MiB held of {:.0}", mib(held), mib(smallest));
    assert!(held <= smallest, "{model} {weights:?}: {:.1} MiB held of {:.0}", mib(held), mib(smallest));
}

#[test]
fn smallest_budgets_hold_where_latents_are_large() {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/pictures/sd1-init.png");
    paint_in_smallest("ssd-1b", Format::F32, None);
    paint_in_smallest("ssd-1b", Format::Int8, None);
    paint_in_smallest("sdxl", Format::F32, image.to_str());
    paint_in_smallest("sdxl", Format::Int8, None);
}

/// Chunks of a long prompt are encoded together as far as the budget allows, and a second prompt makes the UNet's batch
/// larger.
#[test]
fn the_smallest_budget_holds_for_a_long_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/models/ssd-1b");
    convert(&source, &folder.path().join("bundle"), &Options::default(), &mut |_| {}).unwrap();
    let prompt = "a [red:blue:0.5] house on a hill, ".repeat(60) + "AND a blue boat";
    let size = ["--width", "256", "--height", "256", "--steps", "2", "--threads", "1"];
    let generate = [&["generate", &prompt, "--model", "bundle"][..], &size, &["--memory"]].concat();
    let (_, _, refusal) = run(&[&generate[..], &["1M"]].concat(), folder.path());
    let smallest: u64 = refusal.split("at least ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let done = json(&[&generate[..], &[&format!("{smallest}M"), "--json"]].concat(), folder.path());
    let held = done["timings"]["peak_rss"].as_u64().unwrap();
    println!("a long prompt: {:.1} MiB held of {smallest}", held as f64 / f64::from(1 << 20));
    assert!(held <= smallest << 20, "{held} bytes held of {smallest} MiB");
}

/// A preview by the tiny decoder is made in the room that a step leaves.
#[test]
fn the_smallest_budget_holds_with_previews_by_the_tiny_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/models");
    let source = SourceOptions { vae: Some(models.join("taesd")), ..SourceOptions::default() };
    let options = Options { source, ..Options::default() };
    convert(&models.join("sd1"), &folder.path().join("bundle"), &options, &mut |_| {}).unwrap();
    let rest = ["--width", "384", "--height", "384", "--steps", "3", "--preview", "seen.jpg", "--threads", "1"];
    let generate = [&["generate", "a red car", "--model", "bundle"][..], &rest, &["--memory"]].concat();
    let (_, _, refusal) = run(&[&generate[..], &["1M"]].concat(), folder.path());
    let smallest: u64 = refusal.split("at least ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let done = json(&[&generate[..], &[&format!("{smallest}M"), "--json"]].concat(), folder.path());
    let held = done["timings"]["peak_rss"].as_u64().unwrap();
    println!("with previews: {:.1} MiB held of {smallest}", held as f64 / f64::from(1 << 20));
    assert!(held <= smallest << 20 && folder.path().join("seen.jpg").exists());
}

/// A lossless WebP of 4×4 black pixels that begins with `groups` groups of codes, of which it uses the last: each takes as
/// much memory as its bytes can ask for.
fn with_codes(groups: u16) -> Vec<u8> {
    // The lengths 1 to 10 in a code of three and four bits, then a code with these lengths.
    const LENGTHS: [u64; 14] = [0, 0, 0, 3, 3, 3, 3, 3, 0, 3, 4, 4, 4, 4];
    let code = |length: u64| if length <= 6 { (length - 1, 3) } else { (5 + length, 4) };
    let mut bits = vec![];
    let mut put = |number: u64, count: u32| bits.extend((0..count).map(|at| number >> at & 1 == 1));
    // Neither transforms nor cached colours; groups by blocks of four pixels.
    [(0, 1), (0, 1), (1, 1), (0, 3), (0, 1)].into_iter().for_each(|(number, count)| put(number, count));
    let last = u64::from(groups) - 1;
    [last & 255, last >> 8, 0, 0, 0].into_iter().for_each(|symbol| put(0b101 | symbol << 3, 11));
    for _ in 0..5 * u32::from(groups) {
        put(10 << 1, 5);
        LENGTHS.into_iter().for_each(|length| put(length, 3));
        [(1, 1), (1, 3), (9, 4)].into_iter().for_each(|(number, count)| put(number, count));
        for (code, count) in (1..=10).chain([10]).map(code) {
            (0..count).rev().for_each(|at| put(code >> at & 1, 1));
        }
    }
    put(0, 60);
    put(0, 60);
    let packed = bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit)));
    let mut image = [&[0x2f][..], &(3u32 | 3 << 14).to_le_bytes()].concat();
    image.extend(packed);
    image.resize(image.len().next_multiple_of(2), 0);
    let len = |bytes: usize| (bytes as u32).to_le_bytes();
    [b"RIFF", &len(image.len() + 12)[..], b"WEBPVP8L", &len(image.len()), &image].concat()
}

/// What a file of a few bytes makes its decoder take is planned, or the file is refused.
#[test]
fn a_lossless_webps_codes_are_planned() {
    let folder = tempfile::tempdir().unwrap();
    let rest = ["--width", "64", "--height", "64", "--steps", "20", "--strength", "0.05", "--threads", "1"];
    let of = |groups, memory: &str| {
        std::fs::write(folder.path().join("codes.webp"), with_codes(groups)).unwrap();
        let generate = ["generate", "a", "--init-image", "codes.webp", "--json", "--memory", memory];
        run(&[&generate[..], &rest].concat(), folder.path())
    };
    let (_, _, refusal) = of(2000, "40M");
    let needed: u64 = refusal.split("need ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let (status, output, errors) = of(2000, &format!("{needed}M"));
    assert_eq!(status, Some(0), "{errors}");
    let done: Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
    let held = done["timings"]["peak_rss"].as_u64().unwrap();
    println!("2000 groups of codes: {:.1} MiB held of {needed}", held as f64 / f64::from(1 << 20));
    assert!(held <= needed << 20, "{held} bytes of {needed} MiB");
    let (status, _, errors) = of(u16::MAX, "4G");
    assert!(status == Some(2) && errors.contains("for its codes alone"), "{status:?}: {errors}");
}
