//! An image that the broker does not take: a smaller one is sent instead, once; after that, the result has its path.

use serde_json::{Value, json};
use tracing::{error, warn};

use super::Service;
use crate::contract::messages::Image;
use crate::mqtt::outbox::{Message, Part, Refused, SentImage};
use crate::painting::pictures::{self, ImageFile};

impl Service {
    pub(super) fn refused(&mut self, Refused { message, place }: Refused) {
        let (Part::Image(image), Some(place)) = (message.part.clone(), place) else { return };
        let SentImage { job, index, reduced } = image;
        let smaller = if reduced { None } else { self.smaller(&job, &message) };
        let large = format!("image {index} has {} bytes, the broker refused it", message.payload.len());
        let warning = match &smaller {
            Some((_, quality)) => format!("{large}: published as a JPEG of quality {quality}"),
            None => format!("{large}: not published, see its path"),
        };
        match &smaller {
            Some(_) => warn!(job, "{warning}; raise the broker's limit on messages to get it whole"),
            None => error!(job, "{warning}; does the broker limit messages (message_size_limit), or deny the topic?"),
        }
        let file = smaller.map(|(file, _)| file);
        if let Some((_, record)) = self.queue.running_mut().filter(|(id, _)| *id == job) {
            if let Some(image) = record.images.get_mut(index as usize) {
                replace(image, file.as_ref());
            }
            record.warnings.push(warning.clone());
        }
        let image = SentImage { job, index, reduced: true };
        self.publisher.resolve(place, image, file.clone(), |result| {
            if let Some(changed) = corrected(result, index, file.as_ref(), &warning) {
                *result = changed;
            }
        });
    }

    /// A JPEG that fits into what the broker is known to take, and its quality, if the refused message does not.
    fn smaller(&self, job: &str, message: &Message) -> Option<(ImageFile, u8)> {
        let limit = self.publisher.image_limit(job).filter(|limit| message.payload.len() > *limit)?;
        let image = image::load_from_memory(&message.payload).ok()?.into_rgb8();
        pictures::encode_within(&image, limit).ok()?
    }
}

/// A result that is in the outbox already, with what became of image `index`.
fn corrected(result: &[u8], index: u64, file: Option<&ImageFile>, warning: &str) -> Option<Vec<u8>> {
    let mut result: Value = serde_json::from_slice(result).ok()?;
    let described = result.get_mut("images")?.get_mut(index as usize)?;
    let mut image: Image = serde_json::from_value(described.take()).ok()?;
    replace(&mut image, file);
    *described = json!(image);
    let warnings = result.as_object_mut()?.entry("warnings").or_insert_with(|| Value::Array(vec![]));
    warnings.as_array_mut()?.push(warning.into());
    serde_json::to_vec(&result).ok()
}

/// `file` was published instead of `image`, or nothing: then the rest describes the file at its path.
fn replace(image: &mut Image, file: Option<&ImageFile>) {
    let kept = image.path.as_deref().filter(|_| file.is_none()).and_then(|path| ImageFile::read(path).ok());
    if file.is_none() {
        image.topic = None;
    }
    if let Some(file) = file.or(kept.as_ref()) {
        file.format.content_type().clone_into(&mut image.content_type);
        (image.bytes, image.sha256) = (file.bytes.len(), file.sha256());
    }
}
