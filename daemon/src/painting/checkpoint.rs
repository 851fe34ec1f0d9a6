//! How far the running job has come, in a file of the state folder: after a power cut it goes on from there. A card bears
//! only so many writes, so the file is written at intervals, and once more where the job is put aside.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diffused_engine::StepCheckpoint;
use tracing::{info, warn};

use crate::files::{remove_leftovers, write_atomically};
use crate::jobs::request::Job;

const NAME: &str = "checkpoint";
/// What the file begins with.
const MARK: &str = "diffused checkpoint";
/// More than any painting's, bytes.
const LONGEST: u64 = 64 << 20;

/// The file. It holds a line that says what it belongs to, then the engine's bytes.
#[derive(Debug, Clone)]
pub struct CheckpointFile {
    path: PathBuf,
    interval: Duration,
}

impl CheckpointFile {
    /// The file in the state folder `folder`, which no other process uses; it is written at most once in `interval`.
    pub fn new(folder: &Path, interval: Duration) -> CheckpointFile {
        let path = folder.join(NAME);
        remove_leftovers(&path);
        CheckpointFile { path, interval }
    }

    /// The checkpoint of image `index` of `job`, if there is one that can be read.
    pub(super) fn load(&self, job: &Job, index: u64) -> Option<StepCheckpoint> {
        let file = File::open(&self.path).ok()?;
        let mut bytes = vec![];
        file.take(LONGEST).read_to_end(&mut bytes).ok()?;
        let checkpoint = StepCheckpoint::from_bytes(bytes.strip_prefix(first_line(job, index).as_bytes())?);
        checkpoint.inspect_err(|error| warn!(id = job.id, "{}: {error}", self.path.display())).ok()
    }

    fn save(&self, job: &Job, index: u64, checkpoint: &StepCheckpoint) -> io::Result<()> {
        if !self.may_be_replaced() {
            return Err(io::Error::other(format!("{} is not this program's", self.path.display())));
        }
        let mut bytes = first_line(job, index).into_bytes();
        bytes.extend(checkpoint.to_bytes());
        write_atomically(&self.path, &bytes)
    }

    /// Removes the file, of whatever job it is.
    pub(super) fn remove(&self) {
        if self.path.exists() && self.may_be_replaced() {
            let removed = fs::remove_file(&self.path);
            removed.unwrap_or_else(|error| warn!("{} stays: {error}", self.path.display()));
        }
    }

    /// Whether there is no such file, or one that this program wrote.
    fn may_be_replaced(&self) -> bool {
        let mut first = vec![];
        let read = File::open(&self.path).and_then(|file| file.take(MARK.len() as u64).read_to_end(&mut first));
        match read {
            Ok(_) => first.is_empty() || first == MARK.as_bytes(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }
}

/// What a checkpoint belongs to beside what the engine checks. Names are escaped, so that it is one line.
fn first_line(job: &Job, index: u64) -> String {
    let init_image = job.init_image.as_ref().map(|image| image.path());
    format!("{MARK} of image {index} of job {:?} from {init_image:?}\n", job.id)
}

/// Follows one job's steps.
#[derive(Debug)]
pub(super) struct CheckpointKeeper<'a> {
    file: &'a CheckpointFile,
    job: &'a Job,
    /// The image that is being painted.
    index: u64,
    /// Its latest step, unless that is on disk.
    latest: Option<StepCheckpoint>,
    /// When the file was written last, or the job began.
    written: Instant,
    /// Whether writing failed the last time, which was reported then.
    fails: bool,
}

impl<'a> CheckpointKeeper<'a> {
    /// For `job`, which begins `now`.
    pub(super) fn new(file: &'a CheckpointFile, job: &'a Job, now: Instant) -> CheckpointKeeper<'a> {
        CheckpointKeeper { file, job, index: 0, latest: None, written: now, fails: false }
    }

    /// Image `index` begins.
    pub(super) fn begin(&mut self, index: u64) {
        self.index = index;
        self.latest = None;
    }

