//! What the broker does not take: of an image a smaller one is sent instead, once; after that, the result has its path. Where
//! even the result is too large, the ending says so.

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use super::Service;
use crate::contract::messages::Image;
use crate::jobs::journal::Record;
use crate::mqtt::message::{Message, MessagePayload, Part, SentImage};
use crate::mqtt::outbox::{Reason, Refused};
use crate::painting::pictures::{self, Folder, ImageFile};
use crate::painting::worker::PlacedImage;

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
        let SentImage { job, index, reduced } = image;
        let bytes = message.payload.len();
        let smaller = if reduced || reason != Reason::Broker { None } else { self.smaller(&job, index, message).await };
        let what = match reason {
            Reason::Broker => format!("image {index} has {bytes} bytes, the broker refused it"),
            Reason::Unreadable => format!("the file of image {index} was gone before it was sent"),
            Reason::Aged => format!("image {index} waited for the broker for too long (mqtt.outbox)"),
        };
        let warning = match &smaller {
            Some((_, quality)) => format!("{what}: published as a JPEG of quality {quality}"),
            None => format!("{what}: not published, see its path"),
        };
        match (&smaller, reason) {
            (Some(_), _) => warn!(job, "{warning}; raise the broker's limit on messages to get it whole"),
            (None, Reason::Broker) => {
                error!(job, "{warning}; does the broker limit messages (message_size_limit), or deny the topic?");
            }
            (None, _) => warn!(job, "{warning}"),
        }
        let file = smaller.map(|(file, _)| file);
        let change = |image: &mut Image| replace(image, file.as_ref());
        if let Some((_, record)) = self.queue.running_mut().filter(|(id, _)| *id == job) {
            if let Some(image) = record.images.get_mut(index as usize) {
                change(image);
            }
            record.warnings.push(warning.clone());
        }
        let corrected = |result: &[u8]| corrected(result, index, change, &warning);
        let mut instead = vec![];
        let sent = SentImage { job, index, reduced: true };
        if let Some(file) = file.clone() {
            let [message, latest] = self.publisher.image(sent, file);
            instead = vec![self.keep(message), latest];
        }
        self.resolve(place, instead, |message| matches!(message.part, Part::Result(_)) && edit(message, corrected));
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
    let image = image::load_from_memory(&payload.read().ok()?).ok()?.into_rgb8();
    let (file, quality) = pictures::encode_within(&image, limit).ok()??;
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

/// A result that is in the outbox already, with what became of image `index`.
fn corrected(result: &[u8], index: u64, change: impl Fn(&mut Image), warning: &str) -> Option<Vec<u8>> {
    let mut result: Value = serde_json::from_slice(result).ok()?;
    let described = result.get_mut("images")?.get_mut(index as usize)?;
    let mut image: Image = serde_json::from_value(described.take()).ok()?;
    change(&mut image);
    *described = json!(image);
    with_warning(&serde_json::to_vec(&result).ok()?, warning)
}

fn with_warning(message: &[u8], warning: &str) -> Option<Vec<u8>> {
    let mut message: Value = serde_json::from_slice(message).ok()?;
    let warnings = message.as_object_mut()?.entry("warnings").or_insert_with(|| Value::Array(vec![]));
    warnings.as_array_mut()?.push(warning.into());
    serde_json::to_vec(&message).ok()
}

/// `file` was published instead of `image`, or nothing: then the rest describes the file at its path.
fn replace(image: &mut Image, file: Option<&PlacedImage>) {
    let Some(file) = file else {
        image.topic = None;
        if let Some(kept) = image.path.as_deref().and_then(|path| ImageFile::read(path).ok()) {
            kept.format.content_type().clone_into(&mut image.content_type);
            (image.bytes, image.sha256) = (kept.bytes.len(), kept.sha256());
        }
        return;
    };
    file.format.content_type().clone_into(&mut image.content_type);
    (image.bytes, image.sha256) = (file.len, file.sha256.clone());
}
