//! What is painted with: a bundle of Stable Diffusion 1.5's shapes with seeded random weights, made once, or the demo model.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use model_prep::{Arch, Dtype, Options};
use rustix::fs::{Advice, fadvise};

/// The demo model's bundle.
pub(crate) fn demo() -> PathBuf {
    diffused_tests::demo_bundle()
}

/// The bundle in `folder`, made if it is not there.
pub(crate) fn sd15(folder: &Path) -> Result<PathBuf> {
    let (source, bundle) = (folder.join("sd15"), folder.join("sd15-int8"));
    if !bundle.join("bundle.json").exists() {
        println!("making {} (6 GB on the way, minutes)", bundle.display());
        std::fs::create_dir_all(folder)?;
        if source.exists() {
            std::fs::remove_dir_all(&source)?;
        }
        model_prep::synth(Arch::Sd15, 0, Dtype::F16, &source, &mut |_, _| ())?;
        model_prep::convert(&source, &bundle, &Options::default(), &mut |_| ())?;
    }
    Ok(bundle)
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
