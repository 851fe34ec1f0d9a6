//! The service itself: what it holds while it paints a picture that came through a broker, and what when it is done.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use diffused_tests::mqtt::{Broker, Peer, Program, config};
use serde_json::json;

use crate::child::status;

/// Most and idle resident memory, bytes.
pub(crate) struct Memory {
    pub(crate) peak: u64,
    pub(crate) idle: u64,
}

/// Paints one picture with `model` in `budget` bytes.
pub(crate) fn paint(model: &Path, budget: u64, side: usize) -> Memory {
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = Broker::prepare(folder.path(), "");
    broker.start();
    let mut peer = Peer::connect(broker.port);
    let text = format!("model = {model:?}\nmemory = {budget}\n{}", config(folder.path(), broker.port));
    let _program = Program::start(folder.path(), &text);
    peer.wait_online();
    peer.paint(&json!({"prompt": "a house", "id": "memory", "steps": 1, "width": side, "height": side}));
    // Without work for five seconds the service closes the model.
    thread::sleep(Duration::from_secs(8));
    let pid = pid(folder.path()).expect("the service runs");
    Memory { peak: status(pid, "VmHWM:"), idle: status(pid, "VmRSS:") }
}

/// The process whose command line names `folder` and our subcommand.
fn pid(folder: &Path) -> Option<u32> {
    let folder = folder.display().to_string();
    let ours = |pid: &u32| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.contains("\0run\0") && words.contains(&folder)
    };
    let processes = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.into_iter().find(ours)
}
