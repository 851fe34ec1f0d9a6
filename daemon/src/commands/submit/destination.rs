//! The files that images become.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::commands::arrivals::Arrivals;
use crate::commands::cli::{SubmitArgs, print_line};
use crate::commands::output::{self, ImageSink};
use crate::contract::messages::{DisplayFile, Image, JobResult};
use crate::contract::request::FileFormat;
use crate::failure::Failure;
use crate::files::write_atomically;
use crate::painting::pictures::{free_name, panel_path};

/// Where images are written.
pub(super) enum Destination {
    /// To whom the program's output goes.
    Stdout(FileFormat),
    /// The first to this file, the others to names that count on.
    File(PathBuf, FileFormat),
    /// Named after the prompt and the seed.
    Folder(PathBuf),
}

impl Destination {
    /// Whether that can be written, before anybody waits for it.
    pub(super) fn check(arguments: &SubmitArgs) -> Result<Destination, Failure> {
        let count = arguments.n_iter.unwrap_or(1);
        let Some(path) = arguments.output.as_deref() else { return Ok(Destination::Folder(PathBuf::new())) };
        if output::is_stdout(path) {
            if count > 1 {
                return Err(Failure::Usage("--output: -: stdout takes one image; name a file or a folder".to_owned()));
            }
            if arguments.paint.panel.is_some() {
                return Err(Failure::Usage("--panel: stdout takes one image; name a file with --output".to_owned()));
            }
            ImageSink::check(path, arguments.device.json)?;
            return Ok(Destination::Stdout(output::format(path, arguments.format)?));
        }
        if path.is_dir() {
            return Ok(Destination::Folder(path.to_owned()));
        }
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(Failure::Usage(format!("--output: there is no folder `{}`; create it", path.display())));
        }
        let format = output::format(path, arguments.format)?;
        (0..count).try_for_each(|number| output::check_writable("--output", &numbered(path, number.into())))?;
        Ok(Destination::File(path.to_owned(), format))
    }

    /// The format that the file's name says.
    pub(super) fn format(&self) -> Option<FileFormat> {
        match self {
            Destination::Stdout(format) | Destination::File(_, format) => Some(*format),
            Destination::Folder(_) => None,
        }
    }

    /// The name of an image in `format`. A smaller copy, which is a JPEG, has another name than the one that was given.
    fn path(&self, number: u64, prompt: &str, seed: u64, format: FileFormat) -> PathBuf {
        match self {
            Destination::Stdout(_) => PathBuf::from("stdout"),
            Destination::File(path, named) if *named == format => numbered(path, number),
            Destination::File(path, _) => free(&numbered(path, number).with_extension(format.extension())),
            Destination::Folder(folder) => free_name(folder, prompt, seed.wrapping_add(number), format),
        }
    }

    /// Writes the images of a job that is done and says where they are.
    pub(super) fn write(&self, arrivals: &Arrivals, prompt: &str, json: bool) -> Result<(), Failure> {
        let Some(result) = &arrivals.result else {
            return Err(Failure::Other("the job is done, but its result did not arrive".to_owned()));
        };
        let (mut paths, mut panels, mut missing) = (vec![], vec![], vec![]);
        for (number, image) in (0_u64..).zip(&result.images) {
            match arrivals.get(number, image) {
                Some(bytes) => paths.push(write(self, number, prompt, result, image, bytes)?),
                None => missing.push(where_else("image", number, image.path.as_deref())),
            }
            // Stdout has place for the image alone.
            let Some(output) = image.output.as_ref().filter(|_| !matches!(self, Destination::Stdout(_))) else {
                continue;
            };
            match (arrivals.get_output(number, output), paths.last()) {
                (Some(bytes), Some(image)) => panels.push(write_panel(image, output, bytes)?),
                _ => missing.push(where_else("output", number, output.path.as_deref())),
            }
        }
        if json {
            let mut line = json!(result);
            (line["event"], line["paths"]) = (json!("done"), json!(paths));
            if !panels.is_empty() {
                line["panel_paths"] = json!(panels);
            }
            print_line(line);
        } else {
            let mut lines = lines(&paths, result, self.format());
            lines.extend(panels.iter().map(|path: &PathBuf| path.display().to_string()));
            match self {
                Destination::Stdout(_) => lines.iter().for_each(|line| eprintln!("{line}")),
                _ => lines.iter().for_each(print_line),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(Failure::Other(missing.join("; "))) }
    }
}

/// The path, or the next that counts on from it and is free.
fn free(path: &Path) -> PathBuf {
    let mut names = (0..).map(|number| numbered(path, number));
    names.find(|path| !path.exists()).unwrap_or_else(|| path.to_owned())
}

