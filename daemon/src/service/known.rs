//! Requests that come again: the broker repeats what was not acknowledged, and clients repeat what they hear nothing of. A
//! repeated request is answered with the job that there is, and not painted again.

use std::path::Path;

use super::Service;
use crate::contract::messages::{Ending, Image, State};
use crate::jobs::record::{EndedJob, Reply, RequestMark};
use crate::jobs::request::Job;
use crate::mqtt::message::{Message, MessagePayload, Part, SentImage};
use crate::mqtt::receipts::Receipt;
use crate::painting::pictures::ImageFile;

const DIFFERS: &str =
    "an earlier request of this id differs from this one; its answers are repeated, use a new id for another image";

impl Service {
    /// The id of the job that `job` repeats, if there is one. A request is the same as another that has its id; without one, if
    /// content and correlation data are the same, or if the broker says that it is a copy. What failed or was cancelled may be
    /// asked for again.
    pub(super) fn known(&self, job: &Job, mark: RequestMark, duplicate: bool) -> Option<String> {
        let copies = |other: RequestMark| duplicate && mark == other;
        let correlated = |other: RequestMark| mark.correlated && mark.checksum == other.checksum;
        let same = |id: &str, other: RequestMark| match job.named {
            true => id == job.id,
            false => correlated(other) || copies(other),
        };
        let live = self.queue.works().find(|record| same(&record.job.id, record.mark)).map(|record| &record.job.id);
        let kept = |ended: &&EndedJob| match ended.ending {
            Ending::Done => same(&ended.id, ended.mark),
            _ => copies(ended.mark),
        };
        live.or_else(|| self.ended.iter().rev().find(kept).map(|ended| &ended.id)).cloned()
    }

    /// Repeats what was told of the job `id`: its state, or, if it has ended, everything from its images on.
    pub(super) fn answer_again(&mut self, id: &str, mark: RequestMark, reply: Option<Reply>, receipt: Receipt) {
        let messages = match self.queue.get(id) {
            Some(record) => {
                let position = self.queue.position(id).filter(|_| self.queue.running() != Some(id));
                let state = if position.is_some() { State::Queued } else { State::Running };
                let mut record = record.clone();
                record.reply = reply;
                record.warnings.extend(differs(mark, record.mark));
                self.publisher.state(&record, state, position)
            }
            None => match self.ended.get(id) {
                Some(ended) => self.ended_again(ended, mark, reply.as_ref()),
                None => vec![],
            },
        };
        self.publisher.answer(messages, receipt);
    }

    fn ended_again(&self, ended: &EndedJob, mark: RequestMark, reply: Option<&Reply>) -> Vec<Message> {
        let mut messages = vec![];
        if let Some(result) = &ended.result {
            let mut result = result.clone();
            result.warnings.extend(differs(mark, ended.mark));
            let images = result.images.iter().enumerate();
            messages.extend(images.flat_map(|(index, image)| {
                let index = index as u64;
                let again = [self.image_again(&ended.id, index, image), self.output_again(&ended.id, index, image)];
                again.into_iter().flatten()
            }));
            messages.extend(self.publisher.result(&result, reply));
        }
        messages.extend(self.publisher.ended(&ended.id, ended.transaction.clone(), reply, &ended.ending));
        messages
    }

    /// What was published of an image, if it is still there: the file at its path, or a smaller copy.
    fn image_again(&self, job: &str, index: u64, image: &Image) -> Option<Message> {
        let topic = image.topic.clone()?;
        let copy = self.folder.path().join(format!("{job}-{index}-small.jpg"));
        let is_it = |path: &Path| ImageFile::read(path).is_ok_and(|file| file.sha256() == image.sha256);
        let path = image.path.clone().into_iter().chain([copy.clone()]).find(|path| is_it(path))?;
        let sent = SentImage { job: job.to_owned(), index, reduced: path == copy, output: false };
        let payload = MessagePayload::File { path, bytes: image.bytes };
        Some(Message { part: Part::Image(sent), ..Message::new(topic, payload, image.content_type.clone()) })
    }

    /// What was published of what a display shows, if its file is still there.
    fn output_again(&self, job: &str, index: u64, image: &Image) -> Option<Message> {
        let output = image.output.as_ref()?;
        let (topic, path) = (output.topic.clone()?, output.path.clone()?);
        ImageFile::read(&path).ok().filter(|file| file.sha256() == output.sha256)?;
        let sent = SentImage { job: job.to_owned(), index, reduced: false, output: true };
        let payload = MessagePayload::File { path, bytes: output.bytes };
        Some(Message { part: Part::Image(sent), ..Message::new(topic, payload, output.content_type.clone()) })
    }
}

fn differs(mark: RequestMark, other: RequestMark) -> Option<String> {
    (mark.checksum != other.checksum).then(|| DIFFERS.to_owned())
}
