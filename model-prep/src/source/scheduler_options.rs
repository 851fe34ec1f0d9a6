//! The options of diffusers' schedulers that our samplers have, and what is said of the others. A key that the file's class
//! does not know is ignored, as diffusers does.

use diffused_engine::sampler::{
    DeisOptions, DpmMultistepOptions, DpmSinglestepOptions, DpmSolverType, EulerOptions, FinalSigma, MOST_ORDER,
    NoiseSchedule, SamplerKind, SamplerOptions, UnipcOptions, UnipcSolverType,
};
use serde_json::{Value, json};

use super::keys::{self, Keys};
use super::scheduler_class::SchedulerClass;

/// What a scheduler's file says of its sampler.
#[derive(Debug)]
pub(super) struct SchedulerChoice {
    pub(super) kind: SamplerKind,
    pub(super) schedule: Option<NoiseSchedule>,
    pub(super) options: SamplerOptions,
    /// What no sampler of ours does, as `key = value`.
    pub(super) missing: Vec<String>,
}

/// Every option of any class that says how to sample.
const OPTIONS: [&str; 32] = [
    "algorithm_type",
    "corrector_order",
    "disable_corrector",
    "euler_at_final",
    "final_sigmas_type",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "noise_sampler_seed",
    "predict_x0",
    "predictor_order",
    "shift_terminal",
    "sigma_max",
    "sigma_min",
    "solver_order",
    "solver_p",
    "solver_type",
    "tau_func",
    "time_shift_type",
    "timestep_scaling",
    "timestep_type",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
    "_use_default_values",
    "sampling_eps",
    "snr",
    "correct_steps",
];

/// Takes the options of `class` out of `keys`.
pub(super) fn read(keys: &mut Keys, class: SchedulerClass) -> SchedulerChoice {
    let mut asked = Asked { keys, missing: vec![] };
    let choice = match class.same {
        true => asked.of_class(class.kind),
        false => (class.kind, None, SamplerOptions::default()),
    };
    let (kind, schedule, options) = choice;
    let missing = asked.missing;
    keys.ignore(&OPTIONS);
    SchedulerChoice { kind, schedule, options, missing }
}

/// The file's keys, and what was asked for in vain.
struct Asked<'a> {
    keys: &'a mut Keys,
    missing: Vec<String>,
}

