//! Families of models, each at its own number of steps: smallest budget, what was held, seconds, multiply-adds.

use std::path::Path;

use anyhow::Result;
use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::request::Request;
use diffused_engine::{Engine, Options, Resolver, Source};
use model_prep::Arch;

use crate::child::{ChildJob, MIB};
use crate::model;

/// A model as people have it.
struct FamilyModel {
    name: &'static str,
    arch: Arch,
    side: usize,
    /// It is painted with this autoencoder beside its own.
    tiny: Option<Arch>,
    /// What the process may hold in its smallest budget, MiB, where that is promised.
    promised: Option<u64>,
}

const fn family(name: &'static str, arch: Arch, side: usize, tiny: Option<Arch>, promised: Option<u64>) -> FamilyModel {
    FamilyModel { name, arch, side, tiny, promised }
}

const FAMILIES: [FamilyModel; 10] = [
    family("SD 1.5", Arch::Sd15, 512, None, None),
    family("BK-SDM-Tiny", Arch::BkSdmTiny, 512, None, None),
    family("SD-Turbo", Arch::SdTurbo, 512, None, None),
    // Larger, the decoder's attention and strips take more than the UNet.
    family("SD-Turbo, 768²", Arch::SdTurbo, 768, None, None),
    family("SD-Turbo, TAESD", Arch::SdTurbo, 512, Some(Arch::Taesd), Some(75)),
    family("SDXS", Arch::Sdxs, 512, None, None),
    family("SDXL-Turbo", Arch::SdxlTurbo, 512, None, Some(120)),
    family("SDXL-Turbo, TAESDXL", Arch::SdxlTurbo, 512, Some(Arch::Taesdxl), None),
    family("SSD-1B", Arch::Ssd1b, 1024, None, None),
    family("SDXL", Arch::Sdxl, 1024, None, Some(320)),
];

/// What a picture takes.
pub(crate) struct FamilyCost {
    pub(crate) name: &'static str,
    /// Bytes.
    pub(crate) budget: u64,
    /// `VmHWM`, bytes.
    pub(crate) peak: u64,
    /// What it may be, MiB.
    pub(crate) promised: Option<u64>,
    /// Of the whole picture, from the program's start.
    pub(crate) seconds: f64,
    /// Of the decoder.
    pub(crate) decode: f64,
}

/// Paints a picture of each family in its smallest budget, or of those alone whose names are in `only`; `smoke`: of the
/// demo model alone. Bundles are made in `folder`.
pub(crate) fn paint(folder: &Path, smoke: bool, only: &[String], pictures: &Path) -> Result<Vec<FamilyCost>> {
    println!(
        "\n{:<19} {:>5} {:>7} {:>7} {:>8} {:>8} {:>7}",
        "family", "steps", "budget", "held", "seconds", "decode", "GMAC"
    );
    if smoke {
        return Ok(vec![one("demo", &diffused_tests::demo_bundle(), 128, None, pictures)?]);
    }
    let cost = |family: &FamilyModel| {
        let bundle = model::bundle(folder, family.arch, family.tiny)?;
        let decoder = family.tiny.map(|_| AutoencoderKind::Tiny);
        let cost = one(family.name, &bundle, family.side, decoder, pictures)?;
        Ok(FamilyCost { promised: family.promised, ..cost })
    };
    let wanted = |family: &&FamilyModel| only.is_empty() || only.iter().any(|name| name == family.name);
    FAMILIES.iter().filter(wanted).map(cost).collect()
}

fn one(
    name: &'static str,
    bundle: &Path,
    side: usize,
    decoder: Option<AutoencoderKind>,
    pictures: &Path,
) -> Result<FamilyCost> {
    let source = Source::Folder(bundle.to_owned());
    let resolver = Resolver::open(source.clone())?;
    let request = Request { width: Some(side), height: Some(side), decoder, ..Request::default() };
    let painting = resolver.resolve(&request, None)?;
    let work = Engine::open(source, Options::default())?.work(&painting)?;
    let steps = painting.parameters().steps;
    let job =
        ChildJob { model: bundle.to_owned(), budget: 0, width: side, height: side, steps, decoder, init_image: None };
    let job = job.in_smallest()?;
    let run = job.run(&[], pictures)?;
    let seconds = |stage: &str| run.timings[stage].as_f64().unwrap_or(f64::NAN);
    let (total, decode) = (seconds("total"), seconds("vae_decoder"));
    let cost = FamilyCost { name, budget: job.budget, peak: run.peak, promised: None, seconds: total, decode };
    let (budget, held, gmac) = (job.budget as f64 / MIB, run.peak as f64 / MIB, work as f64 / 1e9);
    let FamilyCost { seconds, decode, .. } = cost;
    println!("{name:<19} {steps:>5} {budget:>7.0} {held:>7.1} {seconds:>8.2} {decode:>8.2} {gmac:>7.0}");
    Ok(cost)
}
