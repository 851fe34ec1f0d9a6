"""LoRA files of every kind and spelling and textual inversions for models/sd1, and one of each for models/sdxl, and what the
reference paints with them.

Run with torch, transformers, diffusers, peft and safetensors installed, from the repository's root:
    OMP_NUM_THREADS=1 python tests/goldens/make_adapters.py
Writes adapters/ (files, pictures, and parts of a pipeline that was saved with a textual inversion) and adapters.json. See
README.md beside this file.

Where diffusers reads a file, the reference is its `load_lora_weights` and `fuse_lora`. LoHa and LoKr are peft's layers, merged
by peft, whose tensors have LyCORIS' names. What neither has (LoCon's `lora_mid`, `.diff`, norms, DoRA of the inputs) is
merged here by LyCORIS' formulas (lycoris/modules: locon.py, full.py, norms.py, and `apply_weight_decompose`).
"""
import json
import pathlib

import numpy
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from peft import LoHaConfig, LoKrConfig, LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
OUT = HERE / "adapters"
MODEL = HERE / "models/sd1"
PROMPT, NEGATIVE, SEED, STEPS, CFG, SIDE = "a red house at night", "a tree", 11, 3, 5.0, 32

# One module of each kind, at both levels and in the text encoder.
UNET = [
    "conv_in", "time_embedding.linear_1", "down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.1.time_emb_proj",
    "down_blocks.0.attentions.0.proj_in", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.conv_shortcut", "mid_block.resnets.0.conv2", "mid_block.resnets.1.time_emb_proj",
    "mid_block.attentions.0.proj_out", "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj", "up_blocks.0.resnets.2.conv_shortcut",
    "up_blocks.0.upsamplers.0.conv", "up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_v",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_v", "up_blocks.1.attentions.1.transformer_blocks.0.ff.net.2",
]
ATTENTION = [name for name in UNET if ".attn" in name]
TEXT = [
    "text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.0.self_attn.out_proj",
    "text_model.encoder.layers.1.self_attn.v_proj", "text_model.encoder.layers.1.mlp.fc1",
    "text_model.encoder.layers.0.mlp.fc2",
]
XL_UNET = [
    "conv_in", "down_blocks.0.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv", "down_blocks.1.attentions.0.proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "down_blocks.2.attentions.0.transformer_blocks.1.attn1.to_q", "mid_block.resnets.1.time_emb_proj",
    "mid_block.attentions.0.transformer_blocks.1.ff.net.0.proj", "up_blocks.0.upsamplers.0.conv",
    "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0", "up_blocks.2.resnets.0.conv_shortcut",
]
# The last block of the first encoder has no effect. Without an out_proj diffusers leaves out the attention's keys.
XL_TEXT = ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.mlp.fc1",
           "text_model.encoder.layers.0.self_attn.out_proj",
           "text_model.encoder.layers.2.self_attn.v_proj"]
generator = torch.Generator().manual_seed(5)


def pipeline(model=MODEL):
    pipe = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def paint(pipe, prompt=PROMPT, side=SIDE):
    image = pipe(prompt, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=CFG, width=side, height=side,
                 generator=torch.Generator("cpu").manual_seed(SEED), output_type="np").images[0]
    return (image * 255).round().astype(numpy.uint8)


def module(pipe, network, name):
    root = getattr(pipe, network)
    return root.get_submodule(text_path(root, name) if network != "unet" else name)


def text_path(root, name):
    """transformers 5 has no `text_model` in its modules."""
    return name if hasattr(root, "text_model") else name.removeprefix("text_model.")


def randn(*shape):
    return torch.randn(shape, generator=generator)


def lively(*shape, scale=1.0):
    """Values whose products with others keep their size."""
    return randn(*shape) * scale / shape[-1] ** 0.5


def low_rank(weight, rank):
    """Factors of a change about half as large as a weight."""
    columns = weight[0].numel()
    down = randn(rank, *weight.shape[1:]) * 0.5 / columns ** 0.5
    up = randn(weight.shape[0], rank, *([1, 1] if weight.dim() == 4 else [])) / rank ** 0.5
    return up, down


def targets(pipe, unet, text):
    return [("unet", name) for name in unet] + [("text_encoder", name) for name in text]


def kohya_name(network, name):
    return {"unet": "lora_unet_", "text_encoder": "lora_te_"}[network] + name.replace(".", "_")


