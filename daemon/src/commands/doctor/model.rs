//! The model: whether its files are whole, how fast they are read, and whether an image comes of it.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use diffused_engine::request::{NoObserver, Request, Stage, Start};
use diffused_engine::{Engine, Resolver};
use rustix::fs::{Advice, fadvise};

use super::finding::{Finding, amount};
use crate::commands::check;
use crate::painting::model::Model;

/// Bytes that are read at once, as painting reads them.
const BLOCK: usize = 256 << 10;
/// Bytes that are read at most, and how long that may take.
const SAMPLE: u64 = 64 << 20;
const LONGEST: Duration = Duration::from_secs(5);
/// Seconds a step that reading may take before it is worth a warning.
const SLOW: f64 = 10.0;

/// What it is. The unit has no access to people's own folders.
pub(super) fn describe(engine: &Engine, folder: Option<&Path>) -> Finding {
    let manifest = engine.manifest();
    let (side, steps) = (manifest.picture.default, manifest.sampling.steps);
    let sha256 = engine.model_sha256();
    let found = format!("{}, {side} x {side} in {steps} steps, sha256 {sha256}", manifest.name);
    match folder {
        Some(folder) if check::is_hidden_from_units(folder) => {
            let advice =
                "move it to /var/lib/diffused/models and set `model`: the service's unit has no access to /home";
            Finding::warning("model", format!("{found}, in {}", folder.display()), advice)
        }
        _ => Finding::ok("model", found),
    }
}

/// Whether all files are as `bundle.json` says.
pub(super) fn checksums(model: &Model) -> Finding {
    match model.check_files() {
        Ok(()) => Finding::ok("bundle", "every file matches its checksum"),
        Err(error) => Finding::error("bundle", error.to_string(), "copy the bundle to the board again"),
    }
}

/// How fast the weights in `folder` come from the disk, and what of a step that takes in the engine's budget.
pub(super) fn read_speed(folder: Option<&Path>, engine: &mut Engine, resolver: &Resolver) -> Finding {
    let name = "read_speed";
    let Some(folder) = folder else {
        return Finding::ok(name, "the model is part of the program: no weights are read from a folder");
    };
    let plan = resolver.resolve(&Request::default(), None).and_then(|painting| engine.plan(&painting));
    let unet = plan.ok().and_then(|plan| plan.stages.into_iter().find(|stage| stage.stage == Stage::Unet));
    let path = folder.join("unet.weights");
    match rate(&path) {
        Ok(rate) => reading(rate, unet.map(|stage| stage.streamed)),
        Err(error) => {
            Finding::error(name, format!("{}: {error}", path.display()), "is the disk damaged? copy the bundle again")
        }
    }
}

/// What `rate`, bytes a second, means where a step reads `streamed` bytes; `None`: it cannot be painted in this budget.
fn reading(rate: f64, streamed: Option<u64>) -> Finding {
    let speed = format!("{:.0} MB/s", rate / 1e6);
    let Some(streamed) = streamed else { return Finding::ok("read_speed", speed) };
    let seconds = streamed as f64 / rate;
    let found = match streamed {
        0 => format!("{speed}; all weights stay in memory"),
        _ => format!("{speed}; each step reads {}, which takes {seconds:.1} s", amount(streamed)),
    };
    let advice = "raise `memory`, so that less is read, or keep the model on a faster disk (an SSD)";
    if seconds > SLOW { Finding::warning("read_speed", found, advice) } else { Finding::ok("read_speed", found) }
}

/// Bytes a second of the file's beginning, which the page cache is told to forget before and after.
pub(in crate::commands) fn rate(path: &Path) -> io::Result<f64> {
    let file = File::open(path)?;
    let len = file.metadata()?.len().min(SAMPLE);
    let forget = || fadvise(&file, 0, NonZeroU64::new(len), Advice::DontNeed);
    forget()?;
    let (mut block, mut at, begin) = (vec![0; BLOCK], 0, Instant::now());
    while at < len && begin.elapsed() < LONGEST {
        let part = BLOCK.min((len - at) as usize);
        file.read_exact_at(&mut block[..part], at)?;
        at += part as u64;
    }
    let seconds = begin.elapsed().as_secs_f64().max(1e-6);
    forget()?;
    Ok(at as f64 / seconds)
}

