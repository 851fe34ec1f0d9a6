//! The memory budget. Where neither configuration nor command line gives one it is seven eighths of what is free on the
//! machine or in the process's control group, whichever is less; the service's is never more than its group may hold.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use diffused_engine::request::Request;
use diffused_engine::{Engine, Options, Resolver};
use tracing::warn;

use crate::config::{ByteSize, Config};

/// `configured` in bytes, or else [`free`].
pub fn or_free(configured: Option<ByteSize>) -> Option<u64> {
    configured.map(|size| size.0).or_else(free)
}

/// What the service holds beside painting, bytes: the connection with TLS, the journal, and the pages of the program that
/// are theirs.
const SERVICE: u64 = 8 << 20;

/// The service's budget, bytes: `configured`, or else [`free`], and at most fifteen sixteenths of what its control
/// group may hold, where the kernel counts more than the process's own memory. A warning in the log says if it is less
/// than `configured`.
pub fn of_service(configured: Option<ByteSize>) -> Option<u64> {
    let limit = limit_below(Path::new("/")).map(|limit| limit - limit / 16);
    let wanted = or_free(configured);
    let budget = wanted.into_iter().chain(limit).min();
    if let (Some(_), Some(wanted), Some(budget)) = (configured, wanted, budget)
        && budget < wanted
    {
        let [wanted, budget] = [wanted, budget].map(|bytes| bytes >> 20);
        warn!(
            "`memory` is {wanted} MiB, but the control group (MemoryMax=, MemoryHigh=) allows {budget}, which is used"
        );
    }
    budget
}

/// How the service's engine may use the machine, within a budget of `memory` bytes.
pub fn for_service(config: &Config, memory: Option<u64>) -> Options {
    Options { threads: config.threads.map(|threads| threads.0 as usize), memory, beside: SERVICE }
}

/// That images can be painted in the `memory` of the configuration. Gives a warning where those of the model's own size
/// cannot, but smaller ones can.
pub fn check(config: &Config, resolver: &Resolver, engine: &mut Engine) -> Result<Option<String>> {
    let Some(memory) = config.memory else { return Ok(None) };
    let sizes = &resolver.manifest().picture;
    let needed = smallest_for(sizes.default, resolver, engine)?;
    if needed <= memory.0 {
        return Ok(None);
    }
    let wrong = |side: usize, needed: u64| {
        format!(
            "memory: {} MiB is too little for {side} x {side} pixels; it needs at least {} MiB",
            memory.0 >> 20,
            needed >> 20
        )
    };
    let least = smallest_for(sizes.smallest, resolver, engine)?;
    match least <= memory.0 {
        true => Ok(Some(format!("{}; smaller images can be painted", wrong(sizes.default, needed)))),
        false => Err(anyhow!(wrong(sizes.smallest, least))),
    }
}

/// The smallest budget for a plain image of `side` by `side` pixels, bytes.
pub fn smallest_for(side: usize, resolver: &Resolver, engine: &mut Engine) -> Result<u64> {
    let request = Request { width: Some(side), height: Some(side), ..Request::default() };
    Ok(engine.smallest_budget(&resolver.resolve(&request, None)?)?)
}

/// Seven eighths of the free memory, bytes; `None` where it cannot be read.
pub fn free() -> Option<u64> {
    free_below(Path::new("/")).map(|free| free - free / 8)
}

fn free_below(root: &Path) -> Option<u64> {
    let machine = machine(&root.join("proc/meminfo"));
    let groups = groups(root).into_iter().filter_map(|group| group.free());
    machine.into_iter().chain(groups).min()
}

/// The most that the process's control group and those around it may hold, bytes; `None` where there is no limit.
fn limit_below(root: &Path) -> Option<u64> {
    groups(root).iter().filter_map(ControlGroup::limit).min()
}

/// `MemAvailable`, bytes.
fn machine(meminfo: &Path) -> Option<u64> {
    let text = fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kilobytes.checked_mul(1 << 10)
}

/// The folder of a control group that counts memory.
struct ControlGroup {
    folder: PathBuf,
    files: &'static GroupFiles,
}

/// What a version of control groups calls its files.
struct GroupFiles {
    limits: &'static [&'static str],
    used: &'static str,
    /// The line of `memory.stat` with the page cache that can be reclaimed at once.
    reclaimable: &'static str,
}

const VERSION_1: GroupFiles = GroupFiles {
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
/// Above `memory.high` a group is slowed down, at `memory.max` something in it is killed.
const VERSION_2: GroupFiles =
    GroupFiles { limits: &["memory.max", "memory.high"], used: "memory.current", reclaimable: "inactive_file" };

/// The process's group and those that contain it, as far as they count memory.
fn groups(root: &Path) -> Vec<ControlGroup> {
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    membership.lines().flat_map(|line| groups_of(root, line).unwrap_or_default()).collect()
}

/// `line` is one of `/proc/self/cgroup`.
fn groups_of(root: &Path, line: &str) -> Option<Vec<ControlGroup>> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (mount, files) = match controllers {
        "" => ("sys/fs/cgroup", &VERSION_2),
        _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", &VERSION_1),
        _ => return None,
    };
    let mount = root.join(mount);
    let own = mount.join(path.trim_start_matches('/'));
    let around = own.ancestors().take_while(|folder| folder.starts_with(&mount));
    Some(around.map(|folder| ControlGroup { folder: folder.to_owned(), files }).collect())
}

impl ControlGroup {
    /// A file's number; `None` where there is no such file, or "max" in it.
    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }

    /// Bytes.
    fn limit(&self) -> Option<u64> {
        self.files.limits.iter().filter_map(|file| self.number(file)).min()
    }

    /// The limit minus what is used, bytes; page cache that can be reclaimed at once counts as free.
    fn free(&self) -> Option<u64> {
        let (limit, used) = (self.limit()?, self.number(self.files.used)?);
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let reclaimable =
            stat.lines().find_map(|line| line.strip_prefix(self.files.reclaimable)?.trim().parse().ok()).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 900 kB\nMemAvailable:     500 kB\n");

    #[test]
    fn without_groups_the_machine_decides() {
        let root = machine_with(&[MEMINFO]);
        assert_eq!(free_below(root.path()), Some(500 << 10));
        assert_eq!(limit_below(root.path()), None);
        assert_eq!(free_below(Path::new("/no/such/folder")), None);
    }

    #[test]
    fn a_group_of_version_2_and_those_around_it_count() {
        let root = machine_with(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "300000\n"),
            ("sys/fs/cgroup/a/memory.current", "200000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 9\ninactive_file 50000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "100\n"),
        ]);
        assert_eq!(free_below(root.path()), Some(150_000));
        assert_eq!(limit_below(root.path()), Some(300_000));
        fs::write(root.path().join("sys/fs/cgroup/a/b/memory.high"), "90000\n").unwrap();
        assert_eq!((free_below(root.path()), limit_below(root.path())), (Some(89_900), Some(90_000)));
    }

    #[test]
    fn a_group_of_version_1_counts() {
        let root = machine_with(&[
            MEMINFO,
            ("proc/self/cgroup", "4:cpu:/x\n3:memory:/x\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "100000\n"),
            ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "40000\n"),
            ("sys/fs/cgroup/memory/x/memory.stat", "total_inactive_file 1000\n"),
        ]);
        assert_eq!((free_below(root.path()), limit_below(root.path())), (Some(61_000), Some(100_000)));
    }
}
