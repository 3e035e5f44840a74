"""Where a text begins and ends: the prompt before the first round, end tokens and limits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.speculation.runner import PieceReader, TextRunner

NO_TOKENS: frozenset[int] = frozenset()


def check_room(prompt: Tensor, max_new_tokens: int, capacity: int) -> None:
    """Check that all models can hold the text.

    Args:
        prompt: long [T].
        max_new_tokens: Tokens that may follow.
        capacity: Tokens of the longest text that all models can hold.

    Raises:
        DistillSpecError: The prompt has no tokens, or the text is too long.
    """
    if prompt.shape[0] == 0:
        raise DistillSpecError(
            "the prompt has no tokens",
            where="decoding",
            fix="begin the prompt with at least one token, such as the beginning-of-text token",
        )
    # No model has to read the last new token.
    needed = prompt.shape[0] + max_new_tokens - 1
    if needed > capacity:
        raise DistillSpecError(
            f"the text needs room for {needed} tokens; a model or its cache has {capacity}",
            where=f"decoding {max_new_tokens} tokens after a prompt of {prompt.shape[0]}",
            fix="shorten the prompt, lower max_new_tokens, or give the runner more capacity",
        )


def longest_text(runner: TextRunner) -> int:
    """Tokens of the longest text that the model can read and its cache can hold."""
    return min(runner.capacity, runner.positions)


def prefill(prompt: Tensor, max_new_tokens: int, *runners: TextRunner) -> None:
    """Empty the caches and feed all of the prompt but its last token, which heads the first block.

    A draft that reads pieces, and has no room for those of the prompt, stays empty and drafts
    nothing.
    """
    # A piece reader without room drafts nothing, so it does not limit the text.
    measured = [runner for runner in runners if not isinstance(runner, PieceReader)]
    check_room(prompt, max_new_tokens, min(map(longest_text, measured)))
    for runner in runners:
        runner.reset()
        if prompt.shape[0] > 1 and _has_room(runner, prompt[:-1]):
            runner.feed(prompt[:-1].unsqueeze(0))
    # Callers start the decode clock when this function returns.
    for runner in runners:
        runner.synchronize()


def _has_room(runner: TextRunner, tokens: Tensor) -> bool:
    if not isinstance(runner, PieceReader):
        return True  # `check_room` has checked it
    return min(runner.room_after(tokens.tolist())) >= 0


def up_to_end(tokens: Sequence[int], eos_token_ids: frozenset[int]) -> tuple[list[int], bool]:
    """The tokens up to and including the first end token, and whether there was one."""
    for position, token in enumerate(tokens):
        if token in eos_token_ids:
            return list(tokens[: position + 1]), True
    return list(tokens), False