def kohya(pipe, unet, text, rank, alpha, spell=kohya_name):
    tensors = {}
    for network, name in targets(pipe, unet, text):
        up, down = low_rank(module(pipe, network, name).weight, rank)
        key = spell(network, name)
        tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(alpha)}
    return tensors


def ldm_name(network, name, layers=2, attention=("1",)):
    """Stable Diffusion's own names of the UNet's modules, for a number of residual blocks a level; `attention` are the levels of
    the way up that have some."""
    count = layers + 1
    parts = name.split(".")
    inner = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
             "conv_shortcut": "skip_connection"}
    match parts:
        case ["conv_in"]: new = "input_blocks.0.0"
        case ["time_embedding", linear]: new = {"linear_1": "time_embed.0", "linear_2": "time_embed.2"}[linear]
        case ["down_blocks", i, "downsamplers", *_]: new = f"input_blocks.{count * int(i) + count}.0.op"
        case ["down_blocks", i, "resnets", j, *rest]:
            new = f"input_blocks.{count * int(i) + int(j) + 1}.0." + inner[rest[0]]
        case ["down_blocks", i, "attentions", j, *rest]:
            new = f"input_blocks.{count * int(i) + int(j) + 1}.1." + ".".join(rest)
        case ["mid_block", "resnets", j, *rest]: new = f"middle_block.{2 * int(j)}." + inner[rest[0]]
        case ["mid_block", "attentions", j, *rest]: new = "middle_block.1." + ".".join(rest)
        case ["up_blocks", i, "resnets", j, *rest]: new = f"output_blocks.{count * int(i) + int(j)}.0." + inner[rest[0]]
        case ["up_blocks", i, "attentions", j, *rest]:
            new = f"output_blocks.{count * int(i) + int(j)}.1." + ".".join(rest)
        case ["up_blocks", i, "upsamplers", *_]: new = f"output_blocks.{count * int(i) + layers}.{2 if i in attention else 1}.conv"
    return kohya_name(network, new)


def write(name, tensors, metadata=None):
    tensors = {key: value.detach().half().contiguous() for key, value in tensors.items()}
    save_file(tensors, OUT / f"{name}.safetensors", metadata)
    return {key: value.float() for key, value in tensors.items()}


cases = []


def case(name, pipe, loras, prompt=PROMPT, embeddings=(), side=SIDE, before=None):
    """The picture of `pipe` is what a model with these files should paint; `before` is what it paints without."""
    picture = paint(pipe, prompt, side)
    change = numpy.abs(picture.astype(int) - (plain if before is None else before).astype(int)).mean()
    assert change > 3, f"{name} changes the picture by {change} only"
    Image.fromarray(picture).save(OUT / f"{name}.png", optimize=True)
    cases.append({"name": name, "loras": loras, "embeddings": list(embeddings), "prompt": prompt, "negative_prompt": NEGATIVE, "seed": SEED, "steps": STEPS,
                  "cfg_scale": CFG, "side": side})
    print(f"{name}: the picture changes by {change:.1f} of 255")


def loaded(name, *loras):
    """By diffusers' own reader."""
    pipe = pipeline()
    for index, lora in enumerate(loras):
        pipe.load_lora_weights(OUT, weight_name=f"{lora[0]}.safetensors", adapter_name=f"lora{index}")
    pipe.set_adapters([f"lora{index}" for index in range(len(loras))], [strength for _, strength in loras])
    pipe.fuse_lora(adapter_names=[f"lora{index}" for index in range(len(loras))])
    case(name, pipe, [f"{file}.safetensors:{strength}" for file, strength in loras])


def adapted(pipe, configs):
    """PEFT's layers in the networks, each config (network, config) an adapter of its own."""
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    torch.manual_seed(9)
    for index, (network, config) in enumerate(configs):
        inject_adapter_in_model(config, networks[network], adapter_name=f"a{index}")
    return networks


def merge(networks):
    for network in networks.values():
        for layer in network.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.merge(adapter_names=list(layer._all_available_adapter_names()))


def peft_weights(pipe, unet, text, rank, **options):
    """What diffusers' training scripts save."""
    configs = {"unet": LoraConfig(r=rank, target_modules=unet, **options),
               "text_encoder": LoraConfig(r=rank, target_modules=[text_path(pipe.text_encoder, n) for n in text], **options)}
    torch.manual_seed(3)
    for network, config in configs.items():
        root = getattr(pipe, network)
        inject_adapter_in_model(config, root, adapter_name="default")
        for name, parameter in root.named_parameters():
            if "lora_A" in name:
                parameter.data = randn(*parameter.shape) * 0.5 / parameter[0].numel() ** 0.5
            elif "lora_B" in name:
                parameter.data = randn(*parameter.shape) / rank ** 0.5
            elif "lora_magnitude_vector" in name:
                parameter.data = parameter.data * (1 + 0.3 * randn(*parameter.shape))
    return {network: get_peft_model_state_dict(getattr(pipe, network)) for network in configs}


