//! What the demo model paints of the prompts that are measured.

use diffused::painting::model::Model;
use diffused_engine::Options;
use diffused_engine::request::{NoObserver, Request, Start};
use diffused_engine::sampler::SamplerKind;
use image::RgbImage;

/// What a request asks for to take less time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LessWork {
    pub(crate) guidance_interval: Option<[f64; 2]>,
    pub(crate) cache_interval: Option<usize>,
}

/// The first `count` of `prompts.txt` as the demo model paints them.
pub(crate) fn paint(LessWork { guidance_interval, cache_interval }: LessWork, count: usize) -> Vec<(String, RgbImage)> {
    let model = Model::new(None, Options::default()).unwrap();
    let resolver = model.resolver().expect("the demo model's tokenizer opens");
    let mut engine = model.open().expect("the demo model opens");
    let mut paint = |(prompt, seed): (&str, u64)| {
        let request = Request {
            prompt: prompt.to_owned(),
            width: Some(128),
            height: Some(128),
            steps: Some(20),
            cfg_scale: Some(5.0),
            sampler: Some(SamplerKind::Ddim),
            guidance_interval,
            cache_interval,
            seed,
            ..Request::default()
        };
        let painting = resolver.resolve(&request, None).expect("a request that can be painted");
        (prompt.to_owned(), engine.paint(&painting, Start::Noise, &mut NoObserver).expect("an image"))
    };
    include_str!("prompts.txt").lines().take(count).zip(1..).map(&mut paint).collect()
}
