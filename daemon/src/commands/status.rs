//! `diffused status`: whether a device is online, what it is, and how it is.

use std::time::Duration;

use serde_json::json;

use crate::commands::cli::{DeviceArgs, print_line};
use crate::commands::client::{self, Client, Heard};
use crate::commands::doctor::amount;
use crate::commands::list;
use crate::contract::commands::{JobList, ResponseData};
use crate::contract::info::DeviceInfo;
use crate::contract::messages::Health;
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
    // A daemon of an earlier version does not know the command.
    let health = match client.ask("request/health", json!({})).await {
        Ok(ResponseData::Health(health)) => Some(health),
        _ => None,
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
            "device": client.device, "status": "online", "info": info, "health": health, "jobs": jobs, "online": online,
        });
        print_line(status);
        return Ok(());
    }
    let others: Vec<&str> = online.iter().map(String::as_str).filter(|device| *device != client.device).collect();
    print_line(format!("{:<10} online", client.device));
    let about = info.iter().flat_map(about).chain(health.iter().flat_map(|health| condition(health)));
    about.for_each(|(part, text)| print_line(format!("{part:<10} {text}")));
    list::lines(&jobs, &client.options).iter().for_each(|line| print_line(format!("{:<10} {line}", "jobs")));
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

/// How the device is, in words.
fn condition(health: &Health) -> Vec<(&'static str, String)> {
    let most = health.memory_limit.map(|most| format!(", for painting at most {}", amount(most))).unwrap_or_default();
    let peak = health.peak_rss.map(|peak| format!(", at its peak {}", amount(peak))).unwrap_or_default();
    let slowed = health.throttled == Some(true);
    let slowed = if slowed { ", slowed down for heat or low voltage" } else { "" };
    let parts = [
        ("memory", health.rss.map(|held| format!("{}{peak}{most}", amount(held)))),
        ("processor", health.temperature.map(|degrees| format!("{degrees:.0} °C{slowed}"))),
        ("disk", health.disk_free.map(|free| format!("{} free", amount(free)))),
        ("speed", health.seconds_per_step.map(|seconds| format!("{seconds:.2} s a step in the last job"))),
        ("unsent", (health.undelivered > 0).then(|| format!("{} messages wait for the broker", health.undelivered))),
    ];
    let parts = parts.into_iter().filter_map(|(part, text)| Some((part, text?)));
    parts.chain(health.problems.iter().map(|problem| ("problem", problem.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_condition_in_words() {
        let health = json!({
            "rss": 52 << 20, "peak_rss": 60 << 20, "memory_limit": 200 << 20, "memory_pressure": null,
            "temperature": 81.4, "throttled": true, "disk_free": 3_u64 << 29, "queue": 0, "busy": false,
            "paused": false, "seconds_per_step": 0.084, "undelivered": 2, "problems": ["the disk is full"],
        });
        let lines = condition(&serde_json::from_value(health).unwrap());
        let lines: Vec<String> = lines.into_iter().map(|(part, text)| format!("{part}: {text}")).collect();
        assert_eq!(
            lines,
            [
                "memory: 52 MiB, at its peak 60 MiB, for painting at most 200 MiB",
                "processor: 81 °C, slowed down for heat or low voltage",
                "disk: 1.5 GiB free",
                "speed: 0.08 s a step in the last job",
                "unsent: 2 messages wait for the broker",
                "problem: the disk is full",
            ]
        );
    }
}
