"""Whether llama.cpp splits held-out code into the same tokens as the Hugging Face tokenizer.

    pip install xllamacpp
    python eval/bench/gguf_tokens.py MODEL-FOLDER MODEL.gguf --texts 1000
    python eval/bench/gguf_tokens.py MODEL-FOLDER MODEL.gguf --recipe recipes/nano-python.yaml

The texts are pieces of 300 to 1,000 characters of the files that the recipes hold out, an equal
number from each recipe. A list of awkward texts follows. llama.cpp gets each text without special
tokens; that it adds none by itself in front of a prompt, unlike the tokenizer, is checked apart.
Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from typing import cast

import xllamacpp
from transformers import AutoTokenizer

from distillspec.corpus.sources.code_files import code_files
from distillspec.recipe.data import CodeSource
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.runtime.seeds import derive_seed

_FEWEST, _MOST = 300, 1000  # characters of a piece
_SHOWN = 10  # differing texts
_RECIPES = ("recipes/nano-python.yaml", "recipes/nano-cpp.yaml")
_AWKWARD = (
    *("", " ", "  x  ", "x \n \n", "\n\n\n\n", "\t\tx\t", "a\r\nb\r\n\r\nc", " \n\t\n  x", "\0"),
    *("it's", "IT'S", "'RE you", "we'Ve a'lL", "'vector'", "'values'", "f'tau_{i}'", "n'th", "'ſ"),
    *("1234567"[:digits] for digits in range(1, 8)),
    *("0x1F", "1_000", "3.14e-10", "½ ² Ⅻ ٣٤٥٦", "é e\u0301", "a\u00a0b\u2003c", "a\u2028b\x85c"),
    *("日本語", "नमस्ते", "កាន់តែ", "∑∫ λx", "🦙 👨\u200d👩\u200d👧 🇩🇪", "\ufeffx\u200b\ufffd\ue000"),
    *("a" * 300, " " * 200, "\n" * 100, "------====", "''''```\"\"\"....!!!???\r\n"),
)


class LlamaCpp:
    """The tokenizer of a GGUF file, in a llama.cpp server on this machine."""

    def __init__(self, gguf: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = xllamacpp.CommonParams()
        settings.model.path, settings.hostnames, settings.port = gguf, ["127.0.0.1"], port
        settings.n_ctx, settings.n_parallel, settings.warmup = 128, 1, False
        settings.verbosity = 0
        self._server = xllamacpp.Server(settings)

    def ids(self, text: str, *, add_special: bool = False) -> list[int]:
        content = {"content": text, "add_special": add_special, "parse_special": False}
        request = urllib.request.Request(
            f"{self._server.listening_address}/tokenize",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return cast("list[int]", json.load(answer)["tokens"])


def pieces(text: str, rng: random.Random) -> Iterator[str]:
    """Cut a file at ends of lines, after a random number of characters."""
    piece, wanted = "", rng.randint(_FEWEST, _MOST)
    for line in text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > wanted:
            if _FEWEST <= len(piece) <= _MOST:
                yield piece
            piece, wanted = "", rng.randint(_FEWEST, _MOST)
        piece += line


def held_out(recipe: str, count: int) -> list[str]:
    """`count` pieces of the files that the recipe holds out; fewer if there are no more."""
    loaded = load_recipe(recipe)
    if not isinstance(loaded, Recipe) or not isinstance(loaded.data.source, CodeSource):
        raise SystemExit(f"{recipe}: data.source is not code")
    files = code_files(loaded.data.source, loaded.data.held_out_percent).held_out
    rng = random.Random(derive_seed(0, "pieces of held-out files"))
    found = [piece for file in files for piece in pieces(file.text, rng)]
    rng.shuffle(found)
    return found[:count]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="Hugging Face folder")
    parser.add_argument("gguf", help="GGUF file made from that folder")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--recipe", action="append", help=f"default: {' and '.join(_RECIPES)}")
    options = parser.parse_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    engine = LlamaCpp(options.gguf)
    recipes = options.recipe or _RECIPES
    sets = {recipe: held_out(recipe, options.texts // len(recipes)) for recipe in recipes}
    exit_status = 0
    for name, texts in {**sets, "awkward texts": list(_AWKWARD)}.items():
        wanted = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        got = [engine.ids(text) for text in texts]
        differing = [row for row in zip(texts, wanted, got, strict=True) if row[1] != row[2]]
        print(f"{name}: {len(texts) - len(differing)} of {len(texts)} equal")
        for text, ours, theirs in differing[:_SHOWN]:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
            parts = [[tokenizer.decode([i]) for i in ids[at : at + 4]] for ids in (ours, theirs)]
            print(f"  {text[:40]!a}: {parts[0]!a} in Hugging Face, {parts[1]!a} in llama.cpp")
        exit_status |= bool(differing)
    prompts = tokenizer("x")["input_ids"], engine.ids("x", add_special=True)
    same = prompts[0] == prompts[1]
    print("added to a prompt:", "equal" if same else f"differs, {prompts[0]} and {prompts[1]}")
    return exit_status | (not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