def with_prefix(states):
    named = {}
    for network, state in states.items():
        for key, value in state.items():
            if network == "text_encoder" and not key.startswith("text_model."):
                key = "text_model." + key
            named[f"{network}.{key}"] = value
    return named


def lycoris_tensors(networks, alphas):
    """PEFT's LoHa and LoKr under LyCORIS' names, which are the same but for the modules'."""
    tensors = {}
    for network, root in networks.items():
        for name, layer in root.named_modules():
            if not isinstance(layer, BaseTunerLayer):
                continue
            if network == "text_encoder" and not name.startswith("text_model."):
                name = "text_model." + name
            for kind in layer.adapter_layer_names:
                for adapter, value in getattr(layer, kind).items():
                    value.data = randn(*value.shape) * (2.0 if "t" in kind[-2:] else 1.0) / value.shape[-1] ** 0.5
                    # The file is in f16.
                    value.data = value.data.half().float()
                    key = kohya_name(network, name)
                    tensors |= {f"{key}.{kind}": value, f"{key}.alpha": torch.tensor(alphas[adapter])}
    return tensors


def formulas(pipe):
    """LoCon around a kernel, whole changes, norms, and DoRA by inputs."""
    tensors, changes = {}, []
    weight = lambda name: module(pipe, "unet", name).weight
    name, rank, alpha = "mid_block.resnets.0.conv2", 3, 2.0
    out, inputs = weight(name).shape[:2]
    parts = {"lora_up": randn(out, rank, 1, 1), "lora_mid": randn(rank, rank, 3, 3) * 0.2,
             "lora_down": randn(rank, inputs, 1, 1) * 0.2}
    key = kohya_name("unet", name)
    tensors |= {f"{key}.{part}.weight": value for part, value in parts.items()} | {f"{key}.alpha": torch.tensor(alpha)}
    changes.append(("cp", name, alpha / rank))
    for name in ["down_blocks.0.resnets.0.conv1", "up_blocks.1.attentions.1.transformer_blocks.0.ff.net.2", "conv_out"]:
        key = kohya_name("unet", name)
        tensors |= {f"{key}.diff": lively(*weight(name).shape, scale=0.4), f"{key}.diff_b": randn(weight(name).shape[0]) * 0.2}
        changes.append(("diff", name, 1.0))
    for name in ["down_blocks.0.attentions.0.norm", "mid_block.attentions.0.transformer_blocks.0.norm1"]:
        key = kohya_name("unet", name)
        tensors |= {f"{key}.w_norm": randn(*weight(name).shape) * 0.4, f"{key}.b_norm": randn(*weight(name).shape) * 0.2}
        changes.append(("norm", name, 1.0))
    for name in ["mid_block.resnets.1.conv1", "up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_v"]:
        up, down = low_rank(weight(name), 2)
        key = kohya_name("unet", name)
        tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(1.0)}
        lengths = weight(name).transpose(0, 1).reshape(weight(name).shape[1], -1).norm(dim=1)
        lengths = lengths * (1 + 0.3 * randn(*lengths.shape))
        tensors[f"{key}.dora_scale"] = lengths.reshape(1, -1, *[1] * (weight(name).dim() - 2))
        changes.append(("dora", name, 0.5))
    return tensors, changes


@torch.no_grad()
def apply_formulas(pipe, tensors, changes):
    for kind, name, scale in changes:
        layer, key = module(pipe, "unet", name), kohya_name("unet", name)
        part = lambda suffix: tensors[f"{key}.{suffix}"]
        if kind == "cp":
            up, down = part("lora_up.weight")[:, :, 0, 0], part("lora_down.weight")[:, :, 0, 0]
            layer.weight += scale * torch.einsum("pi,ijkl,jq->pqkl", up, part("lora_mid.weight"), down)
        elif kind == "diff":
            layer.weight += part("diff")
            layer.bias += part("diff_b")
        elif kind == "norm":
            layer.weight += part("w_norm")
            layer.bias += part("b_norm")
        else:
            up, down = part("lora_up.weight").flatten(1), part("lora_down.weight").flatten(1)
            total = layer.weight + scale * (up @ down).reshape(layer.weight.shape)
            lengths = total.transpose(0, 1).reshape(total.shape[1], -1).norm(dim=1)
            lengths = lengths.reshape(1, -1, *[1] * (total.dim() - 2)) + torch.finfo(total.dtype).eps
            layer.weight.copy_(total * (part("dora_scale") / lengths))


