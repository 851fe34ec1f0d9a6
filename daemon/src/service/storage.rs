//! The service's own files in the state folder: a lock, so that no second service works on it, the journal, and init images
//! that wait. What other programs keep there is left alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::files::{remove_leftovers, sync_folder, write_atomically};
use crate::jobs::journal::{JournalState, Record, is_source};
use crate::jobs::sources::SourceBytes;

/// Space for endings, which a full disk must not lose.
const RESERVE: &str = ".diffused-reserve";
const RESERVE_BYTES: usize = 256 << 10;
const LOCK: &str = ".diffused-lock";
const JOURNAL: &str = "journal";
const DAMAGED: &str = "journal.damaged";
const INIT_IMAGES: &str = "init_images";

/// The journal is written anew once it is longer than this, bytes, and three times as long as it was then.
const REWRITE: u64 = 1 << 20;

/// The state folder.
#[derive(Debug)]
pub(super) struct Storage {
    folder: PathBuf,
    /// The journal's.
    path: PathBuf,
    /// Held as long as the service runs.
    _lock: File,
    file: Arc<File>,
    /// Bytes of the journal that are whole.
    len: u64,
    /// Lines that are to be written.
    pending: String,
    /// Whether what was written is to be brought to the disk.
    urgent: bool,
    /// The journal's length when it was written anew.
    rewritten: u64,
    next: u64,
    /// Why nothing can be written.
    problem: Option<String>,
}

/// Lines for the journal, and what has to be on the disk before them.
struct Batch {
    sources: SourceBytes,
    lines: String,
    sync: bool,
    /// Whether they are requests, which wait for the reserve. Everything else may use it up.
    accepts: bool,
}

impl Storage {
    /// Locks `folder` and reads its journal.
    ///
    /// # Errors
    ///
    /// Another service works on the folder, or it cannot be written to.
    pub(super) fn open(folder: &Path) -> Result<(Storage, JournalState)> {
        let images = folder.join(INIT_IMAGES);
        fs::create_dir_all(&images).with_context(|| format!("state_dir: {}", images.display()))?;
        let lock = lock(folder)?;
        let path = folder.join(JOURNAL);
        // A link stays one.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let (journal, len) = read(&path).with_context(|| format!("state_dir: {}", path.display()))?;
        if let Some(why) = journal.foreign() {
            bail!("state_dir: {} {why}; choose another state_dir, or move the file away", path.display());
        }
        if !journal.damaged.is_empty() {
            keep_damaged(folder, &journal.damaged);
        }
        let lines = journal.lines();
        if lines.len() as u64 != len {
            // A full disk is no reason not to start: what is there says the same.
            let _ = write_atomically(&path, lines.as_bytes())
                .inspect_err(|error| warn!("the journal stays as it is: {error}"));
        }
        let file = open(&path).with_context(|| format!("state_dir: {}", path.display()))?;
        let len = file.metadata()?.len();
        remove_orphans(&images, &journal);
        remove_leftovers(folder, |name| [JOURNAL, RESERVE].contains(&name));
        remove_leftovers(&images, |name| is_source(name.as_ref()));
        let (folder, next) = (folder.to_owned(), journal.next);
        let storage = Storage {
            folder,
            path,
            _lock: lock,
            file: Arc::new(file),
            len,
            pending: String::new(),
            urgent: false,
            rewritten: len,
            next,
            problem: None,
        };
        Ok((storage, journal))
    }

    /// Where init images and masks wait.
    pub(super) fn init_images(&self) -> PathBuf {
        self.folder.join(INIT_IMAGES)
    }

    /// The number of the next job or message.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Writes `record` before anything that follows from it can leave the process.
    pub(super) fn note(&mut self, record: &Record) {
        // While the disk is full no job is accepted, so those that there are bound what waits here.
        self.pending.push_str(&record.line());
    }

    /// The same, and brings it to the disk soon.
    pub(super) fn note_urgently(&mut self, record: &Record) {
        self.note(record);
        self.urgent = true;
    }

