//! Where the command line puts an image: a file, whose name says the format, or stdout.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::contract::request::FileFormat;
use crate::failure::Failure;
use crate::files;

/// The name that means stdout.
const STDOUT: &str = "-";

/// Where an image goes.
#[derive(Debug)]
pub(super) enum ImageSink {
    /// To whom the program's output goes.
    Stdout,
    /// To a file.
    File(PathBuf),
}

impl ImageSink {
    /// Waiting for an image may take long, so it is known first whether it can be written. Lines of JSON on stdout
    /// leave no place for an image.
    pub(super) fn check(path: &Path, json: bool) -> Result<ImageSink, Failure> {
        if !is_stdout(path) {
            check_writable("--output", path)?;
            return Ok(ImageSink::File(path.to_owned()));
        }
        let wrong = |error: &str| Err(Failure::Usage(format!("--output: -: {error}")));
        match (json, io::stdout().is_terminal()) {
            (true, _) => wrong("stdout cannot hold both the image and the lines of --json; name a file"),
            (_, true) => wrong("stdout is a terminal; name a file, or pass the image on"),
            _ => Ok(ImageSink::Stdout),
        }
    }

    /// Writes the image.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let (written, place) = match self {
            ImageSink::Stdout => (write_stdout(bytes), Path::new("stdout")),
            ImageSink::File(path) => (files::write_atomically(path, bytes), path.as_path()),
        };
        written.map_err(|error| Failure::Other(format!("--output: {}: {error}", place.display())))
    }
}

fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Whether that means stdout.
pub(super) fn is_stdout(path: &Path) -> bool {
    path == Path::new(STDOUT)
}

/// The format that the file's name says, which must be the one that is `wanted`. On stdout it is a PNG unless another
/// one is wanted.
pub(super) fn format(path: &Path, wanted: Option<FileFormat>) -> Result<FileFormat, Failure> {
    if is_stdout(path) {
        return Ok(wanted.unwrap_or(FileFormat::Png));
    }
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    let named = match extension.as_deref() {
        Some("png") => FileFormat::Png,
        Some("jpg" | "jpeg") => FileFormat::Jpeg,
        _ => {
            let message = format!("--output: {}: the name must end in .png or .jpg", path.display());
            return Err(Failure::Usage(message));
        }
    };
    if wanted.is_some_and(|wanted| wanted != named) {
        let (extension, path) = (named.extension(), path.display());
        let message = format!("--format: the output {path} ends in .{extension}, which is another format");
        return Err(Failure::Usage(message));
    }
    Ok(named)
}

/// Whether a file can be written there, which the option `flag` names.
pub(super) fn check_writable(flag: &str, path: &Path) -> Result<(), Failure> {
    let wrong = |error: String| Failure::Usage(format!("{flag}: {}: {error}", path.display()));
    if path.is_dir() {
        return Err(wrong("is a folder; name a file in it".into()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(wrong(format!("there is no folder {}", folder.display())));
    }
    // That it is not there is no error, but the system may refuse the name.
    if let Err(error) = path.symlink_metadata()
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(wrong(error.to_string()));
    }
    rustix::fs::access(folder, Access::WRITE_OK)
        .map_err(|error| wrong(format!("the folder {} cannot be written to: {error}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_name_says_the_format() {
        let of = |path: &str| format(Path::new(path), None);
        assert_eq!((of("a.PNG").unwrap(), of("a.jpeg").unwrap()), (FileFormat::Png, FileFormat::Jpeg));
        assert!(of("a.gif").is_err() && of("a").is_err());
        let wanted = |path: &str| format(Path::new(path), Some(FileFormat::Jpeg));
        assert_eq!((of("-").unwrap(), wanted("-").unwrap()), (FileFormat::Png, FileFormat::Jpeg));
        assert!(wanted("a.jpg").is_ok());
        let error = wanted("a.png").unwrap_err().to_string();
        assert_eq!(error, "--format: the output a.png ends in .png, which is another format");
    }

    #[test]
    fn names_may_have_as_many_bytes_as_the_system_takes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |len: usize| folder.path().join(format!("{}.png", "n".repeat(len - 4)));
        for len in [246, 255] {
            let output = ImageSink::check(&path(len), false).unwrap();
            output.write(b"x").unwrap();
            assert_eq!(std::fs::read(path(len)).unwrap(), b"x");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let error = ImageSink::check(&path(256), false).unwrap_err().to_string();
        assert!(error.contains("File name too long"), "{error}");
    }
}