def textual_inversions():
    """Several vectors without a name, one vector under its name, and a pickle that names its word."""
    width = pipeline().text_encoder.config.hidden_size
    write("neg", {"emb_params": randn(3, width)})
    write("learned_embeds", {"<cat-toy>": randn(width)})
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": randn(2, width)}, "name": "moonlit", "step": 5},
               OUT / "moonlit-5.pt")
    for name, files, prompt in [
        ("ti-neg", [("neg.safetensors", "bad-hands")], "a red bad-hands house at night"),
        ("ti-cat", [("learned_embeds.safetensors", None)], "a red<cat-toy>house"),
        ("ti-all", [("neg.safetensors", "neg"), ("learned_embeds.safetensors", "dog-toy"), ("moonlit-5.pt", None)],
         "dog-toy on a moonlit beach, neg"),
    ]:
        pipe = pipeline()
        for file, word in files:
            pipe.load_textual_inversion(OUT, weight_name=file, token=word)
        # diffusers finds words of several vectors only as they are spelled when they were added.
        case(name, pipe, [], prompt, [file + (f"={word}" if word else "") for file, word in files])
    pipe = pipeline(HERE / "models/lcm")
    pipe.load_textual_inversion({"<cat-toy>": randn(2, pipe.text_encoder.config.hidden_size)})
    pipe.text_encoder.half().save_pretrained(OUT / "saved/text_encoder")
    pipe.tokenizer.save_pretrained(OUT / "saved/tokenizer")
    pipe.text_encoder.float()
    case("saved", pipe, [], "a house and a <cat-toy> at night")


def xl():
    """kohya's file for SDXL, whose UNet it names as single files do, and a textual inversion for both text encoders."""
    def open_xl():
        pipe = StableDiffusionXLPipeline.from_pretrained(HERE / "models/sdxl", torch_dtype=torch.float32,
                                                         add_watermarker=False)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    pipe, side = open_xl(), 16
    before = paint(pipe, side=side)
    tensors = {}
    for network, names in [("unet", XL_UNET), ("text_encoder", XL_TEXT), ("text_encoder_2", XL_TEXT)]:
        for name in names:
            up, down = low_rank(module(pipe, network, name).weight, 2)
            key = ldm_name(network, name, layers=1, attention=("0", "1")) if network == "unet" else \
                {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}[network] + name.replace(".", "_")
            tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(2.0)}
    write("xl", tensors)
    pipe.load_lora_weights(OUT, weight_name="xl.safetensors", adapter_name="xl")
    pipe.fuse_lora(components=["unet", "text_encoder", "text_encoder_2"], lora_scale=0.7)
    case("xl", pipe, ["xl.safetensors:0.7"], side=side, before=before)

    pipe = open_xl()
    toy = write("xl-toy", {"clip_l": randn(2, pipe.text_encoder.config.hidden_size),
                           "clip_g": randn(2, pipe.text_encoder_2.config.hidden_size)})
    pipe.load_textual_inversion(toy["clip_l"], token="<xl-toy>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(toy["clip_g"], token="<xl-toy>", text_encoder=pipe.text_encoder_2,
                                tokenizer=pipe.tokenizer_2)
    case("xl-toy", pipe, [], "a <xl-toy> in a house", ["xl-toy.safetensors=<xl-toy>"], side, before)