/// Which rule, where the reference takes the other solvers' names for its own default.
const DPM_RULES: [(&str, DpmSolverType); 5] = [
    ("midpoint", DpmSolverType::Midpoint),
    ("heun", DpmSolverType::Heun),
    ("logrho", DpmSolverType::Midpoint),
    ("bh1", DpmSolverType::Midpoint),
    ("bh2", DpmSolverType::Midpoint),
];
const UNIPC_RULES: [(&str, UnipcSolverType); 5] = [
    ("bh1", UnipcSolverType::Bh1),
    ("bh2", UnipcSolverType::Bh2),
    ("midpoint", UnipcSolverType::Bh2),
    ("heun", UnipcSolverType::Bh2),
    ("logrho", UnipcSolverType::Bh2),
];
const FINAL_SIGMAS: [(&str, FinalSigma); 2] = [("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)];
/// The values of `algorithm_type`: whether the noise is predicted, and whether noise is added.
const ALGORITHMS: [(&str, (bool, bool)); 5] = [
    ("dpmsolver++", (false, false)),
    ("deis", (false, false)),
    ("dpmsolver", (true, false)),
    ("sde-dpmsolver++", (false, true)),
    ("sde-dpmsolver", (true, true)),
];

impl Asked<'_> {
    fn of_class(&mut self, kind: SamplerKind) -> (SamplerKind, Option<NoiseSchedule>, SamplerOptions) {
        let mut options = SamplerOptions::default();
        let kind = match kind {
            SamplerKind::Dpmpp2m => {
                let (algorithm, dpm) = self.dpm_multistep();
                options.dpm_multistep = dpm;
                if algorithm { SamplerKind::Dpmpp2mSde } else { SamplerKind::Dpmpp2m }
            }
            kind => {
                match kind {
                    SamplerKind::Dpmpp2s => options.dpm_singlestep = self.dpm_singlestep(),
                    SamplerKind::Deis => options.deis = self.deis(),
                    SamplerKind::Unipc => options.unipc = self.unipc(),
                    SamplerKind::Euler => options.euler = self.euler(),
                    SamplerKind::Lcm => self.only("timestep_scaling", &[json!(10)]),
                    _ => {}
                }
                kind
            }
        };
        match kind {
            SamplerKind::Ddim
            | SamplerKind::Pndm
            | SamplerKind::EulerAncestral
            | SamplerKind::Lcm
            | SamplerKind::Tcd => (kind, None, options),
            _ => {
                let schedule = self.schedule();
                match (kind, schedule) {
                    (SamplerKind::Dpmpp2m, Some(NoiseSchedule::Karras)) => (SamplerKind::Dpmpp2mKarras, None, options),
                    _ => (kind, schedule, options),
                }
            }
        }
    }

    fn schedule(&mut self) -> Option<NoiseSchedule> {
        for key in ["use_flow_sigmas", "use_dynamic_shifting"] {
            self.only(key, &[json!(false)]);
        }
        let curves = [
            ("use_karras_sigmas", NoiseSchedule::Karras),
            ("use_exponential_sigmas", NoiseSchedule::Exponential),
            ("use_beta_sigmas", NoiseSchedule::Beta),
        ];
        curves.into_iter().fold(None, |found, (key, schedule)| {
            let asked = self.flag(key, false);
            found.or(asked.then_some(schedule))
        })
    }

    /// The options, and whether noise is added.
    fn dpm_multistep(&mut self) -> (bool, DpmMultistepOptions) {
        self.only("variance_type", &[json!("fixed_small"), json!("fixed_large")]);
        let (noise_prediction, stochastic) = self.algorithm();
        let orders = if noise_prediction && stochastic { 2 } else { MOST_ORDER };
        let default = DpmMultistepOptions::default();
        let options = DpmMultistepOptions {
            solver_order: self.order(default.solver_order, orders),
            noise_prediction,
            solver_type: self.choice("solver_type", &DPM_RULES, default.solver_type),
            lower_order_final: self.flag("lower_order_final", default.lower_order_final),
            euler_at_final: self.flag("euler_at_final", default.euler_at_final),
            final_sigma: self.choice("final_sigmas_type", &FINAL_SIGMAS, default.final_sigma),
            use_lu_lambdas: self.flag("use_lu_lambdas", default.use_lu_lambdas),
            lambda_min_clipped: self.clipped(),
        };
        let noise_prediction = self.reaches(noise_prediction, options.final_sigma);
        (stochastic, DpmMultistepOptions { noise_prediction, ..options })
    }

    fn dpm_singlestep(&mut self) -> DpmSinglestepOptions {
        self.only("variance_type", &[json!("fixed_small"), json!("fixed_large")]);
        let (noise_prediction, stochastic) = self.algorithm();
        let default = DpmSinglestepOptions::default();
        let options = DpmSinglestepOptions {
            solver_order: self.order(default.solver_order, MOST_ORDER),
            noise_prediction,
            stochastic,
            solver_type: self.choice("solver_type", &DPM_RULES, default.solver_type),
            lower_order_final: self.flag("lower_order_final", default.lower_order_final),
            final_sigma: self.choice("final_sigmas_type", &FINAL_SIGMAS, default.final_sigma),
            lambda_min_clipped: self.clipped(),
        };
        DpmSinglestepOptions { noise_prediction: self.reaches(noise_prediction, options.final_sigma), ..options }
    }

    fn deis(&mut self) -> DeisOptions {
        let default = DeisOptions::default();
        self.only("algorithm_type", &[json!("deis"), json!("dpmsolver"), json!("dpmsolver++")]);
        DeisOptions {
            solver_order: self.order(default.solver_order, MOST_ORDER),
            lower_order_final: self.flag("lower_order_final", default.lower_order_final),
        }
    }

    fn unipc(&mut self) -> UnipcOptions {
        for key in ["solver_p", "sigma_min", "sigma_max", "shift_terminal"] {
            self.only(key, &[]);
        }
        let default = UnipcOptions::default();
        UnipcOptions {
            solver_order: self.order(default.solver_order, MOST_ORDER),
            predict_x0: self.flag("predict_x0", default.predict_x0),
            solver_type: self.choice("solver_type", &UNIPC_RULES, default.solver_type),
            lower_order_final: self.flag("lower_order_final", default.lower_order_final),
            final_sigma: self.choice("final_sigmas_type", &FINAL_SIGMAS, default.final_sigma),
            disable_corrector: self
                .value("disable_corrector", |value| {
                    value.as_array()?.iter().map(|step| usize::try_from(step.as_u64()?).ok()).collect()
                })
                .unwrap_or_default(),
        }
    }

    fn euler(&mut self) -> EulerOptions {
        let sigma = |value: &Value| value.as_f64().filter(|sigma| *sigma > 0.0);
        EulerOptions {
            final_sigma: self.choice("final_sigmas_type", &FINAL_SIGMAS, FinalSigma::Zero),
            log_linear: self.choice("interpolation_type", &[("linear", false), ("log_linear", true)], false),
            continuous_timesteps: self.choice("timestep_type", &[("discrete", false), ("continuous", true)], false),
            sigma_min: self.value("sigma_min", sigma),
            sigma_max: self.value("sigma_max", sigma),
        }
    }

    fn algorithm(&mut self) -> (bool, bool) {
        self.choice("algorithm_type", &ALGORITHMS, (false, false))
    }

    /// Whether the noise is predicted: the reference's solver does not get to a sigma of 0 then.
    fn reaches(&mut self, noise_prediction: bool, last: FinalSigma) -> bool {
        if noise_prediction && last == FinalSigma::Zero {
            self.missing.push("algorithm_type = \"dpmsolver\" with final_sigmas_type = \"zero\"".into());
            return false;
        }
        noise_prediction
    }

    fn order(&mut self, default: usize, most: usize) -> usize {
        let order = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|order| (1..=most).contains(order));
        self.value("solver_order", order).unwrap_or(default)
    }

    /// Minus infinity, in JSON a text, leaves nothing out.
    fn clipped(&mut self) -> Option<f64> {
        match self.keys.some("lambda_min_clipped")? {
            value if value == json!("-Infinity") => None,
            value => value.as_f64().or_else(|| self.told("lambda_min_clipped", &value)),
        }
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        self.value(key, Value::as_bool).unwrap_or(default)
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)], default: T) -> T {
        let known = |value: &Value| choices.iter().find(|(name, _)| value == name).map(|(_, meaning)| *meaning);
        self.value(key, known).unwrap_or(default)
    }

    /// One of the values that change nothing, or null.
    fn only(&mut self, key: &str, inert: &[Value]) {
        self.value(key, |value| inert.iter().any(|inert| keys::same(inert, value)).then_some(()));
    }

    /// What the value of a key means; one without meaning here is told.
    fn value<T>(&mut self, key: &str, meaning: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.keys.some(key)?;
        meaning(&value).or_else(|| self.told(key, &value))
    }

    fn told<T>(&mut self, key: &str, value: &Value) -> Option<T> {
        self.missing.push(format!("{key} = {value}"));
        None
    }
}
