//! `--preview FILE`: what the image looks like so far, written again and again while it is painted.

use std::path::{Path, PathBuf};

use crate::commands::output;
use crate::failure::Failure;
use crate::files;

/// The file, if one is wanted.
#[derive(Debug)]
pub(super) struct PreviewFile(Option<PathBuf>);

impl PreviewFile {
    /// Whether it can be written, before the image is begun.
    pub(super) fn check(path: Option<&Path>) -> Result<PreviewFile, Failure> {
        path.map_or(Ok(()), |path| output::check_writable("--preview", path))?;
        Ok(PreviewFile(path.map(Path::to_owned)))
    }

    /// Writes a preview. One that cannot be written is the last: the image is painted all the same.
    pub(super) fn write(&mut self, jpeg: &[u8]) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = files::replace(path, jpeg) {
            eprintln!("diffused: warning: --preview: {}: {error}", path.display());
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_replace_each_other_until_one_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jpg");
        let mut file = PreviewFile::check(Some(&path)).unwrap();
        for bytes in ["one", "two"] {
            file.write(bytes.as_bytes());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bytes);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let path = folder.path().join("q.jpg");
        let mut file = PreviewFile::check(Some(&path)).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        file.write(b"three");
        assert!(file.0.is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let error = PreviewFile::check(Some(&path)).unwrap_err().to_string();
        assert!(error.starts_with("--preview: ") && error.contains("is a folder"), "{error}");
        PreviewFile::check(None).unwrap().write(b"nowhere");
    }
}
