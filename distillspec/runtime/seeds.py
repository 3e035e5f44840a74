"""Seeds: each stream of random numbers gets its own, derived from the user's seed and a purpose."""

from __future__ import annotations

import hashlib
import json


def derive_seed(seed: int, purpose: str, *position: str | int | float | None) -> int:
    """The seed of one stream of random numbers; the same on every machine.

    Generators that are seeded alike draw the same numbers. Two streams that share a seed are
    therefore dependent: a chooser of methods that draws with the uniforms of the tokens picks
    methods by the tokens to come, and the text no longer follows the target's distribution.

    Args:
        seed: The user's seed, or a seed that was derived before.
        purpose: What the stream is for. Each place in the code that seeds has its own.
        position: Which of the streams of this purpose: a step, a prompt, a process.

    Returns:
        In [0, 2^63): the first bits of the SHA-256 of all arguments.
    """
    text = json.dumps([seed, purpose, *position])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
