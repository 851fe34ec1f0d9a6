"""What the A1111 web interface makes of prompts with weights, chunks and changes, and pictures of them.

The web interface's arithmetic is written out here on the reference's text encoders, tokenizers and UNets: chunks of 75 tokens
with its rule of commas, weights that keep the mean, texts by step, prompts of different lengths each in a run of its own. How
it reads brackets is another matter (`daemon/engine/tests/goldens/make_prompts.py`): here each prompt stands beside its parts.

Run as make_pipeline.py is, after it and make_xl.py, with compel installed:
    OMP_NUM_THREADS=1 python tests/goldens/make_conditioning.py
"""
import json

import numpy
import torch
from compel import CompelForSD
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image
from safetensors.torch import save_file

import make_pipeline
import make_xl
from make_pipeline import HERE

BREAK = "BREAK"
LONG = ", ".join(["a large red house on the left at night with a small moon above the sea and a yellow star"] * 5)
WORDS = " ".join(["a red house at night"] * 20)

# Of each: the prompt, its texts by the last step that has them as (parts, step), its parts as (text, weight), and clip skip.
STEPS = 5
EMBEDDED = [
    ("a red car", [([("a red car", 1.0)], 5)], 1),
    ("a (red:1.5) car", [([("a ", 1.0), ("red", 1.5), (" car", 1.0)], 5)], 1),
    ("((a)) [red] (car:0)", [([("a", 1.1 * 1.1), (" ", 1.0), ("red", 1 / 1.1), (" ", 1.0), ("car", 0.0)], 5)], 1),
    (f"({LONG}:1.2), a (car)", [([(LONG, 1.2), (", a ", 1.0), ("car", 1.1)], 5)], 1),
    ("a red car BREAK (a star:1.3)", [([("a red car", 1.0), (BREAK, -1), ("a star", 1.3)], 5)], 1),
    ("a [red:(blue:1.4):2] car", [([("a red car", 1.0)], 2), ([("a ", 1.0), ("blue", 1.4), (" car", 1.0)], 5)], 1),
    ("a [(red:1.3)|blue] car", [([("a ", 1.0), ("red", 1.3), (" car", 1.0)] if i % 2 else [("a blue car", 1.0)], i) for i in range(1, 6)], 1),
    ("a (red:1.2) car", [([("a ", 1.0), ("red", 1.2), (" car", 1.0)], 5)], 2),
    ("a (red:1.2) car", [([("a ", 1.0), ("red", 1.2), (" car", 1.0)], 5)], 3),
]
MODELS = {"sd1": range(8), "sd2": [1, 3, 7, 8], "sdxl": [1, 3, 5, 7, 8]}

# Model, sampler, prompt, its parts by step (of several that AND joins: of each, and its weight), negative prompt, its parts.
PAINTED = [
    ("sd1", "euler", "a (red:1.4) [car]", [([("a ", 1.0), ("red", 1.4), (" ", 1.0), ("car", 1 / 1.1)], 5)], "(a tree:1.2)", [("a tree", 1.2)]),
    ("sd1", "ddim", f"{LONG}, (car)", [([(LONG + ", ", 1.0), ("car", 1.1)], 5)], "a tree", [("a tree", 1.0)]),
    ("sd1", "euler", "a [red:blue:2] car", [([("a red car", 1.0)], 2), ([("a blue car", 1.0)], 5)], f"a tree BREAK {LONG}",
     [("a tree", 1.0), (BREAK, -1), (LONG, 1.0)]),
    ("sd2", "ddim", "a ((red)) car BREAK a star", [([("a ", 1.0), ("red", 1.1 * 1.1), (" car", 1.0), (BREAK, -1), ("a star", 1.0)], 5)], "", [("", 1.0)]),
    ("sd1", "euler", f"a red car:0.7 AND a [red:blue:2] star :1.2 AND {WORDS}",
     [([([("a red car", 1.0)], 5)], 0.7), ([([(" a red star", 1.0)], 2), ([(" a blue star", 1.0)], 5)], 1.2), ([([(WORDS, 1.0)], 5)], 1.0)],
     "a tree", [("a tree", 1.0)]),
    ("sdxl", "euler", f"a (red:1.3) car, {LONG}", [([("a ", 1.0), ("red", 1.3), (f" car, {LONG}", 1.0)], 5)], "a tree", [("a tree", 1.0)]),
]
KINDS = {"euler": EulerDiscreteScheduler, "ddim": DDIMScheduler}


