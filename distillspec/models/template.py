"""Chats become prompt text through the target's own template, whose hash is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError

_SAID = "distillspec"  # words that no template changes


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The text that asks the model for its next turn: template applied, generation prompt added.

    messages: [{"role": ..., "content": ...}, ...]. variables: what else the template is told, such
    as enable_thinking. The text holds the special tokens already: encode it with
    add_special_tokens=False. Raises DistillSpecError.
    """
    _require(tokenizer)
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=True,
            **(variables or {}),
        )
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise DistillSpecError(
            f"the chat template refuses these messages: {error}",
            where=str(tokenizer.name_or_path),
            mend="each message needs role and content, in an order that the template allows",
        ) from error
    assert isinstance(text, str)
    return text


def template_hash(
    tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any] | None = None
) -> str:
    """sha256 (hex) of the tokenizer's chat template and of what else it is told, if anything.

    DistillSpecError where it has none.
    """
    template = _require(tokenizer)
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    if variables:
        text += json.dumps(variables, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template puts right behind what an assistant says.

    None without a template, and where it refuses to be tried or puts anything else there.
    """
    if tokenizer.chat_template is None:
        return None
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": _SAID}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except (TemplateError, TypeError, KeyError, ValueError):
        return None
    assert isinstance(text, str)
    _, is_said, behind = text.rpartition(_SAID)
    special = {
        added.content: number
        for number, added in tokenizer.added_tokens_decoder.items()
        if added.special and added.content and behind.startswith(added.content)
    }
    return special[max(special, key=len)] if is_said and special else None


def _require(tokenizer: PreTrainedTokenizerBase) -> str | dict[str, str]:
    template: str | dict[str, str] | None = tokenizer.chat_template
    if template is None:
        raise DistillSpecError(
            "the data are chats, but the target's tokenizer has no chat template",
            where=str(tokenizer.name_or_path),
            mend="take an instruction-tuned target, or give plain prompt and response fields",
        )
    return template
