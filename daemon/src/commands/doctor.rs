//! `diffused doctor`: looks at all that the service depends on, and says of each part whether it is well and what to do.
//! Nothing is made or changed, and a service that runs is not disturbed.

use std::path::Path;
use std::time::SystemTime;

use diffused_engine::{Engine, Options, Resolver};
use serde_json::json;

use crate::budget;
use crate::commands::cli::{DoctorArgs, print_line};
use crate::config::{Config, DEFAULT_PATH};
use crate::failure::Failure;
use crate::health::TemperatureSensor;
use crate::mqtt::BrokerAccess;
use crate::painting::model::Model;
use crate::service;
pub(super) use finding::amount;
use finding::{Finding, Severity};
use memory::{MemoryBudget, Needs};
pub(super) use model::rate as read_rate;

mod broker;
mod disk;
mod finding;
mod machine;
mod memory;
mod model;

/// Prints a finding for each part, the worst again at the end. An error where something will not work.
pub fn run(arguments: &DoctorArgs) -> Result<(), Failure> {
    crate::logging::start("error");
    let mut examination = Examination { json: arguments.json, worst: None };
    examination.look(arguments);
    examination.finish()
}

/// Findings on their way to the reader.
struct Examination {
    json: bool,
    /// The first of the worst.
    worst: Option<Finding>,
}

/// What was opened of the model.
struct Opened {
    model: Model,
    resolver: Resolver,
    engine: Engine,
}

impl Opened {
    fn open(config: &Config, options: Options) -> Result<Opened, String> {
        let model = Model::new(config.model.as_deref(), options).map_err(|error| error.to_string())?;
        let opened = model.resolver().and_then(|resolver| Ok((resolver, model.open()?)));
        let (resolver, engine) = opened.map_err(|error| error.to_string())?;
        Ok(Opened { model, resolver, engine })
    }

    /// With what the configuration says for requests that are silent, if the model can do it.
    fn settled(self, config: &Config) -> anyhow::Result<Opened> {
        let resolver = service::with_defaults(self.resolver, config)?;
        service::check_muses(config, &resolver)?;
        Ok(Opened { resolver, ..self })
    }
}

impl Examination {
    fn look(&mut self, arguments: &DoctorArgs) {
        let root = Path::new("/");
        let path = arguments.file.config.as_deref();
        if !self.json {
            print_line(concat!("diffused ", env!("CARGO_PKG_VERSION")));
        }
        let config = match Config::load(path) {
            Ok(config) => config,
            Err(error) => {
                self.add(misconfigured(format!("{error:#}")));
                Config::default()
            }
        };
        let readable = self.worst.is_none();
        let budget = budget::of_service(config.memory);
        let options = budget::for_service(&config, budget);
        self.machine(root, &config, options);
        self.add(memory::control_group(root, budget));
        if !readable {
            return;
        }
        let access = BrokerAccess::of(&config);
        let opened = Opened::open(&config, options);
        let model = match &opened {
            Ok(opened) => model::describe(&opened.engine, config.model.as_deref()),
            Err(error) => unusable(error),
        };
        let settled = opened.ok().map(|opened| opened.settled(&config)).transpose();
        let text = |error: &anyhow::Error| format!("{error:#}");
        let faults = [
            config.check_wildcards().err().as_ref().map(text),
            access.as_ref().err().map(text),
            settled.as_ref().err().map(text),
        ];
        self.add(match faults.into_iter().flatten().next() {
            Some(fault) => misconfigured(Config::located(path, &fault)),
            None => configured(path, &config),
        });
        self.add(model);
        let state_dir = config.try_state_dir().ok();
        let running = state_dir.and_then(|folder| service::is_in_use(&folder));
        let opened = settled.ok().flatten();
        let side = opened.as_ref().map_or(512, |opened| opened.resolver.manifest().picture.default);
        if let Some(opened) = opened {
            self.with_model(root, arguments, &config, budget, running == Some(true), opened);
        }
        disk::findings(&config).into_iter().for_each(|finding| self.add(finding));
        if let Ok(access) = access {
            broker::findings(&config, access, side, running).into_iter().for_each(|finding| self.add(finding));
        }
    }