def chunks(tokenizer, parts):
    """Chunks of 75 tokens and their weights."""
    comma = tokenizer.get_vocab().get(",</w>")
    done, ids, weights, last = [], [], [], -1

    def end():
        nonlocal ids, weights, last
        done.append((ids, weights))
        ids, weights, last = [], [], -1

    for text, weight in parts:
        if text == BREAK and weight == -1:
            end()
            continue
        for token in tokenizer(text, add_special_tokens=False, truncation=False).input_ids:
            if token == comma:
                last = len(ids)
            elif len(ids) == 75 and last != -1 and len(ids) - last <= 20:
                moved = ids[last + 1:], weights[last + 1:]
                ids, weights = ids[:last + 1], weights[:last + 1]
                end()
                ids, weights = moved
            if len(ids) == 75:
                end()
            ids.append(token)
            weights.append(weight)
    if ids or not done:
        end()
    return done


def padded(tokenizer, chunk):
    ids, weights = chunk
    fill = 75 - len(ids)
    pad = tokenizer.pad_token_id
    ids = [tokenizer.bos_token_id] + ids + [tokenizer.eos_token_id] + [pad] * fill
    return ids, [1.0] + weights + [1.0] * (fill + 1)


def encode(tokenizer, run, texts):
    """Embeddings of all texts of a prompt together, and the pooled ones of their first chunks."""
    batch = [chunks(tokenizer, text) for text in texts]
    zs, pooled = [], None
    for i in range(max(map(len, batch))):
        rows = [padded(tokenizer, text[i] if i < len(text) else ([], [])) for text in batch]
        z, of_all = run(torch.tensor([ids for ids, _ in rows]))
        weights = torch.tensor([weights for _, weights in rows])
        mean = z.mean()
        z = z * weights[..., None]
        zs.append(z * (mean / z.mean()))
        pooled = of_all if i == 0 else pooled
    return torch.hstack(zs), pooled


def encoders(model, pipe, clip_skip):
    """Each tokenizer with what makes embeddings of its ids."""
    def first(ids):
        out = pipe.text_encoder(ids, output_hidden_states=True)
        if model == "sdxl":
            return out.hidden_states[-max(2, clip_skip)], None
        norm = getattr(pipe.text_encoder, "text_model", pipe.text_encoder).final_layer_norm
        return norm(out.hidden_states[-clip_skip]), None

    def second(ids):
        out = pipe.text_encoder_2(ids, output_hidden_states=True)
        return out.hidden_states[-max(2, clip_skip)], out.text_embeds

    found = [(pipe.tokenizer, first)]
    return found + [(pipe.tokenizer_2, second)] if model == "sdxl" else found


@torch.no_grad()
def embed(model, pipe, turns, clip_skip=1):
    """Of each turn its embeddings, and the pooled ones or None."""
    texts = [parts for parts, _ in turns]
    both = [encode(tokenizer, run, texts) for tokenizer, run in encoders(model, pipe, clip_skip)]
    values = torch.cat([z for z, _ in both], dim=-1)
    pooled = both[-1][1]
    return [(values[i:i + 1], None if pooled is None else pooled[i:i + 1]) for i in range(len(texts))]


def at(turns, embedded, step):
    """What holds at a step, counted from 0."""
    return next((one for (_, end), one in zip(turns, embedded) if step <= end), embedded[-1])


def stretch(text, tokens):
    """Repeats the last vector, as is done with the shorter ones of prompts that AND joins."""
    return torch.cat([text, text[:, -1:].repeat(1, tokens - text.shape[1], 1)], dim=1)


