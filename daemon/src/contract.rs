//! The MQTT contract: the names of the topics, and what travels over them. Plain data; nothing here sends or paints.

pub mod fault;
pub mod messages;
pub mod topics;
