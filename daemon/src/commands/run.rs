//! `diffused run` and `diffused check`: logging, configuration, model, then the service until a signal ends it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diffused_engine::{Engine, Resolver};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::budget;
use crate::commands::cli::print_line;
use crate::config::Config;
use crate::failure::Failure;
use crate::logging;
use crate::mqtt::BrokerAccess;
use crate::painting::model::Model;
use crate::service::{Service, Signal, check_muses};

/// The service's log levels: our own messages from `info` on, those of dependencies from `warn` on.
const LOG: &str = "warn,diffused=info,tract=error";

/// Serves until SIGTERM or SIGINT; SIGHUP reads the configuration again.
pub fn run(path: Option<&Path>) -> Result<(), Failure> {
    logging::start(LOG);
    let (config, model, resolver, engine) = prepare(path)?;
    die_on_second_signal().map_err(|error| Failure::Other(format!("signals: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(format!("the runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        let signals = signals().map_err(|error| Failure::Other(format!("signals: {error}")))?;
        let service = Service::start(config, path.map(Path::to_owned), model, resolver, engine);
        service.map_err(|error| Failure::Usage(format!("{error:#}")))?.run(signals).await;
        Ok(())
    });
    // A name server that does not answer would hold the end up.
    runtime.shutdown_background();
    outcome
}

/// Does all that `run` does before it connects: made for systemd's ExecStartPre.
pub fn check(path: Option<&Path>) -> Result<(), Failure> {
    let (config, _, resolver, _) = prepare(path)?;
    BrokerAccess::of(&config).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let (model, broker) = (&resolver.manifest().name, &config.mqtt.url);
    print_line(format!("the configuration is valid: model `{model}`, broker {broker}"));
    Ok(())
}

fn prepare(path: Option<&Path>) -> Result<(Config, Model, Resolver, Engine), Failure> {
    let config = Config::load(path).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let memory = budget::or_free(config.memory);
    let options = budget::for_service(&config, memory);
    let model = Model::new(config.model.as_deref(), options)?;
    let unusable = |error| Failure::Model(format!("the model cannot be opened: {error}"));
    let (resolver, engine) = (model.resolver().map_err(unusable)?, model.open().map_err(unusable)?);
    let resolver = resolver.with_decoder(config.decoder).map_err(|error| Failure::Usage(error.to_string()))?;
    let resolver = resolver.with_prompt_syntax(config.prompt_syntax);
    let upscale = config.upscale.map(|factor| factor.0 as usize);
    let resolver = resolver.with_upscale(upscale).map_err(|error| Failure::Usage(error.to_string()))?;
    check_muses(&config, &resolver).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    Ok((config, model, resolver, engine))
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
