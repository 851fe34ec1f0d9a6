"""Writes tokenizer/: the ids that transformers' CLIPTokenizer gives for many prompts.

Run with transformers installed: `python make_tokenizer.py DEMO_TOKENIZER bpe_simple_vocab_16e6.txt.gz`. The first is a folder
with the demo model's vocab.json and merges.txt, the second CLIP's own list of merges, of which only the entries that the
prompts can touch are written (with their ids).
"""

import gzip
import json
import pathlib
import sys
import tempfile

from tokenizers import AddedToken
from transformers import CLIPTokenizer

HERE = pathlib.Path(__file__).parent / "tokenizer"
TOKENS = 77
BOS, EOS = "<|startoftext|>", "<|endoftext|>"

PROMPTS = [
    "",
    " ",
    "a photograph of an astronaut riding a horse",
    "a small red circle on the blue background",
    "A Fantasy Landscape, trending on ArtStation, 8K, (highly detailed:1.3), [[blurry]]",
    "it's they're we've I'm you'll he'd don't DON'T 's's ''s rock'n'roll o'clock ’s",
    "  leading,\ttabs\nnew\r\nlines and  double   spaces  ",
    "no\u00a0break\u2003em\u3000ideographic\u0085next\u2028line\u200bzero\ufeffwidth\u180evowel",
    "control\x00\x01\x1b[31m\x1c\x1f\x7f characters\x0b\x0c",
    "12345 3.14 1,000,000 2x4 ½ ² Ⅷ ٣٤ 五 1st",
    "café CAFÉ cafe\u0301 CAFE\u0301 e\u0301\u0323 naïve Ångström \u212b",
    "ß ẞ STRASSE Straße İstanbul Iğdır ıI ﬁne ΣΟΦΟΣ ὈΔΥΣΣΕΎΣ Ǆ Ⓐ",
    "日本語のプロンプト、富士山と桜。 한국어 프롬프트 中文提示词",
    "\u1112\u1161\u11ab\u1100\u1173\u11af か\u3099",
    "Привет, мир! שלום עולם مرحبا بالعالم नमस्ते สวัสดี",
    "emoji 😀😃 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ 1️⃣ 👍🏽",
    "marks: a\u0308\u0304 q\u0307\u0323 \u0301alone Z\u0351\u036bA\u0343L\u0359G\u0321O",
    "#hashtag @user https://example.com/a?b=c&d=e#f C++ C# a_b a-b a/b \\ ^ ~ ` | {}",
    "!!! ??? ... … — – “quotes” «guillemets» ¡hola! ¿qué? !'s wow!",
    f"before {BOS} between {EOS} after",
    f"a{EOS}b{EOS}{EOS} !{BOS}! {BOS}!",
    "<|STARTOFTEXT|>! <|EndOfText|>x <|startoftext| <|pad|> <|endoftext|",
    "anti\u00adhyphen \ufffd \ue000 \U000f0000 \U0001d400 \U00010400 𝓯𝓪𝓷𝓬𝔂 ｆｕｌｌｗｉｄｔｈ",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa hahahahahahaha",
    "masterpiece, best quality, 1girl, solo, long hair, (blue eyes), looking at viewer, " * 6,
    " ".join("word" for _ in range(75)),
    " ".join("word" for _ in range(76)),
    "x" * 500,
    "漢" * 60,
    "😀" * 40,
]


def byte_alphabet() -> list[str]:
    """The characters that stand for the 256 bytes, in the order of CLIP's vocabulary."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in plain] + [chr(0x100 + i) for i in range(256 - len(plain))]


def clip_vocabulary(path: str) -> tuple[dict[str, int], list[str]]:
    merges = gzip.open(path, "rt", encoding="utf-8").read().split("\n")[1 : 49152 - 256 - 2 + 1]
    alphabet = byte_alphabet()
    entries = alphabet + [c + "</w>" for c in alphabet] + [m.replace(" ", "") for m in merges] + [BOS, EOS]
    return {entry: i for i, entry in enumerate(entries)}, merges


def tokenizer(vocab: dict[str, int], merges: list[str], pad: str) -> CLIPTokenizer:
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "pad_token": pad}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        path.joinpath("vocab.json").write_text(json.dumps(vocab))
        path.joinpath("merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
        path.joinpath("tokenizer_config.json").write_text(json.dumps(config))
        return CLIPTokenizer.from_pretrained(folder)


def part(vocab: dict[str, int], merges: list[str]) -> tuple[dict[str, int], list[str]]:
    """The merges whose result occurs in a prompt's words, and the entries that they need."""
    splitter = tokenizer(vocab, merges, EOS).backend_tokenizer
    normal = [splitter.normalizer.normalize_str(prompt) for prompt in PROMPTS + ADDED_PROMPTS]
    words = {word + "</w>" for text in normal for word, _ in splitter.pre_tokenizer.pre_tokenize_str(text)}
    text = " ".join(sorted(words))
    kept = [merge for merge in merges if merge.replace(" ", "") in text]
    needed = {merge.replace(" ", "") for merge in kept}
    ids = {entry: i for entry, i in vocab.items() if i < 512 or entry in needed or entry in (BOS, EOS)}
    return ids, kept


