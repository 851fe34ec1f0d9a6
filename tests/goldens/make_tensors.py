"""Files of weights as torch, safetensors and ggml's Python package write them, and the values that they hold: tensors/.

Run with torch, safetensors, gguf and numpy installed: python tests/goldens/make_tensors.py
"""
import collections
import pathlib
import zipfile

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parent / "tensors"


class Callback:
    """A class of the program that trained, as a checkpoint of a training framework names them."""

    def __init__(self):
        self.best = 1.5


def checkpoint(random):
    """What a training framework saves: the model under `state_dict`, beside it what only that program needs."""
    shared = torch.randn(6, 4, generator=random)
    fused = torch.randn(12, 5, generator=random)
    state = collections.OrderedDict()
    state["f64"] = torch.randn(3, 2, generator=random, dtype=torch.float64)
    state["f32"] = torch.randn(5, generator=random)
    state["f16"] = torch.randn(2, 3, generator=random).half()
    state["bf16"] = torch.randn(2, 3, generator=random).bfloat16()
    state["e4m3"] = torch.randn(7, generator=random).to(torch.float8_e4m3fn)
    state["e5m2"] = torch.randn(7, generator=random).to(torch.float8_e5m2)
    state["scalar"] = torch.tensor(4.0)
    state["empty"] = torch.zeros(0, 3)
    state["position_ids"] = torch.arange(77).reshape(1, 77)
    # Not contiguous: a transposed matrix, a convolution with the channels last, a row stretched over four.
    state["transposed"] = shared.t()
    state["shared"] = shared
    state["channels_last"] = torch.randn(2, 3, 3, 3, generator=random).to(memory_format=torch.channels_last)
    state["stretched"] = torch.randn(1, 3, generator=random).expand(4, 3)
    state["part"] = fused[4:8]
    state["parameter"] = torch.nn.Parameter(torch.randn(3, generator=random))
    return {"epoch": 3, "state_dict": state, "callbacks": [Callback()], "hyper_parameters": {"lr": 1e-4, "names": ("a", "b")}}


def embedding(random):
    """A textual inversion as the trainers of A1111's program save it."""
    module = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.randn(2, 8, generator=random))})
    return {"string_to_token": {"*": 265}, "string_to_param": module, "name": "cat-toy", "step": 500,
            "sd_checkpoint": None, "sd_checkpoint_name": None}


def values(tensor):
    return tensor.detach().float().contiguous().clone()


def blocks(kind, rows, random):
    """Blocks of a quantised type: random bits, but scales of some size."""
    size, bytes_ = gguf.GGML_QUANT_SIZES[kind]
    scales = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
              Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}[kind]
    data = random.integers(0, 256, (rows, bytes_), dtype=numpy.uint8)
    for at in scales:
        data[:, at:at + 2] = random.normal(size=rows).astype(numpy.float16)[:, None].view(numpy.uint8)
    return data


def main():
    FOLDER.mkdir(exist_ok=True)
    random = torch.Generator().manual_seed(1)
    expected = {}
    saved = checkpoint(random)
    torch.save(saved, FOLDER / "checkpoint.ckpt")
    expected |= {f"checkpoint.{name}": values(tensor) for name, tensor in saved["state_dict"].items()}
    # As archives of more than 4 GiB are: every size and place in the wider fields.
    zipfile.ZIP64_LIMIT = 0
    with zipfile.ZipFile(FOLDER / "checkpoint.ckpt") as small, zipfile.ZipFile(FOLDER / "large.ckpt", "w") as large:
        for member in small.infolist():
            large.writestr(zipfile.ZipInfo(member.filename), small.read(member))
    saved = embedding(random)
    torch.save(saved, FOLDER / "embedding.pt")
    expected["embedding.string_to_param.*"] = values(saved["string_to_param"]["*"])
    torch.save({"a": torch.ones(2)}, FOLDER / "before_1.6.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(torch.nn.Linear(2, 2)).save(FOLDER / "program.pt")

    # Every finite value of the 8-bit types.
    codes = torch.arange(256, dtype=torch.uint8)
    floats = {"e4m3": codes.view(torch.float8_e4m3fn), "e5m2": codes.view(torch.float8_e5m2)}
    floats = {name: codes[codes.float().isfinite()] for name, codes in floats.items()}
    save_file(floats, FOLDER / "floats.safetensors", {"made with": "safetensors"})
    expected |= {f"floats.{name}": values(tensor) for name, tensor in floats.items()}

    numbers = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(FOLDER / "blocks.gguf", "sd")
    writer.add_string("general.name", "blocks")
    writer.add_array("list", ["some", "words"])
    plain = numbers.normal(size=(2, 3, 1, 5)).astype(numpy.float32)
    writer.add_tensor("f32", plain)
    writer.add_tensor("f16", plain.astype(numpy.float16))
    expected["blocks.f32"] = torch.from_numpy(plain)
    expected["blocks.f16"] = torch.from_numpy(plain).half().float()
    bf16 = torch.from_numpy(plain).bfloat16()
    writer.add_tensor("bf16", bf16.view(torch.uint8).numpy(), raw_dtype=Type.BF16)
    expected["blocks.bf16"] = bf16.float()
    for kind in [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K]:
        data = blocks(kind, 3, numbers)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        expected[f"blocks.{kind.name}"] = torch.from_numpy(gguf.quants.dequantize(data, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, FOLDER / "expected.safetensors")


main()
