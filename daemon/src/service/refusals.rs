//! What the broker does not take: of an image a smaller one is sent instead, once; after that, the result has its path. Where
//! even the result is too large, the ending says so.

use std::path::PathBuf;

use serde_json::Value;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use super::Service;
use crate::contract::messages::{DisplayFile, Image, JobResult};
use crate::contract::request::FileFormat;
use crate::jobs::journal::Record;
use crate::mqtt::message::{Message, MessagePayload, Part, SentImage};
use crate::mqtt::outbox::{Reason, Refused};
use crate::painting::pictures::{self, Folder, ImageFile};
use crate::painting::placed::PlacedImage;

impl Service {
    pub(super) async fn refused(&mut self, Refused { message, place, reason }: Refused) {
        let Some(place) = place else { return };
        match message.part.clone() {
            Part::Image(image) => self.refused_image(message, place, image, reason).await,
            Part::Result(job) => self.refused_result(&message, place, &job),
            _ => {}
        }
    }

    async fn refused_image(&mut self, message: Message, place: u64, image: SentImage, reason: Reason) {
        let SentImage { job, index, reduced, output } = image;
        let name = if output { "output" } else { "image" };
        let bytes = message.payload.len();
        let unsent = match &message.payload {
            MessagePayload::File { path, .. } => Some(path.clone()),
            MessagePayload::Bytes(_) => None,
        };
        let whole = reduced || output || reason != Reason::Broker;
        let smaller = if whole { None } else { self.smaller(&job, index, message).await };
        let what = match reason {
            Reason::Broker => format!("{name} {index} has {bytes} bytes, the broker refused it"),
            Reason::Unreadable => format!("the file of {name} {index} was gone before it was sent"),
            Reason::Aged => format!("{name} {index} waited for the broker for too long (mqtt.outbox)"),
        };
        let (instead, quality) = smaller.unzip();
        let correction = Correction { index: index as usize, output, what, instead, quality, unsent };
        let warning = self.correct(&job, &correction);
        match reason {
            _ if quality.is_some() => warn!(job, "{warning}; raise the broker's limit on messages to get it whole"),
            Reason::Broker => {
                error!(job, "{warning}; does the broker limit messages (message_size_limit), or deny the topic?");
            }
            _ => warn!(job, "{warning}"),
        }
        let mut instead = vec![];
        if let Some(file) = correction.instead.clone() {
            let [message, latest] = self.publisher.image(SentImage { job, index, reduced: true, output: false }, file);
            instead = vec![self.keep(message), latest];
        }
        let corrected = |result: &[u8]| corrected(result, &correction);
        self.resolve(place, instead, |message| matches!(message.part, Part::Result(_)) && edit(message, corrected));
    }

    /// Corrects what is known of the job and notes it; gives the warning of it.
    fn correct(&mut self, id: &str, correction: &Correction) -> String {
        if let Some(record) = self.queue.get_mut(id) {
            let warning = correction.apply(&mut record.images, &mut record.warnings);
            let (job, index, warnings) = (record.number, correction.index as u64, record.warnings.clone());
            if let Some(image) = record.images.get(correction.index).cloned().map(Box::new) {
                self.storage.note_urgently(&Record::Corrected { job, index, image, warnings });
            }
            return warning;
        }
        let Some(mut ended) = self.ended.get(id).cloned() else { return correction.apply(&mut [], &mut vec![]) };
        let Some(result) = &mut ended.result else { return correction.apply(&mut [], &mut vec![]) };
        let warning = correction.apply(&mut result.images, &mut result.warnings);
        self.storage.note_urgently(&Record::Ended(Box::new(ended.clone())));
        self.ended.push(ended);
        warning
    }

    /// The result is larger than the broker takes: the ending behind it says so.
    fn refused_result(&mut self, message: &Message, place: u64, job: &str) {
        let warning = format!("the result has {} bytes, which the broker does not take", message.payload.len());
        error!(job, "{warning}; raise its limit on messages");
        self.resolve(place, vec![], |message| edit(message, |ending| with_warning(ending, &warning)));
    }

    fn resolve(&mut self, place: u64, instead: Vec<Message>, change: impl Fn(&mut Message) -> bool) {
        let changed = self.publisher.mqtt().resolve(place, instead, change);
        for message in changed.into_iter().filter(|message| message.number.is_some()) {
            self.storage.note_urgently(&Record::Message(Box::new(message)));
        }
    }

    /// A JPEG that fits into what the broker is known to take, and its quality, if the refused message does not.
    async fn smaller(&self, job: &str, index: u64, message: Message) -> Option<(PlacedImage, u8)> {
        let limit = self.publisher.image_limit(job).filter(|limit| message.payload.len() > *limit)?;
        let (folder, stem) = (self.folder.clone(), format!("{job}-{index}-small"));
        spawn_blocking(move || reduce(&message.payload, limit, &folder, &stem)).await.ok()?
    }
}

fn reduce(payload: &MessagePayload, limit: usize, folder: &Folder, stem: &str) -> Option<(PlacedImage, u8)> {
    let file = payload.read().ok()?;
    let image = image::load_from_memory(&file).ok()?.into_rgb8();
    let text = pictures::text_of(&file).unwrap_or_default();
    let (file, quality) = pictures::encode_within(&image, &text, limit).ok()??;
    let path = folder.store(stem, &file).ok();
    Some((PlacedImage::new(file, path), quality))
}

