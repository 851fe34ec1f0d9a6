//! Requests and what becomes of them, before and after they are painted.

pub mod init_image;
pub mod journal;
pub mod muse;
pub mod queue;
pub mod record;
pub mod request;
pub mod sources;
pub mod wildcards;
