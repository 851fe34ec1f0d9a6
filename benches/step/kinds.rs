//! Where a step's time goes, by kind of layer: what the engine traces before each node of a graph, and the time in between.

use std::fmt::{self, Debug};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use diffused_kernels::{Level, peak};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::{Seconds, now};

/// Kinds of layers, in the table's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LayerKind {
    Convolution,
    Linear,
    SelfAttention,
    CrossAttention,
    Norm,
    Other,
}

impl LayerKind {
    const ALL: [(LayerKind, &str); 6] = [
        (LayerKind::Convolution, "convolution"),
        (LayerKind::Linear, "linear"),
        (LayerKind::SelfAttention, "self-attention"),
        (LayerKind::CrossAttention, "cross-attention"),
        (LayerKind::Norm, "norm"),
        (LayerKind::Other, "other"),
    ];

    /// Of a node by its operator and its name, which is that of the module in diffusers.
    fn of(operator: &str, node: &str) -> LayerKind {
        match operator {
            "Conv2d" => LayerKind::Convolution,
            "Linear" => LayerKind::Linear,
            "Attention" if node.contains("attn2") => LayerKind::CrossAttention,
            "Attention" => LayerKind::SelfAttention,
            "GroupNorm" | "LayerNorm" => LayerKind::Norm,
            _ => LayerKind::Other,
        }
    }
}

/// A node that begins.
struct NodeStart {
    kind: LayerKind,
    fields: NodeFields,
    at: Seconds,
}

/// A layer in a trace.
pub(super) struct TracedLayer {
    /// The operator.
    pub(super) operator: String,
    /// That of the module in diffusers.
    pub(super) name: String,
    /// A kind's name in the table.
    pub(super) kind: &'static str,
    /// The shape of what it makes.
    pub(super) shape: String,
    /// Multiply-adds.
    pub(super) macs: u64,
    /// When it begins, seconds since the program's start.
    pub(super) from: f64,
    /// When the next one begins.
    pub(super) to: f64,
}

static STARTS: Mutex<Vec<NodeStart>> = Mutex::new(Vec::new());

/// Writes down what the engine traces.
pub(super) struct NodeRecorder;

impl NodeRecorder {
    /// Listens from now on.
    pub(super) fn install() {
        tracing::subscriber::set_global_default(NodeRecorder).expect("there is no other subscriber");
    }
}

impl Subscriber for NodeRecorder {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.is_event() && metadata.target() == "diffused_engine::graph::schedule"
    }

    fn event(&self, event: &Event) {
        let mut fields = NodeFields::default();
        event.record(&mut fields);
        let start = NodeStart { kind: LayerKind::of(&fields.operator, &fields.node), fields, at: now() };
        STARTS.lock().unwrap_or_else(PoisonError::into_inner).push(start);
    }

    fn new_span(&self, _: &Attributes) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The fields of an event.
#[derive(Default)]
struct NodeFields {
    operator: String,
    node: String,
    shape: String,
    macs: u64,
}

impl Visit for NodeFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "macs" {
            self.macs = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "operator" => self.operator = value.to_owned(),
            "node" => self.node = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "shape" {
            self.shape = format!("{value:?}");
        }
    }
}

/// What layers of a kind cost in a step.
#[derive(Debug, Clone, Copy, Default)]
struct KindCost {
    macs: u64,
    spent: Seconds,
}

/// A step by kinds of layers.
pub(super) struct KindTable([KindCost; 6]);

