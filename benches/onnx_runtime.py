"""What onnxruntime needs in f32 for what `cargo bench --bench step` measures: a guided UNet step and a VAE decode.

    python benches/onnx_runtime.py target/tmp/sd15 [threads]

The folder is a diffusers model (the step bench makes this one). Needs torch, diffusers, onnx, onnxscript and onnxruntime from
PyPI, 16 GB of memory, and 4 GB of disk for the exported graphs. Prints the best of three, wall and CPU seconds.
"""

import os
import sys
import tempfile
import time

import numpy
import onnxruntime
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel


def load(kind, folder, name):
    """The network with random weights: only its shapes matter for time."""
    return kind.from_config(kind.load_config(folder, subfolder=name)).float()


class Unet(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        self.net = load(UNet2DConditionModel, folder, "unet")

    def forward(self, latents, timestep, text):
        return self.net(latents, timestep, encoder_hidden_states=text, return_dict=False)[0]


class Decoder(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        self.net = load(AutoencoderKL, folder, "vae")

    def forward(self, latents):
        return self.net.decode(latents, return_dict=False)[0]


def measure(name, make, inputs, threads):
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = os.path.join(folder, "net.onnx")
        names = [f"input{i}" for i in range(len(inputs))]
        torch.onnx.export(make().eval(), tuple(inputs), path, input_names=names, dynamo=True, external_data=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), inputs)}
        best = numpy.inf, numpy.inf
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            session.run(None, feeds)
            best = min(best[0], time.perf_counter() - wall), min(best[1], time.process_time() - cpu)
    print(f"{name:<7} wall {best[0]:6.2f} s, cpu {best[1]:6.2f} s", flush=True)


def main():
    folder, threads = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count()
    print(f"onnxruntime {onnxruntime.__version__}, f32, {threads} threads")
    step = [torch.randn(2, 4, 64, 64), torch.tensor([500.0]), torch.randn(2, 77, 768)]
    measure("step", lambda: Unet(folder), step, threads)
    measure("decode", lambda: Decoder(folder), [torch.randn(1, 4, 64, 64)], threads)


main()
