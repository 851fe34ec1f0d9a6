//! A job that came by HTTP: what the device has said of it, for who asks how far it is and for who waits for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Zoned;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::commands::arrivals::Arrivals;
use crate::commands::watch::state_line;
use crate::contract::messages::{JobProgress, JobState, State};

/// How a job ended.
pub(super) struct JobEnd {
    /// With the reason, if it did not end well.
    pub(super) state: JobState,
    /// Its images and its result.
    pub(super) arrivals: Arrivals,
    /// What the device warned of.
    pub(super) warnings: Vec<String>,
    /// When it came.
    pub(super) timestamp: String,
}

/// A job between its request and its end.
pub(super) struct WebJob {
    pub(super) id: String,
    /// Where its request is published.
    pub(super) topic: &'static str,
    /// Kept as long as somebody waits.
    pub(super) request: Bytes,
    /// Whether a client has asked to end it.
    pub(super) is_interrupted: bool,
    timestamp: String,
    state: Option<JobState>,
    progress: Option<JobProgress>,
    preview: Option<Bytes>,
    arrivals: Arrivals,
    warnings: Vec<String>,
    /// Whether anything was heard of it over this connection.
    pub(super) is_answered: bool,
    /// Whether its request was published again for the sake of its images.
    is_repeated: bool,
    /// Told of the first answer.
    first: Option<oneshot::Sender<()>>,
    /// Told of the end; `None`: nobody waits.
    waiter: Option<oneshot::Sender<JobEnd>>,
}

impl WebJob {
    /// A new job; who waits is told of the first answer and of the end.
    pub(super) fn new(
        id: String,
        topic: &'static str,
        request: Bytes,
    ) -> (WebJob, oneshot::Receiver<()>, oneshot::Receiver<JobEnd>) {
        let (first, answered) = oneshot::channel();
        let (waiter, end) = oneshot::channel();
        let job = WebJob {
            id,
            topic,
            request,
            is_interrupted: false,
            timestamp: Zoned::now().strftime("%Y%m%d%H%M%S").to_string(),
            state: None,
            progress: None,
            preview: None,
            arrivals: Arrivals::default(),
            warnings: vec![],
            is_answered: false,
            is_repeated: false,
            first: Some(first),
            waiter: Some(waiter),
        };
        (job, answered, end)
    }

    /// Takes in a part of what the device publishes of it; gives the state that ends it.
    pub(super) fn hear(&mut self, part: &str, payload: Bytes) -> Option<JobState> {
        self.is_answered = true;
        // Whoever waited may have gone.
        let _ = self.first.take().map(|first| first.send(()));
        match part.split_once('/') {
            None if part == "state" => {
                let state: JobState = serde_json::from_slice(&payload).ok()?;
                self.warnings.extend(
                    state.warnings.iter().filter(|text| !self.warnings.contains(text)).cloned().collect::<Vec<_>>(),
                );
                if !matches!(state.state, State::Queued | State::Running) {
                    return Some(state);
                }
                self.state = Some(state);
            }
            None if part == "progress" => self.progress = serde_json::from_slice(&payload).ok(),
            None if part == "preview" => self.preview = Some(payload),
            _ if self.waiter.is_none() => {}
            None if part == "result" => self.arrivals.result = serde_json::from_slice(&payload).ok(),
            Some(("image", number)) => self.arrivals.add(number.parse().ok()?, payload),
            _ => {}
        }
        None
    }

    /// Whether the request is to be published once more after it was done: images passed while the connection was gone.
    pub(super) fn wants_repeat(&mut self, state: &JobState) -> bool {
        let lacks = state.state == State::Done && self.waiter.is_some() && !self.arrivals.has_images();
        lacks && !std::mem::replace(&mut self.is_repeated, true)
    }

    /// Tells who waits.
    pub(super) fn end(self, state: JobState) {
        let WebJob { arrivals, warnings, timestamp, .. } = self;
        let end = JobEnd { state, arrivals, warnings, timestamp };
        if let Some(waiter) = self.waiter {
            // It may have gone.
            let _ = waiter.send(end);
        }
    }

    /// Nobody waits any more: what only its images need is dropped.
    pub(super) fn leave(&mut self) {
        (self.waiter, self.request, self.arrivals) = (None, Bytes::new(), Arrivals::default());
    }

    /// Over a new connection, nothing was heard of it yet.
    pub(super) fn forget_answer(&mut self) {
        self.is_answered = false;
    }

    /// Whether somebody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiter.is_some()
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.state == State::Running)
    }

    /// As A1111's web API tells it.
    pub(super) fn progress(&self, with_image: bool) -> Value {
        // As there: what has not begun has a little progress, since none at all means that there is no job.
        let share = self.progress.map_or(0.0, |progress| progress.progress).max(0.01);
        let (step, steps) = self.progress.map_or((0, 0), |progress| (progress.step, progress.steps));
        let (image, images) = self.progress.map_or((0, 1), |progress| (progress.image, progress.images));
        let preview = self.preview.as_ref().filter(|_| with_image).map(|bytes| STANDARD.encode(bytes));
        let text = self.state.as_ref().map(|state| state_line(&JobState { warnings: vec![], ..state.clone() }));
        json!({
            "progress": share,
            "eta_relative": self.progress.and_then(|progress| progress.eta_relative).unwrap_or(0.0),
            "state": {
                "skipped": false,
                "interrupted": self.is_interrupted,
                "stopping_generation": self.is_interrupted,
                "job": self.id,
                "job_count": images,
                "job_timestamp": self.timestamp,
                "job_no": image,
                "sampling_step": step,
                "sampling_steps": steps,
            },
            "current_image": preview,
            "textinfo": text,
        })
    }
}

/// The progress where there is no job.
pub(super) fn idle() -> Value {
    json!({
        "progress": 0.0,
        "eta_relative": 0.0,
        "state": {
            "skipped": false,
            "interrupted": false,
            "stopping_generation": false,
            "job": "",
            "job_count": 0,
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": 0,
            "sampling_steps": 0,
        },
        "current_image": null,
        "textinfo": null,
    })
}