/// Forgets the nodes so far.
pub(super) fn begin() {
    STARTS.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The nodes so far, of which the last ends at `end`.
pub(super) fn layers(end: Seconds) -> Vec<TracedLayer> {
    let starts = std::mem::take(&mut *STARTS.lock().unwrap_or_else(PoisonError::into_inner));
    let ends: Vec<f64> = starts.iter().skip(1).map(|start| start.at.wall).chain([end.wall]).collect();
    let layers = starts.into_iter().zip(ends).map(|(NodeStart { kind, fields, at }, to)| {
        let NodeFields { operator, node: name, shape, macs } = fields;
        TracedLayer { operator, name, kind: LayerKind::ALL[kind as usize].1, shape, macs, from: at.wall, to }
    });
    layers.collect()
}

impl KindTable {
    /// Of the nodes that began in the steps between these times, per step.
    pub(super) fn of_steps(steps: &[Seconds]) -> KindTable {
        let mut costs = [KindCost::default(); 6];
        let starts = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return KindTable(costs) };
        let within = starts.iter().filter(|start| (first.wall..last.wall).contains(&start.at.wall)).collect::<Vec<_>>();
        let ends = within.iter().skip(1).map(|start| start.at).chain([*last]);
        for (start, end) in within.iter().zip(ends) {
            let cost = &mut costs[start.kind as usize];
            cost.macs += start.fields.macs;
            cost.spent.wall += end.wall - start.at.wall;
            cost.spent.cpu += end.cpu - start.at.cpu;
        }
        let count = steps.len() - 1;
        for cost in &mut costs {
            cost.macs /= count as u64;
            cost.spent = Seconds { wall: cost.spent.wall / count as f64, cpu: cost.spent.cpu / count as f64 };
        }
        KindTable(costs)
    }

    /// The one of less processor time.
    pub(super) fn or_better(self, other: KindTable) -> KindTable {
        if other.cpu() < self.cpu() { other } else { self }
    }

    /// Whether every kind of layer that multiplies was seen.
    ///
    /// # Errors
    ///
    /// If one was not.
    pub(super) fn check(&self) -> Result<()> {
        for (kind, name) in LayerKind::ALL.into_iter().take(4) {
            ensure!(self.0[kind as usize].macs > 0, "no {name} in a step");
        }
        Ok(())
    }

    /// Multiply-adds of a step.
    fn macs(&self) -> u64 {
        self.0.iter().map(|cost| cost.macs).sum()
    }

    /// Processor time of a step.
    fn cpu(&self) -> f64 {
        self.0.iter().map(|cost| cost.spent.cpu).sum()
    }

    /// What part of `peak`, multiply-adds a second on a core, a step reaches.
    pub(super) fn share_of_peak(&self, peak: f64) -> f64 {
        self.macs() as f64 / self.cpu() / peak
    }
}

/// The table for a core whose int8 peak is `peak` multiply-adds a second.
pub(super) struct WithPeak<'a>(pub(super) &'a KindTable, pub(super) f64);

impl fmt::Display for WithPeak<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let WithPeak(table, peak) = *self;
        let whole = table.cpu();
        writeln!(f, "{:<16} {:>8} {:>8} {:>8} {:>8} {:>8}", "a step", "GMAC", "cpu s", "share", "GOP/s", "of peak")?;
        let mut line = |name: &str, macs: u64, cpu: f64| {
            let (macs, rate) = (macs as f64, macs as f64 / cpu.max(1e-9));
            write!(f, "{name:<16} {:>8.1} {cpu:>8.3} {:>7.1}%", 1e-9 * macs, 100.0 * cpu / whole)?;
            if macs == 0.0 {
                return writeln!(f);
            }
            writeln!(f, " {:>8.0} {:>7.1}%", 2e-9 * rate, 100.0 * rate / peak)
        };
        for (kind, name) in LayerKind::ALL {
            let cost = table.0[kind as usize];
            line(name, cost.macs, cost.spent.cpu)?;
        }
        line("all", table.macs(), whole)
    }
}

/// Multiply-adds a second of a register-only loop of int8 on one core; `None` at the scalar level, which has no such loop.
pub(super) fn core_peak(level: Level, smoke: bool) -> Option<f64> {
    if level == Level::Scalar {
        return None;
    }
    let rounds = if smoke { 10_000 } else { 20_000_000 };
    let run = || {
        let before = now();
        let macs = peak::int8(level, rounds);
        macs as f64 / (now().cpu - before.cpu).max(1e-9)
    };
    Some((0..5).map(|_| run()).fold(0.0, f64::max))
}
