//! The program under test: the `diffused` that lies in the target folder of the test that asks for it, if it is up to date.
//!
//! Cargo builds a package's programs for that package's tests alone, and these tests are a package of their own. So a
//! program that was not built, or was built of older sources, is an error here, never what is tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::SystemTime;

/// How to get a program that is up to date.
const BUILD: &str = "build it with `cargo build --release --workspace --features diffused/demo`, or run the tests with \
                     `--workspace`, which does";

/// `diffused`, built from the sources as they are now.
///
/// # Panics
/// If it is missing or older than one of its sources.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().expect("the test's own path");
        // target/PROFILE/deps/TEST
        let folder = test.ancestors().nth(2).expect("a test in a target folder");
        let program = folder.join("diffused");
        if let Err(problem) = up_to_date(&program) {
            panic!("{problem}; {BUILD}");
        }
        program
    });
    &PROGRAM
}

/// Compares the program with what cargo noted that it was made of, in a file beside it.
fn up_to_date(program: &Path) -> Result<(), String> {
    let built = modified(program)?;
    let note = program.with_extension("d");
    let text = fs::read_to_string(&note).map_err(|error| format!("{}: {error}", note.display()))?;
    for source in sources(&text) {
        if modified(&source)? > built {
            return Err(format!("{} is older than {}", program.display(), source.display()));
        }
    }
    Ok(())
}

fn modified(file: &Path) -> Result<SystemTime, String> {
    let time = fs::metadata(file).and_then(|metadata| metadata.modified());
    time.map_err(|error| format!("{}: {error}", file.display()))
}

/// The files after the colon in a line of make's syntax, where `\ ` is a space within a name.
fn sources(note: &str) -> Vec<PathBuf> {
    let Some((_, sources)) = note.split_once(": ") else { return vec![] };
    let names = sources.replace("\\ ", "\0");
    names.split_whitespace().map(|name| PathBuf::from(name.replace('\0', " "))).collect()
}

/// Runs the program to its end: exit status, stdout, stderr.
pub fn run(arguments: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(program());
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_program_that_is_missing_or_older_than_a_source_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let [program, source] = ["diffused", "a source.rs"].map(|name| folder.path().join(name));
        assert!(up_to_date(&program).unwrap_err().contains("diffused: "));
        [&program, &source].iter().for_each(|file| fs::write(file, "").unwrap());
        assert!(up_to_date(&program).unwrap_err().contains("diffused.d: "));
        let escaped = source.display().to_string().replace(' ', "\\ ");
        fs::write(program.with_extension("d"), format!("{}: {escaped}\n", program.display())).unwrap();
        let now = SystemTime::now();
        let touch = |file: &Path, time| fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        touch(&source, now);
        touch(&program, now + Duration::from_secs(1));
        assert_eq!(up_to_date(&program), Ok(()));
        touch(&program, now - Duration::from_secs(1));
        assert!(up_to_date(&program).unwrap_err().contains("is older than"));
        fs::remove_file(&source).unwrap();
        assert!(up_to_date(&program).unwrap_err().contains("a source.rs: "));
    }
}
