//! Requests that come again: the broker repeats what was not acknowledged, and clients repeat what they hear nothing of. A
//! repeated request is answered with the job that there is, and not painted again.

use super::Service;
use crate::contract::messages::{Ending, State};
use crate::jobs::record::{EndedJob, Reply, RequestMark};
use crate::jobs::request::Job;
use crate::mqtt::message::{Message, MessagePayload};
use crate::mqtt::receipts::Receipt;

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
            for image in &result.images {
                let (Some(topic), Some(path)) = (&image.topic, &image.path) else { continue };
                // A smaller copy that was published is not at this path.
                if std::fs::metadata(path).is_ok_and(|file| file.len() == image.bytes as u64) {
                    let payload = MessagePayload::File { path: path.clone(), bytes: image.bytes };
                    messages.push(Message::new(topic.clone(), payload, image.content_type.clone()));
                }
            }
            messages.extend(self.publisher.result(&result, reply));
        }
        messages.extend(self.publisher.ended(&ended.id, ended.transaction.clone(), reply, &ended.ending));
        messages
    }
}

fn differs(mark: RequestMark, other: RequestMark) -> Option<String> {
    (mark.checksum != other.checksum).then(|| DIFFERS.to_owned())
}
