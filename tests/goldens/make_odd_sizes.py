"""The models of make_pipeline.py at sizes that halving rounds: adds to what that script made, and changes nothing of it.

Run as make_pipeline.py is, and after it:
    OMP_NUM_THREADS=1 python tests/goldens/make_odd_sizes.py
"""
import json

import torch
from safetensors.torch import load_file, save_file

from make_pipeline import DEMO, HERE, MODELS, load, paint, randn

# Rows and columns of latents. Of two halvings one, the other or both round.
UNET = [(4, 5), (9, 7), (10, 13)]
AUTOENCODER = (5, 3)
# Width and height of pictures, multiples of 8 for the pipeline: at those the two models with two levels never round.
PICTURES = {"sd2": (40, 24), "demo": (136, 104)}


@torch.no_grad()
def tensors(name, pipe):
    file = HERE / f"{name}.safetensors"
    out = load_file(file)
    dim = pipe.unet.config.time_cond_proj_dim
    cond = pipe.get_guidance_scale_embedding(torch.tensor([6.5]), embedding_dim=dim) if dim else None
    for shape in UNET:
        key = f"unet.500.{shape[0]}x{shape[1]}"
        out[key + ".in"] = randn(500, 1, 4, *shape)
        out[key + ".out"] = pipe.unet(out[key + ".in"], 500, out["text.out"][:1], timestep_cond=cond)[0]
    rows, columns = AUTOENCODER
    z = randn(5, 1, pipe.vae.config.latent_channels, rows, columns)
    picture = pipe.vae.decode(z)[0]
    out |= {f"decode.{rows}x{columns}.in": z, f"decode.{rows}x{columns}.out": picture}
    out[f"encode.{rows}x{columns}.in"] = picture.clamp(-1, 1)
    out[f"encode.{rows}x{columns}.out"] = pipe.vae.encode(picture.clamp(-1, 1)).latent_dist.parameters
    save_file({key: value.contiguous() for key, value in out.items()}, file)


def pictures(name, pipe, list):
    prompt = "a large red house at night with a moon"
    paint(name, pipe, "dpmpp_2m", prompt, 7, 8, 5.0, PICTURES[name], None, list)
    init = list[-1]["file"]
    paint(name, pipe, "euler_ancestral", "a yellow star on a beach", 3, 10, 5.0, PICTURES[name], init, list)


if __name__ == "__main__":
    path = HERE / "pictures.json"
    known = [p for p in json.loads(path.read_text()) if (p["width"], p["height"]) != PICTURES.get(p["model"])]
    for name in [*MODELS, "demo"]:
        pipe = load(DEMO if name == "demo" else HERE / "models" / name)
        tensors(name, pipe)
        if name in PICTURES:
            pictures(name, pipe, known)
    path.write_text("[\n" + ",\n".join(json.dumps(p) for p in known) + "\n]\n")
