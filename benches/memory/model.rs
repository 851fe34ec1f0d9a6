//! What is painted with: bundles of true shapes with seeded random weights, made once, or the demo model.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use model_prep::{Arch, Dtype, Options};
use rustix::fs::{Advice, fadvise};

/// The bundle that is `given`; else, for a smoke test, the demo model's; else one of Stable Diffusion 1.5's shapes under
/// `target/`, made if it is not there.
pub(crate) fn chosen(given: Option<&Path>, smoke: bool) -> Result<PathBuf> {
    match given {
        Some(model) => Ok(model.to_owned()),
        None if smoke => Ok(diffused_tests::demo_bundle()),
        None => bundle(Path::new(env!("CARGO_TARGET_TMPDIR")), Arch::Sd15, None),
    }
}

/// The bundle of `arch` in `folder`, made if it is not there; with the tiny autoencoder `tiny` beside its own.
pub(crate) fn bundle(folder: &Path, arch: Arch, tiny: Option<Arch>) -> Result<PathBuf> {
    let named = |arch: Arch| format!("{arch:?}").to_lowercase();
    let name = named(arch) + &tiny.map(|tiny| format!("-{}", named(tiny))).unwrap_or_default();
    let (source, bundle) = (folder.join(named(arch)), folder.join(format!("{name}-int8")));
    if bundle.join("bundle.json").exists() {
        return Ok(bundle);
    }
    println!("making {} (up to 6 GB on the way, minutes)", bundle.display());
    std::fs::create_dir_all(folder)?;
    let mut options = Options::default();
    if let Some(tiny) = tiny {
        let autoencoder = folder.join(named(tiny));
        make(tiny, &autoencoder)?;
        options.source.vae = Some(autoencoder);
    }
    make(arch, &source)?;
    model_prep::convert(&source, &bundle, &options, &mut |_| ())?;
    std::fs::remove_dir_all(&source)?;
    Ok(bundle)
}

/// The source of a model with random weights.
fn make(arch: Arch, source: &Path) -> Result<()> {
    if source.exists() {
        std::fs::remove_dir_all(source)?;
    }
    Ok(model_prep::synth(arch, 0, Dtype::F16, source, &mut |_, _| ())?)
}

/// The UNet's weights, by far the largest file.
pub(crate) fn largest_file(bundle: &Path) -> PathBuf {
    bundle.join("unet.weights")
}

/// Makes the page cache forget a bundle's files.
pub(crate) fn cool(bundle: &Path) -> Result<()> {
    for entry in std::fs::read_dir(bundle)? {
        let path = entry?.path();
        if path.is_file() {
            let file = File::open(&path)?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Bytes a second at which `path` comes from the disk, read from front to back.
pub(crate) fn disk_rate(path: &Path) -> Result<f64> {
    let mut file = File::open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let (start, mut buffer, mut bytes) = (Instant::now(), vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(f64::from(u32::try_from(bytes >> 10)?) * 1024.0 / start.elapsed().as_secs_f64()),
            read => bytes += read,
        }
    }
}
