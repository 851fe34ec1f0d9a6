//! `diffused`: reads the command line and hands over; the exit status says what kind of thing went wrong.

#![warn(clippy::unwrap_used)]

use std::process::ExitCode;

use clap::Parser;
use diffused::commands::cli::{Cli, Command};
use diffused::commands::starts::Starts;
use diffused::commands::{bench, cancel, check, doctor, generate, http, list, page, plan, run, status, submit, watch};

fn main() -> ExitCode {
    diffused_heap::configure_malloc();
    let command = Cli::parse().command;
    let is_start = matches!(command, Command::Run(_) | Command::Check(_));
    let outcome = match command {
        Command::Run(arguments) => run::run(arguments.config.as_deref()),
        Command::Check(arguments) => check::run(arguments.config.as_deref()),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Submit(arguments) => submit::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        Command::Cancel(arguments) => cancel::run(&arguments),
        Command::Move(arguments) => list::run_move(&arguments),
        Command::List(arguments) => list::run("list", &arguments),
        Command::Pause(arguments) => list::run("pause", &arguments),
        Command::Resume(arguments) => list::run("resume", &arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Page(arguments) => page::run(&arguments),
        Command::Http(arguments) => http::run(&arguments),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => diffused::commands::demo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("diffused: {failure}");
            if is_start {
                Starts::from_environment().fail_slowly(&failure.to_string());
            }
            failure.exit_code()
        }
    }
}

/// The command line's own checks, which clap makes only when asked.
#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
