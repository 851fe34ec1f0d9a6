//! What has arrived of a job: images in any order, and the result that says which bytes are theirs.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::contract::messages::{DisplayFile, Image, JobResult};
use crate::painting::pictures::hex;

/// What has arrived of a job.
#[derive(Default)]
pub(super) struct Arrivals {
    images: BTreeMap<u64, Bytes>,
    /// What a display shows of them.
    outputs: BTreeMap<u64, Bytes>,
    /// The job's result.
    pub(super) result: Option<JobResult>,
}

impl Arrivals {
    /// An image, by its number; one that comes again replaces the first.
    pub(super) fn add(&mut self, number: u64, bytes: Bytes) {
        self.images.insert(number, bytes);
    }

    /// What a display shows of an image, likewise.
    pub(super) fn add_output(&mut self, number: u64, bytes: Bytes) {
        self.outputs.insert(number, bytes);
    }

    /// Whether everything is here that was published.
    pub(super) fn are_complete(&self) -> bool {
        let output = |number, image: &Image| {
            let published = image.output.as_ref().filter(|output| output.topic.is_some());
            published.is_none_or(|output| self.get_output(number, output).is_some())
        };
        let mut images = self.result.iter().flat_map(|result| (0_u64..).zip(&result.images));
        self.has_images() && images.all(|(number, image)| output(number, image))
    }

    /// Whether the result and every image that was published is here.
    pub(super) fn has_images(&self) -> bool {
        let arrived = |(number, image): (u64, &Image)| image.topic.is_none() || self.get(number, image).is_some();
        self.result.as_ref().is_some_and(|result| (0_u64..).zip(&result.images).all(arrived))
    }

    /// All images that came, in their order: of a job that did not end well there is no result to compare them with.
    pub(super) fn images(&self) -> impl Iterator<Item = &Bytes> {
        self.images.values()
    }

    /// The bytes of an image, if they are those of the result.
    pub(super) fn get(&self, number: u64, image: &Image) -> Option<&Bytes> {
        self.images.get(&number).filter(|bytes| hex(&Sha256::digest(bytes)) == image.sha256)
    }

    /// The bytes of what a display shows of an image, if they are those of the result.
    pub(super) fn get_output(&self, number: u64, output: &DisplayFile) -> Option<&Bytes> {
        self.outputs.get(&number).filter(|bytes| hex(&Sha256::digest(bytes)) == output.sha256)
    }
}
