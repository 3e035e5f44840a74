"""Prompts unlike any training text: random tokens, loops, very short and very long prompts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distillspec.corpus.sources.tokenizing import Encoder, Tokenizer, Tokens
from distillspec.corpus.sources.topics import topics
from distillspec.errors import DistillSpecError
from distillspec.recipe.prompt_plan import AdversarialSource, Shape
from distillspec.runtime.seeds import derive_seed

_SHORT = 2  # tokens, the fewest that can be measured
_ATTEMPTS = 20  # to draw a new prompt; a source with few different prompts may repeat one
_LOOP = 4  # most tokens of the loop in a repeated prompt


class OddPrompt(NamedTuple):
    """A prompt made of tokens.

    Attributes:
        key: Unique name.
        tokens: The tokens, with those that the tokenizer puts before a text.
        shape: One of the plan's shapes.
    """

    key: str
    tokens: Tokens
    shape: Shape


def odd_prompts(
    source: AdversarialSource,
    tokenizer: Tokenizer,
    *,
    most: int,
    seed: int,
    where: str,
    start: int | None = None,
) -> list[OddPrompt]:
    """Draw `source.prompts` prompts, with the shapes in turn and without special tokens.

    The prompts are tokens, since decoding and encoding would change random tokens.

    Args:
        source: Number, shapes and length of the prompts.
        tokenizer: The target's tokenizer.
        most: Longest prompt, tokens.
        seed: Decides all prompts.
        where: Where the suite names the source, for errors.
        start: See `load_prompts`.
    """
    encoder = Encoder(tokenizer, start)
    room = most - len(encoder.prefix) - len(encoder.suffix)
    if room < _SHORT:
        raise DistillSpecError(
            f"a limit of {most} tokens has no room for a prompt",
            where=where,
            fix="raise prompts.max_tokens, or lower max_new_tokens or the largest gamma",
        )
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_encoder.values()}
    plain = [token for token in range(len(tokenizer)) if token not in special]
    length = min(source.tokens, room)
    makers: dict[Shape, Callable[[random.Random], Sequence[int]]] = {
        "random": lambda generator: generator.choices(plain, k=length),
        "repeated": lambda generator: _repeated(generator, plain, length),
        "short": lambda generator: generator.choices(plain, k=_SHORT),
        "long": lambda generator: _prose(generator, tokenizer, room),
    }
    prompts = []
    seen: set[Tokens] = set()
    for number in range(source.prompts):
        shape = source.shapes[number % len(source.shapes)]
        key = f"adversarial/{shape}:{number // len(source.shapes)}"
        for attempt in range(_ATTEMPTS):
            # The attempt is a part of the seed, so that a repeated prompt is replaced by another.
            generator = random.Random(derive_seed(seed, "adversarial", key, attempt))
            tokens = (*encoder.prefix, *makers[shape](generator), *encoder.suffix)
            if tokens not in seen:
                break
        seen.add(tokens)
        prompts.append(OddPrompt(key, tokens, shape))
    return prompts


def _repeated(generator: random.Random, plain: Sequence[int], length: int) -> list[int]:
    loop = generator.choices(plain, k=generator.randint(1, _LOOP))
    return [loop[position % len(loop)] for position in range(length)]


def _prose(generator: random.Random, tokenizer: Tokenizer, length: int) -> list[int]:
    """Topics of the language reference in random order, joined until they fill `length`."""
    texts = topics()
    names = sorted(texts)
    generator.shuffle(names)
    tokens: list[int] = []
    while len(tokens) < length:
        if not names:
            raise DistillSpecError(
                f"the prose on this machine has fewer than {length} tokens",
                where="source of kind adversarial: shape long",
                fix="lower prompts.max_tokens, or remove `long` from shapes",
            )
        tokens += tokenizer(
            texts[names.pop()] + "\n\n", add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
    return tokens[:length]
