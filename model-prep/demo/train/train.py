"""Trains the demo model, stage by stage, in the current folder: `python train.py STAGE [MINUTES]`.

The stages in their order: data, vae, text, unet, finish; decoder and show at will. See ../README.md.
"""
import argparse
import os

import torch

import finish
from autoencoder import vae
from data import data
from text_encoder import text
from unet import unet

STAGES = {
    "data": lambda minutes: data(),
    "vae": vae,
    "decoder": lambda minutes: vae(minutes, decoder_only=True),
    "text": text,
    "unet": unet,
    "show": lambda minutes: finish.show(),
    "finish": lambda minutes: finish.finish(),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("minutes", type=float, nargs="?", default=60, help="how long to train")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    STAGES[arguments.stage](arguments.minutes)


if __name__ == "__main__":
    main()
