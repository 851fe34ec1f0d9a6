"""Stable Diffusion at its full size, in f32: does our engine compute what diffusers computes?

Run with torch, transformers, diffusers and safetensors installed, from the repository's root:
    python tests/goldens/full_size.py [sd15|sd21|bk-sdm-tiny [ROWS COLUMNS]]
Makes a model of the true shapes and random weights (`model-prep synth`), runs the text encoder, one UNet pass at 64×64
latents or those rows and columns, the decoder to 512×512 and the encoder from there with both, and fails where they
differ. Takes 9 GB of disk in target/full-size, 6 GB of memory and some minutes, which is why it is no part of the tests.
"""
import pathlib
import subprocess
import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

FOLDER = pathlib.Path("target/full-size")
ARCH = sys.argv[1] if len(sys.argv) > 1 else "sd15"
SOURCE, BUNDLE = FOLDER / ARCH, FOLDER / f"{ARCH}-f32"
INPUTS, OUTPUTS = FOLDER / "inputs.safetensors", FOLDER / "outputs.safetensors"
SIZE = tuple(map(int, sys.argv[2:4])) if len(sys.argv) > 3 else (64, 64)
TIMESTEP = 500.0
# The largest difference, as a part of the largest value.
TOLERANCES = {"text": 1e-4, "unet": 1e-3, "decode": 1e-3, "encode": 1e-3}


def model_prep(*arguments):
    subprocess.run(["cargo", "run", "--release", "-q", "-p", "model-prep", "--", *arguments], check=True)


def make_model():
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not SOURCE.exists():
        model_prep("synth", "--arch", ARCH, "--seed", "0", "--dtype", "f32", "-o", SOURCE)
    model_prep("convert", SOURCE, "-o", BUNDLE, "--weights", "f32", "--force")


def randn(seed):
    return torch.randn((1, 4, *SIZE), generator=torch.Generator().manual_seed(seed))


def reference():
    """Writes the inputs, and returns diffusers' outputs, channels last. One model at a time is in memory."""
    ids = torch.randint(0, 49408, (1, 77), generator=torch.Generator().manual_seed(0))
    noise, latents = randn(1), randn(2)
    text = CLIPTextModel.from_pretrained(SOURCE / "text_encoder")(ids).last_hidden_state
    unet = UNet2DConditionModel.from_pretrained(SOURCE / "unet")
    predicted = unet(noise, TIMESTEP, text).sample
    del unet
    vae = AutoencoderKL.from_pretrained(SOURCE / "vae")
    pixels = vae.decode(latents / vae.config.scaling_factor).sample
    picture = pixels.clamp(-1, 1)
    means = vae.encode(picture).latent_dist.mean * vae.config.scaling_factor
    save_file({"text.in": ids.float(), "unet.in": noise, "unet.timestep": torch.tensor([TIMESTEP]),
               "unet.text": text.contiguous(), "decode.in": latents, "encode.in": picture.contiguous()}, INPUTS)
    return {"text": text, "unet": predicted.permute(0, 2, 3, 1), "decode": pixels.permute(0, 2, 3, 1),
            "encode": means.permute(0, 2, 3, 1)}


def ours():
    subprocess.run(["cargo", "run", "--release", "-q", "-p", "diffused-tests", "--example", "full_size", "--",
                    BUNDLE, INPUTS, OUTPUTS], check=True)
    return load_file(OUTPUTS)


@torch.no_grad()
def main():
    make_model()
    started = time.time()
    wanted = reference()
    print(f"diffusers: {time.time() - started:.0f} s")
    started = time.time()
    computed = ours()
    print(f"our engine: {time.time() - started:.0f} s")
    failed = False
    for name, tolerance in TOLERANCES.items():
        values = wanted[name].flatten()
        error = (computed[name + ".out"] - values).abs().max() / values.abs().max()
        failed |= not error <= tolerance
        print(f"{name:8} {len(values):8} values to {values.abs().max():.3f}, deviation {values.std():.3f}: "
              f"largest difference {error:.1e} of that, {tolerance:.0e} is allowed")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
