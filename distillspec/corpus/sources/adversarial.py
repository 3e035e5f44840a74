"""Prompts that a draft meets unprepared: noise, loops, next to nothing, and as much as there is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distillspec.corpus.sources.tokenizing import Encoder, Tokenizer, Tokens
from distillspec.corpus.sources.topics import topics
from distillspec.errors import DistillSpecError
from distillspec.recipe.prompt_plan import AdversarialSource, Shape
from distillspec.runtime.seeds import derive_seed

_SHORT = 2  # tokens: what measuring needs
_ATTEMPTS = 20  # at a prompt that is not there yet; a small source may have too few
_LOOP = 4  # tokens that a repeated prompt repeats, at most


class OddPrompt(NamedTuple):
    """tokens: those a tokenizer puts before any text included. shape: as in the plan."""

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
    """`source.prompts` prompts of at most `most` tokens, the shapes in turn; seed decides all.

    They are tokens, not texts: drawn ones would be others after decoding and encoding. No special
    token is among them. where: the source's place, for errors. start: as `load_prompts` has it.
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
        "random": lambda dice: dice.choices(plain, k=length),
        "repeated": lambda dice: _repeated(dice, plain, length),
        "short": lambda dice: dice.choices(plain, k=_SHORT),
        "long": lambda dice: _prose(dice, tokenizer, room),
    }
    found = []
    seen: set[Tokens] = set()
    for number in range(source.prompts):
        shape = source.shapes[number % len(source.shapes)]
        key = f"adversarial/{shape}:{number // len(source.shapes)}"
        for attempt in range(_ATTEMPTS):
            dice = random.Random(derive_seed(seed, "adversarial", key, attempt))
            tokens = (*encoder.prefix, *makers[shape](dice), *encoder.suffix)
            if tokens not in seen:
                break
        seen.add(tokens)
        found.append(OddPrompt(key, tokens, shape))
    return found


def _repeated(dice: random.Random, plain: Sequence[int], length: int) -> list[int]:
    loop = dice.choices(plain, k=dice.randint(1, _LOOP))
    return [loop[place % len(loop)] for place in range(length)]


def _prose(dice: random.Random, tokenizer: Tokenizer, length: int) -> list[int]:
    """Topics of the language reference in a drawn order, joined until they fill `length`."""
    texts = topics()
    names = sorted(texts)
    dice.shuffle(names)
    tokens: list[int] = []
    while len(tokens) < length:
        if not names:
            raise DistillSpecError(
                f"the prose on this machine has no {length} tokens",
                where="source of kind adversarial: shape long",
                fix="lower prompts.max_tokens, or leave `long` out of shapes",
            )
        tokens += tokenizer(
            texts[names.pop()] + "\n\n", add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
    return tokens[:length]
