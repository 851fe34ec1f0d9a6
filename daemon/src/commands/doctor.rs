//! `diffused doctor`: what the program found on this machine and how it would use it, for people and bug reports.

use std::fs;
use std::path::Path;

use diffused_engine::{Engine, Options, cpu};

use crate::budget;
use crate::commands::cli;
use crate::config::{Config, DEFAULT_PATH};
use crate::failure::Failure;
use crate::health;
use crate::mqtt::{self, BrokerAccess};
use crate::painting::model::Model;

/// Prints a line for each part. Ends with an error at the first part that is wrong.
pub fn run(path: Option<&Path>) -> Result<(), Failure> {
    crate::logging::start("error");
    print_part("program", concat!("diffused ", env!("CARGO_PKG_VERSION")));
    print_part("cpu", &cpu::describe());
    let config = Config::load(path).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let budget = budget::or_free(config.memory);
    let options = budget::for_service(&config, budget);
    print_part("threads", &threads(options));
    print_part("memory", &memory(&config, budget));
    print_part("limits", kernel_limits(Path::new("/sys/fs/cgroup/cgroup.controllers")));
    print_part("config", &source(path));
    let engine = Model::new(config.model.as_deref(), options)?.open();
    print_part(
        "model",
        &model(&engine.map_err(|error| Failure::Model(format!("the model cannot be opened: {error}")))?),
    );
    let folder = config.state_dir().map_err(|error| Failure::Usage(format!("{error:#}")))?.join("pictures");
    let free = health::disk_free(&folder).map_or(String::new(), |free| format!(", {} free", amount(free)));
    print_part("pictures", &format!("{}{free}", folder.display()));
    broker(&config)
}

/// Connects once.
fn broker(config: &Config) -> Result<(), Failure> {
    print_part("broker", &config.mqtt.url.to_string());
    let access = BrokerAccess::of(config).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(format!("the runtime: {error}")))?;
    let found = runtime.block_on(mqtt::probe(config, access));
    runtime.shutdown_background();
    let found = found.map_err(|reason| Failure::Other(format!("the broker cannot be used: {reason}")))?;
    found.iter().for_each(|sentence| print_part("", sentence));
    Ok(())
}

fn print_part(part: &str, text: &str) {
    cli::print_line(format!("{part:<9} {text}"));
}

fn threads(options: Options) -> String {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    format!("{} on {cores} processors", options.threads())
}

fn memory(config: &Config, budget: Option<u64>) -> String {
    let Some(budget) = budget else {
        return "no limit: how much is free cannot be read; set `memory` in the configuration".into();
    };
    let why = if config.memory.is_some() { "as configured" } else { "seven eighths of what is free now" };
    format!("at most {}, {why}", amount(budget))
}

/// Whether systemd's `MemoryMax=` has an effect, from the kernel's list of cgroup `controllers`. Raspberry Pi OS boots
/// with the memory controller switched off.
fn kernel_limits(controllers: &Path) -> &'static str {
    match fs::read_to_string(controllers) {
        Ok(text) if text.split_whitespace().any(|name| name == "memory") => "systemd's MemoryMax= is enforced",
        Ok(_) => {
            "systemd's MemoryMax= has no effect, because the kernel's memory controller is off; `memory` in the \
             configuration holds all the same. To switch it on (Raspberry Pi OS): append `cgroup_enable=memory \
             cgroup_memory=1` to the one line of /boot/firmware/cmdline.txt and reboot"
        }
        Err(_) => {
            "systemd's MemoryMax= may have no effect, because cgroup version 2 is not mounted at /sys/fs/cgroup (as in \
             some containers); `memory` in the configuration holds all the same"
        }
    }
}

fn source(path: Option<&Path>) -> String {
    let default = Path::new(DEFAULT_PATH);
    path.or(default.exists().then_some(default)).map_or("all defaults".into(), |path| path.display().to_string())
}

fn model(engine: &Engine) -> String {
    let manifest = engine.manifest();
    let size = manifest.picture.default;
    let sampling = &manifest.sampling;
    format!("{}, {size} x {size} in {} steps, sha256 {}", manifest.name, sampling.steps, engine.model_sha256())
}

/// Bytes in MiB or GiB, whichever is easier to read.
pub(super) fn amount(bytes: u64) -> String {
    let mib = bytes as f64 / (1 << 20) as f64;
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        assert_eq!(amount(200 << 20), "200 MiB");
        assert_eq!(amount(3 << 29), "1.5 GiB");
    }

    #[test]
    fn the_memory_controller_may_be_off() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("controllers");
        fs::write(&file, "cpuset cpu io memory pids\n").unwrap();
        assert!(kernel_limits(&file).ends_with("enforced"));
        fs::write(&file, "cpuset cpu io pids\n").unwrap();
        assert!(kernel_limits(&file).contains("`cgroup_enable=memory cgroup_memory=1`"));
        assert!(kernel_limits(&folder.path().join("missing")).contains("cgroup version 2 is not mounted"));
    }
}
