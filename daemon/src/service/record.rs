//! What the service knows of a job from its arrival to its end; the queue carries it.

use std::sync::Arc;

use diffused_engine::Painting;

use super::Reply;
use crate::contract::messages;
use crate::jobs::request::Job;

/// A job.
#[derive(Debug)]
pub(super) struct JobRecord {
    /// The request.
    pub(super) job: Arc<Job>,
    /// What is painted; each further image has the next seed.
    pub(super) painting: Painting,
    /// Where copies of its messages go.
    pub(super) reply: Option<Reply>,
    /// What the client should know, each once.
    pub(super) warnings: Vec<String>,
    /// What was painted so far.
    pub(super) images: Vec<messages::Image>,
}
