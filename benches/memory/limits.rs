//! A small board's memory: a control group with a limit, which counts the page cache too; where none can be made, a limit on
//! the address space.

use std::fs;
use std::path::{Path, PathBuf};

/// A memory control group of our own; it goes when it is dropped.
pub(crate) struct Group {
    folder: PathBuf,
}

/// The files of the two kinds of control groups: limit, the most that was used, and how often the limit was hit.
const KINDS: [(&str, [&str; 2]); 2] = [
    ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.max_usage_in_bytes"]),
    ("/sys/fs/cgroup", ["memory.max", "memory.peak"]),
];

impl Group {
    /// A group of `limit` bytes; none where we may not make one.
    pub(crate) fn new(limit: u64) -> Option<Group> {
        KINDS.iter().find_map(|(mount, [file, _])| {
            let folder = Path::new(mount).join(format!("diffused-bench-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let group = Group { folder };
            fs::write(group.folder.join(file), limit.to_string()).ok()?;
            Some(group)
        })
    }

    /// What goes before a command that is to run in the group.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let enter = format!("echo $$ > '{}' && exec \"$@\"", self.folder.join("cgroup.procs").display());
        ["sh".into(), "-c".into(), enter, "sh".into()].into()
    }

    /// The most that the group held, page cache included, bytes.
    pub(crate) fn most(&self) -> Option<u64> {
        KINDS.iter().find_map(|(_, [_, most])| fs::read_to_string(self.folder.join(most)).ok()?.trim().parse().ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Refused while a process is in it, which only a fault of ours can leave there.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// What goes before a command whose address space is to be limited.
pub(crate) fn address_space(limit: u64) -> Vec<String> {
    ["sh".into(), "-c".into(), format!("ulimit -v {} && exec \"$@\"", limit >> 10), "sh".into()].into()
}
