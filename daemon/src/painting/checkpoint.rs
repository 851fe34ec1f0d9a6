//! How far the running job has come, in a file of the state folder: after a power cut it goes on from there. A card bears
//! only so many writes, so the file is written at intervals, and once more where the job is put aside.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diffused_engine::StepCheckpoint;
use diffused_engine::hash::Sha256;
use tracing::{info, warn};

use crate::files::{remove_leftovers, write_parts_atomically};
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
        remove_leftovers(folder, |name| name == NAME);
        CheckpointFile { path, interval }
    }

    /// The engine's bytes, if `first_line` is before them.
    fn read(&self, first_line: &str) -> Option<Vec<u8>> {
        let mut bytes = vec![];
        File::open(&self.path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
        bytes.strip_prefix(first_line.as_bytes()).map(<[u8]>::to_vec)
    }

    fn save(&self, first_line: &str, checkpoint: &StepCheckpoint) -> io::Result<()> {
        if !self.may_be_replaced() {
            return Err(io::Error::other(format!("{} is not this program's", self.path.display())));
        }
        write_parts_atomically(&self.path, &[first_line.as_bytes(), &checkpoint.to_bytes()])
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

/// Whose a checkpoint is, beside what the engine checks: the job's name and the checksums of its init image and its mask.
/// Names are escaped, so that it is one line.
fn owner(job: &Job) -> io::Result<String> {
    let mut owner = format!("job {:?}", job.id);
    for (label, image) in [("from", &job.init_image), ("masked by", &job.mask)] {
        if let Some(image) = image {
            owner += &format!(" {label} {}", checksum(image.path())?);
        }
    }
    Ok(owner)
}

/// SHA-256 of a file, read in parts.
fn checksum(path: &Path) -> io::Result<String> {
    let (mut file, mut sha256, mut part) = (File::open(path)?, Sha256::default(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(sha256.finish().to_string()),
            len => sha256.update(&part[..len]),
        }
    }
}

/// Keeps one job's steps.
#[derive(Debug)]
pub(super) struct CheckpointKeeper<'a> {
    file: &'a CheckpointFile,
    job: &'a Job,
    owner: io::Result<String>,
    /// The image that is being painted.
    index: u64,
    /// Its latest step, unless that is on disk.
    latest: Option<StepCheckpoint>,
    /// From when on the next step is written.
    due: Instant,
    /// Whether writing failed the last time, which was reported then.
    fails: bool,
}

impl<'a> CheckpointKeeper<'a> {
    /// For `job`, which begins `now`. Of one during which the program ended before, the next step is written at once: it
    /// shows that the job is not what ends the program.
    pub(super) fn new(file: &'a CheckpointFile, job: &'a Job, interrupted: bool, now: Instant) -> CheckpointKeeper<'a> {
        let due = if interrupted { now } else { now + file.interval };
        CheckpointKeeper { file, job, owner: owner(job), index: 0, latest: None, due, fails: false }
    }

    /// Image `index` begins.
    pub(super) fn begin(&mut self, index: u64) {
        self.index = index;
        self.latest = None;
    }

    /// The checkpoint of this image on disk, if there is one that can be read.
    pub(super) fn load(&self) -> Option<StepCheckpoint> {
        let bytes = self.file.read(&self.first_line().ok()?)?;
        let checkpoint = StepCheckpoint::from_bytes(&bytes);
        checkpoint.inspect_err(|error| warn!(id = self.job.id, "{}: {error}", self.file.path.display())).ok()
    }

    fn first_line(&self) -> io::Result<String> {
        let owner = self.owner.as_ref().map_err(|error| io::Error::other(format!("the init image: {error}")))?;
        Ok(format!("{MARK} of image {} of {owner}\n", self.index))
    }

    /// A step was made; returns whether it was written, which is the case once an interval.
    pub(super) fn step_done(&mut self, checkpoint: &StepCheckpoint, now: Instant) -> bool {
        self.latest = Some(checkpoint.clone());
        if now < self.due {
            return false;
        }
        self.due = now + self.file.interval;
        self.write()
    }

    /// Writes the latest step unless it is on disk; returns whether there was one and it could be written.
    pub(super) fn write(&mut self) -> bool {
        let Some(checkpoint) = self.latest.take() else { return false };
        match self.first_line().and_then(|line| self.file.save(&line, &checkpoint)) {
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
        let keeper = |job: &Job, index| {
            let mut keeper = CheckpointKeeper::new(&file, job, false, Instant::now());
            keeper.begin(index);
            keeper.step_done(&checkpoint(), Instant::now());
            (keeper.load(), keeper.write())
        };
        let [a, b] = ["a", "b"].map(job);
        let there = Some(checkpoint());
        assert_eq!(keeper(&a, 1), (None, true));
        assert_eq!(keeper(&a, 1), (there.clone(), true));
        assert_eq!(keeper(&a, 0), (None, true));
        assert_eq!(keeper(&b, 0), (None, true));
        assert_eq!(keeper(&b, 0), (there, true));
        let mut bytes = fs::read(&file.path).unwrap();
        bytes.pop();
        fs::write(&file.path, bytes).unwrap();
        assert_eq!(keeper(&b, 0), (None, true));
        file.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_init_image_or_mask_under_the_same_name_is_another_job() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(folder.path(), INTERVAL);
        let image = |grey: u8| {
            let mut png = io::Cursor::new(vec![]);
            image::RgbImage::from_pixel(64, 64, image::Rgb([grey; 3]))
                .write_to(&mut png, image::ImageFormat::Png)
                .unwrap();
            base64::Engine::encode(&base64::prelude::BASE64_STANDARD, png.into_inner())
        };
        let image_job = |grey: u8, mask: Option<u8>| {
            let (init_image, mask) = (image(grey), mask.map(image));
            let payload = serde_json::json!({"prompt": "a", "id": "a", "init_images": [init_image], "mask": mask});
            let parsed = Job::parse(payload.to_string().as_bytes(), RequestMode::Img2Img, folder.path());
            let (job, files) = parsed.unwrap();
            files.iter().for_each(|(image, bytes)| image.store(bytes).unwrap());
            job
        };
        let keep = |job: &Job| {
            let mut keeper = CheckpointKeeper::new(&file, job, false, Instant::now());
            keeper.step_done(&checkpoint(), Instant::now());
            (keeper.load().is_some(), keeper.write())
        };
        let first = image_job(1, None);
        assert_eq!([keep(&first), keep(&first)], [(false, true), (true, true)]);
        assert_eq!(keep(&image_job(2, None)), (false, true));
        let masked = image_job(2, Some(3));
        assert_eq!([keep(&masked), keep(&masked)], [(false, true), (true, true)]);
        assert_eq!(keep(&image_job(2, Some(4))), (false, true));
    }

    #[test]
    fn another_programs_file_of_that_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(folder.path(), INTERVAL);
        fs::write(&file.path, "a person's").unwrap();
        file.remove();
        assert!(file.save("", &checkpoint()).is_err());
        assert_eq!(fs::read(&file.path).unwrap(), b"a person's");
    }

    #[test]
    fn steps_are_written_once_an_interval_and_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (file, job, start) = (CheckpointFile::new(folder.path(), INTERVAL), job("a"), Instant::now());
        let mut keeper = CheckpointKeeper::new(&file, &job, false, start);
        let mut step = |seconds| keeper.step_done(&checkpoint(), start + Duration::from_secs(seconds));
        assert_eq!([59, 60, 61, 119, 120, 121].map(&mut step), [false, true, false, false, true, false]);
        keeper.begin(1);
        assert!(!keeper.write(), "no step of this image was made");
        keeper.step_done(&checkpoint(), start);
        assert!(keeper.write() && !keeper.write());
        assert_eq!(keeper.load(), Some(checkpoint()));
        let mut interrupted = CheckpointKeeper::new(&file, &job, true, start);
        assert_eq!(
            [0, 59, 60].map(|s| interrupted.step_done(&checkpoint(), start + Duration::from_secs(s))),
            [true, false, true]
        );
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, job, start) = (CheckpointFile::new(folder.path(), INTERVAL), job("a"), Instant::now());
        let mut keeper = CheckpointKeeper::new(&file, &job, false, start);
        fs::create_dir(&file.path).unwrap();
        assert!(!keeper.step_done(&checkpoint(), start + INTERVAL) && !keeper.write());
        fs::remove_dir(&file.path).unwrap();
        assert!(keeper.write());
    }
}