/// Changes the payload, if `change` gives another.
fn edit(message: &mut Message, change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> bool {
    let changed = message.payload.read().ok().and_then(|payload| change(&payload));
    if let Some(changed) = changed.clone() {
        message.payload = MessagePayload::Bytes(changed.into());
    }
    changed.is_some()
}

/// A result that is in the outbox already, with what became of an image.
fn corrected(result: &[u8], correction: &Correction) -> Option<Vec<u8>> {
    let mut result: JobResult = serde_json::from_slice(result).ok()?;
    correction.apply(&mut result.images, &mut result.warnings);
    serde_json::to_vec(&result).ok()
}

fn with_warning(message: &[u8], warning: &str) -> Option<Vec<u8>> {
    let mut message: Value = serde_json::from_slice(message).ok()?;
    let warnings = message.as_object_mut()?.entry("warnings").or_insert_with(|| Value::Array(vec![]));
    warnings.as_array_mut()?.push(warning.into());
    serde_json::to_vec(&message).ok()
}

/// What became of an image that was not sent.
struct Correction {
    /// Its number in the job.
    index: usize,
    /// Whether it is what a display shows of the image.
    output: bool,
    /// Why it was not.
    what: String,
    /// What is published instead, and its quality.
    instead: Option<PlacedImage>,
    quality: Option<u8>,
    /// The file that was not sent.
    unsent: Option<PathBuf>,
}

/// In the warning of a smaller copy; where that is refused too, the warning says that it was tried.
const COPY: &str = ": published as a JPEG";
const COPY_TRIED: &str = ", and as a JPEG";

impl Correction {
    /// Changes the description and the warnings of a job's images; gives the new warning.
    fn apply(&self, images: &mut [Image], warnings: &mut Vec<String>) -> String {
        let is_kept = images.get_mut(self.index).is_some_and(|image| match &self.instead {
            _ if self.output => image.output.as_mut().is_some_and(|output| self.leave_output(output)),
            Some(file) => {
                describe(image, file.format, file.len, file.sha256.clone());
                true
            }
            None => self.leave(image),
        });
        let earlier = format!("image {} has ", self.index);
        let is_earlier = |text: &String| !self.output && text.starts_with(&earlier) && text.contains(COPY);
        let earlier = warnings.iter().position(is_earlier);
        let what = earlier.map_or_else(|| self.what.clone(), |at| warnings.remove(at).replace(COPY, COPY_TRIED));
        let warning = match self.quality {
            Some(quality) => format!("{}{COPY} of quality {quality}", self.what),
            None if is_kept => format!("{what}: not published, see its path"),
            None => format!("{what}: neither published nor kept"),
        };
        warnings.push(warning.clone());
        warning
    }

    /// The same for what a display shows.
    fn leave_output(&self, output: &mut DisplayFile) -> bool {
        output.topic = None;
        output.path = output.path.take().or_else(|| self.unsent.clone()).filter(|path| path.exists());
        output.path.is_some()
    }

    /// Nothing was published: the image is described as the file that is kept of it. Returns whether there is one.
    fn leave(&self, image: &mut Image) -> bool {
        image.topic = None;
        let path = image.path.take().or_else(|| self.unsent.clone());
        let Some((path, kept)) = path.and_then(|path| ImageFile::read(&path).ok().map(|file| (path, file))) else {
            return false;
        };
        describe(image, kept.format, kept.bytes.len(), kept.sha256());
        image.path = Some(path);
        true
    }
}

fn describe(image: &mut Image, format: FileFormat, bytes: usize, sha256: String) {
    format.content_type().clone_into(&mut image.content_type);
    (image.bytes, image.sha256) = (bytes, sha256);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_image_that_is_not_taken_one_warning_says_all_and_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let small = folder.path().join("a-0-small.jpg");
        std::fs::write(&small, "jpeg").unwrap();
        let topic = Some("image/0".into());
        let (content_type, sha256) = ("image/png".into(), "00".into());
        let image = Image { topic, content_type, bytes: 9, sha256, path: None, prompt: None, output: None };
        let (mut images, mut warnings) = ([image], vec!["other".to_owned()]);
        let what = |bytes: u64| format!("image 0 has {bytes} bytes, the broker refused it");
        let copy = ImageFile { bytes: b"jpeg".to_vec(), format: FileFormat::Jpeg };
        let instead = Some(PlacedImage::new(copy, Some(small.clone())));
        let first = Correction { index: 0, output: false, what: what(9), instead, quality: Some(90), unsent: None };
        first.apply(&mut images, &mut warnings);
        assert_eq!(warnings[1], "image 0 has 9 bytes, the broker refused it: published as a JPEG of quality 90");
        assert_eq!((images[0].content_type.as_str(), images[0].bytes, &images[0].path), ("image/jpeg", 4, &None));
        let unsent = Some(small.clone());
        let second = Correction { index: 0, output: false, what: what(4), instead: None, quality: None, unsent };
        second.apply(&mut images, &mut warnings);
        let said =
            "image 0 has 9 bytes, the broker refused it, and as a JPEG of quality 90: not published, see its path";
        assert_eq!(warnings, ["other", said]);
        assert_eq!((&images[0].topic, images[0].path.as_ref()), (&None, Some(&small)));
        images[0].path = Some(folder.path().join("missing.png"));
        second.apply(&mut images, &mut warnings);
        assert!(images[0].path.is_none() && warnings[2].ends_with("neither published nor kept"), "{warnings:?}");
    }
}
