//! Resident memory over the seconds of a run, drawn: one panel for each budget, with the budget's line and the stages.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::child::{MIB, Run};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (900, 780);
const FILL: RGBColor = RGBColor(90, 140, 200);
const BUDGET: RGBColor = RGBColor(200, 60, 40);
const GREY: RGBColor = RGBColor(110, 110, 110);

/// Draws runs, each with its title and its budget in bytes.
pub(crate) fn draw(path: &Path, runs: &[(String, u64, &Run)]) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let drawn = root.fill(&WHITE).map_err(|error| anyhow!("{error}")).and_then(|()| {
        let panels = root.split_evenly((runs.len(), 1));
        panels.iter().zip(runs).try_for_each(|(area, (title, budget, run))| panel(area, title, *budget, run))
    });
    drawn.and_then(|()| root.present().map_err(|error| anyhow!("{error}")))
}

fn panel(area: &Area, title: &str, budget: u64, run: &Run) -> Result<()> {
    let end = run.memory.last().map_or(1.0, |(at, _)| *at);
    let most = run.peak.max(budget) as f64 / MIB * 1.25;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..most)
        .map_err(|error| anyhow!("{error}"))?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().x_desc("seconds").y_desc("resident, MiB").y_labels(6).light_line_style(WHITE);
    mesh.draw().map_err(|error| anyhow!("{error}"))?;
    let memory = run.memory.iter().filter(|(_, bytes)| *bytes > 0).map(|(at, bytes)| (*at, *bytes as f64 / MIB));
    let area = AreaSeries::new(memory, 0.0, FILL.mix(0.35)).border_style(FILL.stroke_width(1));
    chart.draw_series(area).map_err(|error| anyhow!("{error}"))?;
    let line = |points: Vec<(f64, f64)>, style: ShapeStyle| PathElement::new(points, style);
    let budget = budget as f64 / MIB;
    let limit = line(vec![(0.0, budget), (end, budget)], BUDGET.stroke_width(2));
    let stages = run.stages.iter().map(|(at, _)| line(vec![(*at, 0.0), (*at, most)], GREY.stroke_width(1)));
    chart.draw_series(stages.chain([limit])).map_err(|error| anyhow!("{error}"))?;
    let label = |text: String, at, colour: RGBColor| Text::new(text, at, ("sans-serif", 13).into_font().color(&colour));
    let names = run.stages.iter().enumerate().map(|(i, (at, stage))| {
        // Stages that are over in a moment would write over each other.
        let height = if i % 2 == 0 { 0.985 } else { 0.92 };
        label(format!(" {}", name(stage)), (*at, most * height), GREY)
    });
    let budget = label(format!("budget {budget:.0} MiB"), (end * 0.86, budget + most * 0.07), BUDGET);
    chart.draw_series(names.chain([budget])).map_err(|error| anyhow!("{error}"))?;
    Ok(())
}

fn name(stage: &str) -> &str {
    match stage {
        "text_encoder" => "text encoder",
        "vae_encoder" => "VAE encoder",
        "unet" => "UNet, step by step",
        "vae_decoder" => "VAE decoder",
        other => other,
    }
}