/// Painting would take memory that something else holds, the service perhaps.
pub(super) fn no_room(free: u64, least: u64) -> Finding {
    let found = format!("left out: it needs {}, and {} are free", amount(least), amount(free));
    let advice = "end other programs; where the service paints just now, ask again when it is done";
    Finding::warning("smoke_test", found, advice)
}

/// Paints the model's smallest image in one step.
pub(super) fn smoke_test(engine: &mut Engine, resolver: &Resolver) -> Finding {
    let side = resolver.manifest().picture.smallest;
    let request = Request { prompt: "a red house".into(), steps: Some(1), ..Request::default() };
    let request = Request { width: Some(side), height: Some(side), ..request };
    let begin = Instant::now();
    let painted = resolver.resolve(&request, None);
    let painted = painted.and_then(|painting| engine.paint(&painting, Start::Noise, &mut NoObserver));
    match painted {
        Ok(_) => {
            let seconds = begin.elapsed().as_secs_f64();
            Finding::ok("smoke_test", format!("an image of {side} x {side} pixels took {seconds:.1} s in one step"))
        }
        Err(error) => {
            let advice = "paint one with `diffused generate`, and please report what it says";
            Finding::error("smoke_test", format!("no image of {side} x {side} pixels: {error}"), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn a_slow_card_is_told_in_seconds_a_step() {
        let found = reading(20e6, Some(851 << 20));
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.found.contains("20 MB/s; each step reads 851 MiB, which takes 44.6 s"), "{found:?}");
        assert_eq!(reading(90e6, Some(851 << 20)).severity, Severity::Ok);
        assert!(reading(20e6, Some(0)).found.contains("all weights stay"));
        assert_eq!(reading(20e6, None).found, "20 MB/s");
    }

    #[test]
    fn a_file_has_a_rate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, vec![7; 3 * BLOCK + 5]).unwrap();
        assert!(rate(&path).unwrap() > 0.0);
        assert!(rate(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn an_image_comes_of_the_demo_model() {
        let Ok(model) = Model::new(None, diffused_engine::Options { threads: Some(1), ..Default::default() }) else {
            return;
        };
        let (mut engine, resolver) = (model.open().unwrap(), model.resolver().unwrap());
        assert!(smoke_test(&mut engine, &resolver).found.contains("32 x 32 pixels took"));
        assert_eq!(checksums(&model).severity, Severity::Ok);
        let none = read_speed(None, &mut engine, &resolver);
        assert!(none.severity == Severity::Ok && none.found.contains("part of the program"), "{none:?}");
    }

    #[test]
    fn what_others_hold_is_not_taken() {
        let found = no_room(30 << 20, 60 << 20);
        assert!(
            found.severity == Severity::Warning && found.found.contains("needs 60 MiB, and 30 MiB are free"),
            "{found:?}"
        );
    }

    #[test]
    fn a_model_in_a_persons_folder_is_a_warning() {
        let Ok(model) = Model::new(None, diffused_engine::Options { threads: Some(1), ..Default::default() }) else {
            return;
        };
        let engine = model.open().unwrap();
        let severity = |folder: &str| describe(&engine, Some(Path::new(folder))).severity;
        let folders = ["/home", "/root", "/homes/m", "/var/lib/diffused/models/m"];
        assert_eq!(folders.map(severity), [Severity::Warning, Severity::Warning, Severity::Ok, Severity::Ok]);
    }

    #[test]
    fn no_image_comes_in_too_little_memory() {
        let options = diffused_engine::Options { threads: Some(1), memory: Some(1 << 20), beside: 0 };
        let Ok(model) = Model::new(None, options) else { return };
        let finding = smoke_test(&mut model.open().unwrap(), &model.resolver().unwrap());
        assert!(finding.severity == Severity::Error && finding.found.contains("it needs at least"), "{finding:?}");
    }
}
