"""Trajectories of diffusers' schedulers with the options that scheduler files publish: sampler_options.json.

Run with torch, diffusers, scipy and torchsde installed: python tests/goldens/make_sampler_options.py
The "model" is that of make_samplers.py. A case has the timesteps and the last latents alone.
"""
import contextlib
import inspect
import json
import pathlib

import numpy
import torch
from diffusers import schedulers
from diffusers.schedulers.scheduling_utils import AysSchedules

from make_samplers import wave

SIZE = 4
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLASSES = {
    "ddim": (schedulers.DDIMScheduler, {"clip_sample": False}),
    "pndm": (schedulers.PNDMScheduler, {}),
    "euler": (schedulers.EulerDiscreteScheduler, {}),
    "euler_ancestral": (schedulers.EulerAncestralDiscreteScheduler, {}),
    "heun": (schedulers.HeunDiscreteScheduler, {}),
    "lms": (schedulers.LMSDiscreteScheduler, {}),
    "dpm2": (schedulers.KDPM2DiscreteScheduler, {}),
    "dpm2_ancestral": (schedulers.KDPM2AncestralDiscreteScheduler, {}),
    "dpmpp_2s": (schedulers.DPMSolverSinglestepScheduler, {}),
    "dpmpp_2m": (schedulers.DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_sde": (schedulers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_sde": (schedulers.DPMSolverSDEScheduler, {"noise_sampler_seed": 7}),
    "unipc": (schedulers.UniPCMultistepScheduler, {}),
    "deis": (schedulers.DEISMultistepScheduler, {}),
    "tcd": (schedulers.TCDScheduler, {}),
    "lcm": (schedulers.LCMScheduler, {}),
}
IN_SIGMA = ["euler", "heun", "lms", "dpm2", "dpm2_ancestral", "dpmpp_sde"]
SOLVERS = ["dpmpp_2m", "dpmpp_2m_sde", "unipc", "deis"]
CURVES = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}


@contextlib.contextmanager
def nearest_f32():
    """Tensors' logarithms, exponentials and roots as the f32 nearest to the true value. torch's are another neighbour for
    some values, and others on other CPUs."""
    def rounded(function):
        return lambda tensor, *rest: function(tensor.double(), *rest).to(tensor.dtype)

    own = {name: getattr(torch.Tensor, name) for name in ["log", "exp", "expm1", "__pow__"]}
    for name, function in own.items():
        setattr(torch.Tensor, name, rounded(function))
    try:
        yield
    finally:
        for name, function in own.items():
            setattr(torch.Tensor, name, function)


def trajectory(name, *rest, **more):
    """DPM++ SDE asks for its noise at sigmas of which the sixth digit counts, and so the last bit of logarithms."""
    with nearest_f32() if name == "dpmpp_sde" else contextlib.nullcontext():
        return plain_trajectory(name, *rest, **more)


def plain_trajectory(name, config, steps, strength=None, eta=None, sigmas=None, exponential=None):
    """`exponential`: the sigmas that the scheduler takes for those of `use_exponential_sigmas`."""
    kind, own = CLASSES[name]
    scheduler = kind(**{**STABLE, **own, **config})
    if exponential:
        scheduler._convert_to_exponential = lambda **_: numpy.array(exponential)
    scheduler.set_timesteps(**({"sigmas": sigmas} if sigmas else {"num_inference_steps": steps}))
    draws = iter(range(1000, 2000))
    timesteps = scheduler.timesteps
    # A sample, its channels, and a row of it.
    shape = (1, SIZE, 1)
    noise, image = wave(1)[:SIZE].reshape(shape), wave(2)[:SIZE].reshape(shape)
    if strength is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        begin = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        latents = scheduler.add_noise(image, noise, timesteps[:1])
    module = __import__(kind.__module__, fromlist=["randn_tensor"])
    module.randn_tensor = lambda shape, **_: wave(next(draws))[:SIZE].reshape(shape)
    extra = {} if eta is None else {"eta": eta}
    for call, t in enumerate(timesteps):
        output = 0.1 * scheduler.scale_model_input(latents, t) + 0.9 * wave(10 + call)[:SIZE].reshape(shape)
        latents = scheduler.step(output, t, latents, return_dict=False, **extra)[0]
    assert torch.isfinite(latents).all()
    return {"timesteps": [round(float(t), 4) for t in timesteps], "last": [float(f"{x:.8g}") for x in latents.flatten().tolist()]}


