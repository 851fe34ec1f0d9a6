//! The folders of the configuration: which one the state goes to, and whether all can be used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{Access, access};

use super::Config;
use crate::files;

impl Config {
    /// Where images are kept; created if it is missing. Without the key: systemd's state directory, else
    /// /var/lib/diffused if it is writable, else the user's own state folder.
    pub fn state_dir(&self) -> Result<PathBuf> {
        self.usable_state_dir(make)
    }

    /// The same without making anything: that it can be written to is tried with a file, which is removed at once.
    pub fn try_state_dir(&self) -> Result<PathBuf> {
        self.usable_state_dir(try_folder)
    }

    /// That the folders which the service reads and writes can be used.
    pub fn check_folders(&self) -> Result<()> {
        self.try_state_dir()?;
        self.check_wildcards()
    }

    /// The same of the folder of wildcards alone.
    pub fn check_wildcards(&self) -> Result<()> {
        let Some(folder) = &self.wildcards else { return Ok(()) };
        fs::read_dir(folder).map(drop).with_context(|| format!("wildcards: {}", folder.display()))
    }

    fn usable_state_dir(&self, usable: fn(&Path) -> io::Result<()>) -> Result<PathBuf> {
        if let Some(folder) = &self.state_dir {
            let hint = "is it the service's own, and not write-protected?";
            let wrong = |error| anyhow!("state_dir: {} cannot be written to: {error}; {hint}", folder.display());
            usable(folder).map_err(wrong)?;
            return Ok(folder.clone());
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = || variable("HOME").map(|home| home.join(".local/state"));
        let own = variable("XDG_STATE_HOME").or_else(home).map(|folder| folder.join("diffused"));
        let candidates = [variable("STATE_DIRECTORY"), Some("/var/lib/diffused".into()), own];
        let found = candidates.into_iter().flatten().find(|folder| usable(folder).is_ok());
        found.context("state_dir: neither /var/lib/diffused nor ~/.local/state can be written to; set this key")
    }
}

/// The folder of images in the state folder.
const PICTURES: &str = "pictures";

fn make(folder: &Path) -> io::Result<()> {
    let pictures = folder.join(PICTURES);
    fs::create_dir_all(&pictures)?;
    // A folder that exists may be another user's.
    [folder, &pictures].iter().try_for_each(|folder| access(*folder, Access::WRITE_OK | Access::EXEC_OK))?;
    Ok(())
}

/// Tries the folder, or, where it is missing, the one in which it would be made. A disk that is full is no fault of the
/// configuration: the service starts all the same.
fn try_folder(folder: &Path) -> io::Result<()> {
    let tried = |folder: &Path| match files::try_write(folder, b"") {
        Err(error) if [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind()) => Ok(()),
        outcome => outcome,
    };
    let pictures = folder.join(PICTURES);
    if pictures.exists() {
        tried(&pictures)?;
    }
    folder.ancestors().find(|folder| folder.exists()).map_or(Ok(()), tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &str) -> Config {
        Config::parse(keys, Path::new("c.toml")).unwrap()
    }

    #[test]
    fn a_state_folder_is_tried_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a/b");
        let configured = config(&format!("state_dir = {missing:?}"));
        assert_eq!(configured.try_state_dir().unwrap(), missing);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(configured.state_dir().unwrap(), missing);
        configured.try_state_dir().unwrap();
        assert_eq!(fs::read_dir(&missing).unwrap().count(), 1, "the folder of images");
    }

    #[test]
    fn what_cannot_be_written_to_is_refused_by_name() {
        for path in ["/dev/null", "/proc/x", "/dev/null/x"] {
            let error = config(&format!("state_dir = {path:?}")).check_folders().unwrap_err().to_string();
            assert!(error.starts_with(&format!("state_dir: {path} cannot be written to: ")), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let keys = |wildcards: &str| format!("state_dir = {:?}\nwildcards = {wildcards:?}", folder.path());
        let error = format!("{:#}", config(&keys("/no/such")).check_folders().unwrap_err());
        assert!(error.starts_with("wildcards: /no/such: No such file"), "{error}");
        config(&keys(folder.path().to_str().unwrap())).check_folders().unwrap();
    }
}
