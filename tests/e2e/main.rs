//! The real program against a real broker: what a client sees on MQTT, in the contract's order, in good and bad times.
//! Needs `mosquitto`, which `tests/run` installs.

mod bench;
mod broken;
mod init_images;
mod jobs;
mod requests;
mod times;
