"""Writes noise.json: what torch's CPU generator draws. Run with torch installed: `python make_noise.py`."""

import json
import pathlib

import torch

# Each case is one generator; every length is one call of randn on it. The mixed case leaves a scalar pair half used.
SEEDS = [0, 7, 2**32 - 1, 2**40 + 5, 2**64 - 1]
DRAWS = [[5, 5], [15, 15], [16, 16], [17, 17], [100, 100], [5, 17, 4, 1024, 3]]


def case(seed: int, lengths: list[int]) -> dict:
    generator = torch.Generator("cpu").manual_seed(seed)
    draws = [torch.randn(length, generator=generator).tolist() for length in lengths]
    return {"seed": seed, "draws": [[float(f"{value:.9g}") for value in draw] for draw in draws]}


# 1024 values in a row, twice, for one seed: more would only repeat it.
cases = [case(seed, lengths) for seed in SEEDS for lengths in DRAWS[:-1]]
cases += [case(7, DRAWS[-1]), case(0, [1024, 1024])]
lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in cases)
pathlib.Path(__file__).with_name("noise.json").write_text(f"[\n{lines}\n]\n")