@torch.no_grad()
def paint(model, pipe, sampler, conds, negative, seed=7, scale=5.0, side=16):
    """A picture; `conds` are turns with a weight each."""
    scheduler = KINDS[sampler].from_config(pipe.original, **({"clip_sample": False} if sampler == "ddim" else {}))
    scheduler.set_timesteps(STEPS)
    latents = make_pipeline.randn(seed, 1, 4, side // pipe.vae_scale_factor, side // pipe.vae_scale_factor)
    latents = latents * scheduler.init_noise_sigma
    conds = [(turns, weight, embed(model, pipe, turns)) for turns, weight in conds]
    longest = max(one[0].shape[1] for _, _, embedded in conds for one in embedded)
    conds = [(turns, weight, [(stretch(text, longest), pooled) for text, pooled in embedded]) for turns, weight, embedded in conds]
    absent = model == "sdxl" and not negative[0][0]
    none = embed(model, pipe, [(negative, STEPS)])
    none = [tuple(value * 0 if absent else value for value in one if value is not None) + (None,) for one in none]
    sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32)
    for step, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)

        def predict(text, pooled):
            added = {"text_embeds": pooled, "time_ids": sizes} if model == "sdxl" else None
            return pipe.unet(scaled, timestep, text, added_cond_kwargs=added)[0]

        without = predict(*none[0][:2])
        predicted = without.clone()
        for turns, weight, embedded in conds:
            predicted += (predict(*at(turns, embedded, step)) - without) * (weight * scale)
        latents = scheduler.step(predicted, timestep, latents)[0]
    image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor)[0]
    return pipe.image_processor.postprocess(image, output_type="np")[0]


def check_compel(pipe):
    """compel has another way with weights. Without any, it agrees: also in prompts of several chunks without commas."""
    compel = CompelForSD(pipe)
    for text in ["a red car", WORDS]:
        theirs = compel(text).embeds
        ours = embed("sd1", pipe, [([(text, 1.0)], STEPS)])[0][0]
        assert theirs.shape == ours.shape and torch.allclose(theirs, ours, atol=1e-5), text
    return theirs


if __name__ == "__main__":
    tensors, cases, pictures = {}, [], []
    pipes = {name: (make_xl if name == "sdxl" else make_pipeline).load(HERE / "models" / name) for name in MODELS}
    for model, pipe in pipes.items():
        for number in MODELS[model]:
            prompt, turns, clip_skip = EMBEDDED[number]
            for step in range(STEPS):
                values, pooled = at(turns, embed(model, pipe, turns, clip_skip), step)
                key = f"{model}.{number}.{step}"
                if step > 0 and torch.equal(values, before):
                    continue
                before = values
                # Some of the values are enough: a weight shows in all of them.
                tensors[key] = values.flatten()[::7].contiguous()
                if pooled is not None:
                    tensors[key + ".pooled"] = pooled[0].contiguous()
                cases.append({"model": model, "prompt": prompt, "call": step, "clip_skip": clip_skip, "tokens": values.shape[1], "key": key})
    tensors["sd1.compel"] = check_compel(pipes["sd1"]).flatten()[::7].contiguous()
    cases.append({"model": "sd1", "prompt": WORDS, "call": 0, "clip_skip": 1, "tokens": 154, "key": "sd1.compel"})
    save_file(tensors, HERE / "prompts.safetensors")
    for number, (model, sampler, prompt, turns, negative_prompt, negative) in enumerate(PAINTED):
        conds = turns if isinstance(turns[0][0][0][0], list) else [(turns, 1.0)]
        image = paint(model, pipes[model], sampler, conds, negative)
        file = f"pictures/prompt-{number}.png"
        Image.fromarray((image * 255).round().astype(numpy.uint8)).save(HERE / file, optimize=True)
        pictures.append({"model": model, "sampler": sampler, "prompt": prompt, "negative_prompt": negative_prompt, "seed": 7,
                         "steps": STEPS, "cfg_scale": 5.0, "width": 16, "height": 16, "file": file})
    write = lambda file, rows: (HERE / file).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    write("prompts.json", cases)
    write("pictures-prompts.json", pictures)
