//! `diffused plan`: what painting an image would need, without painting it.

use diffused_engine::Options;
use diffused_engine::hires::HiresRequest;
use diffused_engine::memory_plan::{mib, sum_of_peaks, work_of};
use diffused_engine::request::Request;
use serde_json::json;

use crate::budget;
use crate::commands::cli::{PlanArgs, print_line};
use crate::failure::Failure;
use crate::painting::model::Model;

/// Prints how the memory would be divided.
pub fn run(arguments: &PlanArgs) -> Result<(), Failure> {
    crate::logging::start("error");
    let budget = budget::or_free(arguments.memory);
    let options = Options { threads: arguments.threads.map(usize::from), memory: budget, beside: 0 };
    let model = Model::new(arguments.model.as_deref(), options)?;
    let (resolver, mut engine) = (model.resolver()?, model.open()?);
    let default = resolver.manifest().picture.default;
    let [width, height] = [arguments.width, arguments.height].map(|side| side.unwrap_or(default));
    let PlanArgs { cfg_scale, guidance_interval, cache_interval, steps, decoder, upscale, hires, .. } = *arguments;
    let upscaler = arguments.hires_upscaler;
    let hires = hires.map(|scale| HiresRequest { scale: Some(scale), upscaler, ..HiresRequest::default() });
    let (width, height) = (Some(width), Some(height));
    let request = Request {
        width,
        height,
        cfg_scale,
        guidance_interval,
        cache_interval,
        steps,
        decoder,
        upscale,
        hires,
        ..Request::default()
    };
    // An init image is scaled to what is painted before memory is divided, so any size of it gives the same plan.
    let init_size = arguments.image_to_image.then_some((default as u32, default as u32));
    let painting = resolver.resolve(&request, init_size)?;
    let parameters = painting.parameters();
    let plan = engine.plan(&painting)?;
    let (smallest, work) = (engine.smallest_budget(&painting)?, engine.work(&painting)?);
    if arguments.json {
        let peak = plan.peak();
        let stages = plan.stages;
        print_line(json!({
            "budget": budget, "smallest": smallest, "peak": peak, "stages": stages, "multiply_adds": work
        }));
        return Ok(());
    }
    let guidance = if parameters.cfg_scale > 1.0 { "with guidance" } else { "without guidance" };
    let name = &resolver.manifest().name;
    let (width, height) = parameters.size();
    print_line(format!("{name}, {width} x {height}, {guidance}, {}", within(budget)));
    print_line(format!("{plan}{}", sum_of_peaks(options.process())));
    print_line(format!("The smallest budget for this is {} MiB.", smallest >> 20));
    print_line(format!(
        "The image takes {}.",
        work_of(work, parameters.steps + parameters.hires.as_ref().map_or(0, |hires| hires.steps))
    ));
    Ok(())
}

fn within(budget: Option<u64>) -> String {
    budget.map_or("in as much memory as it takes".into(), |bytes| format!("in {:.1} MiB", mib(bytes)))
}
