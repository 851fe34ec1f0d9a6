//! A configuration that has changed while the service runs: what can be is taken over, for the rest a restart is asked
//! for.

use anyhow::Result;
use diffused_engine::Resolver;
use tracing::{info, warn};

use super::Service;
use super::info::info;
use super::muse::{Muses, check};
use super::notify;
use crate::config::Config;
use crate::contract::commands::Reloaded;

/// `resolver` with what the configuration has for requests that leave it out.
pub(crate) fn with_defaults(resolver: Resolver, config: &Config) -> Result<Resolver> {
    let resolver = resolver.with_decoder(config.decoder)?.with_prompt_syntax(config.prompt_syntax);
    let resolver = resolver.with_upscale(config.upscale.map(|factor| factor.0 as usize))?;
    Ok(resolver.with_intervals(config.guidance_interval, config.cache_interval.map(|calls| calls.0 as usize))?)
}

impl Service {
    /// Reads the configuration again. One that is wrong changes nothing. The log says what came of it.
    pub(super) fn reload(&mut self) -> Result<Reloaded, String> {
        notify::reloading();
        let outcome = self.take_over();
        let path = self.config_path.as_deref();
        let outcome = outcome.map_err(|error| Config::located(path, &format!("{error:#}")));
        notify::reloaded();
        match &outcome {
            Ok(Reloaded { changed: false, .. }) => info!("the configuration is unchanged"),
            Ok(Reloaded { restart, .. }) if restart.is_empty() => info!("the changed configuration is in use"),
            Ok(Reloaded { restart, .. }) => {
                warn!("the changed configuration is in use, but these keys need a restart: {}", restart.join(", "));
            }
            Err(error) => warn!("the changed configuration is wrong, and not used: {error}"),
        }
        outcome
    }

    fn take_over(&mut self) -> Result<Reloaded> {
        let (config, restart) = self.config.adopt(Config::load(self.config_path.as_deref())?);
        let changed = config != self.config || !restart.is_empty();
        let restart = restart.into_iter().map(str::to_owned).collect();
        if config == self.config {
            return Ok(Reloaded { changed, restart });
        }
        config.check_folders()?;
        let resolver = with_defaults(self.intake.resolver().clone(), &config)?;
        check(&config, &resolver)?;
        let info = info(&config, &resolver, self.memory, &self.intake.settings);
        self.publisher.reconfigure(&config, &info);
        self.intake.reconfigure(resolver, &config);
        self.queue.set_capacity(config.queue_length.0 as usize);
        self.folder.set_keep(config.keep_pictures.0 as usize);
        self.prune = true;
        self.worker.cooling.limit = config.max_temperature.map(|degrees| f64::from(degrees.0));
        self.muses = Muses::open(&config, &self.state_dir);
        self.config = config;
        self.announce();
        Ok(Reloaded { changed, restart })
    }
}
