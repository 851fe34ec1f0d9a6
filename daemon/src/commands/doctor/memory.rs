//! Memory: what the model needs, what there is, and what limits it.

use std::fs;
use std::path::Path;

use super::finding::{Finding, amount};

/// The unit's control group.
const UNIT: &str = "sys/fs/cgroup/system.slice/diffused.service";

/// What the model needs, bytes.
pub(super) struct Needs {
    /// For the smallest image.
    pub(super) least: u64,
    /// For one of the model's own size.
    pub(super) usual: u64,
    /// Width and height of that, pixels.
    pub(super) side: usize,
}

/// What may be used, bytes.
pub(super) struct MemoryBudget {
    /// `None`: it cannot be read.
    pub(super) bytes: Option<u64>,
    /// Whether the configuration says so; else it is seven eighths of what is free.
    pub(super) configured: bool,
}

/// RAM and swap, and the budget against what the model needs. `running`: the service holds its part already.
pub(super) fn memory(root: &Path, budget: &MemoryBudget, needs: &Needs, running: bool) -> Finding {
    let text = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kilobytes << 10)
    };
    let Needs { least, usual, side } = *needs;
    let [Some(total), Some(free)] = ["MemTotal", "MemAvailable"].map(value) else {
        return Finding::ok("memory", "how much there is cannot be read");
    };
    let swap = value("SwapTotal").filter(|swap| *swap > 0).map_or("none".into(), amount);
    let Some(bytes) = budget.bytes else {
        return Finding::warning("memory", "no limit: how much is free cannot be read", "set `memory`");
    };
    let why = if budget.configured { "as configured" } else { "seven eighths of what is free" };
    let found = format!(
        "{} of {} are free, swap {swap}; at most {} are used, {why}; {side} x {side} pixels need {}",
        amount(free),
        amount(total),
        amount(bytes),
        amount(usual)
    );
    let make_room = match budget.configured {
        true => format!("set `memory` to \"{}M\" or more", usual >> 20),
        false => "end other programs, or take a smaller model".to_owned(),
    };
    if bytes < least {
        return Finding::error("memory", found, make_room);
    }
    if bytes > total {
        return Finding::error("memory", found, format!("set `memory` to \"{}M\" or less", (total - total / 8) >> 20));
    }
    if bytes < usual {
        return Finding::warning("memory", found, make_room + "; smaller images can be painted");
    }
    if bytes > free && !running {
        let advice = "end other programs or lower `memory`: what is not free is swapped, or the kernel ends something";
        return Finding::warning("memory", found, advice);
    }
    Finding::ok("memory", found)
}

/// Whether systemd's `MemoryMax=` has an effect, and leaves room for the budget. Raspberry Pi OS boots with the kernel's
/// memory controller switched off.
pub(super) fn control_group(root: &Path, budget: Option<u64>) -> Finding {
    let name = "memory_cgroup";
    let holds = "`memory` in the configuration holds all the same";
    match fs::read_to_string(root.join("sys/fs/cgroup/cgroup.controllers")) {
        Ok(text) if text.split_whitespace().any(|name| name == "memory") => {}
        Ok(_) => {
            let found = "systemd's MemoryMax= has no effect: the kernel's memory controller is off";
            let advice = "append `cgroup_enable=memory cgroup_memory=1` to the one line of /boot/firmware/cmdline.txt \
                          (Raspberry Pi OS 11: /boot/cmdline.txt) and reboot";
            return Finding::warning(name, found, format!("{advice}; {holds}"));
        }
        Err(_) => {
            let found = "systemd's MemoryMax= may have no effect: cgroup version 2 is not mounted at /sys/fs/cgroup";
            return Finding::warning(name, found, format!("containers may hide it; {holds}"));
        }
    }
    let limit = |file: &str| fs::read_to_string(root.join(UNIT).join(file)).ok()?.trim().parse::<u64>().ok();
    let limit = ["memory.max", "memory.high"].into_iter().filter_map(limit).min();
    match (limit, budget) {
        (Some(limit), Some(budget)) if limit < budget => {
            let found = format!("the unit may use {}, less than the {} of `memory`", amount(limit), amount(budget));
            Finding::warning(
                name,
                found,
                "raise MemoryMax= and MemoryHigh= (systemctl edit diffused) or lower `memory`",
            )
        }
        (Some(limit), _) => {
            Finding::ok(name, format!("systemd's MemoryMax= is enforced; the unit's is {}", amount(limit)))
        }
        (None, _) => Finding::ok(name, "systemd's MemoryMax= is enforced; the unit has none"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[track_caller]
    fn check(finding: &Finding, severity: Severity, part: &str) {
        let text = format!("{} {}", finding.found, finding.advice.as_deref().unwrap_or_default());
        assert!(finding.severity == severity && text.contains(part), "{finding:?}");
    }

    #[test]
    fn the_budget_is_between_what_the_model_needs_and_what_there_is() {
        let root = tempfile::tempdir().unwrap();
        let meminfo = "MemTotal: 524288 kB\nMemAvailable: 204800 kB\nSwapTotal: 102400 kB\n";
        write(root.path(), "proc/meminfo", meminfo);
        let needs = Needs { least: 60 * MIB, usual: 114 * MIB, side: 512 };
        let found = |mib: u64, configured, running| {
            memory(root.path(), &MemoryBudget { bytes: Some(mib * MIB), configured }, &needs, running)
        };
        check(&found(150, true, false), Severity::Ok, "200 MiB of 512 MiB are free, swap 100 MiB; at most 150 MiB");
        check(&found(113, true, false), Severity::Warning, "set `memory` to \"114M\" or more; smaller images");
        check(&found(59, true, false), Severity::Error, "set `memory` to \"114M\" or more");
        check(&found(59, false, false), Severity::Error, "end other programs");
        check(&found(201, true, false), Severity::Warning, "what is not free is swapped");
        check(&found(201, true, true), Severity::Ok, "as configured");
        check(&found(600, true, true), Severity::Error, "set `memory` to \"448M\" or less");
    }

    #[test]
    fn the_memory_controller_may_be_off() {
        let root = tempfile::tempdir().unwrap();
        let found = || control_group(root.path(), Some(200 * MIB));
        check(&found(), Severity::Warning, "cgroup version 2 is not mounted");
        write(root.path(), "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
        check(&found(), Severity::Warning, "`cgroup_enable=memory cgroup_memory=1`");
        write(root.path(), "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
        check(&found(), Severity::Ok, "the unit has none");
    }

    #[test]
    fn the_units_limit_has_room_for_the_budget() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "sys/fs/cgroup/cgroup.controllers", "memory\n");
        write(root.path(), &format!("{UNIT}/memory.high"), "max\n");
        write(root.path(), &format!("{UNIT}/memory.max"), &format!("{}\n", 256 * MIB));
        check(&control_group(root.path(), Some(200 * MIB)), Severity::Ok, "the unit's is 256 MiB");
        check(&control_group(root.path(), Some(300 * MIB)), Severity::Warning, "raise MemoryMax=");
        write(root.path(), &format!("{UNIT}/memory.high"), &format!("{}\n", 100 * MIB));
        check(&control_group(root.path(), Some(200 * MIB)), Severity::Warning, "may use 100 MiB");
    }
}