    /// A step was made; returns whether it was written, which is the case once an interval.
    pub(super) fn step_done(&mut self, checkpoint: &StepCheckpoint, now: Instant) -> bool {
        self.latest = Some(checkpoint.clone());
        if now - self.written < self.file.interval {
            return false;
        }
        self.written = now;
        self.write()
    }

    /// Writes the latest step unless it is on disk; returns whether there was one and it could be written.
    pub(super) fn write(&mut self) -> bool {
        let Some(checkpoint) = self.latest.take() else { return false };
        match self.file.save(self.job, self.index, &checkpoint) {
            Ok(()) => {
                if std::mem::take(&mut self.fails) {
                    info!(id = self.job.id, "checkpoints can be written again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.fails, true) {
                    let id = &self.job.id;
                    warn!(id, "no checkpoint can be written: {error}; after a restart the image is painted anew");
                }
                self.latest = Some(checkpoint);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use diffused_engine::hash::xxh3;

    use super::*;
    use crate::jobs::request::RequestMode;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn job(id: &str) -> Job {
        let payload = serde_json::json!({"prompt": "a", "id": id}).to_string();
        Job::parse(payload.as_bytes(), RequestMode::Txt2Img, Path::new("")).unwrap().0
    }

    /// A checkpoint of no painting in particular.
    fn checkpoint() -> StepCheckpoint {
        let bytes = include_bytes!("../../../tests/fuzz/corpus/checkpoint/ddim");
        StepCheckpoint::from_bytes(&[&bytes[..], &xxh3(bytes).to_le_bytes()].concat()).unwrap()
    }

    #[test]
    fn a_checkpoint_comes_back_for_its_own_job_and_image_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(folder.path(), INTERVAL);
        let (a, b) = (job("a"), job("b"));
        assert_eq!(file.load(&a, 1), None);
        file.save(&a, 1, &checkpoint()).unwrap();
        assert_eq!(file.load(&a, 1), Some(checkpoint()));
        assert_eq!((file.load(&a, 0), file.load(&b, 1)), (None, None));
        file.save(&b, 0, &checkpoint()).unwrap();
        assert_eq!((file.load(&a, 1), file.load(&b, 0)), (None, Some(checkpoint())));
        let mut bytes = fs::read(&file.path).unwrap();
        bytes.pop();
        fs::write(&file.path, bytes).unwrap();
        assert_eq!(file.load(&b, 0), None);
        file.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_programs_file_of_that_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(folder.path(), INTERVAL);
        fs::write(&file.path, "a person's").unwrap();
        file.remove();
        assert!(file.save(&job("a"), 0, &checkpoint()).is_err());
        assert_eq!(fs::read(&file.path).unwrap(), b"a person's");
    }

    #[test]
    fn steps_are_written_once_an_interval_and_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (file, job, start) = (CheckpointFile::new(folder.path(), INTERVAL), job("a"), Instant::now());
        let mut keeper = CheckpointKeeper::new(&file, &job, start);
        let mut step = |seconds| keeper.step_done(&checkpoint(), start + Duration::from_secs(seconds));
        assert_eq!([59, 60, 61, 119, 120, 121].map(&mut step), [false, true, false, false, true, false]);
        keeper.begin(1);
        assert!(!keeper.write(), "no step of this image was made");
        keeper.step_done(&checkpoint(), start);
        assert!(keeper.write() && !keeper.write());
        assert_eq!(file.load(&job, 1), Some(checkpoint()));
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, job, start) = (CheckpointFile::new(folder.path(), INTERVAL), job("a"), Instant::now());
        let mut keeper = CheckpointKeeper::new(&file, &job, start);
        fs::create_dir(&file.path).unwrap();
        assert!(!keeper.step_done(&checkpoint(), start + INTERVAL) && !keeper.write());
        fs::remove_dir(&file.path).unwrap();
        assert!(keeper.write());
    }
}
