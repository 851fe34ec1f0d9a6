//! `diffused status`: whether a device is online, what it is, and how it is.

use std::time::Duration;

use serde_json::json;

use crate::commands::cli::{DeviceArgs, print_line};
use crate::commands::client::{self, Client, Heard};
use crate::commands::list;
use crate::contract::commands::{JobList, ResponseData};
use crate::contract::info::DeviceInfo;
use crate::failure::Failure;

/// Prints it, and which other devices are online.
pub fn run(arguments: &DeviceArgs) -> Result<(), Failure> {
    client::run(arguments.json, async {
        let mut client = Client::reach(arguments, &["info"], Duration::ZERO).await?;
        client.hear_statuses().await;
        match client.is_online() {
            Some(true) => show(&mut client, arguments.json).await,
            Some(false) => Err(client.absent("is offline")),
            None => Err(client.absent("is not known to the broker")),
        }
    })
}

async fn show(client: &mut Client, json: bool) -> Result<(), Failure> {
    let jobs = match client.ask("request/list", json!({})).await? {
        ResponseData::Jobs(jobs) => jobs,
        _ => JobList { running: None, waiting: vec![], paused: false },
    };
    let mut info = None;
    // It came with the status.
    while let Ok(Ok(heard)) = tokio::time::timeout(Duration::ZERO, client.hear()).await {
        if let Heard::Message(name, payload) = heard
            && name == "info"
        {
            info = serde_json::from_slice::<DeviceInfo>(&payload).ok();
        }
    }
    client.finish().await;
    let online = client.online();
    if json {
        let status = json!({
            "device": client.device, "status": "online", "info": info, "jobs": jobs, "online": online,
        });
        print_line(status);
        return Ok(());
    }
    let others: Vec<&str> = online.iter().map(String::as_str).filter(|device| *device != client.device).collect();
    print_line(format!("{:<10} online", client.device));
    info.iter().flat_map(about).for_each(|(part, text)| print_line(format!("{part:<10} {text}")));
    list::lines(&jobs).iter().for_each(|line| print_line(format!("{:<10} {line}", "jobs")));
    if !others.is_empty() {
        print_line(format!("{:<10} {}", "others", others.join(", ")));
    }
    Ok(())
}

/// What the device is, in words.
fn about(info: &DeviceInfo) -> Vec<(&'static str, String)> {
    let (model, defaults, sizes) = (&info.model, &info.defaults, &info.sizes);
    let side = sizes.default;
    vec![
        ("version", info.version.clone()),
        (
            "model",
            format!(
                "{} ({}, {}), {side} x {side} in {} steps",
                model.name, model.family, model.weights, defaults.steps
            ),
        ),
        ("queue", format!("up to {} jobs", info.limits.queue)),
    ]
}
