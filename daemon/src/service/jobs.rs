//! Jobs from the queue to the worker and back: the queue's effects and the worker's events become messages.

use serde::Serialize;

use super::*;

impl Service {
    /// Changes the queue and does what follows from it.
    pub(super) fn apply(&mut self, event: Event<Work>) {
        for effect in self.queue.apply(event, Instant::now()) {
            match effect {
                Effect::Queued { id, position } => self.send_state(&id, "queued", Some(position)),
                Effect::Start { id, work } => self.start_job(&id, work),
                Effect::Stop { id } => {
                    debug!(id, "asked to stop");
                    self.stop.store(true, Ordering::Relaxed);
                }
                Effect::Ended { id, ending } => self.end(&id, &ending),
            }
        }
    }

    pub(super) fn on_painter(&mut self, event: worker::Event) {
        let Some(id) = self.queue.running().map(str::to_owned) else { return };
        match event {
            worker::Event::Progress(progress) => {
                let message = Message::json(self.topics.job(&id, "progress"), &progress);
                self.mqtt.publish(Message { certain: false, ..message });
            }
            worker::Event::Painted(painted) => self.send_image(&id, painted),
            worker::Event::Finished(Ok(summary)) => {
                self.send_result(&id, &summary);
                self.apply(Event::Finished(Ending::Done));
            }
            worker::Event::Finished(Err(fault)) => {
                let cancelled = self.stop.load(Ordering::Relaxed) && fault.code == crate::fault::Code::Cancelled;
                let ending = if cancelled { Ending::Cancelled(fault) } else { Ending::Failed(fault) };
                self.apply(Event::Finished(ending));
            }
        }
    }

    /// Sends a job's state or result, and a copy to where its client wants answers.
    pub(super) fn send(&self, name: &str, id: &str, reply: Option<&Reply>, value: &impl Serialize) {
        if let Some(reply) = reply {
            let copy = Message::json(reply.topic.clone(), value);
            self.mqtt.publish(Message { correlation: reply.correlation.clone(), ..copy });
        }
        self.mqtt.publish(Message::json(self.topics.job(id, name), value));
    }

    fn send_state(&self, id: &str, state: &'static str, position: Option<usize>) {
        let Some(card) = self.cards.get(id) else { return };
        let (transaction, warnings) = (card.transaction.as_ref(), card.warnings.as_slice());
        let state = State { id, transaction, state, position, error: None, warnings };
        self.send("state", id, card.reply.as_ref(), &state);
    }

    fn start_job(&mut self, id: &str, work: Work) {
        info!(id, steps = work.painting.parameters().steps, "running");
        self.send_state(id, "running", None);
        self.stop = Arc::default();
        let empty = Message::new(self.topics.job(id, "image/00"), Bytes::new(), "image/jpeg");
        let limit = self.mqtt.max_packet().map(|packet| packet.saturating_sub(empty.packet_size()));
        self.worker.run(Task { job: work.job, painting: work.painting, limit, stop: self.stop.clone() });
    }

    fn send_image(&mut self, id: &str, painted: worker::Painted) {
        let topic = self.topics.job(id, &format!("image/{}", painted.index));
        if let Some(card) = self.cards.get_mut(id) {
            card.images.push(report::Image::new(&painted, &topic));
            card.warnings.extend(painted.warnings);
        }
        if painted.fits {
            let content_type = painted.file.format.content_type();
            let image = Message::new(topic, Bytes::from(painted.file.bytes), content_type);
            let retain = self.config.mqtt.retain_image;
            let latest = Message { topic: self.topics.of("image"), certain: false, retain, ..image.clone() };
            self.mqtt.publish(image);
            self.mqtt.publish(latest);
        }
    }

    fn send_result(&mut self, id: &str, summary: &worker::Summary) {
        let Some(card) = self.cards.get(id) else { return };
        let result = report::JobResult {
            id,
            transaction: card.transaction.as_ref(),
            status: "done",
            parameters: &summary.parameters,
            model_sha256: self.resolver.model_sha256(),
            timings: &summary.timings,
            images: &card.images,
            warnings: &card.warnings,
        };
        self.send("result", id, card.reply.as_ref(), &result);
        let steps = summary.parameters.steps.max(1) * card.images.len().max(1);
        self.seconds_per_step = Some(summary.timings.unet / steps as f64);
    }

    fn end(&mut self, id: &str, ending: &Ending) {
        let card = self.cards.remove(id).unwrap_or_default();
        match ending {
            Ending::Done => info!(id, "done"),
            Ending::Cancelled(fault) => info!(id, "ended: {fault}"),
            Ending::Failed(fault) | Ending::Rejected(fault) => warn!(id, "ended: {fault}"),
        }
        let state = State::ended(id, card.transaction.as_ref(), ending);
        self.send("state", id, card.reply.as_ref(), &state);
    }
}
