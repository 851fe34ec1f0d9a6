//! `diffused page`: writes the page in the browser, which the program carries, for a web server or the broker to serve.

use std::fs;

use crate::commands::cli::{PageArgs, print_line};
use crate::failure::Failure;
use crate::files::write_atomically;

/// The page as `daemon/page` builds it: one file.
const PAGE: &[u8] = include_bytes!("../../assets/page/index.html");

/// Writes `index.html` into a folder, which is made if it is missing. One that is there is replaced.
pub fn run(arguments: &PageArgs) -> Result<(), Failure> {
    let path = arguments.into.join("index.html");
    fs::create_dir_all(&arguments.into)
        .and_then(|()| write_atomically(&path, PAGE))
        .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))?;
    print_line(path.display());
    Ok(())
}
