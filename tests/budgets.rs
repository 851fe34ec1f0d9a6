//! What the program holds in the smallest budget that it accepts: models whose activations are nearly all of it, since
//! their latents are large and their weights few.

use std::path::Path;

use diffused_tests::run;
use model_prep::{Format, Options, convert};
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