def ids(vocab: dict[str, int], merges: list[str], pad: str) -> list[list[int]]:
    encode = tokenizer(vocab, merges, pad)
    return [encode(p, padding="max_length", truncation=True, max_length=TOKENS).input_ids for p in PROMPTS]


def overflows(vocab: dict[str, int], merges: list[str], pad: str) -> list[bool]:
    encode = tokenizer(vocab, merges, pad)
    return [len(encode(p).input_ids) > TOKENS for p in PROMPTS]


def write(name: str, vocab: dict[str, int], merges: list[str], pads: list[str]) -> None:
    HERE.joinpath(f"{name}_vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, indent=0) + "\n")
    HERE.joinpath(f"{name}_merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    cases = []
    for pad in pads:
        every = zip(PROMPTS, ids(vocab, merges, pad), overflows(vocab, merges, pad))
        cases += [{"pad": vocab[pad], "prompt": p, "ids": i, "truncated": t} for p, i, t in every]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    HERE.joinpath(f"{name}_cases.json").write_text(f"[\n{lines}\n]\n")


# Added tokens: what transformers' `add_tokens` makes of these texts, and tokens that are found only as they are spelled.
ADDED = ["<cat-toy>", "<cat-toy>_1", "<cat-toy>_2", "EasyNeg", "Caf\u00e9  Style", "red", "cat"]
EXACT = ["[Exact]", "[Exact]er"]
ADDED_PROMPTS = [
    "a <cat-toy> at night",
    "a<cat-toy>b <CAT-TOY>! <cat-toy",
    "<cat-toy>_1<cat-toy>_2 <cat-toy>_3",
    "easyneg, EASYNEG bad EasyNegative",
    "cafe\u0301 style, CAF\u00c9 \t\u00a0 STYLE caf\u00e9style",
    "redder reddish Red infrared concatenate",
    f"red{EOS}cat {BOS}<cat-toy>!red!",
    "[Exact] [exact] [Exact]er[Exact]ER x[Exact]x",
    "red " * 100,
    "a house " * 36 + "<cat-toy> red cat",
]


def write_added(vocab: dict[str, int], merges: list[str], pads: list[str]) -> None:
    """Without the joining of several vectors, which is diffusers': each token is one id here."""
    cases = []
    for pad in pads:
        encode = tokenizer(vocab, merges, pad)
        encode.add_tokens(ADDED)
        encode.add_tokens([AddedToken(text, normalized=False) for text in EXACT])
        for prompt in ADDED_PROMPTS:
            ids = encode(prompt, padding="max_length", truncation=True, max_length=TOKENS).input_ids
            cases.append({"pad": vocab[pad], "prompt": prompt, "ids": ids,
                          "truncated": len(encode(prompt).input_ids) > TOKENS})
    tokens = [{"text": text, "ids": [encode.convert_tokens_to_ids(text)]} | ({"exact": True} if text in EXACT else {})
              for text in ADDED + EXACT]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    HERE.joinpath("added_cases.json").write_text(f'{{"tokens": {json.dumps(tokens)},\n"cases": [\n{lines}\n]}}\n')


def main() -> None:
    demo, whole = pathlib.Path(sys.argv[1]), clip_vocabulary(sys.argv[2])
    demo_merges = demo.joinpath("merges.txt").read_text().strip().split("\n")[1:]
    write("demo", json.loads(demo.joinpath("vocab.json").read_text()), demo_merges, [EOS])
    clip = part(*whole)
    for pad in [EOS, "!"]:
        assert ids(*clip, pad) == ids(*whole, pad), "the part leaves out something that a prompt needs"
    write("clip", *clip, [EOS, "!"])
    write_added(*clip, [EOS, "!"])


main()
