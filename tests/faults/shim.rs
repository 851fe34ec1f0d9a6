//! Faults of the disk and the clock, by a library that is loaded into the service before libc: see `shim.c`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use diffused_tests::root;

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

    /// From now on the clock is `seconds` ahead.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.control.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}
