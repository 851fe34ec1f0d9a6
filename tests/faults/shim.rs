//! Faults of the disk and the clock, by a library that is loaded into the service before libc: see `shim.c`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use diffused_tests::root;

/// No space left on the device.
pub(crate) const ENOSPC: i32 = 28;
/// Input or output error.
pub(crate) const EIO: i32 = 5;
/// `write` and its like fail.
pub(crate) const WRITE: i32 = 1;
/// `fsync` and `fdatasync` fail.
pub(crate) const SYNC: i32 = 2;
/// `rename` fails.
pub(crate) const RENAME: i32 = 4;

/// What the library does at this moment.
pub(crate) struct Shim {
    control: File,
    /// For the service.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
}

impl Shim {
    /// Compiles the library into `folder`; writing will fail below `folder/state` alone.
    pub(crate) fn new(folder: &Path) -> Shim {
        let (library, control) = (folder.join("shim.so"), folder.join("control"));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library);
        let status = compiler.arg(root().join("tests/faults/shim.c")).status();
        assert!(status.expect("a C compiler, cc").success(), "shim.c does not compile");
        fs::write(&control, [0; 16]).unwrap();
        let environment =
            vec![("LD_PRELOAD", library), ("FAULTS_CONTROL", control.clone()), ("FAULTS_FOLDER", folder.join("state"))];
        Shim { control: File::options().write(true).open(control).unwrap(), environment }
    }

    /// From now on the `calls` fail with `error`.
    pub(crate) fn fail(&self, error: i32, calls: i32) {
        let bytes = [calls, error].map(i32::to_ne_bytes);
        // The error last: it is what switches the fault on.
        self.control.write_all_at(&bytes[0], 12).unwrap();
        self.control.write_all_at(&bytes[1], 8).unwrap();
    }

    /// From now on nothing fails.
    pub(crate) fn heal(&self) {
        self.fail(0, 0);
    }

    /// From now on the clock is `seconds` ahead.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.control.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}
