//! `diffused check`, and what `run` does before it connects. A fault of the configuration is an error with the file, the
//! line and the key. What heals by itself, such as a broker that is away, is none: systemd runs this before each start.

use std::path::Path;

use anyhow::Error;
use diffused_engine::{Engine, Resolver};

use crate::budget;
use crate::commands::cli::print_line;
use crate::config::Config;
use crate::failure::Failure;
use crate::mqtt::BrokerAccess;
use crate::painting::model::Model;
use crate::service::{check_muses, unreadable_prompts, with_defaults};

/// What the service starts with.
pub struct Prepared {
    /// The file.
    pub config: Config,
    /// How the model is opened again.
    pub model: Model,
    /// With the configuration's defaults for requests.
    pub resolver: Resolver,
    /// The model, opened.
    pub engine: Engine,
    /// What is wrong, though images can be painted.
    pub warning: Option<String>,
}

/// Made for systemd's ExecStartPre.
pub fn run(path: Option<&Path>) -> Result<(), Failure> {
    let Prepared { config, resolver, warning, .. } = prepare(path)?;
    BrokerAccess::of(&config).map_err(|error| wrong_key(path, &error))?;
    let prompts = unreadable_prompts(&config).into_iter().map(|wrong| Config::located(path, &wrong));
    warning.into_iter().chain(prompts).for_each(|warning| eprintln!("diffused: warning: {warning}"));
    let (model, broker) = (&resolver.manifest().name, &config.mqtt.url);
    print_line(format!("the configuration is valid: model `{model}`, broker {broker}"));
    Ok(())
}

/// Reads the configuration and opens its model.
pub fn prepare(path: Option<&Path>) -> Result<Prepared, Failure> {
    let config = Config::load(path).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    config.check_folders().map_err(|error| wrong_key(path, &error))?;
    let options = budget::for_service(&config, budget::of_service(config.memory));
    let model = Model::new(config.model.as_deref(), options)?;
    let hidden = config.model.as_deref().is_some_and(is_hidden_from_units);
    let hint =
        if hidden { " (the service's unit has no access to /home: move it to /var/lib/diffused/models)" } else { "" };
    let unusable = |error| Failure::Model(format!("the model cannot be opened: {error}{hint}"));
    let (resolver, mut engine) = (model.resolver().map_err(unusable)?, model.open().map_err(unusable)?);
    let resolver = with_defaults(resolver, &config).map_err(|error| wrong_key(path, &error))?;
    check_muses(&config, &resolver).map_err(|error| wrong_key(path, &error))?;
    let warning = budget::check(&config, &resolver, &mut engine).map_err(|error| wrong_key(path, &error))?;
    let warning = warning.map(|warning| Config::located(path, &warning));
    Ok(Prepared { config, model, resolver, engine, warning })
}

/// Whether systemd's `ProtectHome=` hides a folder from the service.
pub(super) fn is_hidden_from_units(folder: &Path) -> bool {
    ["/home", "/root", "/run/user"].iter().any(|hidden| folder.starts_with(hidden))
}

/// What is wrong with the configuration at `path`, with the line of the key with which `error` begins.
pub fn wrong_key(path: Option<&Path>, error: &Error) -> Failure {
    Failure::Usage(Config::located(path, &format!("{error:#}")))
}
