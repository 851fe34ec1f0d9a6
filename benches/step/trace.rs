//! A picture as a trace that chrome://tracing and <https://ui.perfetto.dev> open: each layer with its kind and its size, and
//! for each thread of the pool when it works and when it waits; and where the threads wait, as a table.
//!
//! The format: "Trace Event Format", <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use diffused_engine::request::{Stage, Start};
use diffused_engine::{Engine, Painting};
use serde_json::{Value, json};

use super::kinds::{self, TracedLayer};
use super::threads::{PoolThread, ThreadWatch};
use super::{Clock, now};

/// The row of the layers, above the threads.
const LAYERS: u64 = 0;

/// What a picture's trace is made of.
pub(super) struct PictureTrace {
    layers: Vec<TracedLayer>,
    threads: Vec<PoolThread>,
    /// When the counted steps begin, and the last one's end.
    steps: Vec<f64>,
}

impl PictureTrace {
    /// Paints the picture once more, with a look at the threads.
    pub(super) fn paint(engine: &mut Engine, painting: &Painting) -> Result<PictureTrace> {
        kinds::begin();
        let (watch, mut clock) = (ThreadWatch::start()?, Clock(vec![]));
        engine.paint(painting, Start::Noise, &mut clock)?;
        let end = now();
        let threads = watch.stop()?;
        let steps =
            clock.0.iter().filter(|(stage, ..)| *stage == Stage::Unet).skip(1).map(|begun| begun.2.wall).collect();
        Ok(PictureTrace { layers: kinds::layers(end), threads, steps })
    }

    /// Writes it to `file`.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = json!({"displayTimeUnit": "ms", "traceEvents": self.events()}).to_string();
        fs::write(file, text).with_context(|| file.display().to_string())
    }

    fn events(&self) -> Vec<Value> {
        let mut events = vec![json!({"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "diffused"}})];
        let names = self.threads.iter().map(|thread| (thread.id, thread.name.as_str()));
        for (id, name) in [(LAYERS, "layers")].into_iter().chain(names) {
            events.push(json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": id, "args": {"name": name}}));
            events
                .push(json!({"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": id, "args": {"sort_index": id}}));
        }
        events.extend(self.layers.iter().map(|layer| {
            let TracedLayer { operator, name, kind, shape, macs, .. } = layer;
            let about = json!({"operator": operator, "output": shape, "MMAC": *macs as f64 / 1e6});
            span(LAYERS, name, kind, layer.from, layer.to, about)
        }));
        for thread in &self.threads {
            events.extend(thread.spans.iter().map(|spent| {
                let name = if spent.waits { "waits" } else { "works" };
                span(thread.id, name, "thread", spent.from, spent.to, json!({}))
            }));
        }
        events
    }

    /// Where the threads wait in the counted steps: by the UNet's parts and, within these, by kind of layer.
    pub(super) fn print_waits(&self) {
        let (Some(first), Some(last)) = (self.steps.first(), self.steps.last()) else { return };
        let mut parts: BTreeMap<(&str, &str), [f64; 2]> = BTreeMap::new();
        for layer in self.layers.iter().filter(|layer| (*first..*last).contains(&layer.from)) {
            let seconds = layer.to - layer.from;
            let waiting: f64 = self.threads.iter().map(|thread| thread.waiting(layer.from, layer.to)).sum();
            let part = part(&layer.name);
            for key in [(part, "all"), (part, layer.kind), ("all", layer.kind), ("all", "all")] {
                let sum = parts.entry(key).or_default();
                *sum = [sum[0] + seconds, sum[1] + waiting];
            }
        }
        let steps = (self.steps.len() - 1) as f64;
        println!("{:<16} {:<16} {:>10} {:>10}", "part", "kind", "ms a step", "waiting");
        for ((part, kind), [seconds, waiting]) in parts {
            let share = 100.0 * waiting / (seconds * self.threads.len() as f64).max(1e-9);
            println!("{part:<16} {kind:<16} {:>10.2} {share:>9.1}%", 1e3 * seconds / steps);
        }
    }
}

/// What of the UNet a layer belongs to: `down_blocks.0`, `mid_block`, …
fn part(name: &str) -> &str {
    let words = match name.split('.').next() {
        Some("down_blocks" | "up_blocks") => 2,
        Some("mid_block") => 1,
        _ => return "the rest",
    };
    name.match_indices('.').nth(words - 1).map_or(name, |(end, _)| &name[..end])
}

fn span(row: u64, name: &str, kind: &str, from: f64, to: f64, about: Value) -> Value {
    let (at, length) = (1e6 * from, 1e6 * (to - from));
    json!({"ph": "X", "pid": 1, "tid": row, "name": name, "cat": kind, "ts": at, "dur": length, "args": about})
}

/// Checks that `file` is a trace with layers of every kind and with threads that work and wait.
pub(super) fn check(file: &Path) -> Result<()> {
    let trace: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let events = trace["traceEvents"].as_array().context("no events")?;
    for category in ["convolution", "linear", "self-attention", "cross-attention", "norm", "thread"] {
        let mut of_category = events.iter().filter(|event| event["cat"] == category);
        ensure!(of_category.any(|event| event["dur"].as_f64() > Some(0.0)), "no {category} in {}", file.display());
    }
    for state in ["works", "waits"] {
        ensure!(events.iter().any(|event| event["name"] == state), "no thread {state}");
    }
    Ok(())
}
