//! The MQTT contract: the names of the topics, and what travels over them. Plain data; nothing here sends or paints.

#[cfg(test)]
mod asyncapi;
pub mod commands;
pub mod discovery;
pub mod fault;
pub mod info;
pub mod messages;
pub mod request;
pub mod settings;
pub mod topics;