    /// Why nothing can be written, as clients may read it.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Writes what was noted. Where that fails it is tried again at the next call.
    pub(super) async fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.pending);
        let batch = Batch { sources: vec![], lines, sync: self.urgent, accepts: false };
        let outcome = self.append(batch).await;
        self.urgent = false;
        match outcome {
            Ok(()) => self.rewrite_if_long().await,
            Err((_, lines)) => {
                self.pending = lines + &self.pending;
                self.urgent = true;
            }
        }
    }

    /// Brings requests that are to be accepted to the disk, with their images: all, or, where it fails, none of them.
    pub(super) async fn accept(&mut self, sources: SourceBytes, records: &[Record]) -> io::Result<()> {
        let earlier = std::mem::take(&mut self.pending);
        let lines: String = records.iter().map(Record::line).collect();
        let paths: Vec<PathBuf> = sources.iter().map(|(image, _)| image.path().to_owned()).collect();
        let batch = Batch { sources, lines: format!("{earlier}{lines}"), sync: true, accepts: true };
        let outcome = self.append(batch).await;
        outcome.map_err(|(error, _)| {
            self.pending = earlier + &self.pending;
            paths.iter().for_each(|path| self.remove_source(path));
            error
        })
    }

    /// Looks whether requests can be accepted again, where they cannot.
    pub(super) async fn recover(&mut self) {
        if self.problem.is_some() {
            // The problem stays what it is.
            let _ = self.accept(vec![], &[]).await;
        }
    }

    /// Stores init images, then appends lines to the journal, and brings both to the disk. Gives the lines back where that
    /// fails; then the journal is as before.
    async fn append(&mut self, batch: Batch) -> Result<(), (io::Error, String)> {
        let (file, at, reserve) = (self.file.clone(), self.len, self.folder.join(RESERVE));
        let accepts = batch.accepts;
        // The disk of a board may take a second, in which the connection to the broker must be served.
        let done = spawn_blocking(move || {
            let outcome = if batch.accepts { keep_reserve(&reserve) } else { Ok(()) };
            let outcome = outcome.and_then(|()| batch.write(&file, at)).or_else(|error| {
                if batch.accepts || fs::remove_file(&reserve).is_err() {
                    return Err(error);
                }
                batch.write(&file, at)
            });
            // Half of a line would be overwritten by the next, but not if the service ended now.
            (outcome.inspect_err(|_| drop(file.set_len(at))), batch.lines)
        });
        let (outcome, lines) = match done.await {
            Ok(done) => done,
            Err(error) => (Err(io::Error::other(error)), String::new()),
        };
        match outcome {
            Ok(()) => {
                self.len += lines.len() as u64;
                // What was written into the reserve does not show that there is space for requests.
                if accepts && self.problem.take().is_some() {
                    info!("the journal can be written again");
                }
                Ok(())
            }
            Err(error) => {
                let problem = format!("{} cannot be written: {error}", self.path.display());
                if self.problem.is_none() {
                    error!("{problem}; no request is accepted until it can");
                }
                self.problem = Some(problem);
                Err((error, lines))
            }
        }
    }

    async fn rewrite_if_long(&mut self) {
        if self.len < REWRITE.max(3 * self.rewritten) {
            return;
        }
        let path = self.path.clone();
        let rewritten = spawn_blocking(move || {
            let (journal, _) = read(&path)?;
            write_atomically(&path, journal.lines().as_bytes())?;
            let file = open(&path)?;
            let len = file.metadata()?.len();
            io::Result::Ok((file, len))
        });
        match rewritten.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((file, len)) => (self.file, self.len, self.rewritten) = (Arc::new(file), len, len),
            Err(error) => {
                warn!("the journal stays long: {error}");
                self.rewritten = self.len;
            }
        }
    }

    /// Removes the file of an init image or a mask that is no longer needed.
    pub(super) fn remove_source(&self, path: &Path) {
        if path.parent() == Some(&self.init_images()) && is_source(path) {
            // It may never have been written.
            let _ = fs::remove_file(path);
        }
    }
}

impl Batch {
    fn write(&self, file: &File, at: u64) -> io::Result<()> {
        self.sources.iter().try_for_each(|(image, bytes)| image.store(bytes)).map_err(io::Error::other)?;
        file.write_all_at(self.lines.as_bytes(), at)?;
        if self.sync { file.sync_data() } else { Ok(()) }
    }
}

/// Makes the reserve if it is not there.
fn keep_reserve(path: &Path) -> io::Result<()> {
    match path.exists() {
        true => Ok(()),
        false => write_atomically(path, &vec![0; RESERVE_BYTES]),
    }
}

/// The folder's lock, which is gone with the process.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.with_context(|| format!("state_dir: {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            bail!(
                "state_dir: {} is in use by another diffused ({}); give each its own",
                folder.display(),
                owner.trim()
            );
        }
        // Some network file systems have no locks.
        Err(error) => warn!("{} cannot be locked: {error}", path.display()),
        Ok(()) => {}
    }
    // For people; a full disk is no reason not to start.
    let _ = file.set_len(0).and_then(|()| file.write_all_at(format!("process {}\n", std::process::id()).as_bytes(), 0));
    Ok(file)
}

/// Whether a service works on `folder`; `None` where that cannot be seen.
pub(crate) fn is_in_use(folder: &Path) -> Option<bool> {
    let file = match File::open(folder.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Some(false),
        Err(Errno::WOULDBLOCK) => Some(true),
        Err(_) => None,
    }
}

