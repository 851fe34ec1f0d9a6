"""Stage `data`: the scenes, their captions, and a vocabulary of the captions' words."""
import collections
import json
import random
from multiprocessing import Pool

import numpy

from common import CAPTIONS, IMAGES, MODEL, TOKENS
from scenes import scene

FIRST_SEED = 1000  # smaller seeds are left for looking at scenes that were not trained on
START, END = "<|startoftext|>", "<|endoftext|>"


def data(count=12000):
    with Pool(2) as pool:
        rows = pool.map(one, range(FIRST_SEED, FIRST_SEED + count), chunksize=64)
    numpy.save(IMAGES, numpy.stack([picture for picture, _ in rows]))
    captions = [caption for _, caption in rows]
    CAPTIONS.write_text(json.dumps(captions))
    write_tokenizer(*vocabulary(captions))


def one(seed):
    picture, caption = scene(random.Random(seed))
    return numpy.asarray(picture), caption


def vocabulary(captions):
    """Tokens and merges of a byte-pair encoding in CLIP's form in which each word of the captions is one token.

    Bytes come first, then bytes that end a word, then what the merges give, then start and end of a text.
    """
    printable = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    base = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = collections.Counter(word for caption in captions for word in caption.replace(",", " , ").split())
    pieces = {word: (*word[:-1], word[-1] + "</w>") for word in words}
    merges = []
    while pairs := count_pairs(pieces, words):
        best = pairs.most_common(1)[0][0]
        merges.append(best)
        pieces = {word: merge(parts, best) for word, parts in pieces.items()}
    tokens = base + [b + "</w>" for b in base] + ["".join(pair) for pair in merges] + [START, END]
    return tokens, merges


def count_pairs(pieces, words):
    pairs = collections.Counter()
    for word, parts in pieces.items():
        for pair in zip(parts, parts[1:]):
            pairs[pair] += words[word]
    return pairs


def merge(parts, pair):
    merged, i = [], 0
    while i < len(parts):
        step = 2 if parts[i:i + 2] == pair else 1
        merged.append("".join(parts[i:i + step]))
        i += step
    return tuple(merged)


def write_tokenizer(tokens, merges):
    folder = MODEL / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True,
              "errors": "replace", **special}
    ids = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
