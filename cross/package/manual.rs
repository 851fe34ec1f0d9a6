//! Writes the manual pages of both programs, and what shells complete of them, into a folder:
//! `cargo run --release -p diffused-tests --example manual -- FOLDER`

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

fn main() -> io::Result<()> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: manual FOLDER");
    let folder = env::args_os().nth(1).map(PathBuf::from).ok_or_else(usage)?;
    fs::create_dir_all(&folder)?;
    write(diffused::commands::cli::Cli::command(), &folder)?;
    write(model_prep::cli::Cli::command(), &folder)
}

fn write(mut command: Command, folder: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, &name, folder)?;
    }
    clap_mangen::generate_to(command, folder)
}
