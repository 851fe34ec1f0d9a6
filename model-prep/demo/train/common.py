"""What the training's stages share: where files lie, the noise schedule, and the clock that they train by.

All paths are relative to the current folder, in which the stages find each other's results.
"""
import json
import math
import time
from pathlib import Path

import numpy
import torch
from transformers import CLIPTokenizer

MODEL = Path("model")
MODEL_F16 = Path("model-f16")
IMAGES, CAPTIONS, LATENTS = Path("images.npy"), Path("captions.json"), Path("latents.pt")
# Stable Diffusion 1's schedule.
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
SAMPLING = {**SCHEDULE, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
TOKENS = 77


class Clock:
    """A cosine learning rate over minutes instead of steps: a slower machine trains less, but always to the end."""

    def __init__(self, minutes, peak, warmup=200, floor=0.03):
        self.started, self.seconds = time.time(), minutes * 60
        self.peak, self.warmup, self.floor = peak, warmup, floor
        self.step = 0

    @property
    def done(self):
        """The part of the time that is over."""
        return (time.time() - self.started) / self.seconds

    def steps(self, optimizer):
        """Counts steps until the time is over, and sets the optimizer's rate before each."""
        while (done := self.done) < 1:
            cosine = 0.5 * (1 + math.cos(math.pi * done)) * (1 - self.floor) + self.floor
            for group in optimizer.param_groups:
                group["lr"] = self.peak * min(1, (self.step + 1) / self.warmup) * cosine
            self.step += 1
            yield self.step

    def report(self, text):
        pace = (time.time() - self.started) / self.step
        print(f"{self.step} {self.done:.3f} {text} {pace:.3f} s/step", flush=True)


def optimize(optimizer, loss, clipped=()):
    """One step, the gradients of `clipped` bounded."""
    optimizer.zero_grad()
    loss.backward()
    if clipped:
        torch.nn.utils.clip_grad_norm_(clipped, 1.0)
    optimizer.step()


def running_mean(mean, value, keep):
    return value if mean is None else keep * mean + (1 - keep) * value


def pixels(images, rows):
    """Pictures of the training data as the autoencoder sees them: NCHW from -1 to 1."""
    chosen = torch.from_numpy(numpy.ascontiguousarray(images[rows]))
    return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1


def tokenizer():
    return CLIPTokenizer.from_pretrained(MODEL / "tokenizer")


def token_ids(tokenize, captions):
    padded = tokenize(captions, padding="max_length", max_length=TOKENS, truncation=True)
    return torch.tensor(padded.input_ids)


def captions():
    return json.loads(CAPTIONS.read_text())
