//! `diffused run`: logging, configuration, model, then the service until a signal ends it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;

use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::warn;

use crate::commands::check::{self, Prepared, wrong_key};
use crate::commands::starts::{PROVEN, Starts};
use crate::failure::Failure;
use crate::logging;
use crate::service::{Loading, Service, Signal, tell_systemd};

/// The service's log levels: our own messages from `info` on, those of dependencies from `warn` on.
const LOG: &str = "warn,diffused=info,tract=error";

/// Serves until SIGTERM or SIGINT; SIGHUP reads the configuration again.
pub fn run(path: Option<&Path>) -> Result<(), Failure> {
    logging::start(LOG);
    let starts = Starts::from_environment();
    begin(&starts);
    let loading = Loading::begin();
    let Prepared { config, model, resolver, engine, warning } = check::prepare(path)?;
    if let Some(warning) = warning {
        warn!("{warning}");
    }
    die_on_second_signal().map_err(|error| Failure::Other(format!("signals: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(format!("the runtime: {error}")))?;
    let proven = starts.clone();
    let outcome = runtime.block_on(async {
        let signals = signals().map_err(|error| Failure::Other(format!("signals: {error}")))?;
        let service = Service::start(config, path.map(Path::to_owned), model, resolver, engine);
        let service = service.map_err(|error| wrong_key(path, &error))?;
        drop(loading);
        tokio::spawn(async move {
            tokio::time::sleep(PROVEN).await;
            proven.prove();
        });
        service.run(signals).await;
        starts.prove();
        Ok(())
    });
    // A name server that does not answer would hold the end up.
    runtime.shutdown_background();
    outcome
}

/// A service that died young several times in a row, for want of memory perhaps, is started ever later.
fn begin(starts: &Starts) {
    let (unproven, wait) = starts.begin();
    if !wait.is_zero() {
        let seconds = wait.as_secs();
        let text =
            format!("{unproven} starts in a row have ended within a minute and without a word: waiting {seconds} s");
        warn!("{text}");
        tell_systemd(&text);
        sleep(wait);
    }
}

/// The first signal drains the service; the second ends the program on the spot, even if the runtime hangs.
fn die_on_second_signal() -> std::io::Result<()> {
    let seen = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(number, 1, seen.clone())?;
        signal_hook::flag::register(number, seen.clone())?;
    }
    Ok(())
}

/// The system's signals as the service's.
fn signals() -> std::io::Result<UnboundedReceiver<Signal>> {
    let (sender, signals) = unbounded_channel();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                _ = terminate.recv() => Signal::Stop,
                _ = interrupt.recv() => Signal::Stop,
                _ = hangup.recv() => Signal::Reload,
            };
            if sender.send(signal).is_err() {
                return;
            }
        }
    });
    Ok(signals)
}
