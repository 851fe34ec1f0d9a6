"""What onnxruntime needs in f32 for what `cargo bench --bench step` measures, which starts this and takes turns with it.

    python benches/onnx_runtime.py THREADS

Makes a UNet and an autoencoder of Stable Diffusion 1.5's shapes with random weights, says "ready", and for each line "step" (of
512x512, with guidance) or "decode" on its input runs that once and prints the wall's and the processor's seconds. Wants torch,
diffusers, onnx, onnxscript and onnxruntime from PyPI, 16 GB of memory, and 4 GB of disk for the exported graphs.
"""

import os
import sys
import tempfile
import time

import onnxruntime
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel


class Unet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)

    def forward(self, latents, timestep, text):
        return self.net(latents, timestep, encoder_hidden_states=text, return_dict=False)[0]


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
        )

    def forward(self, latents):
        return self.net.decode(latents, return_dict=False)[0]


def session(make, inputs, threads, folder):
    """What runs a network once."""
    path = os.path.join(folder, f"{make.__name__}.onnx")
    names = [f"input{i}" for i in range(len(inputs))]
    with torch.no_grad():
        torch.onnx.export(
            make().eval(), tuple(inputs), path, input_names=names, dynamo=True, external_data=True, verbose=False
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    made = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {entry.name: value.numpy() for entry, value in zip(made.get_inputs(), inputs)}
    return lambda: made.run(None, feeds)


def main():
    threads = int(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the exporter prints is no answer
    with tempfile.TemporaryDirectory() as folder:
        step = [torch.randn(2, 4, 64, 64), torch.tensor([500.0]), torch.randn(2, 77, 768)]
        runs = {
            "step": session(Unet, step, threads, folder),
            "decode": session(Decoder, [torch.randn(1, 4, 64, 64)], threads, folder),
        }
    print("ready", onnxruntime.__version__, file=answers, flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        runs[line.strip()]()
        print(time.perf_counter() - wall, time.process_time() - cpu, file=answers, flush=True)


main()