def main():
    global plain
    OUT.mkdir(exist_ok=True)
    pipe = pipeline()
    plain = paint(pipe)

    write("kohya", kohya(pipe, UNET, TEXT, rank=2, alpha=1.0))
    loaded("kohya", ("kohya", 0.8))

    tensors = kohya(pipe, UNET, [], rank=2, alpha=3.0, spell=ldm_name)
    # Where a level has no attention, diffusers takes its upsampler for one.
    tensors = {key: value for key, value in tensors.items() if "output_blocks_2_1" not in key}
    write("ldm", tensors)
    ldm = pipeline()
    state, alphas = ldm.lora_state_dict(OUT / "ldm.safetensors", unet_config=ldm.unet.config)
    ldm.load_lora_into_unet(state, alphas, ldm.unet)
    ldm.fuse_lora()
    case("ldm", ldm, ["ldm.safetensors"])

    # PEFT's names, alphas in the metadata, one network's by root of the rank.
    states = with_prefix(peft_weights(pipeline(), UNET, TEXT, 2))
    metadata = {
        "unet": dict(r=2, lora_alpha=3, target_modules=UNET, alpha_pattern={"to_q": 1, "conv_in": 6}),
        "text_encoder": dict(r=2, lora_alpha=3, use_rslora=True,
                             target_modules=["q_proj", "v_proj", "out_proj", "fc1", "fc2"]),
    }
    metadata = {f"{network}.{key}": value for network, config in metadata.items() for key, value in config.items()}
    write("peft", states, {"lora_adapter_metadata": json.dumps(metadata)})
    loaded("peft", ("peft", 1.0))

    # diffusers 0.17 to 0.23: no alphas.
    older = lambda key: key.replace("lora_A", "lora.down").replace("lora_B", "lora.up")
    older_text = lambda key: key.replace("lora_A", "lora_linear_layer.down").replace("lora_B", "lora_linear_layer.up")
    states = with_prefix(peft_weights(pipeline(), UNET, TEXT, 1))
    write("older", {(older_text if key.startswith("text") else older)(key): value for key, value in states.items()})
    loaded("older", ("older", 1.0))

    # The first form: attention processors.
    states = with_prefix(peft_weights(pipeline(), ATTENTION, [TEXT[0]], 2))
    oldest = {}
    for key, value in states.items():
        if key.startswith("unet."):
            base, _, which = key.removesuffix(".weight").rpartition(".")
            attention, _, projection = base.replace(".to_out.0", ".to_out").rpartition(".")
            side = {"lora_A": "down", "lora_B": "up"}[which]
            oldest[f"{attention}.processor.{projection}_lora.{side}.weight"] = value
    write("oldest", oldest)
    loaded("oldest", ("oldest", 1.0))
    unnamed = {key.removeprefix("unet."): value for key, value in oldest.items()}
    write("unnamed", unnamed)
    cases.append(cases[-1] | {"name": "oldest", "loras": ["unnamed.safetensors"]})

    # DoRA by outputs, PEFT's. Of a text encoder transformers 5 does not read the magnitudes.
    dora = peft_weights(pipeline(), UNET[2:12], [TEXT[0]], 2, use_dora=True)
    write("dora", with_prefix({"unet": dora["unet"]}))
    loaded("dora", ("dora", 1.0))
    loaded("dora-half", ("dora", 0.5))
    loaded("several", ("kohya", 0.5), ("dora", 1.0), ("peft", -0.4))

    loha = pipeline()
    networks = adapted(loha, [
        ("unet", LoHaConfig(r=2, alpha=3, target_modules=UNET[:7], use_effective_conv2d=True, init_weights=False)),
        ("unet", LoHaConfig(r=2, alpha=3, target_modules=UNET[7:14], init_weights=False)),
        ("text_encoder", LoHaConfig(r=2, alpha=3, target_modules=[text_path(loha.text_encoder, n) for n in TEXT],
                                    init_weights=False)),
    ])
    write("loha", lycoris_tensors(networks, {"a0": 3.0, "a1": 3.0, "a2": 3.0}))
    merge(networks)
    case("loha", loha, ["loha.safetensors"])

    lokr = pipeline()
    networks = adapted(lokr, [
        ("unet", LoKrConfig(r=1, alpha=2, target_modules=UNET[:5], use_effective_conv2d=True, decompose_both=True,
                            init_weights=False)),
        ("unet", LoKrConfig(r=1, alpha=2, target_modules=UNET[5:12], decompose_factor=2, init_weights=False)),
        # Both factors are whole: alpha has no effect, so it is the rank here.
        ("text_encoder", LoKrConfig(r=64, alpha=64, target_modules=[text_path(lokr.text_encoder, n) for n in TEXT],
                                    init_weights=False)),
    ])
    write("lokr", lycoris_tensors(networks, {"a0": 2.0, "a1": 2.0, "a2": 7.0}))
    merge(networks)
    case("lokr", lokr, ["lokr.safetensors"])

    pipe = pipeline()
    tensors, changes = formulas(pipe)
    tensors = write("formulas", tensors)
    apply_formulas(pipe, tensors, changes)
    case("formulas", pipe, ["formulas.safetensors"])

    textual_inversions()
    xl()
    (HERE / "adapters.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