    fn machine(&mut self, root: &Path, config: &Config, options: Options) {
        let processors = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        self.add(machine::processor(options.threads(), processors));
        let program = std::env::current_exe().and_then(|program| program.metadata()?.modified());
        let needed = config.mqtt.url.transport.is_tls() || config.muse.iter().any(|muse| !muse.at.is_empty());
        self.add(machine::clock(root, SystemTime::now(), program.unwrap_or(SystemTime::UNIX_EPOCH), needed));
        self.add(machine::temperature(&TemperatureSensor::find(config.temperature_file.as_deref())));
        self.add(machine::power(root));
    }

    fn with_model(
        &mut self,
        root: &Path,
        arguments: &DoctorArgs,
        config: &Config,
        budget: Option<u64>,
        running: bool,
        opened: Opened,
    ) {
        let Opened { model, resolver, mut engine } = opened;
        let sizes = &resolver.manifest().picture;
        let (side, smallest) = (sizes.default, sizes.smallest);
        let mut needed = |side| budget::smallest_for(side, &resolver, &mut engine);
        let (least, usual) = match (needed(smallest), needed(side)) {
            (Ok(least), Ok(usual)) => (least, usual),
            (Err(error), _) | (_, Err(error)) => {
                return self.add(Finding::error("model", format!("{error:#}"), "convert the model again"));
            }
        };
        let shared = MemoryBudget { bytes: budget, configured: config.memory.is_some() };
        self.add(memory::memory(root, &shared, &Needs { least, usual, side }, running));
        if arguments.quick {
            return;
        }
        self.add(model::checksums(&model));
        self.add(model::read_speed(config.model.as_deref(), &mut engine, &resolver));
        if budget.is_none_or(|budget| budget >= least) {
            self.add(match budget::free() {
                Some(free) if free < least => model::no_room(free, least),
                _ => model::smoke_test(&mut engine, &resolver),
            });
        }
        drop(engine);
        diffused_heap::trim();
    }

    fn add(&mut self, finding: Finding) {
        let Finding { name, severity, found, advice } = &finding;
        if self.json {
            let mut line = json!(finding);
            line["event"] = json!("finding");
            line["page"] = json!(finding.page());
            print_line(line);
        } else {
            print_line(format!("{:<8} {name:<14} {found}", severity.name()));
            advice.iter().for_each(|advice| print_line(format!("{:24}{advice}", "")));
        }
        if *severity > self.worst.as_ref().map_or(Severity::Ok, |worst| worst.severity) {
            self.worst = Some(finding);
        }
    }

    /// What to do first.
    fn finish(self) -> Result<(), Failure> {
        let severity = self.worst.as_ref().map_or(Severity::Ok, |worst| worst.severity);
        if self.json {
            let first = self.worst.as_ref().map(|worst| worst.name);
            print_line(json!({"event": "done", "level": severity, "first": first}));
        }
        let Some(worst) = self.worst else {
            if !self.json {
                print_line("All is well.");
            }
            return Ok(());
        };
        let advice = worst.advice.as_deref().unwrap_or_default();
        let first = format!("to do first: {}: {}; {advice} (more in {})", worst.name, worst.found, worst.page());
        match severity {
            Severity::Error => Err(Failure::Other(first)),
            _ => {
                if !self.json {
                    print_line(first);
                }
                Ok(())
            }
        }
    }
}

fn configured(path: Option<&Path>, config: &Config) -> Finding {
    let default = Path::new(DEFAULT_PATH);
    let path = path.or(default.exists().then_some(default));
    let shown = path.map_or("no file, all defaults".into(), |path| path.display().to_string());
    Finding::ok("configuration", format!("{shown}; device `{}`", config.device.0))
}

fn unusable(error: &str) -> Finding {
    let advice =
        "set `model` to a bundle's folder, as `model-prep convert` writes it, that the service can read (not in /home)";
    Finding::error("model", error, advice)
}

fn misconfigured(error: String) -> Finding {
    let advice = "correct the file; where this account may not read something: sudo diffused doctor";
    Finding::error("configuration", error, advice)
}