/// `a.png`, `a-2.png`, `a-3.png`…
fn numbered(path: &Path, number: u64) -> PathBuf {
    let (stem, extension) = (path.file_stem().unwrap_or_default(), path.extension().unwrap_or_default());
    match number {
        0 => path.to_owned(),
        _ => path.with_file_name(format!("{}-{}.{}", stem.display(), number + 1, extension.display())),
    }
}

/// A line a file; the time is that of all.
fn lines(paths: &[PathBuf], result: &JobResult, wanted: Option<FileFormat>) -> Vec<String> {
    let (seed, total) = (result.parameters.seed, result.timings.total);
    let line = |(number, path): (u64, &PathBuf)| {
        let time = if result.images.len() == 1 { format!(", {total} s") } else { String::new() };
        let image = result.images.get(number as usize);
        let is_jpeg = image.is_some_and(|image| image.content_type == FileFormat::Jpeg.content_type());
        let smaller = wanted == Some(FileFormat::Png) && is_jpeg;
        let smaller = if smaller { ", a JPEG: the broker does not take the PNG" } else { "" };
        format!("{}  (seed {}{time}{smaller})", path.display(), seed.wrapping_add(number))
    };
    let mut lines: Vec<String> = (0_u64..).zip(paths).map(line).collect();
    if result.images.len() > 1 {
        lines.push(format!("{} images in {total} s", result.images.len()));
    }
    lines
}

fn write(
    destination: &Destination,
    number: u64,
    prompt: &str,
    result: &JobResult,
    image: &Image,
    bytes: &[u8],
) -> Result<PathBuf, Failure> {
    let is_jpeg = image.content_type == FileFormat::Jpeg.content_type();
    let format = if is_jpeg { FileFormat::Jpeg } else { FileFormat::Png };
    let path = destination.path(number, prompt, result.parameters.seed, format);
    let output = match destination {
        Destination::Stdout(_) => ImageSink::Stdout,
        _ => ImageSink::File(path.clone()),
    };
    output.write(bytes)?;
    Ok(path)
}

/// Writes what a display shows beside the image at `image`.
fn write_panel(image: &Path, output: &DisplayFile, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let is_raw = output.content_type == FileFormat::Raw.content_type();
    let path = panel_path(image, if is_raw { FileFormat::Raw } else { FileFormat::Png });
    write_atomically(&path, bytes)
        .map_err(|error| Failure::Other(format!("the output cannot be written: {}: {error}", path.display())))?;
    Ok(path)
}

/// What is said of an image that did not arrive.
fn where_else(name: &str, number: u64, path: Option<&Path>) -> String {
    match path {
        Some(path) => format!("{name} {number} did not arrive; the device has it in {}", path.display()),
        None => format!("{name} {number} did not arrive, and the device has not kept it"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::cli::{Cli, Command};

    #[test]
    fn further_images_count_on() {
        let names = |path: &str| [0, 1, 9].map(|number| numbered(Path::new(path), number).display().to_string());
        assert_eq!(names("out/a.png"), ["out/a.png", "out/a-2.png", "out/a-10.png"]);
    }

    fn check(output: &Path, count: &str) -> Result<Destination, Failure> {
        let words = ["diffused", "submit", "a", "--n-iter", count, "-o", output.to_str().unwrap()];
        match Cli::try_parse_from(words).unwrap().command {
            Command::Submit(arguments) => Destination::check(&arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_gets_names_that_are_free() {
        let folder = tempfile::tempdir().unwrap();
        let destination = check(folder.path(), "1").unwrap();
        let path = |number| destination.path(number, "A cat!", 7, FileFormat::Jpeg);
        assert_eq!(path(0), folder.path().join("a-cat-7.jpg"));
        assert_eq!(path(1), folder.path().join("a-cat-8.jpg"));
        std::fs::write(path(0), "").unwrap();
        assert_eq!(path(0), folder.path().join("a-cat-7-2.jpg"));
    }

    #[test]
    fn a_file_is_named_after_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let png = folder.path().join("cat.png");
        let destination = check(&png, "2").unwrap();
        assert_eq!(destination.path(0, "", 7, FileFormat::Png), png);
        let smaller = |number| destination.path(number, "", 7, FileFormat::Jpeg);
        assert_eq!(smaller(0), folder.path().join("cat.jpg"));
        assert_eq!(smaller(1), folder.path().join("cat-2.jpg"));
        std::fs::write(smaller(0), "of somebody else").unwrap();
        assert_eq!(smaller(0), folder.path().join("cat-2.jpg"));
    }

    #[test]
    fn what_cannot_be_written_is_known_at_once() {
        let check = |path: &str, count: &str| check(Path::new(path), count);
        assert!(check("a.gif", "1").is_err() && check("no/such/a.png", "1").is_err() && check("-", "2").is_err());
        let missing = check("missing/", "1").err().unwrap().to_string();
        assert_eq!(missing, "--output: there is no folder `missing/`; create it");
    }
}
