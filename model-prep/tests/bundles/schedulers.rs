//! `scheduler_config.json` in every form that is published: what is taken, what is told, and what is refused.

use crate::changed::SourceCopy;
use diffused_engine::bundle::Manifest;
use diffused_engine::sampler::{Clipping, SamplerKind, SamplerOptions, SamplingConfig, Spacing};
use model_prep::{Options, SourceOptions, convert};
use serde_json::{Value, json};

const FILE: &str = "scheduler/scheduler_config.json";
const INDEX: &str = "model_index.json";

/// The demo model with keys of its files set; files by their paths, keys and values.
fn changed(changes: &[(&str, &str, Value)]) -> SourceCopy {
    let source = SourceCopy::new();
    for (file, key, value) in changes {
        source.set(file, key, value.clone());
    }
    source
}

fn taken(source: &SourceCopy, options: &Options) -> (SamplingConfig, String) {
    let warnings = convert(&source.path(), &source.bundle(), options, &mut |_| ()).unwrap().warnings;
    let manifest = Manifest::parse(&std::fs::read(source.bundle().join("bundle.json")).unwrap()).unwrap();
    (manifest.sampling.clone(), warnings.join("\n"))
}

/// Converts, and says one thing that has all of `told`.
#[track_caller]
fn check_told(changes: &[(&str, &str, Value)], sampler: SamplerKind, told: &[&str]) -> SamplingConfig {
    let (sampling, warnings) = taken(&changed(changes), &Options::default());
    assert_eq!(sampling.default, sampler, "{warnings}");
    assert_eq!(warnings.lines().count(), usize::from(!told.is_empty()), "{warnings}");
    told.iter().for_each(|part| assert!(warnings.contains(part), "{part:?} is not in: {warnings}"));
    sampling
}

#[track_caller]
fn check_refused(changes: &[(&str, &str, Value)], told: &[&str]) {
    let source = changed(changes);
    let error = convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap_err().to_string();
    told.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in: {error}"));
}

/// A class in both files.
fn class(name: &str) -> [(&'static str, &'static str, Value); 2] {
    [(FILE, "_class_name", json!(name)), (INDEX, "scheduler", json!(["diffusers", name]))]
}

