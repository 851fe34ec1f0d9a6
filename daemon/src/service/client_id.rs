//! The MQTT client id. Two clients of one id throw each other out for ever, and many a board keeps the host name of its
//! image, so the id has a part that belongs to the installation and is kept beside its images.

use std::fs;
use std::path::Path;

use tracing::warn;

use crate::contract::topics::{TopicLevel, is_safe_level};
use crate::files::write_atomically;
use crate::random;

const FILE: &str = ".diffused-client-id";

/// The id of this installation's `device`, which `state_dir` keeps; without a part of its own where nothing can be kept.
pub(super) fn of(device: &TopicLevel, state_dir: &Path) -> String {
    let path = state_dir.join(FILE);
    let kept = fs::read_to_string(&path).ok().map(|text| text.trim().to_owned()).filter(|text| is_safe_level(text));
    let part = kept.map(Ok).unwrap_or_else(|| {
        let fresh = random::id();
        write_atomically(&path, format!("{fresh}\n").as_bytes()).map(|()| fresh)
    });
    match part {
        Ok(part) => format!("diffused-{}-{part}", device.0),
        Err(error) => {
            warn!("no client id of its own: {}: {error}", path.display());
            format!("diffused-{}", device.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_keeps_its_id_and_another_has_another() {
        let device = TopicLevel("raspberrypi".into());
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let id = of(&device, folders[0].path());
        assert!(id.starts_with("diffused-raspberrypi-"), "{id}");
        assert_eq!(of(&device, folders[0].path()), id);
        assert_ne!(of(&device, folders[1].path()), id);
        assert_eq!(of(&device, &folders[0].path().join("missing")), "diffused-raspberrypi");
    }
}
