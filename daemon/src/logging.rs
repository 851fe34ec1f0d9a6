//! The log goes to stderr, so that what a command prints on stdout is that alone. Under the journal each line begins with
//! its severity, as systemd reads it; elsewhere with the time. `DIFFUSED_LOG` sets the filter, as in `DIFFUSED_LOG=debug` or `DIFFUSED_LOG=diffused::mqtt=debug`.

use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts the log with the filter of `DIFFUSED_LOG`, or `default` where it is not set.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_env("DIFFUSED_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process, as in tests, fails and changes nothing.
    let _ = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => builder.event_format(Journal).try_init(),
        None => builder.try_init(),
    };
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