fn with(name: &str, options: &[(&'static str, Value)]) -> Vec<(&'static str, &'static str, Value)> {
    let mut changes = class(name).to_vec();
    changes.extend(options.iter().map(|(key, value)| (FILE, *key, value.clone())));
    changes
}

#[test]
fn an_option_that_we_lack_is_told_and_the_nearest_sampler_taken() {
    let dpm = "DPMSolverMultistepScheduler";
    for (name, key, value, sampler) in [
        (dpm, "algorithm_type", json!("new-solver"), SamplerKind::Dpmpp2m),
        (dpm, "algorithm_type", json!("dpmsolver"), SamplerKind::Dpmpp2m),
        (dpm, "solver_order", json!(4), SamplerKind::Dpmpp2m),
        (dpm, "use_flow_sigmas", json!(true), SamplerKind::Dpmpp2m),
        (dpm, "variance_type", json!("learned"), SamplerKind::Dpmpp2m),
        ("UniPCMultistepScheduler", "sigma_max", json!(80.0), SamplerKind::Unipc),
        ("LCMScheduler", "timestep_scaling", json!(5.0), SamplerKind::Lcm),
    ] {
        let told = [&format!("our sampler has no {key} = "), &format!("the nearest, {sampler},"), "--sampler"];
        check_told(&with(name, &[(key, value)]), sampler, &told);
    }
    let unknown = with(dpm, &[("predict_epsilon", json!(true))]);
    check_told(&unknown, SamplerKind::Dpmpp2m, &["not taken over: predict_epsilon"]);
    // As the reference, which has no such key in this class.
    check_told(
        &with("EulerAncestralDiscreteScheduler", &[("use_karras_sigmas", json!(true))]),
        SamplerKind::EulerAncestral,
        &[],
    );
}

/// Files as people publish them, and what of them is in the manifest.
#[test]
fn published_options_are_taken_over() {
    let karras = ("use_karras_sigmas", json!(true));
    let sde = ("algorithm_type", json!("sde-dpmsolver++"));
    let unipc = [
        ("solver_order", json!(3)),
        ("solver_type", json!("bh1")),
        ("predict_x0", json!(false)),
        ("disable_corrector", json!([0, 1])),
        ("final_sigmas_type", json!("sigma_min")),
        ("solver_p", json!(null)),
    ];
    type Keys = Vec<(&'static str, Value)>;
    let cases: Vec<(&str, Keys, SamplerKind, Value)> = vec![
        ("DPMSolverMultistepScheduler", vec![karras.clone()], SamplerKind::Dpmpp2mKarras, json!({})),
        ("DPMSolverMultistepScheduler", vec![("solver_type", json!("bh2"))], SamplerKind::Dpmpp2m, json!({})),
        (
            "DPMSolverMultistepScheduler",
            vec![sde.clone(), karras.clone(), ("euler_at_final", json!(true))],
            SamplerKind::Dpmpp2mSde,
            json!({"schedule": "karras", "options": {"dpm_multistep": {"euler_at_final": true}}}),
        ),
        (
            "DPMSolverMultistepScheduler",
            vec![("solver_order", json!(3)), ("lambda_min_clipped", json!(-5.1)), ("use_lu_lambdas", json!(true))],
            SamplerKind::Dpmpp2m,
            json!({"options": {"dpm_multistep":
                {"solver_order": 3, "lambda_min_clipped": -5.1, "use_lu_lambdas": true}}}),
        ),
        (
            "DPMSolverMultistepScheduler",
            vec![("algorithm_type", json!("dpmsolver")), ("final_sigmas_type", json!("sigma_min"))],
            SamplerKind::Dpmpp2m,
            json!({"options": {"dpm_multistep": {"noise_prediction": true, "final_sigma": "sigma_min"}}}),
        ),
        (
            "DPMSolverSinglestepScheduler",
            vec![sde, ("lower_order_final", json!(true)), ("use_beta_sigmas", json!(true))],
            SamplerKind::Dpmpp2s,
            json!({"schedule": "beta", "options": {"dpm_singlestep":
                {"stochastic": true, "lower_order_final": true}}}),
        ),
        (
            "DEISMultistepScheduler",
            vec![("algorithm_type", json!("deis")), ("solver_type", json!("logrho")), ("solver_order", json!(3))],
            SamplerKind::Deis,
            json!({"options": {"deis": {"solver_order": 3}}}),
        ),
        (
            "UniPCMultistepScheduler",
            unipc.to_vec(),
            SamplerKind::Unipc,
            json!({"options": {"unipc": {"solver_order": 3, "solver_type": "bh1", "predict_x0": false,
                "disable_corrector": [0, 1], "final_sigma": "sigma_min"}}}),
        ),
        (
            "EulerDiscreteScheduler",
            vec![
                ("interpolation_type", json!("log_linear")),
                ("timestep_type", json!("continuous")),
                ("sigma_max", json!(700.0)),
                ("final_sigmas_type", json!("sigma_min")),
            ],
            SamplerKind::Euler,
            json!({"options": {"euler": {"log_linear": true, "continuous_timesteps": true, "sigma_max": 700.0,
                "final_sigma": "sigma_min"}}}),
        ),
        ("EulerDiscreteScheduler", vec![karras.clone()], SamplerKind::Euler, json!({"schedule": "karras"})),
        ("HeunDiscreteScheduler", vec![karras.clone()], SamplerKind::Heun, json!({"schedule": "karras"})),
        (
            "LMSDiscreteScheduler",
            vec![("use_exponential_sigmas", json!(true))],
            SamplerKind::Lms,
            json!({"schedule": "exponential"}),
        ),
        ("KDPM2DiscreteScheduler", vec![karras.clone()], SamplerKind::Dpm2, json!({"schedule": "karras"})),
        ("KDPM2AncestralDiscreteScheduler", vec![karras], SamplerKind::Dpm2Ancestral, json!({"schedule": "karras"})),
    ];
    for (name, options, sampler, wanted) in cases {
        let sampling = serde_json::to_value(check_told(&with(name, &options), sampler, &[])).unwrap();
        assert_eq!(sampling.get("schedule"), wanted.get("schedule"), "{name} {options:?}");
        let found = sampling.get("options").cloned().unwrap_or(json!({}));
        let expected: SamplerOptions =
            serde_json::from_value(wanted.get("options").cloned().unwrap_or(json!({}))).unwrap();
        assert_eq!(serde_json::from_value::<SamplerOptions>(found).unwrap(), expected, "{name} {options:?}");
    }
    let tcd = check_told(&class("TCDScheduler"), SamplerKind::Tcd, &[]);
    assert_eq!((tcd.steps, tcd.cfg_scale), (4, 1.0));
}

/// What a scheduler's file says is of its own sampler.
#[test]
fn another_sampler_has_options_of_its_own() {
    let source = changed(&with("EulerDiscreteScheduler", &[("use_karras_sigmas", json!(true))]));
    let heun = SourceOptions { sampler: Some(SamplerKind::Heun), ..SourceOptions::default() };
    let (sampling, _) = taken(&source, &Options { source: heun, ..Options::default() });
    assert_eq!((sampling.default, sampling.schedule), (SamplerKind::Heun, None));
}

#[test]
fn a_scheduler_that_we_do_not_have_is_told() {
    for (name, sampler) in [
        ("DDPMScheduler", SamplerKind::EulerAncestral),
        ("SASolverScheduler", SamplerKind::Dpmpp2m),
        ("IPNDMScheduler", SamplerKind::Pndm),
    ] {
        check_told(&class(name), sampler, &[&format!("there is no sampler for {name}; the nearest, {sampler}")]);
    }
    check_told(&class("NewScheduler"), SamplerKind::Dpmpp2m, &["there is no sampler for \"NewScheduler\""]);
    check_refused(&class("FlowMatchEulerDiscreteScheduler"), &["belongs to models of another kind"]);
}

#[test]
fn how_the_model_was_trained_is_not_guessed() {
    let one = |key, value| [(FILE, key, value)];
    check_refused(
        &one("prediction_type", json!("sample")),
        &["supported: \"epsilon\", \"v_prediction\"; --prediction"],
    );
    check_refused(&one("beta_schedule", json!("sigmoid")), &["supported: \"linear\""]);
    check_refused(&one("trained_betas", json!([0.1])), &["supported: null"]);
}

#[test]
fn absurd_values_are_refused_before_anything_is_written() {
    for (key, value, allowed) in [
        ("num_train_timesteps", json!(10_000_000_000_000u64), "allowed is 2 to 100000"),
        ("beta_start", json!(-5), "allowed is 0.000000001 to 0.999"),
        ("beta_end", json!(1e300), "to 0.999"),
        ("original_inference_steps", json!(2000), "allowed is 1 to 1000"),
    ] {
        check_refused(&[(FILE, key, value)], &["cannot be a bundle: sampling.", allowed]);
    }
}

/// As StableDiffusionPipeline's constructor has it, whatever the file says.
#[test]
fn steps_offset_is_one() {
    for value in [json!(0), json!(2), json!(null), json!(1_000_000)] {
        assert_eq!(check_told(&[(FILE, "steps_offset", value)], SamplerKind::Ddim, &[]).steps_offset, Some(1));
    }
}

#[test]
fn two_files_that_name_two_schedulers_are_told() {
    let euler = [(FILE, "_class_name", json!("EulerDiscreteScheduler"))];
    let told =
        ["names EulerDiscreteScheduler, but model_index.json names DDIMScheduler; EulerDiscreteScheduler is taken"];
    check_told(&euler, SamplerKind::Euler, &told);
}

#[test]
fn without_a_schedulers_file_stable_diffusions_is_taken() {
    let (missing, foreign) = (SourceCopy::new(), SourceCopy::new());
    missing.remove(FILE);
    foreign.write(FILE, br#"{"architectures": ["CLIPTextModel"], "vocab_size": 653}"#);
    for (source, told) in [(missing, "there is no such file"), (foreign, "is not a scheduler's configuration")] {
        let (sampling, warnings) = taken(&source, &Options::default());
        assert!(warnings.contains(told) && warnings.contains("Stable Diffusion 1's is taken (PNDM)"), "{warnings}");
        assert_eq!((sampling.default, sampling.skip_prk_steps), (SamplerKind::Pndm, Some(true)));
        assert_eq!((sampling.beta_start, sampling.beta_end), (0.00085, 0.012));
    }
}

/// SD-Turbo, SDXL-Turbo and SDXS have this in common, and ordinary models have not.
#[test]
fn models_for_a_single_step_are_known_by_their_spacing() {
    let trailing = (FILE, "timestep_spacing", json!("trailing"));
    let euler = [&class("EulerDiscreteScheduler")[..], std::slice::from_ref(&trailing)].concat();
    let sampling = check_told(&euler, SamplerKind::Euler, &["the defaults are 1 step of euler without guidance"]);
    assert_eq!((sampling.steps, sampling.cfg_scale, sampling.spacing), (1, 1.0, Some(Spacing::Trailing)));
    for (key, value) in [("prediction_type", json!("v_prediction")), ("rescale_betas_zero_snr", json!(true))] {
        let sampling = check_told(&[trailing.clone(), (FILE, key, value)], SamplerKind::Ddim, &[]);
        assert_eq!((sampling.steps, sampling.cfg_scale), (20, 7.5));
    }
}

/// StableDiffusionPipeline turns `clip_sample` off, the pipelines of inpainting, latent consistency and SDXL leave it on.
#[test]
fn the_image_is_clipped_where_the_reference_clips() {
    let clipping = |changes: &[(&str, &str, Value)], pipeline: &str, kind: SamplerKind| {
        let pipeline = (INDEX, "_class_name", json!(pipeline));
        check_told(&[changes, &[pipeline]].concat(), kind, &[]).options.clipping
    };
    let clip = [("clip_sample", json!(true)), ("clip_sample_range", json!(1.5))];
    let (ddim, lcm) = (with("DDIMScheduler", &clip), with("LCMScheduler", &clip));
    let (of_latents, plain) = ("LatentConsistencyModelPipeline", "StableDiffusionPipeline");
    assert_eq!(clipping(&lcm, of_latents, SamplerKind::Lcm), Some(Clipping::Range(1.5)));
    assert_eq!(clipping(&ddim, "StableDiffusionInpaintPipeline", SamplerKind::Ddim), Some(Clipping::Range(1.5)));
    assert_eq!(clipping(&lcm, plain, SamplerKind::Lcm), None);
    // Without the key DDIM clips, the others do not; null is as good as no key.
    let silent = |name| with(name, &[("clip_sample", json!(null)), ("clip_sample_range", json!(1.0))]);
    assert_eq!(clipping(&silent("DDIMScheduler"), of_latents, SamplerKind::Ddim), Some(Clipping::Range(1.0)));
    assert_eq!(clipping(&silent("LCMScheduler"), of_latents, SamplerKind::Lcm), None);
    assert_eq!(clipping(&silent("DDIMScheduler"), plain, SamplerKind::Ddim), None);
    // A class without the key does not clip.
    assert_eq!(clipping(&with("EulerDiscreteScheduler", &clip), of_latents, SamplerKind::Euler), None);
    let thresholding = [("thresholding", json!(true)), ("sample_max_value", json!(2.0))];
    let quantile = Some(Clipping::Quantile { ratio: 0.995, largest: 2.0 });
    assert_eq!(clipping(&with("UniPCMultistepScheduler", &thresholding), plain, SamplerKind::Unipc), quantile);
    let of_noise = [&thresholding[..], &[("predict_x0", json!(false))]].concat();
    assert_eq!(clipping(&with("UniPCMultistepScheduler", &of_noise), plain, SamplerKind::Unipc), None);
    assert_eq!(clipping(&with("PNDMScheduler", &thresholding), plain, SamplerKind::Pndm), None);
    let euler = SourceOptions { sampler: Some(SamplerKind::Euler), ..SourceOptions::default() };
    let options = Options { source: euler, ..Options::default() };
    let (sampling, warnings) = taken(&changed(&with("UniPCMultistepScheduler", &thresholding)), &options);
    assert_eq!((sampling.options.clipping, warnings), (None, String::new()));
    for (key, value) in
        [("clip_sample", json!("yes")), ("clip_sample_range", json!(0)), ("clip_sample_range", json!("1"))]
    {
        let changes = [&lcm[..], &[(FILE, key, value), (INDEX, "_class_name", json!(of_latents))]].concat();
        check_refused(&changes, &["clip"]);
    }
}
