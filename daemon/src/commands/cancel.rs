//! `diffused cancel`: one job of a device, or all.

use std::time::Duration;

use serde_json::json;

use crate::commands::cli::{CancelArgs, print_line};
use crate::commands::client::{self, Client};
use crate::contract::commands::{CancelRequest, ResponseData};
use crate::failure::Failure;

/// Cancels and shows what was cancelled.
pub fn run(arguments: &CancelArgs) -> Result<(), Failure> {
    client::run(arguments.device.json, async {
        let mut client = Client::connect(&arguments.device, &[], Duration::ZERO).await?;
        let id = arguments.id.as_ref().map(|id| id.0.clone());
        let all = arguments.all.then_some(true);
        let data = client.ask("cancel", json!(CancelRequest { id, all, ..CancelRequest::default() })).await?;
        client.finish().await;
        match data {
            ResponseData::Cancelled(jobs) if !arguments.device.json => match jobs.cancelled.join(", ") {
                ids if ids.is_empty() => print_line("there was no job to cancel"),
                ids => print_line(format!("cancelled: {ids}")),
            },
            data => print_line(json!(data)),
        }
        Ok(())
    })
}
