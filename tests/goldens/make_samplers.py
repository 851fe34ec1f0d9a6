"""Trajectories of diffusers' schedulers over a model that is plain arithmetic: samplers.json.

Run with torch and diffusers installed: python tests/goldens/make_samplers.py
The "model" gives 0.1 * x + 0.9 * a fixed wave of the call's number; the sampler's test computes the same.
"""
import inspect
import json
import pathlib

import torch
from diffusers import (
    DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, LCMScheduler,
    PNDMScheduler,
)

SAMPLERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "pndm": (PNDMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "lcm": (LCMScheduler, {}),
}
SIZE = 16
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def wave(seed):
    """SIZE values between -1 and 1, the same in every language: multiples of 1/128."""
    return torch.tensor([((i * 37 + seed * 101) % 256 - 128) / 128 for i in range(SIZE)], dtype=torch.float32)


def trajectory(name, config, steps, strength):
    kind, own = SAMPLERS[name]
    scheduler = kind(**SD, **own, **{k: v for k, v in config.items() if k in inspect.signature(kind.__init__).parameters})
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    if strength is None:
        latents = wave(1) * scheduler.init_noise_sigma
    else:
        begin = max(steps - min(int(steps * strength), steps), 0)
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        latents = scheduler.add_noise(wave(2)[None], wave(1)[None], timesteps[:1])[0]
    draws = iter(range(1000, 2000))
    # The schedulers draw through this function, each from its own module.
    module = __import__(kind.__module__, fromlist=["randn_tensor"])
    module.randn_tensor = lambda shape, **_: wave(next(draws)).reshape(shape)
    result = [latents.tolist()]
    for call, t in enumerate(timesteps):
        output = 0.1 * scheduler.scale_model_input(latents, t) + 0.9 * wave(10 + call)
        latents = scheduler.step(output, t, latents, return_dict=False)[0]
        result.append(latents.tolist())
    return {"sampler": name, "config": config, "steps": steps, "strength": strength,
            "timesteps": [float(t) for t in timesteps], "first": result[0], "middle": result[len(result) // 2],
            "last": result[-1]}


def cases():
    for name in SAMPLERS:
        for spacing in [None, "leading", "trailing", "linspace"]:
            for prediction in ["epsilon", "v_prediction"]:
                for steps in [5, 7, 20]:
                    for strength in [None, 0.6]:
                        config = {"prediction_type": prediction}
                        if spacing:
                            config["timestep_spacing"] = spacing
                        if spacing == "leading":
                            config["steps_offset"] = 1
                        yield name, config, steps, strength
    for name in ["ddim", "pndm"]:
        for to_one in [False, True]:
            yield name, {"prediction_type": "epsilon", "set_alpha_to_one": to_one, "skip_prk_steps": True}, 9, None
    yield "pndm", {"prediction_type": "epsilon", "skip_prk_steps": True, "steps_offset": 1}, 10, 0.5
    for name in ["ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "lcm"]:
        yield name, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
                     "timestep_spacing": "trailing"}, 6, None
    for beta_schedule in ["linear", "squaredcos_cap_v2"]:
        for name in ["ddim", "euler"]:
            yield name, {"prediction_type": "epsilon", "beta_schedule": beta_schedule}, 6, None


if __name__ == "__main__":
    golden = []
    for name, config, steps, strength in cases():
        SD["beta_schedule"] = config.get("beta_schedule", "scaled_linear")
        try:
            golden.append(trajectory(name, {k: v for k, v in config.items() if k != "beta_schedule"}, steps, strength)
                          | {"config": config})
        except Exception as error:  # what the reference refuses is listed, not passed over
            print("refused:", name, config, steps, strength, error)
    path = pathlib.Path(__file__).with_name("samplers.json")
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in golden) + "\n]\n")
    print(path, len(golden), "cases")
