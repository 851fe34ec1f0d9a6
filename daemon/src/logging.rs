//! The log goes to stderr, so that what a command prints on stdout is that alone. Under the journal each line begins
//! with its severity, as systemd reads it; elsewhere with the time, on a terminal in colours. `DIFFUSED_LOG` sets the
//! filter, as in `DIFFUSED_LOG=debug` or `DIFFUSED_LOG=diffused::mqtt=debug`.
//!
//! Passwords are in no line at any level: what writes packets to the log as they are, the websockets, is left out.
//! Prompts are in lines of the level `debug` alone.

use std::env;
use std::ffi::OsStr;
use std::io::IsTerminal;

use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Parts that write whole packets to the log, the one with the password among them.
const TALKATIVE: [&str; 3] = ["tungstenite", "async_tungstenite", "ws_stream_tungstenite"];

/// Starts the log with the filter of `DIFFUSED_LOG`, or `default` where it is not set or wrong.
pub fn start(default: &str) {
    let wanted = env::var("DIFFUSED_LOG").ok().filter(|text| !text.is_empty());
    let (filter, wrong) = match wanted.as_deref().map(parse) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (parse(default).unwrap_or_default(), Some(error)),
        None => (parse(default).unwrap_or_default(), None),
    };
    let filter = filter.with_targets(TALKATIVE.map(|name| (name, LevelFilter::WARN)));
    let layer = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(wants_colours(std::io::stderr().is_terminal(), env::var_os("NO_COLOR").as_deref()));
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process, as in tests, fails and changes nothing.
    let _ = match is_journal(env::var("JOURNAL_STREAM").ok().as_deref()) {
        true => registry.with(layer.event_format(Journal)).try_init(),
        false => registry.with(layer).try_init(),
    };
    if let Some(error) = wrong {
        // An error: the least that every command shows.
        error!("DIFFUSED_LOG is left aside: {error}; a filter is a level as `debug`, or `diffused::mqtt=debug`");
    }
}

/// A filter of levels, and of parts and their levels, with commas between them.
fn parse(text: &str) -> Result<Targets, String> {
    // `Targets` would take them for a part's name.
    if text.contains(['[', '{']) {
        return Err("spans and fields cannot be chosen".into());
    }
    let parts: Vec<&str> = text.split(',').filter(|part| !part.is_empty()).collect();
    parts.join(",").parse().map_err(|error: ParseError| error.to_string())
}

/// Terminals show colours, unless `NO_COLOR` is set to anything (no-color.org).
fn wants_colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Whether stderr is the `stream` that systemd has named, by device and inode. It may lead elsewhere since.
fn is_journal(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else { return false };
    let file = fstat(std::io::stderr());
    file.is_ok_and(|file| device.parse() == Ok(file.st_dev) && inode.parse() == Ok(file.st_ino))
}

/// `<6>message key=value`: the journal adds its own times and parses the severity.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = String::new();
        context.format_fields(Writer::new(&mut line), event)?;
        writeln!(writer, "<{}>{}", severity(*event.metadata().level()), line.replace('\n', " "))
    }
}

/// syslog's numbers.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_user_wants_them() {
        assert!(wants_colours(true, None) && wants_colours(true, Some(OsStr::new(""))));
        assert!(!wants_colours(false, None) && !wants_colours(true, Some(OsStr::new("1"))));
    }

    #[test]
    fn filters_choose_levels_and_parts() {
        let filter = parse("info,diffused::mqtt=debug,tungstenite=off,").unwrap();
        assert!(filter.would_enable("diffused::mqtt::link", &Level::DEBUG));
        assert!(filter.would_enable("hyper", &Level::INFO) && !filter.would_enable("hyper", &Level::DEBUG));
        assert!(!filter.would_enable("tungstenite", &Level::ERROR));
        assert!(parse("diffused::mqtt").unwrap().would_enable("diffused::mqtt", &Level::TRACE));
        for (wrong, message) in [
            ("diffused=loud", "expected one of"),
            ("a=info=debug", "too many '='"),
            ("diffused[paint]=debug", "spans and fields"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(message), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_journal_is_known_by_its_stream() {
        let file = fstat(std::io::stderr()).unwrap();
        let (device, inode) = (file.st_dev, file.st_ino);
        assert!(is_journal(Some(&format!("{device}:{inode}"))));
        for other in [None, Some(""), Some("x:y"), Some(&*format!("{device}:{}", inode + 1))] {
            assert!(!is_journal(other), "{other:?}");
        }
    }
}