class Cases:
    """What is made, with our names beside the reference's."""

    def __init__(self):
        self.cases = []

    def add(self, sampler, steps, config=None, strength=None, scheduler=None, eta=None, sampling=None, **reference):
        """`config` is the reference's; what our manifest has of it: `sampling`, beside what is called the same."""
        config = dict(config or {})
        common = ["prediction_type", "timestep_spacing", "steps_offset", "beta_schedule", "rescale_betas_zero_snr"]
        known = ["prediction", "spacing", "steps_offset", "beta_schedule", "rescale_betas_zero_snr"]
        ours = {our: config[key] for our, key in zip(known, common) if key in config}
        if sampler == "dpmpp_sde":
            config.setdefault("noise_sampler_seed", 7)
        curve = [name for name, key in CURVES.items() if config.get(key)]
        if curve and not scheduler:
            ours["schedule"] = curve[0]
        case = {"sampler": sampler, "steps": steps, "sampling": {**ours, **(sampling or {})}}
        extra = [("strength", strength), ("scheduler", scheduler), ("eta", eta), ("seed", config.get("noise_sampler_seed"))]
        case |= {key: value for key, value in extra if value is not None}
        parameters = inspect.signature(CLASSES[sampler][0].__init__).parameters
        reference_config = {key: value for key, value in config.items() if key in parameters}
        try:
            self.cases.append(case | trajectory(sampler, reference_config, steps, strength, eta, **reference))
        except Exception as error:  # what the reference refuses is listed, not passed over
            print("refused:", case, type(error).__name__, error)

    def plain(self):
        """Every sampler but LCM, which samplers.json has, on every spacing, with each prediction."""
        for name in [name for name in CLASSES if name != "lcm"]:
            for spacing in ["leading", "trailing", "linspace"]:
                for prediction in ["epsilon", "v_prediction"]:
                    config = {"prediction_type": prediction, "timestep_spacing": spacing}
                    if spacing == "leading":
                        config["steps_offset"] = 1
                    self.add(name, 7, config)
                    self.add(name, 5, config, strength=0.7)
            for steps in [6, 20] if name == "pndm" else [1, 2, 3, 6, 20]:
                self.add(name, steps, {"timestep_spacing": "trailing"})
            self.add(name, 6, {"timestep_spacing": "trailing", "prediction_type": "v_prediction",
                               "rescale_betas_zero_snr": True})
            self.add(name, 6, {"beta_schedule": "squaredcos_cap_v2"})

    def curves(self):
        """Karras', exponential and beta sigmas: the model's own, and chosen by a request."""
        for name in IN_SIGMA + SOLVERS + ["dpmpp_2s"]:
            for curve, key in CURVES.items():
                for spacing in ["leading", "linspace"]:
                    self.add(name, 6, {key: True, "timestep_spacing": spacing, "steps_offset": 1})
                self.add(name, 6, {key: True}, strength=0.5)
                self.add(name, 8, {key: True, "timestep_spacing": "linspace", "prediction_type": "v_prediction"},
                         scheduler=curve)
            self.add(name, 6, {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"})
        for name in ["ddim", "pndm", "euler", "euler_ancestral", "dpmpp_2m", "unipc"]:
            for scheduler, spacing in [("uniform", "linspace"), ("normal", "linspace"), ("sgm_uniform", "trailing"),
                                       ("simple", "trailing"), ("ddim_uniform", "leading")]:
                config = {"timestep_spacing": spacing}
                if spacing == "leading":
                    config["steps_offset"] = 1
                self.add(name, 6, config, scheduler=scheduler)

    def align_your_steps(self):
        for scheduler, table in [("align_your_steps", "StableDiffusionSigmas"),
                                 ("align_your_steps_xl", "StableDiffusionXLSigmas")]:
            self.add("euler", 10, scheduler=scheduler, sigmas=AysSchedules[table])
            for steps in [4, 25]:
                # As the paper's authors interpolate: linearly in the logarithm, then 0 for the last.
                full = numpy.log([*AysSchedules[table][:-1], 0.029])
                places = numpy.linspace(0, 10, steps + 1)
                sigmas = [*numpy.exp(numpy.interp(places, numpy.arange(11), full))[:-1].tolist(), 0.0]
                self.add("euler", steps, scheduler=scheduler, sigmas=sigmas)

    def multistep(self):
        def dpm(name, steps, strength=None, **config):
            ours = {"solver_order": "solver_order", "solver_type": "solver_type", "euler_at_final": "euler_at_final",
                    "lower_order_final": "lower_order_final", "final_sigmas_type": "final_sigma",
                    "use_lu_lambdas": "use_lu_lambdas", "lambda_min_clipped": "lambda_min_clipped"}
            options = {our: config[key] for key, our in ours.items() if key in config}
            if config.get("algorithm_type", "").endswith("dpmsolver"):
                options["noise_prediction"] = True
            if config.get("algorithm_type") == "sde-dpmsolver++" and name == "dpmpp_2s":
                options["stochastic"] = True
            table = "dpm_singlestep" if name == "dpmpp_2s" else "dpm_multistep"
            self.add(name, steps, config, strength, sampling={"options": {table: options}})

        for name in ["dpmpp_2m", "dpmpp_2m_sde"]:
            sde = {"algorithm_type": "sde-dpmsolver++"} if name == "dpmpp_2m_sde" else {}
            for order in [1, 2, 3]:
                for solver in ["midpoint", "heun"]:
                    for steps in [6, 16]:
                        dpm(name, steps, solver_order=order, solver_type=solver, **sde)
                        dpm(name, steps, solver_order=order, solver_type=solver, prediction_type="v_prediction",
                            final_sigmas_type="sigma_min", lower_order_final=False, **sde)
                dpm(name, 9, 0.6, solver_order=order, **sde)
            dpm(name, 6, euler_at_final=True, final_sigmas_type="sigma_min", **sde)
            dpm(name, 16, euler_at_final=True, final_sigmas_type="sigma_min", **sde)
            dpm(name, 6, lower_order_final=False, **sde)
            dpm(name, 6, use_lu_lambdas=True, **sde)
            for spacing in ["leading", "trailing", "linspace"]:
                dpm(name, 6, lambda_min_clipped=-1.1, timestep_spacing=spacing, **sde)
                dpm(name, 6, lambda_min_clipped=-5.1, timestep_spacing=spacing, beta_schedule="squaredcos_cap_v2", **sde)
        for algorithm in ["dpmsolver", "sde-dpmsolver"]:
            for order in [1, 2, 3]:
                for solver in ["midpoint", "heun"]:
                    if algorithm == "sde-dpmsolver" and order == 3:
                        continue
                    dpm("dpmpp_2m_sde" if "sde" in algorithm else "dpmpp_2m", 6, algorithm_type=algorithm,
                        solver_order=order, solver_type=solver, final_sigmas_type="sigma_min",
                        prediction_type=["epsilon", "v_prediction"][order % 2])
        for algorithm in ["dpmsolver", "dpmsolver++", "sde-dpmsolver++"]:
            for order in [1, 2, 3]:
                for solver in ["midpoint", "heun"]:
                    for steps in [4, 5, 6]:
                        dpm("dpmpp_2s", steps, algorithm_type=algorithm, solver_order=order, solver_type=solver,
                            final_sigmas_type="sigma_min", lower_order_final=steps == 4)
                        if algorithm != "dpmsolver":
                            dpm("dpmpp_2s", steps, algorithm_type=algorithm, solver_order=order, solver_type=solver)
            dpm("dpmpp_2s", 9, 0.6, algorithm_type=algorithm, solver_order=3, final_sigmas_type="sigma_min")
        dpm("dpmpp_2s", 6, lambda_min_clipped=-1.1)
        for order in [1, 2, 3]:
            for steps in [6, 16]:
                for lowers in [True, False]:
                    self.add("deis", steps, {"solver_order": order, "lower_order_final": lowers},
                             sampling={"options": {"deis": {"solver_order": order, "lower_order_final": lowers}}})

    def unipc(self):
        def add(steps, strength=None, **config):
            options = {"final_sigma" if key == "final_sigmas_type" else key: value for key, value in config.items()
                       if key != "prediction_type" and not key.startswith("use_")}
            self.add("unipc", steps, config, strength, sampling={"options": {"unipc": options}})

        for order in [1, 2, 3]:
            for x0 in [True, False]:
                for solver in ["bh1", "bh2"]:
                    add(7, solver_order=order, predict_x0=x0, solver_type=solver, final_sigmas_type="sigma_min",
                        prediction_type=["epsilon", "v_prediction"][order % 2])
            add(7, solver_order=order)
            add(9, 0.6, solver_order=order)
            add(7, solver_order=order, lower_order_final=False, final_sigmas_type="sigma_min")
            add(7, solver_order=order, disable_corrector=[0, 1, 3])
        for key in CURVES.values():
            add(7, final_sigmas_type="sigma_min", **{key: True})

    def others(self):
        def euler(steps, options, **config):
            self.add("euler", steps, config, sampling={"options": {"euler": options}})

        euler(6, {"final_sigma": "sigma_min"}, final_sigmas_type="sigma_min")
        euler(6, {"log_linear": True}, interpolation_type="log_linear")
        euler(6, {"log_linear": True}, interpolation_type="log_linear", use_karras_sigmas=True)
        euler(6, {"continuous_timesteps": True}, timestep_type="continuous", prediction_type="v_prediction",
              use_karras_sigmas=True)
        euler(6, {"sigma_min": 0.05, "sigma_max": 20.0}, sigma_min=0.05, sigma_max=20.0, use_karras_sigmas=True)
        for eta in [0.0, 0.3, 1.0]:
            self.add("ddim", 6, eta=eta)
            self.add("ddim", 6, {"prediction_type": "v_prediction"}, strength=0.6, eta=eta)
            self.add("tcd", 6, eta=eta)
            self.add("tcd", 4, {"prediction_type": "v_prediction"}, strength=0.6, eta=eta)
        for seed in [0, 2**32 + 5, 2**63 - 1]:
            self.add("dpmpp_sde", 5, {"noise_sampler_seed": seed})
        self.add("pndm", 6, {"timestep_spacing": "trailing", "prediction_type": "v_prediction",
                             "rescale_betas_zero_snr": True, "skip_prk_steps": True},
                 sampling={"skip_prk_steps": True})

    def ancestral_eta(self):
        """By k-diffusion's get_ancestral_step: the reference's scheduler has no eta."""
        for eta in [0.0, 0.5]:
            case = {"sampler": "euler_ancestral", "steps": 6, "sampling": {}, "eta": eta}
            kind, own = CLASSES["euler_ancestral"]
            scheduler = kind(**STABLE, **own)
            scheduler.set_timesteps(6)
            draws = iter(range(1000, 2000))
            latents = wave(1)[:SIZE] * scheduler.init_noise_sigma
            for call, t in enumerate(scheduler.timesteps):
                sigma, to = scheduler.sigmas[call], scheduler.sigmas[call + 1]
                output = 0.1 * latents / (sigma**2 + 1) ** 0.5 + 0.9 * wave(10 + call)[:SIZE]
                up = min(to, eta * (to**2 * (sigma**2 - to**2) / sigma**2) ** 0.5)
                latents = latents + output * ((to**2 - up**2) ** 0.5 - sigma) + up * wave(next(draws))[:SIZE]
            self.cases.append(case | {"timesteps": [round(float(t), 4) for t in scheduler.timesteps],
                                      "last": [float(f"{x:.8g}") for x in latents.tolist()]})


    def clipping(self):
        """A predicted image within bounds, where the reference's classes heed that."""
        def add(name, steps, options=None, strength=None, **config):
            bounds = {"range": config.get("clip_sample_range", 1.0)}
            if config.get("thresholding"):
                bounds = {"quantile": {"ratio": config.get("dynamic_thresholding_ratio", 0.995),
                                       "largest": config.get("sample_max_value", 1.0)}}
            self.add(name, steps, config, strength, sampling={"options": {"clipping": bounds, **(options or {})}})

        for name in ["ddim", "lcm", "heun"]:
            for prediction in ["epsilon", "v_prediction"]:
                add(name, 6, clip_sample=True, prediction_type=prediction)
                add(name, 5, strength=0.6, clip_sample=True, clip_sample_range=0.7, prediction_type=prediction)
        for name in ["ddim", "lcm", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2s", "unipc", "deis"]:
            for prediction in ["epsilon", "v_prediction"]:
                add(name, 6, thresholding=True, prediction_type=prediction)
                add(name, 6, thresholding=True, prediction_type=prediction, sample_max_value=1.8,
                    dynamic_thresholding_ratio=0.6)
        # The singlestep class fails there: it mixes the sigmas of all timesteps.
        add("dpmpp_2m", 6, {"dpm_multistep": {"noise_prediction": True, "final_sigma": "sigma_min"}}, thresholding=True,
            algorithm_type="dpmsolver", final_sigmas_type="sigma_min")

    def align_your_steps_elsewhere(self):
        """The sigmas in place of exponential ones, on which the reference's classes go alike."""
        sigmas = [float(sigma) for sigma in AysSchedules["StableDiffusionSigmas"][:-1]]
        for name in [name for name in IN_SIGMA + SOLVERS + ["dpmpp_2s"] if name != "euler"]:
            config = {"use_exponential_sigmas": True, "timestep_spacing": "linspace"}
            self.add(name, 10, config, scheduler="align_your_steps", exponential=sigmas)

    def written_out(self, sampler, on, steps, step, **case):
        """A sampler whose options no class of the reference has: `step` goes from a call's sigma to the next one's."""
        draws, calls, timesteps = iter(range(1000, 2000)), iter(range(10, 1000)), []
        log_sigmas = numpy.log(((1 - on.alphas_cumprod) / on.alphas_cumprod).numpy() ** 0.5)

        def model(latents, sigma, timestep=None):
            timestep = on._sigma_to_t(numpy.array(float(sigma)), log_sigmas) if timestep is None else timestep
            timesteps.append(round(float(timestep), 4))
            return 0.1 * latents / (sigma**2 + 1) ** 0.5 + 0.9 * wave(next(calls))[:SIZE]

        latents = wave(1)[:SIZE] * on.init_noise_sigma
        for at, sigma, to in zip(on.timesteps, on.sigmas, on.sigmas[1:]):
            latents = step(model, latents, at, sigma, to, lambda: wave(next(draws))[:SIZE])
        assert torch.isfinite(latents).all()
        self.cases.append({"sampler": sampler, "steps": steps, "sampling": {}} | case |
                          {"timesteps": timesteps, "last": [float(f"{x:.8g}") for x in latents.tolist()]})

    def ancestral(self):
        """By k-diffusion's sample_euler_ancestral and sample_dpm_2_ancestral."""
        def ends(sigma, to, eta):
            up = min(to, eta * (to**2 * (sigma**2 - to**2) / sigma**2) ** 0.5)
            return (to**2 - up**2) ** 0.5, up

        def euler(model, latents, at, sigma, to, noise):
            down, up = ends(sigma, to, 1.0)
            return latents + model(latents, sigma, at) * (down - sigma) + up * noise()

        def dpm2(eta):
            def step(model, latents, at, sigma, to, noise):
                down, up = ends(sigma, to, eta)
                derivative = model(latents, sigma, at)
                if down == 0:
                    return latents + derivative * (down - sigma)
                middle = (sigma.log().lerp(down.log(), 0.5)).exp()
                return latents + model(latents + derivative * (middle - sigma), middle) * (down - sigma) + up * noise()
            return step

        def on(sigmas=None, **config):
            scheduler = schedulers.EulerDiscreteScheduler(**STABLE, **config)
            scheduler.set_timesteps(**({"sigmas": sigmas} if sigmas else {"num_inference_steps": 6}))
            return scheduler

        for curve in ["karras", "exponential", "beta"]:
            self.written_out("euler_ancestral", on(**{CURVES[curve]: True}), 6, euler, scheduler=curve)
        sigmas = AysSchedules["StableDiffusionSigmas"]
        self.written_out("euler_ancestral", on(sigmas), 10, euler, scheduler="align_your_steps")
        for eta in [0.0, 0.5, 1.0]:
            self.written_out("dpm2_ancestral", on(), 6, dpm2(eta), eta=eta)


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = Cases()
    for part in [made.plain, made.curves, made.align_your_steps, made.multistep, made.unipc, made.others,
                 made.ancestral_eta, made.clipping, made.align_your_steps_elsewhere, made.ancestral]:
        part()
    path = pathlib.Path(__file__).with_name("sampler_options.json")
    path.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in made.cases) + "\n]\n")
    print(path, len(made.cases), "cases", path.stat().st_size, "bytes")
