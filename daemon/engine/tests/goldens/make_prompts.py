"""Writes prompts.json: what the A1111 web interface reads in many prompts.

Run with lark installed: `python make_prompts.py PROMPT_PARSER`, the path of the web interface's own `modules/prompt_parser.py`
(version 1.10), which is not part of this repository. Of each prompt: its parts with their weights, without what is changed by
steps; its texts over ten steps; and the prompts that `AND` joins.
"""

import importlib.util
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).parent
STEPS = 10

PROMPTS = [
    "", " ", "a house", "a (red) house", "a ((red)) house", "a (((red))) house", "a [red] house", "a [[red]] house",
    "(red:1.3)", "(red:0.7) house", "(red: 1.3 )", "(red :1.3)", "(red:+1.3)", "(red:-0.5)", "(red:.5)", "(red:1.)", "(red:2)",
    "(a (b:1.5) c:0.8)", "((a:1.2) [b])", "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", "(unbalanced", "[unbalanced",
    "unbalanced)", "unbalanced]", "((a)", "(a))", "[(a])", "([a)]", r"\(literal\]", r"\(a\) (b\)) c", r"a\\b", r"a\b", "end\\",
    r"\[a\] [b\]]", "(unnecessary)(parens)", "(a)(b:1.1)", "a:b", "a:1.2", "10:30) x", "(a:b:1.2)", "(a:1.2:1.3)", "()", "[]",
    "(:1.2)", "( : 1.2)", "(a:1.2 b)", "a (b:1.2", "masterpiece, (best quality:1.2), 1girl, [blurry], :d", "<a:b:1>", "a|b",
    "a BREAK b", "a\nBREAK\nb", "BREAK", "BREAK a", "a BREAK", "a BREAK BREAK b", "aBREAK b", "BREAKFAST", "break", "a,BREAK,b",
    "(a) BREAK (b:1.2)", "a [b:3]", "a [b: 3]", "a [b : c : 1] d", "a [[[b]]:2]", "[(a:2):3]", "a[b:[c:d:2]:1]e",
    "a [unbalanced", "a [b:.5] c", "a [{b|d{:.5] c", "((a][:b:c [d:3]", "[a|(b:1.1)]", "[fe|]male", "[fe|||]male", "[a|b|c]",
    "[a|b] [c|d|e]", "[a|[b:c:5]]", "[[a|b]:c:5]", "[a:b:0.5]", "[a:b:0.25] [c:d:0.75]", "[a::3]", "[a::0.3]", "[:a:3]", "[::3]",
    "[:3]", "[a:3]", "[a:b:0]", "[a:b:-1]", "[a:b:+4]", "[a:b:11]", "[a:b:1.0]", "[a:b:1.5]", "[a:b:1e0]", "[a:b:1.5e-1]", "[a:b:5.]",
    "[a:b:.]", "[a:b:x]", "[a:b:3x]", "[a:b:3 ]", "[a:b: 3 ]", "[ a : b : 3 ]", "[a:b:\n3]", "[a:b:c:3]", "[a:b|c:3]", "[a|b:3]",
    "(a [b:c:3] d:1.2)", "([a:b:3])", "([a|b]:1.3)", "[(a:1.2):(b:0.8):4]", "[(a:b:3]", "[a:(b:3]", "[a:b):3]", "[a:[b:3]", "[a]:b:3]",
    "[a:b:3] | c", "(a|b) [c:d:3]", "[a|b", "a [b|c] d]", "[a:b:3", r"[a\:b:3]", r"[a\|b|c]", r"\[a:b:3\]", r"[a:b\]:3]", "[a:b:3] \\",
    "[a:b:3] \\\nc", "[a:b:3][c:d:3][e:f:7]", "[a:b:3] BREAK [c|d]", "fantasy with a [mountain:lake:0.25] and [an oak:a tree:0.75][ in front::0.6]",
    "a cat AND a dog", "a cat:1.2 AND a dog:0.8", "a cat : 1.2 AND a dog AND a [b:c:3]", "a ANDROID", "AND", "a AND ", "a:-1 AND b:+.5", "a:x AND b",
    "a (b:1.2) AND c", "日本語 (富士山:1.2) と [桜:雪:5]", "emoji (😀:1.3) [👍|👎]", "tab\t(a)\u00a0[b]",
]
TOKENS = ["a", "b c", " ", ", ", "(", ")", "[", "]", ":", "|", ":1.2)", ":0.5]", ":3]", "\\(", "\\", "BREAK", "\n", "0.5", "x:"]
TREES = ["({})", "[{}]", "({}:1.3)", "[{}:{}:0.4]", "[{}:3]", "[{}::6]", "[{}|{}]", "{} {}", "{}, {}", "a", "b", "c d", "x"]


def tree(generator, depth):
    """A prompt whose brackets fit."""
    form = generator.choice(TREES if depth else TREES[-4:])
    return form.format(*[tree(generator, depth - 1) for _ in range(form.count("{}"))])


def main():
    spec = importlib.util.spec_from_file_location("prompt_parser", sys.argv[1])
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    generator = random.Random(1)
    prompts = list(PROMPTS)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    prompts += ["".join(generator.choice(TOKENS) for _ in range(generator.randint(2, 12))) for _ in range(count)]
    prompts += [tree(generator, 3) for _ in range(count)]
    cases = []
    for prompt in dict.fromkeys(prompts):
        try:
            parts = reference.parse_prompt_attention(prompt)
        except ValueError:
            # A weight that is no number ends the web interface's work.
            continue
        texts = reference.get_learned_conditioning_prompt_schedules([prompt], STEPS)[0]
        joined, flat, _ = reference.get_multicond_prompt_list([prompt])
        case = {"prompt": prompt, "parts": parts, "texts": texts}
        if "AND" in prompt:
            case["joined"] = [[flat[index], weight] for index, weight in joined[0]]
        cases.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (HERE / "prompts.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
