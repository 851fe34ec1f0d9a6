//! A broker, the service and a client, with a tap between the first two; and the chance by which faults come.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use diffused_tests::mqtt::{Broker, Harness, PATIENCE, Peer, Program, config};
use diffused_tests::sha256;
use diffused_tests::tap::{Ledger, Tap};

/// `few` for a run of minutes, `many` where `DIFFUSED_FAULTS=full` is set.
pub(crate) fn size(few: usize, many: usize) -> usize {
    if std::env::var("DIFFUSED_FAULTS").is_ok_and(|size| size == "full") { many } else { few }
}

/// What `DIFFUSED_SEED` says, or another at each run.
pub(crate) fn seed() -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| match std::env::var("DIFFUSED_SEED") {
        Ok(text) => text.parse().expect("DIFFUSED_SEED is a whole number"),
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 % 1_000_000,
    });
    *SEED
}

/// Pseudo-random numbers (splitmix64), each test's own.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(test: &str) -> Dice {
        Dice(test.bytes().fold(seed(), |state, byte| state.wrapping_mul(31).wrapping_add(byte.into())))
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Sleeps for some time of `millis`.
    pub(crate) fn sleep(&mut self, millis: Range<u64>) {
        thread::sleep(Duration::from_millis(millis.start + self.below(millis.end - millis.start)));
    }
}

/// The service between a broker and a client.
pub(crate) struct Rig {
    pub(crate) program: Program,
    pub(crate) peer: Peer,
    pub(crate) tap: Tap,
    pub(crate) broker: Broker,
    /// Jobs of `submit` so far.
    pub(crate) submitted: usize,
    config: String,
    environment: Vec<(&'static str, PathBuf)>,
    pub(crate) folder: tempfile::TempDir,
}

/// Seeds of the jobs of `submit`.
const SEEDS: usize = 4;

impl Rig {
    /// Starts all and waits until the service is online. `broker` goes into the broker's configuration, `keys` in front of
    /// the service's.
    pub(crate) fn start(broker: &str, keys: &str) -> Rig {
        Rig::start_in(tempfile::tempdir().unwrap(), broker, keys, vec![])
    }

    /// The same in a folder with `environment` for the service.
    pub(crate) fn start_in(
        folder: tempfile::TempDir,
        broker: &str,
        keys: &str,
        environment: Vec<(&'static str, PathBuf)>,
    ) -> Rig {
        let mut broker = Broker::prepare(folder.path(), &format!("max_queued_messages 0\n{broker}"));
        broker.start();
        let tap = Tap::start(broker.port);
        let mut peer = Peer::connect(broker.port);
        let config = format!("{keys}{}", config(folder.path(), tap.port));
        let program = Program::start_with(folder.path(), &config, &environment);
        peer.wait_online();
        Rig { program, peer, tap, broker, submitted: 0, config, environment, folder }
    }

    /// Starts the service again after its end.
    pub(crate) fn restart(&mut self) {
        self.program = Program::start_with(self.folder.path(), &self.config, &self.environment);
    }

    /// Publishes a request for a small image; gives its id.
    pub(crate) fn submit(&mut self) -> String {
        let id = format!("j{}", self.submitted);
        self.peer.publish("txt2img", small(&id, self.submitted % SEEDS).to_string());
        self.submitted += 1;
        id
    }

    /// Waits, at most `limit`, until `done` holds of what has passed the tap.
    pub(crate) fn wait(&self, limit: Duration, what: &str, mut done: impl FnMut(&Ledger) -> bool) -> Duration {
        let start = Instant::now();
        let mut is_done = || {
            let ledger = self.tap.ledger();
            assert!(ledger.broken.is_empty(), "against the contract: {:#?}", ledger.broken);
            done(&ledger)
        };
        while !is_done() {
            let waited = start.elapsed();
            if waited > limit {
                let ledger = self.tap.ledger();
                let last: Vec<_> = ledger.passed.iter().rev().take(20).rev().collect();
                panic!("not within {limit:?}: {what}; open jobs: {:?}; the last messages: {last:#?}", ledger.open());
            }
            thread::sleep(Duration::from_millis(10));
        }
        start.elapsed()
    }

    /// Waits until `count` jobs are accepted and all accepted jobs have ended.
    pub(crate) fn wait_all_ended(&self, count: usize) {
        self.wait(PATIENCE * size(1, 5) as u32, &format!("{count} jobs are accepted, and all have ended"), |ledger| {
            ledger.accepted.len() >= count && ledger.open().is_empty()
        });
    }

    /// Waits until `count` jobs are accepted and all accepted jobs have ended; checks that each of `submit` did so
    /// once, as done, with the image of an undisturbed run. Gives the number of ends.
    pub(crate) fn check_all_done(&self, count: usize) -> usize {
        self.wait_all_ended(count);
        let ledger = self.tap.ledger();
        check_ends(&ledger);
        check_images(&ledger.images);
        let without = |id: &&String| !ledger.images.contains_key(&format!("job/{id}/image/0"));
        let jobs = ledger.accepted.iter().filter(|id| id.starts_with('j'));
        let imageless: Vec<&String> = jobs.filter(without).collect();
        assert!(imageless.is_empty(), "done without an image: {imageless:?}");
        ledger.endings.len()
    }
}

/// A request of little work.
pub(crate) fn small(id: &str, seed: usize) -> Value {
    json!({"prompt": "a red house", "steps": 2, "seed": seed, "width": 64, "height": 64, "id": id})
}

/// Each job ended once, as done.
pub(crate) fn check_ends(ledger: &Ledger) {
    assert!(ledger.ended_twice().is_empty(), "more than one end: {:#?}", ledger.ended_twice());
    let not_done: Vec<_> = ledger.endings.values().flatten().filter(|text| !text.contains("\"done\"")).collect();
    assert!(not_done.is_empty(), "not done: {not_done:#?}");
}

/// The images of `submit` are those of an undisturbed run.
fn check_images(images: &BTreeMap<String, std::collections::BTreeSet<String>>) {
    static UNDISTURBED: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut harness = Harness::start();
        (0..SEEDS).map(|seed| image_of(&mut harness.peer, &small(&format!("seed{seed}"), seed))).collect()
    });
    for (topic, hashes) in images {
        let number = topic.strip_prefix("job/j").and_then(|rest| rest.split('/').next());
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else { continue };
        let right = &UNDISTURBED[number % SEEDS];
        assert!(hashes.len() == 1 && hashes.contains(right), "{topic}: {hashes:?} instead of {right}");
    }
}

/// Paints and gives the image's SHA-256.
pub(crate) fn image_of(peer: &mut Peer, request: &Value) -> String {
    let topic = format!("job/{}/image/0", request["id"].as_str().unwrap());
    let messages = peer.paint(request);
    sha256(&messages.iter().find(|message| message.topic == topic).expect("an image").payload)
}
