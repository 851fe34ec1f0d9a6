//! The line on a terminal that shows how far a job is.

use std::io::IsTerminal;
use std::time::Duration;

use diffused_engine::request::Stage;
use indicatif::{ProgressBar, ProgressStyle};

use crate::contract::messages::JobProgress;

const BAR: &str = "{msg:<22} {bar:36.green/240} {percent:>3} %  {elapsed} · {eta} to go";
const WAITING: &str = "{spinner} {msg}  {elapsed}";

/// A line on stderr. Nothing is shown where that is not a terminal.
pub(super) struct ProgressLine {
    bar: ProgressBar,
    painting: bool,
}

impl ProgressLine {
    /// Shown only where it is `wanted`.
    pub(super) fn new(wanted: bool) -> ProgressLine {
        let shown = wanted && std::io::stderr().is_terminal();
        let bar = if shown { ProgressBar::new(1000) } else { ProgressBar::hidden() };
        ProgressLine { bar, painting: false }
    }

    /// There is nothing to measure: `text` says what is waited for.
    pub(super) fn wait(&mut self, text: String) {
        self.painting = false;
        self.bar.set_style(style(WAITING));
        self.bar.set_message(text);
        self.bar.enable_steady_tick(Duration::from_millis(120));
    }

    /// A job is painted.
    pub(super) fn show(&mut self, progress: &JobProgress) {
        if !std::mem::replace(&mut self.painting, true) {
            self.bar.disable_steady_tick();
            self.bar.set_style(style(BAR).progress_chars("━╸━"));
            self.bar.reset();
        }
        self.bar.set_message(describe(progress));
        self.bar.set_position((progress.progress * 1000.0) as u64);
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints a line above.
    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("diffused: {text}"));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Where a job is, in words.
pub(super) fn describe(progress: &JobProgress) -> String {
    let image = match progress.images {
        0 | 1 => String::new(),
        images => format!("image {} of {images}, ", progress.image + 1),
    };
    let stage = match progress.stage {
        Stage::TextEncoder => "reading the prompt".to_owned(),
        Stage::VaeEncoder => "encoding the image".to_owned(),
        Stage::Unet => format!("step {} of {}", progress.step, progress.steps),
        Stage::VaeDecoder => "painting".to_owned(),
    };
    image + &stage
}