/// A journal and the length of its file, bytes.
fn read(path: &Path) -> io::Result<(JournalState, u64)> {
    match fs::read(path) {
        Ok(bytes) => Ok((JournalState::replay(&bytes), bytes.len() as u64)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((JournalState::replay(b""), 0)),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    sync_folder(path)?;
    Ok(file)
}

/// Damage is reported, and kept for those who want to look at it.
fn keep_damaged(folder: &Path, lines: &[usize]) {
    let path = folder.join(JOURNAL);
    let names = std::iter::once(DAMAGED.to_owned()).chain((2..100).map(|number| format!("{DAMAGED}-{number}")));
    let copy = names.map(|name| folder.join(name)).find(|copy| !copy.exists());
    let kept = match copy.map(|copy| fs::copy(&path, &copy).map(|_| copy)) {
        Some(Ok(copy)) => format!("as it was, it is kept as {}", copy.display()),
        Some(Err(error)) => format!("it cannot be kept: {error}"),
        None => "it is not kept: there are many such files already".into(),
    };
    let shown: Vec<String> = lines.iter().take(10).map(ToString::to_string).collect();
    let (count, shown) = (lines.len(), shown.join(", "));
    warn!("{}: {count} damaged lines (line {shown}) were left out, all others are used; {kept}", path.display());
}

/// Removes init images and masks that belong to no job, as a crash between file and journal leaves them.
fn remove_orphans(folder: &Path, journal: &JournalState) {
    let wanted: Vec<&PathBuf> = journal.jobs.values().flat_map(|(_, files)| files.paths()).collect();
    let Ok(entries) = fs::read_dir(folder) else { return };
    let files = entries.flatten().map(|entry| entry.path());
    for path in files.filter(|path| is_source(path) && !wanted.contains(&path)) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(paused: bool) -> Record {
        Record::Paused { paused }
    }

    #[tokio::test]
    async fn what_was_noted_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut storage, journal) = Storage::open(folder.path()).unwrap();
        assert!(!journal.paused);
        storage.note(&paused(true));
        storage.flush().await;
        drop(storage);
        assert!(Storage::open(folder.path()).unwrap().1.paused);
    }

    #[tokio::test]
    async fn a_problem_ends_once_there_is_space_for_requests() {
        let folder = tempfile::tempdir().unwrap();
        let (mut storage, _) = Storage::open(folder.path()).unwrap();
        // Nothing can be written where a folder is in the way of the reserve's temporary file.
        let in_the_way = folder.path().join(format!("{RESERVE}.{}.tmp", std::process::id()));
        fs::create_dir(&in_the_way).unwrap();
        assert!(storage.accept(vec![], &[paused(true)]).await.is_err());
        storage.note(&paused(true));
        storage.flush().await;
        storage.recover().await;
        assert!(storage.problem().is_some() && storage.pending.is_empty());
        fs::remove_dir(in_the_way).unwrap();
        storage.recover().await;
        assert!(storage.problem().is_none() && folder.path().join(RESERVE).exists());
    }

    #[test]
    fn a_file_of_others_and_of_newer_versions_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(JOURNAL);
        for (text, why) in [
            ("Dear diary,\n".to_owned(), "is not a journal of diffused"),
            (Record::Format { version: 2 }.line(), "newer version"),
        ] {
            fs::write(&path, &text).unwrap();
            let error = Storage::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_second_service_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(is_in_use(folder.path()), Some(false));
        let first = Storage::open(folder.path()).unwrap();
        assert_eq!(is_in_use(folder.path()), Some(true));
        let error = Storage::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(first);
        assert_eq!(is_in_use(folder.path()), Some(false));
    }

    #[tokio::test]
    async fn a_journal_that_grew_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut storage, _) = Storage::open(folder.path()).unwrap();
        let mut longest = 0;
        for round in 0..60_000u64 {
            storage.note(&paused(round % 2 == 0));
            if round % 1000 == 999 {
                storage.flush().await;
                longest = longest.max(storage.len);
            }
        }
        assert!(storage.len < REWRITE && longest > storage.len, "{longest} {}", storage.len);
    }

    #[tokio::test]
    async fn a_torn_end_and_a_damaged_line_cost_themselves_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(JOURNAL);
        let format = Record::Format { version: 1 }.line();
        let mut text = paused(false).line() + &paused(true).line() + &paused(false).line();
        text.truncate(text.len() - 3);
        text.replace_range(20..21, "?");
        fs::write(&path, &text).unwrap();
        let (storage, journal) = Storage::open(folder.path()).unwrap();
        assert_eq!((journal.paused, journal.damaged), (true, vec![1, 3]));
        assert_eq!(fs::read_to_string(folder.path().join(DAMAGED)).unwrap(), text);
        drop(storage);
        assert_eq!(fs::read_to_string(&path).unwrap(), format + &paused(true).line());
    }
}
