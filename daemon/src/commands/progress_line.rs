//! The line on a terminal that shows how far a job is.

use std::io::IsTerminal;
use std::time::Duration;

use diffused_engine::request::Stage;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::contract::messages::JobProgress;

/// The bar takes the width that is left. The prefix is the time to go.
const BAR: &str = "{msg:<22} {wide_bar:.green/240} {percent:>3} %  {elapsed}{prefix}";
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
        self.bar.set_prefix(time_to_go(progress));
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

/// Nothing while it is unknown.
fn time_to_go(progress: &JobProgress) -> String {
    let left = progress.eta_relative.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    left.map(|left| format!(" · {:#} to go", HumanDuration(left))).unwrap_or_default()
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
        Stage::Upscaler => "enlarging".to_owned(),
    };
    image + &stage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_leaves_room_for_the_bar_on_80_columns() {
        let progress = |stage, eta_relative| JobProgress {
            progress: 0.5,
            eta_relative,
            stage,
            step: 999,
            steps: 1000,
            image: 15,
            images: 16,
        };
        for stage in [Stage::TextEncoder, Stage::VaeEncoder, Stage::Unet, Stage::VaeDecoder, Stage::Upscaler] {
            let long = progress(stage, Some(59.0 * 60.0));
            let text = format!("{}   50 %  59m{}", describe(&long), time_to_go(&long));
            assert!(text.chars().count() <= 65, "{text}");
        }
        assert_eq!(time_to_go(&progress(Stage::Unet, Some(8.2))), " · 8s to go");
        assert_eq!(time_to_go(&progress(Stage::Unet, None)), "");
    }
}
